//! Whether a model fits beside those that run: a process that is killed for its memory serves nobody.

use crate::load::LoadError;
use crate::process;
use sconce_model::artifact::Artifact;
use std::path::Path;

/// What a variant needs, by its description, has to fit beside what the process has.
///
/// # Errors
/// [`LoadError`] if it does not, or is no artifact.
pub(super) fn check(folder: &Path, variant: &str) -> Result<(), LoadError> {
    let Some((resident, limit)) = process::resident_bytes().zip(process::memory_limit()) else { return Ok(()) };
    let artifact = Artifact::open(folder)?;
    let needs = artifact.variants().iter().find(|known| known.name == variant).map_or(0, |known| known.memory_bytes);
    if fits(needs, resident, limit) { Ok(()) } else { Err(LoadError::Memory { needs, resident, limit }) }
}

/// A tenth stays free: what it needs is an estimate, and requests take memory too.
fn fits(needs: u64, resident: u64, limit: u64) -> bool {
    needs.saturating_add(resident) <= limit - limit / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_memory_stays_free() {
        assert!(fits(40, 50, 100));
        assert!(!fits(41, 50, 100));
        assert!(!fits(u64::MAX, 1, 100) && !fits(1, 0, 0));
    }
}
