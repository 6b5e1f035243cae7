//! How much a core keeps at hand.

/// Bytes of the second-level cache of a core; 512 KiB where the CPU does not tell.
pub fn second_level() -> usize {
    Some(told()).filter(|bytes| *bytes > 0).unwrap_or(512 << 10)
}

/// By the leaf that AMD and Intel share.
#[cfg(target_arch = "x86_64")]
fn told() -> usize {
    use std::arch::x86_64::__cpuid;
    const LEAVES: u32 = 0x8000_0000;
    const CACHES: u32 = 0x8000_0006;
    if __cpuid(LEAVES).eax < CACHES {
        return 0;
    }
    (__cpuid(CACHES).ecx >> 16) as usize * 1024
}

#[cfg(not(target_arch = "x86_64"))]
fn told() -> usize {
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn second_level_cache_is_of_a_size_that_caches_have() {
        let bytes = super::second_level();
        assert!((64 << 10..=64 << 20).contains(&bytes), "{bytes}");
    }
}
