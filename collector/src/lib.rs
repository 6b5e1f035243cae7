//! Collects samples at the edge: decides which are kept, takes from them what must not leave, holds them on disk through
//! crashes and cut links, and forwards them to an object store or a folder. Knows a configuration file and no Kubernetes.

pub mod args;
pub mod bounds;
pub mod clock;
pub mod config;
pub mod counts;
pub mod destination;
pub mod door;
pub mod forgotten;
pub mod forward;
pub mod intake;
pub mod keeper;
pub mod manifest;
pub mod metrics;
pub mod privacy;
pub mod run;
pub mod sample;
pub mod segment;
pub mod shard;
pub mod sources;
pub mod store;
pub mod upload;
pub mod watch;
pub mod window;
