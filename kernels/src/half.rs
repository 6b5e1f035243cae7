//! `f16` as storage: bits in and out of `f32`, in plain Rust, the same on each CPU.

/// The value of `bits`; exact.
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    let value = match magnitude {
        // Zero and what is subnormal: whole multiples of 2⁻²⁴.
        0..0x0400 => (magnitude as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        0x0400..0x7c00 => (magnitude << 13) + 0x3800_0000,
        0x7c00 => 0x7f80_0000,
        // A NaN stays one and is quiet, as the instructions have it.
        _ => (magnitude << 13) | 0x7fc0_0000,
    };
    f32::from_bits(sign | value)
}

/// The nearest `f16`, half to even; what is too large becomes infinite.
pub fn f32_to_f16(x: f32) -> u16 {
    let sign = (x.to_bits() >> 16) as u16 & 0x8000;
    let bits = x.to_bits() & 0x7fff_ffff;
    let magnitude = match bits {
        // Below the least normal: the sum's own rounding leaves whole multiples of 2⁻²⁴ in the last bits.
        0..0x3880_0000 => (f32::from_bits(bits) + 0.5).to_bits() - 0.5f32.to_bits(),
        0x3880_0000..0x477f_f000 => (bits - 0x3800_0000 + 0x0fff + ((bits >> 13) & 1)) >> 13,
        0x477f_f000..=0x7f80_0000 => 0x7c00,
        _ => 0x7e00 | ((bits >> 13) & 0x03ff),
    };
    sign | magnitude as u16
}

/// Whether an `f16` holds this value.
pub fn is_f16(x: f32) -> bool {
    f16_to_f32(f32_to_f16(x)) == x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f16_comes_back() {
        for bits in 0..=u16::MAX {
            let x = f16_to_f32(bits);
            let quiet = if x.is_nan() { bits | 0x0200 } else { bits };
            assert_eq!(f32_to_f16(x), quiet, "{bits:#x}");
        }
        assert_eq!(f16_to_f32(0x3c01), 1.0 + 2f32.powi(-10));
        assert_eq!(f16_to_f32(0x8001), -(2f32.powi(-24)));
    }

    #[test]
    fn between_two_f16_the_nearer_is_taken_and_the_even_one_of_a_tie() {
        for bits in 0..0x7bff_u16 {
            let (low, high) = (f16_to_f32(bits), f16_to_f32(bits + 1));
            let middle = low + (high - low) / 2.0;
            assert_eq!(f32_to_f16(middle), bits + bits % 2);
            assert_eq!(f32_to_f16(middle.next_down()), bits);
            assert_eq!(f32_to_f16(middle.next_up()), bits + 1);
        }
        assert_eq!(f32_to_f16(65_519.99), 0x7bff);
        assert_eq!(f32_to_f16(-65_520.0), 0xfc00);
    }
}
