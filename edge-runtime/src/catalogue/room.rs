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
    beside(|artifact| described(artifact, variant), folder)
}

/// The same for a part of a variant that runs, which is read anew: meanwhile all its weights are there as `f32`.
///
/// # Errors
/// As [`check`].
pub(super) fn check_again(folder: &Path, variant: &str) -> Result<(), LoadError> {
    let weights = |artifact: &Artifact| size_of::<f32>() as u64 * artifact.graph().parameter_count() as u64;
    beside(|artifact| described(artifact, variant).saturating_add(weights(artifact)), folder)
}

fn described(artifact: &Artifact, variant: &str) -> u64 {
    artifact.variants().iter().find(|known| known.name == variant).map_or(0, |known| known.memory_bytes)
}

fn beside(needs: impl Fn(&Artifact) -> u64, folder: &Path) -> Result<(), LoadError> {
    let Some((resident, limit)) = process::resident_bytes().zip(process::memory_limit()) else { return Ok(()) };
    let needs = needs(&Artifact::open(folder)?);
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
