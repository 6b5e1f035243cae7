//! The convolution without patches: one filter's plane at a time, which stays in the nearest cache.

use super::Geometry;

pub(super) fn forward(geometry: &Geometry, xs: &[f32], weight: &[f32], ys: &mut [f32]) {
    let stride = geometry.window.stride.1;
    for (index, plane) in ys.chunks_exact_mut(geometry.plane()).enumerate() {
        let (image, filter) = place(geometry, index);
        let (xs, filter) = (&xs[image..][..geometry.image()], &weight[filter..][..geometry.patch()]);
        geometry.runs(|element, to, from, count| {
            add_scaled(&mut plane[to..to + count], 1, filter[element], &xs[from..], stride);
        });
    }
}

pub(super) fn backward(
    geometry: &Geometry,
    xs: &[f32],
    weight: &[f32],
    gradient: &[f32],
    (mut dx, mut dw): (Option<&mut [f32]>, Option<&mut [f32]>),
) {
    let stride = geometry.window.stride.1;
    for (index, gradient) in gradient.chunks_exact(geometry.plane()).enumerate() {
        let (image, filter) = place(geometry, index);
        if let Some(dw) = &mut dw {
            let (xs, dw) = (&xs[image..][..geometry.image()], &mut dw[filter..][..geometry.patch()]);
            geometry.runs(|element, out, at, count| {
                dw[element] += dot(&gradient[out..out + count], &xs[at..], stride);
            });
        }
        if let Some(dx) = &mut dx {
            let (dx, weight) = (&mut dx[image..][..geometry.image()], &weight[filter..][..geometry.patch()]);
            geometry.runs(|element, out, at, count| {
                add_scaled(&mut dx[at..], stride, weight[element], &gradient[out..out + count], 1);
            });
        }
    }
}

/// Where the image of the `index`-th plane begins, and where its filter.
fn place(geometry: &Geometry, index: usize) -> (usize, usize) {
    let (sample, filter) = (index / geometry.filters, index % geometry.filters);
    let group = sample * geometry.window.groups + filter / geometry.share();
    (group * geometry.image(), filter * geometry.patch())
}

/// Both are strided; the shorter one ends it.
fn add_scaled(ys: &mut [f32], to: usize, scale: f32, xs: &[f32], from: usize) {
    if (to, from) == (1, 1) {
        ys.iter_mut().zip(xs).for_each(|(y, x)| *y += scale * x);
    } else {
        ys.iter_mut().step_by(to).zip(xs.iter().step_by(from)).for_each(|(y, x)| *y += scale * x);
    }
}

/// Eight sums side by side: a single one could not be vectorised, since addition of floats has an order.
fn dot(a: &[f32], b: &[f32], stride: usize) -> f32 {
    if stride != 1 {
        return a.iter().zip(b.iter().step_by(stride)).map(|(a, b)| a * b).sum();
    }
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let b = &b[..a.len()];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
