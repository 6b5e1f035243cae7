//! One tile of a product: which code its size takes, and what its sums become in memory.

use crate::epilogue::Finish;
use crate::gemm::{Keep, To};
use crate::isa::{Isa, LANES};
use crate::out::Sink;

/// A product that can be worked off in tiles of some rows by some panels.
pub(crate) trait Product: Sync {
    /// What a register holds of sixteen outputs while they are summed.
    type Sum<I: Isa>: Copy;
    /// What makes values of the sums of a panel.
    type Panel<I: Isa>: Copy;
    /// Whether values take so few steps that a loop over all of a tile is unrolled.
    const FROM_REGISTERS: bool;
    /// Whether its rows are bytes.
    const ARE_BYTES: bool = false;

    /// Running sums of sixteen outputs that the registers hold.
    fn at_once<I: Isa>(&self) -> usize;
    fn rows(&self) -> usize;
    fn outputs(&self) -> usize;
    fn panel_bytes(&self) -> usize;
    fn depth(&self) -> usize;
    fn to(&self) -> &To<'_>;

    /// The sums of one tile.
    ///
    /// # Safety
    /// Those rows and panels exist.
    unsafe fn sums<I: Isa, const R: usize, const P: usize>(
        &self,
        isa: I,
        row: usize,
        panel: usize,
    ) -> [[Self::Sum<I>; P]; R];
    fn panel<I: Isa>(&self, isa: I, panel: usize) -> Self::Panel<I>;
    /// A sum's value, with the bias.
    fn value<I: Isa>(isa: I, sum: Self::Sum<I>, panel: &Self::Panel<I>) -> I::F;
}

/// From the size of a tile to the code for it. Tiles that the registers cannot hold are not compiled.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches these outputs.
#[inline(always)]
pub(crate) unsafe fn tile<I: Isa, T: Product>(isa: I, product: &T, at: (usize, usize), size: (usize, usize)) {
    macro_rules! tiles {
        ($(($rows:literal, $panels:literal))*) => {
            match size {
                // SAFETY: the caller's promise.
                $(($rows, $panels) if $rows * $panels <= product.at_once::<I>() => unsafe {
                    let sums = product.sums::<I, $rows, $panels>(isa, at.0, at.1);
                    finish(isa, product, sums, at);
                },)*
                // Two by two, where the registers cannot hold the sums of four.
                // SAFETY: the caller's promise.
                (4, 1) => unsafe {
                    let [first, second] = product.sums::<I, 2, 1>(isa, at.0, at.1);
                    let [third, fourth] = product.sums::<I, 2, 1>(isa, at.0 + 2, at.1);
                    finish(isa, product, [first, second, third, fourth], at);
                },
                _ => unreachable!("a tile of {size:?}"),
            }
        };
    }
    tiles! {
        (1, 1) (2, 1) (4, 1) (6, 1) (8, 1) (12, 1)
        (1, 2) (2, 2) (4, 2) (6, 2) (8, 2) (12, 2)
        (1, 3) (2, 3) (4, 3) (6, 3) (8, 3)
        (1, 4) (2, 4) (4, 4) (6, 4)
        (1, 8)
    }
}

/// From sums to what they leave. Whole vectors of numbers are stored from registers, where enough of them lie side by side that
/// this is faster. All else goes through memory: the loop is too long to be unrolled, and what a loop indexes does not stay in
/// registers, not even before it.
///
/// # Safety
/// Those rows and panels exist, and nobody else touches what they leave.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "plain loops over all indices are what surely becomes registers")]
unsafe fn finish<I: Isa, T: Product, const R: usize, const P: usize>(
    isa: I,
    product: &T,
    sums: [[T::Sum<I>; P]; R],
    (row, panel): (usize, usize),
) {
    let (To { epilogue, keep, out }, outputs) = (product.to(), product.outputs());
    let mut panels = [product.panel(isa, panel); P];
    for p in 1..P {
        panels[p] = product.panel(isa, panel + p);
    }
    let (finish, floats) = (epilogue.finish(isa), out.only_floats());
    let are_whole = (panel + P) * LANES <= outputs && epilogue.residual.is_none();
    if let Some(floats) = floats.filter(|_| T::FROM_REGISTERS && P > 2 && are_whole && *keep == Keep::Each) {
        for r in 0..R {
            for p in 0..P {
                let y = finish.clamp(isa, T::value(isa, sums[r][p], &panels[p]));
                let at = (row + r) * outputs + (panel + p) * LANES;
                // SAFETY: the caller's promise.
                unsafe { floats.write(isa, y, at..at + LANES) };
            }
        }
        return;
    }
    let mut ys = [[[0.0; LANES]; P]; R];
    for r in 0..R {
        for p in 0..P {
            isa.store(T::value(isa, sums[r][p], &panels[p]), &mut ys[r][p]);
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match (keep, floats) {
            (Keep::GreatestOfFour, _) if R == 4 && P <= 2 => {
                store(isa, &[greatest(isa, &ys)], &finish, out.ends(), (row / 4, panel), outputs);
            }
            (Keep::GreatestOfFour, _) => unreachable!("a tile of {R} rows and {P} panels leaves one of four"),
            (Keep::Each, Some(floats)) => store(isa, &ys, &finish, floats, (row, panel), outputs),
            (Keep::Each, None) => match out.only_bytes() {
                // As most layers of bytes do.
                Some((bytes, steps)) if T::ARE_BYTES && are_whole => {
                    for (r, ys) in ys.iter().enumerate() {
                        for (p, y) in ys.iter().enumerate() {
                            let at = (row + r) * outputs + (panel + p) * LANES;
                            steps.write(isa, finish.clamp(isa, isa.load(y)), bytes.part(at..at + LANES));
                        }
                    }
                }
                _ => store(isa, &ys, &finish, out.ends(), (row, panel), outputs),
            },
        }
    }
}

/// In the order of a pool, which decides between zeros.
#[inline(always)]
fn greatest<I: Isa, const R: usize, const P: usize>(isa: I, ys: &[[[f32; LANES]; P]; R]) -> [[f32; LANES]; P] {
    let mut greatest = ys[0];
    for (p, greatest) in greatest.iter_mut().enumerate() {
        let mut y = isa.load(greatest);
        for ys in &ys[1..] {
            y = isa.max(isa.load(&ys[p]), y);
        }
        isa.store(y, greatest);
    }
    greatest
}

/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn store<I: Isa, const R: usize, const P: usize>(
    isa: I,
    ys: &[[[f32; LANES]; P]; R],
    finish: &Finish<'_, I>,
    out: impl Sink,
    (row, panel): (usize, usize),
    outputs: usize,
) {
    for (r, ys) in ys.iter().enumerate() {
        for (p, y) in ys.iter().enumerate() {
            let channel = (panel + p) * LANES;
            let at = (row + r) * outputs + channel;
            let n = LANES.min(outputs - channel);
            // SAFETY: the caller's promise.
            unsafe { out.write(isa, finish.of(isa, isa.load(y), at, n), at..at + n) };
        }
    }
}
