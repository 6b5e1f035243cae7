//! Plain code in the CPU's own vectors.

use crate::IsaToken;
use crate::isa::{Body, Isa};

/// Runs `code`, a function that is always inlined, compiled for the instruction set: what loops over slices becomes vectors as wide as it
/// has. Nothing is fused or put into another order for that, so the bits are the same on each.
pub fn wide<A, R>(isa: IsaToken, code: impl FnOnce(A) -> R, on: A) -> R {
    isa.run(Wide { code, on })
}

struct Wide<F, A> {
    code: F,
    on: A,
}

impl<A, R, F: FnOnce(A) -> R> Body for Wide<F, A> {
    type Output = R;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> R {
        (self.code)(self.on)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn blend((ys, xs): (&mut [f32], &[f32])) {
        ys.iter_mut().zip(xs).for_each(|(y, x)| *y = *y * 1.7 + x * 0.3);
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let xs: Vec<f32> = (0..1003).map(|x| (x as f32).sin()).collect();
        let of = |isa: IsaToken| {
            let mut ys = xs.clone();
            wide(isa, blend, (&mut ys[..], &xs[..]));
            ys.iter().map(|y| y.to_bits()).collect::<Vec<_>>()
        };
        let all: Vec<Vec<u32>> = IsaToken::all_present().into_iter().map(of).collect();
        assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
    }
}
