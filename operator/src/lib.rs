//! Decides where models run: resources → snapshot → plan → Kubernetes objects.

pub mod apply;
pub mod args;
pub mod artifact;
pub mod controller;
pub mod datasets;
pub mod health;
pub mod learn;
pub mod lease;
pub mod logs;
pub mod metrics;
pub mod names;
pub mod observe;
pub mod page;
pub mod pass;
pub mod plan;
pub mod registry;
pub mod render;
pub mod retire;
pub mod secrets;
pub mod status;
pub mod training;
pub mod trigger;
