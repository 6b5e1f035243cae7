//! The product of two matrices as they lie, for training, whose weights change at every step: neither is packed before.
//!
//! Unlike what serves, its bits depend on the instruction set: the library behind it chooses by that.

use gemm::{Parallelism, gemm};

/// Numbers in rows and columns, in some order.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    /// From one row to the next, and from one column to the next.
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row by row.
    ///
    /// # Panics
    /// If there are fewer values.
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(values, rows, columns, columns)
    }

    /// Rows that begin `stride` apart.
    ///
    /// # Panics
    /// If there are fewer values.
    pub fn strided(values: &'a [f32], rows: usize, columns: usize, stride: usize) -> Self {
        let reach = rows.checked_sub(1).map_or(Some(0), |last| last.checked_mul(stride)?.checked_add(columns));
        assert!(reach.is_some_and(|reach| reach <= values.len()), "{rows} rows of {columns}, {stride} apart");
        Self { values, rows, columns, strides: [stride, 1] }
    }

    /// Rows as columns.
    pub fn t(self) -> Self {
        let [row, column] = self.strides;
        Self { rows: self.columns, columns: self.rows, strides: [column, row], ..self }
    }
}

/// `out = a · b`, or with `add` that much more; `out` is row by row.
///
/// # Panics
/// If a size differs.
pub fn matmul(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], add: bool) {
    assert_eq!(a.columns, b.rows, "columns of the first are rows of the second");
    assert_eq!(a.rows.checked_mul(b.columns), Some(out.len()), "rows of the first times columns of the second");
    if out.is_empty() || a.columns == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    let stride = |matrix: Matrix<'_>| matrix.strides.map(|stride| stride as isize);
    let ([a_row, a_column], [b_row, b_column]) = (stride(a), stride(b));
    let (m, n, k) = (a.rows, b.columns, a.columns);
    // SAFETY: every element that is read lies inside `values`, which was seen when the matrix was made, and `out` is `m · n` long and
    // borrowed by this call alone.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.values.as_ptr(),
            a_column,
            a_row,
            b.values.as_ptr(),
            b_column,
            b_row,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values that tell places apart.
    fn drawn(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect()
    }

    proptest! {
        #[test]
        fn products_are_those_of_exact_sums(m in 1_usize..40, n in 1_usize..40, k in 0_usize..70, gap in 0_usize..5, turned in any::<[bool; 2]>(), add: bool) {
            let [(a_rows, a_columns), (b_rows, b_columns)] = [if turned[0] { (k, m) } else { (m, k) }, if turned[1] { (n, k) } else { (k, n) }];
            let (a_values, b_values) = (drawn(a_rows * (a_columns + gap), 1), drawn(b_rows * (b_columns + gap), 2));
            let a = Matrix::strided(&a_values, a_rows, a_columns, a_columns + gap);
            let b = Matrix::strided(&b_values, b_rows, b_columns, b_columns + gap);
            let mut out = vec![0.5; m * n];
            matmul(if turned[0] { a.t() } else { a }, if turned[1] { b.t() } else { b }, &mut out, add);
            for (at, &got) in out.iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let (mut exact, mut size) = (if add { 0.5 } else { 0.0 }, 1.0);
                for t in 0..k {
                    let x = f64::from(if turned[0] { a_values[t * (m + gap) + row] } else { a_values[row * (k + gap) + t] });
                    let y = f64::from(if turned[1] { b_values[column * (k + gap) + t] } else { b_values[t * (n + gap) + column] });
                    exact += x * y;
                    size += (x * y).abs();
                }
                let bound = 2.0 * (k + 1) as f64 * f64::from(f32::EPSILON) * size;
                prop_assert!((f64::from(got) - exact).abs() <= bound, "{got} {exact}");
            }
        }
    }

    #[test]
    #[should_panic = "3 rows of 4, 4 apart"]
    fn matrix_beyond_its_values_is_refused() {
        Matrix::new(&[0.0; 11], 3, 4);
    }
}
