//! Models of private registries: by which Secret pods fetch, while another one is tried.

use super::*;
use crate::artifact::{Artifact, Failure};
use crate::observe::Key;
use crate::registry::{Ask, Outcome, Resolution};

fn at() -> Key {
    ("vision".into(), "digits".into())
}

/// What it names from now on.
fn names_secret(world: &mut World, secret: &str) {
    change(world, |model| model["spec"]["model"]["pullSecretRef"] = json!({"name": secret}));
}

/// The Secrets of the Deployments that are written until all rests, one after the other.
fn settling(mut world: World, resolutions: &Resolutions) -> (World, Vec<String>) {
    let mut written = Vec::new();
    for _ in 0..6 {
        let steps = run_asked(&world, resolutions);
        for write in &steps.objects {
            let (Write::Create(object) | Write::Apply { object, .. }) = write else { continue };
            if object.kind == Kind::Deployment {
                let secret = object.body().pointer("/spec/template/spec/volumes/1/secret/secretName").cloned();
                written.push(secret.unwrap_or_default().as_str().unwrap_or_default().to_owned());
            }
        }
        world = carried_out(world, &steps);
    }
    written.dedup();
    (world, written)
}

/// Its version was resolved by the Secret `old`.
fn private() -> World {
    let mut world = scene("25ms");
    names_secret(&mut world, "old");
    change(&mut world, |model| model["status"]["desired"]["pullSecretRef"] = json!({"name": "old"}));
    let (world, written) = settling(world, &Resolutions::new());
    assert_eq!(written, ["old"]);
    world
}

#[test]
fn pods_keep_their_secret_while_another_address_is_not_resolved() {
    let mut world = private();
    change(&mut world, |model| model["spec"]["model"]["uri"] = json!("oci://s:5000/m/numbers:2"));
    names_secret(&mut world, "new");
    let ask = Ask { uri: "oci://s:5000/m/numbers:2".into(), secret: Some("new".into()) };
    assert_eq!(run(&world).to_resolve, [(at(), ask.clone())]);
    let failure = Failure { reason: Reason::Unauthorized, message: "no".into() };
    let retry_at = Instant::now() + Duration::from_secs(3600);
    for outcome in [Outcome::Asking { failed: None, attempts: 0 }, Outcome::Failed { failure, attempts: 1, retry_at }] {
        let resolutions = Resolutions::from([(at(), Resolution { ask: ask.clone(), outcome })]);
        let (after, written) = settling(world.clone(), &resolutions);
        assert_eq!(written, Vec::<String>::new());
        assert_eq!(after.deployments, world.deployments);
    }
}

#[test]
fn another_secret_for_the_same_address_is_tried_before_pods_have_it() {
    let mut world = private();
    names_secret(&mut world, "new");
    let ask = Ask { uri: format!("oci://r:5000/m/digits@{DIGEST}"), secret: Some("new".into()) };
    assert_eq!(run(&world).to_resolve, [(at(), ask.clone())]);
    let mut suspended = world.clone();
    change(&mut suspended, |model| model["spec"]["suspend"] = json!(true));
    assert_eq!(run(&suspended).to_resolve, []);
    let (world, written) = settling(world, &Resolutions::new());
    assert_eq!(written, Vec::<String>::new());
    let status = world.versions.values().next().unwrap().status.clone().unwrap();
    let artifact = Artifact {
        repository: "oci://r:5000/m/digits".into(),
        digest: DIGEST.into(),
        facts: status.artifact.unwrap(),
        variants: status.variants,
    };
    let outcome = Outcome::Found(Box::new(artifact));
    let (world, written) = settling(world, &Resolutions::from([(at(), Resolution { ask, outcome })]));
    assert_eq!(written, ["new"]);
    assert!(run(&world).to_resolve.is_empty());
}
