//! Decides where models run: resources → snapshot → plan → Kubernetes objects.

pub mod plan;
