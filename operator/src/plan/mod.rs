//! The plan step: chooses a place for each model. Pure and total; same snapshot, same plan.

mod outcome;
mod snapshot;

pub use outcome::*;
pub use snapshot::*;
