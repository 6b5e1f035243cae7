//! Buffers between canaries, and a kernel run in them on every instruction set, alone and with threads.

use std::sync::OnceLock;

use sconce_kernels::quantise::{Scaling, quantise};
use sconce_kernels::{Cpu, IsaToken, Out, Threads};

/// A value that no kernel may read (results would show it) or write.
pub trait Canary: Copy + PartialEq + std::fmt::Debug {
    const CANARY: Self;
    fn is_canary(self) -> bool;
    fn is_nan(self) -> bool;
}

impl Canary for f32 {
    const CANARY: f32 = f32::from_bits(0x7fc0_1234);
    fn is_canary(self) -> bool {
        self.to_bits() == 0x7fc0_1234
    }
    fn is_nan(self) -> bool {
        self.is_nan()
    }
}

impl Canary for u8 {
    const CANARY: u8 = 0xa5;
    fn is_canary(self) -> bool {
        self == 0xa5
    }
    fn is_nan(self) -> bool {
        false
    }
}

/// Values between canaries, at an alignment that depends on their number.
pub struct Fenced<T> {
    all: Vec<T>,
    start: usize,
    end: usize,
}

impl<T: Canary> Fenced<T> {
    pub fn new(values: Vec<T>) -> Self {
        let start = 40 + values.len() % 7;
        let mut all = vec![T::CANARY; start];
        all.extend(&values);
        all.extend([T::CANARY; 40]);
        Self { all, start, end: start + values.len() }
    }

    pub fn inside(&self) -> &[T] {
        &self.all[self.start..self.end]
    }

    pub fn inside_mut(&mut self) -> &mut [T] {
        &mut self.all[self.start..self.end]
    }

    pub fn checked(self) -> Vec<T> {
        let canaries = self.all[..self.start].iter().chain(&self.all[self.end..]);
        assert!(canaries.into_iter().all(|value| value.is_canary()), "a kernel wrote outside its buffer");
        self.inside().to_vec()
    }
}

/// Runs a kernel everywhere; each output must be the same to the bit (a NaN may be any NaN).
pub fn everywhere<T: Canary>(len: usize, start: T, kernel: impl Fn(Cpu<'_>, &mut [T])) -> Vec<T> {
    everywhere_from(&vec![start; len], kernel)
}

pub fn everywhere_from<T: Canary>(start: &[T], kernel: impl Fn(Cpu<'_>, &mut [T])) -> Vec<T> {
    static THREADS: OnceLock<[Threads; 2]> = OnceLock::new();
    let threads = THREADS.get_or_init(|| [Threads::one(), Threads::new(3).expect("two threads")]);
    let mut first: Option<Vec<T>> = None;
    for isa in IsaToken::all_present() {
        for threads in threads {
            let mut out = Fenced::new(start.to_vec());
            kernel(Cpu { isa, threads }, out.inside_mut());
            let out = out.checked();
            let first = first.get_or_insert_with(|| out.clone());
            for (i, (a, b)) in first.iter().zip(&out).enumerate() {
                assert!(a == b || (a.is_nan() && b.is_nan()), "{}: output {i} is {b:?}, elsewhere {a:?}", isa.name());
            }
        }
    }
    first.expect("the portable instruction set is always there")
}

/// What a kernel writes as bytes, or as both, is what it writes as numbers, quantised.
pub fn check_bytes(ys: &[f32], kernel: impl Fn(Cpu<'_>, Out<'_>)) {
    let scaling = Scaling { scale: 0.013, zero_point: 100 };
    let expected = everywhere(ys.len(), 9, |cpu, out| quantise(cpu.isa, ys, scaling, out));
    let bytes = everywhere(ys.len(), 9, |cpu, out| kernel(cpu, Out::bytes(out, scaling)));
    assert_eq!(bytes, expected);
    let floats = everywhere(ys.len(), 7.0, |cpu, out| {
        let mut bytes = Fenced::new(vec![9; out.len()]);
        kernel(cpu, Out::both(out, bytes.inside_mut(), scaling));
        assert_eq!(bytes.checked(), expected);
    });
    assert_eq!(floats, ys);
}
