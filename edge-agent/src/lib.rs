//! What one node is and sees: its hardware, its link to the cloud, and the routes of its router.
//!
//! Writes one object, the `EdgeNode` of its own name, and one file, the routes. Decides nothing about tiers or variants.

pub mod args;
mod collect;
mod gflops;
mod hardware;
mod health;
mod hop;
mod link;
mod measure;
mod metrics;
mod node;
mod profiles;
mod round;
mod router;
mod routes;
mod run;
mod status;
pub mod store;
mod uplink;
mod usage;
mod waits;
mod watch;
mod window;

pub use run::{Error, run};
