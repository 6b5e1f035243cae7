//! Proves that the rooms meet: a real Kubernetes, Sconce installed on it by its chart, and what users do with it.

mod bed;
mod client;
mod command;
mod placements;
mod runs;
mod untried;

pub use bed::{Bed, Spec, Training, figures, placement_name, program, root, tool};
pub use client::{Answers, ClientRun};
pub use command::{Command, Running};
pub use placements::{NAMESPACE, serves_from, stands, tier};
pub use sconce_api::condition;
pub use untried::untried;
