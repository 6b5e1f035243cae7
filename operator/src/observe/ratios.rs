//! What was learned of predictions, as the fleets' status has it.

use super::ByKey;
use super::snapshot::count;
use crate::plan::{RatioKey, Ratios};
use sconce_api::{EdgeFleet, PredictionRatio};

/// All fleets say the same; of two that differ, one having been written before the other, the last by name.
pub fn written_ratios(fleets: &ByKey<EdgeFleet>) -> Ratios {
    let mut ratios = Ratios::default();
    // One that is being deleted is not written any more.
    let stay = fleets.values().filter(|fleet| fleet.metadata.deletion_timestamp.is_none());
    for status in stay.filter_map(|fleet| fleet.status.as_ref()) {
        for PredictionRatio { tier, class, variant, percent } in &status.prediction_ratios {
            let key = RatioKey { class: class.clone(), variant: variant.clone(), tier: *tier };
            ratios.put(key, count(*percent));
        }
    }
    ratios
}
