//! Memory that operations work in, again and again: what the system hands out anew it clears first, which takes as long as using it.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static SPARE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Values of which nobody knows what they are, until it is dropped.
pub(super) struct Scratch {
    values: Vec<f32>,
    len: usize,
}

/// So many values: of those that were given back the fewest that are enough, else the most, grown.
pub(super) fn scratch(len: usize) -> Scratch {
    let mut values = SPARE.with_borrow_mut(|spare| {
        let enough = spare.iter().enumerate().filter(|(_, values)| values.len() >= len);
        let fewest = enough.min_by_key(|(_, values)| values.len());
        let most = || spare.iter().enumerate().max_by_key(|(_, values)| values.len());
        match fewest.or_else(most).map(|(at, _)| at) {
            Some(at) => spare.swap_remove(at),
            None => Vec::new(),
        }
    });
    if values.len() < len {
        values = vec![0.0; len];
    }
    Scratch { values, len }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        // A thread that ends has no use for it.
        let _ = SPARE.try_with(|spare| spare.borrow_mut().push(values));
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_lent_again_and_nothing_is_lent_twice() {
        let (mut a, mut b) = (scratch(10), scratch(20));
        a.fill(1.0);
        b.fill(2.0);
        let of_b = b.as_ptr();
        drop((a, b));
        let (large, small) = (scratch(15), scratch(3));
        assert_eq!((large.as_ptr(), large.len(), small.len()), (of_b, 15, 3));
        assert_ne!(large.as_ptr(), small.as_ptr());
        assert_eq!(scratch(30).len(), 30);
    }
}
