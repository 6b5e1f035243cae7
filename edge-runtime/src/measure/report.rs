//! What the report of a bench tells of one variant, as a profile.

use super::order::{Batch, State};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Service times are nearly a straight line over the size: three points tell where it bends.
const SIZES: [u64; 3] = [1, 4, 16];
/// Batches that nothing else on the node interrupted.
const LEAST_UNDISTURBED: u64 = 3;

#[derive(Deserialize)]
struct Report {
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    threads: u64,
    batches: Vec<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    batch_size: u64,
    p50_ms: f64,
    p99_ms: f64,
    samples: u64,
    undisturbed: u64,
}

/// # Errors
/// If it is no report of a variant, or the node was too busy to tell.
pub fn state(report: &[u8]) -> Result<State> {
    let report: Report = serde_json::from_slice(report).context("the bench tells something else")?;
    let Some(variant) = report.variants.into_iter().next() else { bail!("the bench tells of no variant") };
    let told: Vec<_> = variant.batches.into_iter().filter(|told| SIZES.contains(&told.batch_size)).collect();
    if let Some(told) = told.iter().find(|told| told.undisturbed < LEAST_UNDISTURBED) {
        bail!(
            "the node is too busy to tell: of its batches of {}, {} ran undisturbed in two seconds; it is measured again in a while",
            told.batch_size,
            told.undisturbed
        );
    }
    // Of a time that is none, nothing; no less than a nanosecond.
    let ns = |ms: f64| (ms * 1e6).max(1.0) as u64;
    let batch = |told: Told| Batch {
        size: told.batch_size,
        p50_ns: ns(told.p50_ms),
        p99_ns: ns(told.p99_ms),
        samples: told.samples,
    };
    Ok(State::Measured { threads: variant.threads, batches: told.into_iter().map(batch).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(undisturbed: u64) -> Vec<u8> {
        let batch = |size: u64| {
            json!({"batchSize": size, "p50Ms": 0.5 * size as f64, "p99Ms": 0.75 * size as f64,
            "samples": 90, "undisturbed": undisturbed})
        };
        let batches: Vec<_> = [1, 2, 4, 8, 16].into_iter().map(batch).collect();
        json!({"cpu": "x", "isa": "avx2", "variants": [{"variant": "int8", "threads": 2, "batches": batches}]})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn three_sizes_make_a_profile() {
        let State::Measured { threads, batches } = state(&report(90)).unwrap() else { panic!("not measured") };
        let sizes: Vec<_> = batches.iter().map(|batch| (batch.size, batch.p50_ns, batch.p99_ns)).collect();
        assert_eq!(
            (threads, sizes),
            (2, vec![(1, 500_000, 750_000), (4, 2_000_000, 3_000_000), (16, 8_000_000, 12_000_000)])
        );
        assert_eq!(batches[0].samples, 90);
    }

    #[test]
    fn a_busy_node_tells_nothing() {
        let error = state(&report(2)).unwrap_err().to_string();
        assert!(error.starts_with("the node is too busy to tell: of its batches of 1, 2 ran undisturbed"), "{error}");
        assert!(state(b"{}").is_err() && state(br#"{"variants":[]}"#).is_err());
    }
}
