//! What this node collects: from EdgeDatasets and the models that name them to the files of the collector and the router, and what
//! the collector has counted back to the EdgeNode.

mod files;
mod report;
mod watch;

pub use report::report;
pub use watch::keep;
