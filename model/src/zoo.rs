//! Known networks at their real sizes, as typed: what every part of this room is tested with.

use crate::architecture::Architecture;

pub const SEED_CNN: &str = include_str!("../zoo/seed_cnn.json");
pub const RNN: &str = include_str!("../zoo/rnn.json");
pub const GRU: &str = include_str!("../zoo/gru.json");
pub const LSTM: &str = include_str!("../zoo/lstm.json");
pub const MOBILENET_V2: &str = include_str!("../zoo/mobilenet_v2.json");
pub const RESNET_18: &str = include_str!("../zoo/resnet_18.json");
pub const CONV1D: &str = include_str!("../zoo/conv1d.json");
pub const AUTOENCODER: &str = include_str!("../zoo/autoencoder.json");

pub fn read(typed: &str) -> Architecture {
    serde_json::from_str(typed).unwrap()
}
