//! The node's store, as a process: between real pods' fetches and a registry that may misbehave.

#![allow(clippy::unwrap_used, reason = "in tests")]

mod bounds;
mod crash;
mod process;
mod pulling;
mod registry;
mod wrong;

/// More than is held back until its digest is right.
pub const LARGE: usize = 1 << 20;

/// Bytes that compress to nothing less, and of each seed others.
pub fn bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
