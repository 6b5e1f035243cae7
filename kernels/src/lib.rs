//! The arithmetic of inference on a CPU: products, convolutions, pools, gates and quantisation, over plain slices.
//!
//! Every kernel gives the same bits for the same row: in any batch, on any number of threads, on any instruction set. Only
//! [`matmul`], which trains, does not.

pub mod aligned;
pub mod cache;
pub mod conv_depthwise;
pub mod conv_pool;
pub mod depthwise;
pub mod epilogue;
pub mod gates;
pub mod gemm;
pub mod gru;
pub mod half;
pub mod isa;
pub mod matmul;
mod one_channel;
pub mod out;
pub mod pack;
pub mod pool;
pub mod quantise;
pub mod rows;
pub mod shape;
mod strips;
mod sums;
pub mod threads;
mod tile;
pub mod turn;
mod wide;
pub mod winograd;

pub use aligned::Aligned;
pub use epilogue::{Activation, Epilogue};
pub use isa::{IsaError, IsaToken};
pub use matmul::{Matrix, matmul};
pub use out::Out;
pub use shape::{Image, Window};
pub use threads::Threads;
pub use wide::wide;

/// What runs a kernel: an instruction set that the CPU has, and the threads that may help.
#[derive(Clone, Copy)]
pub struct Cpu<'a> {
    pub isa: IsaToken,
    pub threads: &'a Threads,
}
