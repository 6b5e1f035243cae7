//! The optimiser's state, in the order of the variables' names, as a checkpoint keeps it.

use crate::manifest::Optimizer;
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use sconce_model::network::Network;
use sconce_model::ops::{Adam, Moments, Sgd, values};
use std::collections::BTreeMap;

/// What the norm of the gradients is divided by may be zero.
const TINY: f64 = 1e-6;

pub struct Optimise {
    kind: Optimizer,
    steps: u64,
    states: BTreeMap<String, State>,
}

enum State {
    Adam(Adam),
    Sgd(Sgd),
}

/// Ends of the names of what is kept for each variable.
const MEAN: &str = "mean";
const SQUARE: &str = "square";
const VELOCITY: &str = "velocity";

impl Optimise {
    pub fn new(kind: Optimizer, network: &Network) -> Self {
        let state = |(name, variable): (&String, &Var)| {
            let state = match kind {
                Optimizer::Adam { learning_rate } => State::Adam(Adam::new(variable, learning_rate)),
                Optimizer::Sgd { learning_rate, momentum, nesterov } => {
                    State::Sgd(Sgd::new(variable, learning_rate, momentum, nesterov))
                }
            };
            (name.clone(), state)
        };
        Self { kind, steps: 0, states: network.weights().map(state).collect() }
    }

    /// As it was after so many steps.
    ///
    /// # Errors
    /// If something is missing.
    pub fn resume(kind: Optimizer, network: &Network, steps: u64, kept: &BTreeMap<String, Tensor>) -> Result<Self> {
        let of = |name: &str, end: &str| match kept.get(&format!("{name}.{end}")) {
            Some(tensor) => values(tensor),
            None => candle_core::bail!("the checkpoint has no {name}.{end}"),
        };
        let state = |(name, _): (&String, &Var)| {
            let state = match kind {
                Optimizer::Adam { learning_rate } => {
                    let moments = Moments { means: of(name, MEAN)?, squares: of(name, SQUARE)? };
                    State::Adam(Adam::resume(moments, learning_rate, steps as i32))
                }
                Optimizer::Sgd { learning_rate, momentum, nesterov } => {
                    State::Sgd(Sgd::resume(of(name, VELOCITY)?, learning_rate, momentum, nesterov))
                }
            };
            Ok((name.clone(), state))
        };
        Ok(Self { kind, steps, states: network.weights().map(state).collect::<Result<_>>()? })
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What has to be kept of it.
    ///
    /// # Errors
    /// None but candle's own.
    pub fn kept(&self) -> Result<BTreeMap<String, Tensor>> {
        let flat = |values: Vec<f32>| {
            let count = values.len();
            Tensor::from_vec(values, count, &Device::Cpu)
        };
        let mut kept = BTreeMap::new();
        for (name, state) in &self.states {
            match state {
                State::Adam(adam) => {
                    let Moments { means, squares } = adam.moments();
                    kept.insert(format!("{name}.{MEAN}"), flat(means)?);
                    kept.insert(format!("{name}.{SQUARE}"), flat(squares)?);
                }
                State::Sgd(sgd) => {
                    kept.insert(format!("{name}.{VELOCITY}"), flat(sgd.velocity())?);
                }
            }
        }
        Ok(kept)
    }

    /// Moves every variable that has a gradient; the rate is the optimiser's times `factor`.
    ///
    /// # Errors
    /// None but candle's own.
    pub fn step(&mut self, network: &Network, gradients: &GradStore, factor: f32, clip: Option<f32>) -> Result<()> {
        self.steps += 1;
        let rate = self.kind.learning_rate() * factor;
        let shrink = match clip {
            Some(most) => Some(f64::from(most) / (norm(network, gradients)? + TINY)).filter(|shrink| *shrink < 1.0),
            None => None,
        };
        for ((_, variable), state) in network.weights().zip(self.states.values_mut()) {
            let Some(gradient) = gradients.get(variable.as_tensor()) else { continue };
            let gradient = shrink.map_or_else(|| Ok(gradient.clone()), |shrink| gradient * shrink)?;
            match state {
                State::Adam(adam) => {
                    adam.set_learning_rate(rate);
                    adam.step(variable, &gradient)?;
                }
                State::Sgd(sgd) => {
                    sgd.set_learning_rate(rate);
                    sgd.step(variable, &gradient)?;
                }
            }
        }
        Ok(())
    }
}

/// Of all gradients together.
fn norm(network: &Network, gradients: &GradStore) -> Result<f64> {
    let gradients = network.weights().filter_map(|(_, variable)| gradients.get(variable.as_tensor()));
    let square = |gradient| Ok(values(gradient)?.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>());
    let squares: Result<Vec<f64>> = gradients.map(square).collect();
    Ok(squares?.iter().sum::<f64>().sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sconce_model::architecture::Architecture;
    use sconce_model::network::{Mode, Training};
    use sconce_model::ops::{Loss, Targets};
    use std::collections::BTreeSet;
    use std::sync::Arc;

    fn flat(network: &Network, of: impl Fn(&Var) -> Tensor) -> Vec<f32> {
        network.weights().flat_map(|(_, variable)| values(&of(variable)).unwrap().to_vec()).collect()
    }

    /// How far one step moves the weights, and the gradients that it had.
    fn stepped(factor: f32, clip: Option<f32>) -> (Vec<f32>, Vec<f32>) {
        let layers = serde_json::json!([{"dense": {"units": 3, "activation": "softmax"}}]);
        let typed = serde_json::json!({"input": {"shape": [2]}, "layers": layers});
        let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
        let network = Network::initialise(Arc::new(graph), 3).unwrap();
        let xs = Tensor::new(&[[1.0_f32, -2.0], [0.5, 3.0]], &Device::Cpu).unwrap();
        let training = Training { seed: 3, epoch: 1, step: 0, frozen: &BTreeSet::new() };
        let logits = network.forward_t(&xs, None, Mode::Train(training)).unwrap();
        let gradients = Loss::cross_entropy().mean(&logits, Targets::Labels(&[0, 2])).unwrap().backward().unwrap();
        let before = flat(&network, |variable| variable.as_tensor().clone());
        let kind = Optimizer::Sgd { learning_rate: 0.5, momentum: 0.0, nesterov: false };
        Optimise::new(kind, &network).step(&network, &gradients, factor, clip).unwrap();
        let after = flat(&network, |variable| variable.as_tensor().clone());
        let moved = before.iter().zip(after).map(|(before, after)| before - after).collect();
        (moved, flat(&network, |variable| gradients.get(variable.as_tensor()).unwrap().clone()))
    }

    #[test]
    fn gradients_that_are_too_large_together_are_made_as_large_as_they_may_be() {
        let (_, gradients) = stepped(1.0, None);
        let norm = gradients.iter().map(|g| g * g).sum::<f32>().sqrt();
        let check = |factor: f32, clip, times: f32| {
            let (moved, gradients) = stepped(factor, clip);
            let far = moved.iter().zip(&gradients).any(|(moved, g)| (moved - 0.5 * times * g).abs() > 1e-5);
            assert!(!far && norm > 0.1, "{moved:?}, not {times} times half of {gradients:?}");
        };
        check(1.0, None, 1.0);
        check(0.25, None, 0.25);
        check(1.0, Some(norm * 1.5), 1.0);
        check(1.0, Some(0.03), 0.03 / norm);
        check(0.25, Some(0.03), 0.25 * 0.03 / norm);
    }
}
