//! Learns: read → preprocess → fit → compress → evaluate → gate → publish.

pub mod against;
pub mod alone;
pub mod answer;
pub mod args;
pub mod augment;
pub mod base;
pub mod calibration;
pub mod compress;
pub mod data;
pub mod evaluate;
pub mod finish;
pub mod fit;
pub mod gate;
pub mod manifest;
pub mod output;
pub mod pending;
pub mod prepared;
pub mod progress;
pub mod publish;
pub mod pull;
pub mod report;
pub mod stop;
