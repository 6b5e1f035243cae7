//! Whether all that is meant to learn does: seen at the first step, or nobody would notice. Pure.

use super::FitError;
use candle_core::backprop::GradStore;
use sconce_model::graph::Role;
use sconce_model::network::Network;
use sconce_model::ops::values;
use std::collections::BTreeSet;

/// A network that has next to no loss is right and sure: it has nothing to learn, and gradients of zeros are no fault.
const LEARNED: f32 = 1e-3;

/// Every weight has a gradient of finite numbers, not all zero, but those of frozen nodes, which have none.
///
/// # Errors
/// [`FitError::Gradient`] or [`FitError::Frozen`], with the name of the first variable that is otherwise.
pub fn check(network: &Network, frozen: &BTreeSet<String>, gradients: &GradStore, loss: f32) -> Result<(), FitError> {
    for node in &network.graph().nodes {
        for parameter in node.parameters.iter().filter(|parameter| parameter.role == Role::Weight) {
            let name = &parameter.name;
            let fault = |fault| Err(FitError::Gradient { variable: name.clone(), fault });
            let gradient = network.variables().get(name).and_then(|variable| gradients.get(variable.as_tensor()));
            match gradient {
                Some(_) if frozen.contains(&node.name) => return Err(FitError::Frozen { variable: name.clone() }),
                None if frozen.contains(&node.name) => {}
                None => return fault("no gradient"),
                Some(gradient) => {
                    let gradient = values(gradient)?;
                    if !gradient.iter().all(|g| g.is_finite()) {
                        return fault("a gradient that is not finite");
                    }
                    if loss > LEARNED && gradient.iter().all(|g| *g == 0.0) {
                        return fault("a gradient of zeros");
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor, Var};
    use sconce_model::architecture::Architecture;
    use sconce_model::network::{Mode, Training};
    use std::sync::Arc;

    fn network() -> Network {
        let typed = serde_json::json!({"input": {"shape": [1, 4, 4]}, "layers": [
            {"conv2d": {"filters": 2, "kernel": 3, "activation": "relu"}}, {"flatten": {}},
            {"dense": {"units": 3, "activation": "relu"}}, {"dense": {"units": 2, "activation": "softmax"}}]});
        let graph = serde_json::from_value::<Architecture>(typed).unwrap().graph().unwrap();
        Network::initialise(Arc::new(graph), 5).unwrap()
    }

    fn drop_to(variable: &Var, value: f32) {
        let fallen = Tensor::full(value, variable.shape(), &Device::Cpu).unwrap();
        variable.set(&fallen).unwrap();
    }

    /// What is said of the network after a step on two images, once `spoil` has done its work.
    fn said(frozen: &[&str], loss: f32, spoil: impl Fn(&Network)) -> String {
        let network = network();
        spoil(&network);
        let xs: Vec<f32> = (0..32).map(|x| (x * 7 % 11) as f32 / 11.0).collect();
        let xs = Tensor::from_vec(xs, (2, 1, 4, 4), &Device::Cpu).unwrap();
        let training = Training { seed: 0, epoch: 1, step: 0, frozen: &BTreeSet::new() };
        let logits = network.forward_t(&xs, None, Mode::Train(training)).unwrap();
        let gradients = logits.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let frozen = frozen.iter().map(|name| (*name).to_owned()).collect();
        check(&network, &frozen, &gradients, loss).map_or_else(|error| error.to_string(), |()| "all learn".into())
    }

    #[test]
    fn what_does_not_learn_is_named() {
        let nothing = |_: &Network| {};
        assert_eq!(said(&[], 1.0, nothing), "all learn");
        let asleep = |network: &Network| drop_to(&network.variables()["dense_1.bias"], -1e3);
        let zeros = "\"conv2d_1.weight\" has a gradient of zeros at the first step: the network cannot learn";
        assert_eq!(said(&[], 1.0, asleep), zeros);
        assert_eq!(said(&[], 1e-6, asleep), "all learn", "it has nothing to learn");
        let infinite = |network: &Network| drop_to(&network.variables()["dense_2.bias"], f32::INFINITY);
        assert!(said(&[], 1.0, infinite).starts_with("\"conv2d_1.weight\" has a gradient that is not finite"));
        let frozen = "\"dense_1.weight\" is frozen, and has a gradient at the first step: it would not stay as it is";
        assert_eq!(said(&["dense_1"], 1.0, nothing), frozen);
    }

    /// An operation that cuts the graph, as some of candle's do, leaves what lies before it without a gradient.
    #[test]
    fn what_is_cut_off_is_named_and_what_is_frozen_may_be() {
        let network = network();
        let head = |end: &str| network.variables()[&format!("dense_2.{end}")].sum_all().unwrap();
        let gradients = (head("weight") + head("bias")).unwrap().backward().unwrap();
        let check = |frozen: &[&str]| {
            let frozen = frozen.iter().map(|name| (*name).to_owned()).collect();
            check(&network, &frozen, &gradients, 1.0).map_err(|error| error.to_string())
        };
        let cut = "\"conv2d_1.weight\" has no gradient at the first step: the network cannot learn";
        assert_eq!(check(&[]), Err(cut.into()));
        assert!(check(&["conv2d_1"]).unwrap_err().starts_with("\"dense_1.weight\" has no gradient"));
        assert_eq!(check(&["conv2d_1", "dense_1"]), Ok(()));
    }
}
