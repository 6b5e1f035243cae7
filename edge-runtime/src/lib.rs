//! Serves: request → tensor → batch → model → response. Knows no Kubernetes.
//!
//! The doors give boxed futures: what is generic beneath is then compiled here, once, and not in every program that awaits them.

pub mod args;
pub mod bench;
pub mod builtin;
pub mod catalogue;
pub mod deadline;
pub mod decode;
pub mod encode;
pub mod engine;
pub mod fetch;
pub mod inspect;
pub mod load;
pub mod logs;
pub mod measure;
pub mod metrics;
pub mod process;
pub mod request;
pub mod route;
pub mod server;
pub mod spans;
pub mod statistics;
pub mod stop;
pub mod tap;
pub mod tls;
pub mod watch;
pub mod wire;

pub use sconce_batch as batch;
