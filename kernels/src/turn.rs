//! Rows as columns.

use crate::IsaToken;
use crate::isa::{Body, Isa, LANES};

/// Turns matrices of `rows` by `columns`, one after the other.
///
/// # Panics
/// If the last matrix is not whole.
pub fn turned(isa: IsaToken, rows: usize, columns: usize, from: &[f32]) -> Vec<f32> {
    let mut to = Vec::with_capacity(from.len());
    check(rows, columns, from);
    // SAFETY: there is room for as many, and each of them is written.
    unsafe {
        isa.run(Turn { rows, columns, from, to: to.as_mut_ptr() });
        to.set_len(from.len());
    }
    to
}

/// The same into `to`.
///
/// # Panics
/// If the last matrix is not whole, or a length differs.
pub fn turn(isa: IsaToken, rows: usize, columns: usize, from: &[f32], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many as there are");
    check(rows, columns, from);
    isa.run(Turn { rows, columns, from, to: to.as_mut_ptr() });
}

/// Three planes as pixels of three channels.
///
/// # Panics
/// If a length differs.
pub fn pixels(isa: IsaToken, planes: [&[f32]; 3], to: &mut [f32]) {
    let len = planes[0].len();
    assert!(planes.iter().all(|plane| plane.len() == len) && to.len() == 3 * len, "three values for each pixel");
    isa.run(Pixels { planes, to });
}

struct Pixels<'a> {
    planes: [&'a [f32]; 3],
    to: &'a mut [f32],
}

impl Body for Pixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { planes: [reds, greens, blues], to } = self;
        let (vectors, rest) = to.as_chunks_mut::<{ 3 * LANES }>();
        let whole = vectors.len() * LANES;
        let planes = reds.as_chunks().0.iter().zip(greens.as_chunks().0).zip(blues.as_chunks().0);
        for (pixels, ((red, green), blue)) in vectors.iter_mut().zip(planes) {
            let [first, second, third] = isa.in_turn([isa.load(red), isa.load(green), isa.load(blue)]);
            let (vectors, _) = pixels.as_chunks_mut();
            isa.store(first, &mut vectors[0]);
            isa.store(second, &mut vectors[1]);
            isa.store(third, &mut vectors[2]);
        }
        for (at, pixel) in rest.as_chunks_mut().0.iter_mut().enumerate() {
            *pixel = [reds[whole + at], greens[whole + at], blues[whole + at]];
        }
    }
}

fn check(rows: usize, columns: usize, from: &[f32]) {
    let whole = rows.checked_mul(columns).is_some_and(|len| len > 0 && from.len().is_multiple_of(len));
    assert!(whole, "{} values are no matrices of {rows} by {columns}", from.len());
}

/// `from` holds whole matrices, and at `to` there is room for as many values.
struct Turn<'a> {
    rows: usize,
    columns: usize,
    from: &'a [f32],
    to: *mut f32,
}

impl Body for Turn<'_> {
    type Output = ();

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
    fn run<I: Isa>(self, isa: I) {
        let Self { rows, columns, from, to } = self;
        for start in (0..from.len()).step_by(rows * columns) {
            for row in (0..rows).step_by(LANES) {
                for column in (0..columns).step_by(LANES) {
                    if row + LANES <= rows && column + LANES <= columns {
                        // SAFETY: sixteen rows and columns from these on are inside the matrix, and turned as well.
                        unsafe {
                            let from = from.as_ptr().add(start + row * columns + column);
                            let to = to.add(start + column * rows + row);
                            let mut lines = [[0.0; LANES]; LANES];
                            let mut square = [isa.splat(0.0); LANES];
                            for line in 0..LANES {
                                square[line] = isa.load(&*from.add(line * columns).cast());
                            }
                            let square = isa.turn(square);
                            for line in 0..LANES {
                                isa.store(square[line], &mut lines[line]);
                                to.add(line * rows).copy_from_nonoverlapping(lines[line].as_ptr(), LANES);
                            }
                        }
                        continue;
                    }
                    for row in row..rows.min(row + LANES) {
                        for column in column..columns.min(column + LANES) {
                            // SAFETY: both are inside the matrix.
                            unsafe { to.add(start + column * rows + row).write(from[start + row * columns + column]) };
                        }
                    }
                }
            }
        }
    }
}
