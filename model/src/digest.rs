//! Names of bytes, as registries write them.

use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    named(Sha256::new_with_prefix(bytes))
}

/// The name of what a hasher has seen.
pub fn named(hasher: Sha256) -> String {
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
