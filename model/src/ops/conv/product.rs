//! The convolution as a product: every patch of the image becomes a column. Patches are written out for a few images at once,
//! and again for the gradient, rather than kept.

use super::Geometry;
use sconce_kernels::{Matrix, matmul};

/// Columns that a product should have, at least: with fewer the weights are read too often.
const COLUMNS: usize = 512;

/// Some images of the batch, whose patches lie side by side.
#[derive(Clone, Copy)]
struct Part<'a> {
    geometry: &'a Geometry,
    first: usize,
    count: usize,
    group: usize,
}

fn parts(geometry: &Geometry, batch: usize) -> impl Iterator<Item = Part<'_>> {
    let most = COLUMNS.div_ceil(geometry.plane()).min(batch.max(1));
    (0..batch).step_by(most).flat_map(move |first| {
        let count = most.min(batch - first);
        (0..geometry.window.groups).map(move |group| Part { geometry, first, count, group })
    })
}

impl Part<'_> {
    fn columns(&self) -> usize {
        self.count * self.geometry.plane()
    }

    /// Where the group of its `index`-th image begins among the images.
    fn image(&self, index: usize) -> usize {
        ((self.first + index) * self.geometry.window.groups + self.group) * self.geometry.image()
    }

    /// Where the planes of its `index`-th image begin among the outputs.
    fn planes(&self, index: usize) -> usize {
        (self.first + index) * self.geometry.filters * self.geometry.plane()
            + self.group * self.geometry.share() * self.geometry.plane()
    }

    /// The group's weights.
    fn weights<'a>(&self, weight: &'a [f32]) -> Matrix<'a> {
        let (share, patch) = (self.geometry.share(), self.geometry.patch());
        Matrix::new(&weight[self.group * share * patch..][..share * patch], share, patch)
    }

    /// `(patch, count · plane)`.
    fn patches(&self, xs: &[f32], into: &mut Vec<f32>) {
        let (geometry, columns, stride) = (self.geometry, self.columns(), self.geometry.window.stride.1);
        into.clear();
        into.resize(geometry.patch() * columns, 0.0);
        for index in 0..self.count {
            let (xs, at) = (&xs[self.image(index)..][..geometry.image()], index * geometry.plane());
            geometry.runs(|element, to, from, count| {
                let to = &mut into[element * columns + at + to..][..count];
                if stride == 1 {
                    to.copy_from_slice(&xs[from..from + count]);
                } else {
                    to.iter_mut().zip(xs[from..].iter().step_by(stride)).for_each(|(patch, x)| *patch = *x);
                }
            });
        }
    }

    /// The adjoint of [`Self::patches`]: every element of a patch is added where it came from.
    fn images(&self, patches: &[f32], dx: &mut [f32]) {
        let (geometry, columns, stride) = (self.geometry, self.columns(), self.geometry.window.stride.1);
        for index in 0..self.count {
            let (dx, at) = (&mut dx[self.image(index)..][..geometry.image()], index * geometry.plane());
            geometry.runs(|element, from, to, count| {
                let from = &patches[element * columns + at + from..][..count];
                if stride == 1 {
                    dx[to..to + count].iter_mut().zip(from).for_each(|(x, patch)| *x += patch);
                } else {
                    dx[to..].iter_mut().step_by(stride).zip(from).for_each(|(x, patch)| *x += patch);
                }
            });
        }
    }

    /// `(filters of the group, count · plane)`.
    fn gather(&self, gradient: &[f32], into: &mut Vec<f32>) {
        let (plane, share, columns) = (self.geometry.plane(), self.geometry.share(), self.columns());
        into.resize(share * columns, 0.0);
        for index in 0..self.count {
            let planes = gradient[self.planes(index)..][..share * plane].chunks_exact(plane);
            for (row, from) in into.chunks_exact_mut(columns).zip(planes) {
                row[index * plane..][..plane].copy_from_slice(from);
            }
        }
    }

    fn scatter(&self, product: &[f32], ys: &mut [f32]) {
        let (plane, share, columns) = (self.geometry.plane(), self.geometry.share(), self.columns());
        for index in 0..self.count {
            let planes = ys[self.planes(index)..][..share * plane].chunks_exact_mut(plane);
            for (row, to) in product.chunks_exact(columns).zip(planes) {
                to.iter_mut().zip(&row[index * plane..]).for_each(|(y, x)| *y += x);
            }
        }
    }
}

pub(super) fn forward(geometry: &Geometry, xs: &[f32], weight: &[f32], ys: &mut [f32]) {
    let batch = xs.len() / (geometry.image() * geometry.window.groups);
    let (patch, share, plane) = (geometry.patch(), geometry.share(), geometry.plane());
    let (mut patches, mut product) = (Vec::new(), Vec::new());
    for part in parts(geometry, batch) {
        let alone = part.count == 1;
        let columns = part.columns();
        let of_patches = if alone && geometry.is_pointwise() {
            Matrix::new(&xs[part.image(0)..][..geometry.image()], patch, columns)
        } else {
            part.patches(xs, &mut patches);
            Matrix::new(&patches, patch, columns)
        };
        if alone {
            matmul(part.weights(weight), of_patches, &mut ys[part.planes(0)..][..share * plane], true);
        } else {
            product.resize(share * columns, 0.0);
            matmul(part.weights(weight), of_patches, &mut product, false);
            part.scatter(&product, ys);
        }
    }
}

pub(super) fn backward(
    geometry: &Geometry,
    xs: &[f32],
    weight: &[f32],
    gradient: &[f32],
    (mut dx, mut dw): (Option<&mut [f32]>, Option<&mut [f32]>),
) {
    let batch = xs.len() / (geometry.image() * geometry.window.groups);
    let (patch, share, plane) = (geometry.patch(), geometry.share(), geometry.plane());
    let (mut patches, mut gathered) = (Vec::new(), Vec::new());
    for part in parts(geometry, batch) {
        let (columns, in_place) = (part.columns(), part.count == 1 && geometry.is_pointwise());
        let gradient = if part.count == 1 {
            Matrix::new(&gradient[part.planes(0)..][..share * plane], share, columns)
        } else {
            part.gather(gradient, &mut gathered);
            Matrix::new(&gathered, share, columns)
        };
        if let Some(dw) = &mut dw {
            let dw = &mut dw[part.group * share * patch..][..share * patch];
            if in_place {
                matmul(gradient, Matrix::new(&xs[part.image(0)..][..geometry.image()], patch, columns).t(), dw, true);
            } else {
                part.patches(xs, &mut patches);
                matmul(gradient, Matrix::new(&patches, patch, columns).t(), dw, true);
            }
        }
        if let Some(dx) = &mut dx {
            if in_place {
                matmul(part.weights(weight).t(), gradient, &mut dx[part.image(0)..][..geometry.image()], true);
            } else {
                patches.resize(patch * columns, 0.0);
                matmul(part.weights(weight).t(), gradient, &mut patches, false);
                part.images(&patches, dx);
            }
        }
    }
}
