//! The convolution without patches: one filter's plane at a time, which stays in the nearest cache. Stride 1 along a row.

use super::Geometry;
use crate::ops::{lend, slice};
use candle_core::{CpuStorage, CustomOp3, Device, Layout, Result, Shape, Tensor};

pub(super) fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    geometry: Geometry,
    relu: bool,
    wants_dx: bool,
) -> Result<Tensor> {
    xs.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Conv { geometry, relu, wants_dx })
}

struct Conv {
    geometry: Geometry,
    relu: bool,
    wants_dx: bool,
}

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        xs: &CpuStorage,
        xs_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (xs, weight, bias) = (slice(xs, xs_layout)?, slice(weight, weight_layout)?, slice(bias, bias_layout)?);
        let (geometry, batch, filters) = (&self.geometry, xs_layout.dims()[0], bias.len());
        let mut ys = vec![0.0; batch * filters * geometry.plane()];
        let images = ys.chunks_exact_mut(filters * geometry.plane());
        for (ys, xs) in images.zip(xs.chunks_exact(geometry.image())) {
            let planes = ys.chunks_exact_mut(geometry.plane());
            for ((plane, filter), &bias) in planes.zip(weight.chunks_exact(geometry.patch())).zip(bias) {
                plane.fill(bias);
                geometry.runs(|element, to, from, count| {
                    add_scaled(&mut plane[to..to + count], filter[element], &xs[from..from + count]);
                });
                if self.relu {
                    // Not `max`, which would hide a NaN.
                    plane.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
                }
            }
        }
        Ok((CpuStorage::F32(ys), (batch, filters, geometry.out.0, geometry.out.1).into()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        ys: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut dw = vec![0.0; weight.elem_count()];
        let mut db = vec![0.0; bias.elem_count()];
        let mut dx = vec![0.0; if self.wants_dx { xs.elem_count() } else { 0 }];
        lend(xs, |xs| {
            lend(weight, |weight| {
                lend(ys, |ys| {
                    lend(gradient, |gradient| {
                        self.backward(xs, weight, ys, gradient, (&mut dx, &mut dw, &mut db));
                        Ok(())
                    })
                })
            })
        })?;
        let dx = if self.wants_dx { Some(Tensor::from_vec(dx, xs.shape(), &Device::Cpu)?) } else { None };
        let dw = Tensor::from_vec(dw, weight.shape(), &Device::Cpu)?;
        Ok((dx, Some(dw), Some(Tensor::from_vec(db, bias.shape(), &Device::Cpu)?)))
    }
}

impl Conv {
    fn backward(
        &self,
        xs: &[f32],
        weight: &[f32],
        ys: &[f32],
        gradient: &[f32],
        (dx, dw, db): (&mut [f32], &mut [f32], &mut [f32]),
    ) {
        let geometry = &self.geometry;
        let (plane, image, patch, filters) = (geometry.plane(), geometry.image(), geometry.patch(), db.len());
        let mut through = vec![0.0; plane];
        for (index, (ys, gradient)) in ys.chunks_exact(plane).zip(gradient.chunks_exact(plane)).enumerate() {
            let (sample, filter) = (index / filters, index % filters);
            let passes = |(&g, &y): (&f32, &f32)| if !self.relu || y > 0.0 { g } else { 0.0 };
            through.iter_mut().zip(gradient.iter().zip(ys).map(passes)).for_each(|(to, g)| *to = g);
            db[filter] += through.iter().sum::<f32>();
            let (xs, dw) = (&xs[sample * image..][..image], &mut dw[filter * patch..][..patch]);
            geometry.runs(|element, out, at, count| {
                dw[element] += dot(&through[out..out + count], &xs[at..at + count]);
            });
            if self.wants_dx {
                let (dx, weight) = (&mut dx[sample * image..][..image], &weight[filter * patch..][..patch]);
                geometry.runs(|element, out, at, count| {
                    add_scaled(&mut dx[at..at + count], weight[element], &through[out..out + count]);
                });
            }
        }
    }
}

fn add_scaled(ys: &mut [f32], scale: f32, xs: &[f32]) {
    ys.iter_mut().zip(xs).for_each(|(y, x)| *y += scale * x);
}

/// Eight sums side by side: a single one could not be vectorised, since addition of floats has an order.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
