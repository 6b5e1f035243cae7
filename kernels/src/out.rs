//! Where results go: as numbers, as the bytes that stand for them, or both.

use std::ops::Range;

use crate::isa::{Isa, LANES};
use crate::quantise::{Scaling, Steps};
use crate::threads::Shared;

/// What a kernel writes. A byte is what [`crate::quantise::quantise`] would have made of the number.
pub struct Out<'a>(Ends<'a>);

/// What is copied out of an [`Out`] before a loop: no store can change it, so it is not read again after each.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    len: usize,
    floats: Option<Shared<'a, f32>>,
    bytes: Option<(Shared<'a, u8>, Steps)>,
}

impl<'a> From<&'a mut [f32]> for Out<'a> {
    fn from(floats: &'a mut [f32]) -> Self {
        Self(Ends { len: floats.len(), floats: Some(Shared::new(floats)), bytes: None })
    }
}

impl<'a> From<&'a mut Vec<f32>> for Out<'a> {
    fn from(floats: &'a mut Vec<f32>) -> Self {
        floats.as_mut_slice().into()
    }
}

impl<'a> Out<'a> {
    pub fn bytes(bytes: &'a mut [u8], scaling: Scaling) -> Self {
        Self(Ends { len: bytes.len(), floats: None, bytes: Some((Shared::new(bytes), Steps::of(scaling))) })
    }

    /// # Panics
    /// If the lengths differ.
    pub fn both(floats: &'a mut [f32], bytes: &'a mut [u8], scaling: Scaling) -> Self {
        assert_eq!(floats.len(), bytes.len(), "one byte per value");
        Self(Ends { floats: Some(Shared::new(floats)), ..Self::bytes(bytes, scaling).0 })
    }

    pub fn len(&self) -> usize {
        self.0.len
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers, if nothing else is written: so it is not asked again for each vector.
    #[inline(always)]
    pub(crate) fn only_floats(&self) -> Option<Shared<'a, f32>> {
        self.0.floats.filter(|_| self.0.bytes.is_none())
    }

    /// The bytes, likewise.
    #[inline(always)]
    pub(crate) fn only_bytes(&self) -> Option<(Shared<'a, u8>, Steps)> {
        self.0.bytes.filter(|_| self.0.floats.is_none())
    }

    /// All that is written.
    #[inline(always)]
    pub(crate) fn ends(&self) -> Ends<'a> {
        self.0
    }
}

/// What takes the results of a kernel.
pub(crate) trait Sink: Copy + Sync {
    fn len(self) -> usize;

    /// Writes the first lanes to `range`, as many as it has.
    ///
    /// # Safety
    /// `range` lies inside and is no longer than a vector, and nobody else has any of it.
    unsafe fn write<I: Isa>(self, isa: I, y: I::F, range: Range<usize>);
}

impl Sink for Shared<'_, f32> {
    fn len(self) -> usize {
        Shared::len(&self)
    }

    #[inline(always)]
    unsafe fn write<I: Isa>(self, isa: I, y: I::F, range: Range<usize>) {
        debug_assert!(range.len() <= LANES);
        // SAFETY: the caller's promise.
        isa.write(y, unsafe { self.part(range) });
    }
}

impl Sink for Ends<'_> {
    fn len(self) -> usize {
        self.len
    }

    #[inline(always)]
    unsafe fn write<I: Isa>(self, isa: I, y: I::F, range: Range<usize>) {
        if let Some(floats) = &self.floats {
            // SAFETY: the caller's promise.
            unsafe { floats.write(isa, y, range.clone()) };
        }
        if let Some((bytes, steps)) = &self.bytes {
            // SAFETY: the caller's promise.
            steps.write(isa, y, unsafe { bytes.part(range) });
        }
    }
}
