//! Memory that begins at a cache line, so that no load and no store of a vector touches two.

use std::ops::{Deref, DerefMut};

const LINE: usize = 64;

/// Values that begin at a cache line.
#[derive(Debug, Default)]
pub struct Aligned<T> {
    /// A line longer.
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// # Panics
    /// If they do not fit in memory.
    pub fn zeros(len: usize) -> Self {
        let values = vec![T::default(); len + LINE / size_of::<T>()];
        let start = values.as_ptr().align_offset(LINE).min(values.len() - len);
        Self { values, start, len }
    }
}

impl<T: Copy + Default> From<&[T]> for Aligned<T> {
    fn from(values: &[T]) -> Self {
        let mut aligned = Self::zeros(values.len());
        aligned.copy_from_slice(values);
        aligned
    }
}

/// What is copied lies elsewhere.
impl<T: Copy + Default> Clone for Aligned<T> {
    fn clone(&self) -> Self {
        Self::from(&**self)
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[self.start..][..self.len]
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_at_a_line_also_where_they_are_copied_or_moved() {
        for len in [0, 1, 15, 16, 1000] {
            let values: Vec<u16> = (0..len).collect();
            let aligned = Aligned::from(&values[..]);
            let copies = [aligned.clone(), aligned];
            for copy in &copies {
                assert_eq!((&copy[..], copy.as_ptr() as usize % LINE), (&values[..], 0));
            }
        }
    }
}
