//! The e2e suite: a real Kubernetes, Sconce installed by its chart, clients inside the sites.
//!
//! `e2e/test.sh` starts the cluster and runs this with one thread: the scenarios share the cluster, and each
//! leaves it as it found it.

mod admission;
mod artifacts;
mod asking;
mod collecting;
mod crashes;
mod faults;
mod lake;
mod learning;
mod placing;
mod predicted;
mod private;
mod readme;
mod stable;
mod stored;
mod suite;
mod training;
mod trust;
mod whole;
