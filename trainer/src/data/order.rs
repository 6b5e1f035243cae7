//! The order in which an epoch meets its samples: a permutation that is computed place by place, so that a run goes on from an
//! integer.

use rand_chacha::rand_core::Rng as _;
use sconce_model::network::generator;

const ROUNDS: usize = 6;

/// A permutation of `0..count`, drawn by a seed and a name: a Feistel network over the next power of four, walked until it is
/// inside.
pub struct Order {
    count: u64,
    /// Of half an index.
    bits: u32,
    keys: [u64; ROUNDS],
}

impl Order {
    pub fn new(count: usize, seed: u64, name: &str) -> Self {
        let mut generator = generator(seed, name);
        let bits = (u64::BITS - (count.max(2) as u64 - 1).leading_zeros()).div_ceil(2);
        Self { count: count as u64, bits, keys: std::array::from_fn(|_| generator.next_u64()) }
    }

    /// What comes at this place, below `count`.
    pub fn at(&self, place: usize) -> usize {
        let mut index = place as u64;
        // It is a cycle of a permutation, and begins inside: so it comes back inside.
        loop {
            index = self.mixed(index);
            if index < self.count {
                return index as usize;
            }
        }
    }

    fn mixed(&self, index: u64) -> u64 {
        let mask = (1 << self.bits) - 1;
        let halves = (index >> self.bits, index & mask);
        let (left, right) =
            self.keys.iter().fold(halves, |(left, right), key| (right, left ^ (hash(right ^ key) & mask)));
        left << self.bits | right
    }
}

/// The finalizer of splitmix64.
fn hash(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once_in_an_order_of_its_own() {
        for count in [1, 2, 3, 10, 1_000, 4_097] {
            let [one, same, other] = [("epoch 1", 7), ("epoch 1", 7), ("epoch 2", 7)].map(|(name, seed)| {
                let order = Order::new(count, seed, name);
                (0..count).map(|place| order.at(place)).collect::<Vec<_>>()
            });
            assert_eq!(one, same);
            assert!(count < 10 || one != other);
            let mut sorted = one;
            sorted.sort_unstable();
            assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        }
    }

    /// Neighbours are torn apart: the mean distance of two random places among `n` is `n / 3`.
    #[test]
    fn neighbours_are_torn_apart() {
        let order = Order::new(3_000, 7, "epoch 1");
        let apart: usize = (1..3_000).map(|place| order.at(place).abs_diff(order.at(place - 1))).sum();
        assert!((900..1_100).contains(&(apart / 2_999)), "{}", apart / 2_999);
    }
}
