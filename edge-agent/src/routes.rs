//! The routes of this node's router: from placements, pure; and the file that says them, written whole or not at all.

use crate::watch::Scope;
use sconce_api::{EdgePlacement, Endpoint, Tier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub const SCHEMA: u32 = 1;

/// The routes file: for each model by its name on the wire, where it is answered, in order of preference.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    pub schema: u32,
    pub models: BTreeMap<String, Route>,
}

#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub backends: Vec<Backend>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    pub tier: Tier,
    /// IP:PORT.
    pub address: String,
}

impl Default for Routes {
    fn default() -> Self {
        Self { schema: SCHEMA, models: BTreeMap::new() }
    }
}

/// The routes that the placements of `scope` ask for. `last` is what the file says: a placement that still stands but names
/// no endpoint keeps its last backends, since a place that cannot be observed may well serve. One that was decided away
/// (no decision) or deleted loses them.
pub fn routes<'a>(placements: impl IntoIterator<Item = &'a EdgePlacement>, scope: &Scope, last: &Routes) -> Routes {
    let mut models: BTreeMap<String, Route> = BTreeMap::new();
    let mut standing: BTreeMap<String, bool> = BTreeMap::new();
    for placement in placements {
        let model = model(placement);
        let status = placement.status.as_ref();
        let endpoints = status.map(|status| status.endpoints.as_slice()).unwrap_or_default();
        let backends = endpoints.iter().filter(|endpoint| match scope {
            Scope::Site(_) => true,
            // From a cloud node no site is near.
            Scope::Cloud => endpoint.tier == Tier::Cloud,
        });
        let route = models.entry(model.clone()).or_default();
        for backend in backends.map(backend) {
            if !route.backends.contains(&backend) {
                route.backends.push(backend);
            }
        }
        // No status at all is news that is still to come, such as after a restore.
        *standing.entry(model).or_default() |= status.is_none_or(|status| status.decision.is_some());
    }
    for (model, route) in &mut models {
        if let Some(last) = last.models.get(model).filter(|_| route.backends.is_empty() && standing[model]) {
            route.backends.clone_from(&last.backends);
        }
    }
    Routes { schema: SCHEMA, models }
}

/// The model's name on the wire, such as `digits.vision`.
fn model(placement: &EdgePlacement) -> String {
    let namespace = placement.metadata.namespace.as_deref().unwrap_or_default();
    format!("{}.{namespace}", placement.spec.model_ref.name)
}

fn backend(endpoint: &Endpoint) -> Backend {
    let address = match (endpoint.address.parse::<IpAddr>(), u16::try_from(endpoint.port)) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{}:{}", endpoint.address, endpoint.port),
    };
    Backend { tier: endpoint.tier, address }
}

#[derive(thiserror::Error, Debug)]
#[error("cannot {step} {}", path.display())]
pub struct WriteError {
    step: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

/// What the file says; `None` if there is none, or it is no routes file of ours.
pub fn read(path: &Path) -> Option<Routes> {
    let routes: Routes = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (routes.schema == SCHEMA).then_some(routes)
}

/// Writes the file whole: a reader sees the old one or the new one, after a power cut too.
///
/// # Errors
/// If the folder cannot be written; the old file then stays.
pub fn write(path: &Path, content: &impl Serialize) -> Result<(), WriteError> {
    let temporary = path.with_extension("json.new");
    let step = |step, path: &Path| {
        let path = path.to_owned();
        move |source| WriteError { step, path, source }
    };
    let bytes = serde_json::to_vec_pretty(content).map_err(std::io::Error::other).map_err(step("encode", path))?;
    let mut file = std::fs::File::create(&temporary).map_err(step("create", &temporary))?;
    file.write_all(&bytes).map_err(step("write", &temporary))?;
    file.sync_all().map_err(step("sync", &temporary))?;
    std::fs::rename(&temporary, path).map_err(step("rename onto", path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(step("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A placement of `model` at `site` that was decided and names these endpoints.
    fn placement(model: &str, site: &str, endpoints: serde_json::Value) -> EdgePlacement {
        serde_json::from_value(json!({
            "apiVersion": "sconce.dev/v1alpha1",
            "kind": "EdgePlacement",
            "metadata": {"name": format!("{model}-{site}"), "namespace": "vision"},
            "spec": {"modelRef": {"name": model}, "siteRef": {"name": site}, "versionRef": {"name": "v1"}},
            "status": {
                "decision": {"tier": "Edge", "nodes": ["gw-a"], "variant": "int8", "replicas": 1,
                    "reason": "ChosenAtEdge", "since": "2026-01-01T00:00:00Z"},
                "endpoints": endpoints,
            },
        }))
        .unwrap()
    }

    fn unplaced(model: &str, site: &str) -> EdgePlacement {
        let mut placement = placement(model, site, json!([]));
        placement.status.as_mut().unwrap().decision = None;
        placement
    }

    fn edge(address: &str) -> serde_json::Value {
        json!({"tier": "Edge", "address": address, "port": 8001})
    }

    fn cloud(address: &str) -> serde_json::Value {
        json!({"tier": "Cloud", "address": address, "port": 8001})
    }

    fn file(models: serde_json::Value) -> Routes {
        serde_json::from_value(json!({"schema": 1, "models": models})).unwrap()
    }

    fn site() -> Scope {
        Scope::Site("site-a".into())
    }

    #[test]
    fn a_sites_router_prefers_its_pod_and_falls_back_to_the_cloud() {
        let placements = [
            placement("digits", "site-a", json!([edge("10.244.2.5"), cloud("10.96.3.4")])),
            placement("keyword", "site-a", json!([cloud("fd00::7")])),
        ];
        let expected = file(json!({
            "digits.vision": {"backends": [
                {"tier": "Edge", "address": "10.244.2.5:8001"},
                {"tier": "Cloud", "address": "10.96.3.4:8001"},
            ]},
            "keyword.vision": {"backends": [{"tier": "Cloud", "address": "[fd00::7]:8001"}]},
        }));
        assert_eq!(routes(&placements, &site(), &Routes::default()), expected);
    }

    #[test]
    fn a_cloud_nodes_router_knows_the_pools_only_each_once() {
        let placements = [
            placement("digits", "site-a", json!([edge("10.244.2.5"), cloud("10.96.3.4")])),
            placement("digits", "site-b", json!([cloud("10.96.3.4"), cloud("10.96.3.9")])),
            placement("local", "site-b", json!([edge("10.244.3.5")])),
        ];
        let expected = file(json!({
            "digits.vision": {"backends": [
                {"tier": "Cloud", "address": "10.96.3.4:8001"},
                {"tier": "Cloud", "address": "10.96.3.9:8001"},
            ]},
            "local.vision": {"backends": []},
        }));
        assert_eq!(routes(&placements, &Scope::Cloud, &Routes::default()), expected);
    }

    #[test]
    fn a_placement_that_cannot_be_observed_keeps_its_last_backends() {
        let last = routes(&[placement("digits", "site-a", json!([edge("10.244.2.5")]))], &site(), &Routes::default());
        assert_eq!(routes(&[placement("digits", "site-a", json!([]))], &site(), &last), last);
        let mut restored = placement("digits", "site-a", json!([]));
        restored.status = None;
        assert_eq!(routes(&[restored], &site(), &last), last);
    }

    #[test]
    fn a_placement_that_was_decided_away_or_deleted_loses_its_backends() {
        let last = routes(&[placement("digits", "site-a", json!([edge("10.244.2.5")]))], &site(), &Routes::default());
        let nowhere = file(json!({"digits.vision": {"backends": []}}));
        assert_eq!(routes(&[unplaced("digits", "site-a")], &site(), &last), nowhere);
        assert_eq!(routes(&[], &site(), &last), Routes::default());
    }

    #[test]
    fn a_written_file_is_read_again_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.json");
        assert_eq!(read(&path), None);
        let old = routes(&[placement("digits", "site-a", json!([edge("10.244.2.5")]))], &site(), &Routes::default());
        write(&path, &old).unwrap();
        write(&path, &Routes::default()).unwrap();
        write(&path, &old).unwrap();
        assert_eq!(read(&path), Some(old));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.json");
        let old = routes(&[placement("digits", "site-a", json!([edge("10.244.2.5")]))], &site(), &Routes::default());
        write(&path, &old).unwrap();
        std::fs::create_dir(folder.path().join("routes.json.new")).unwrap();
        assert!(write(&path, &Routes::default()).unwrap_err().to_string().starts_with("cannot create"));
        assert_eq!(read(&path), Some(old));
    }

    #[test]
    fn a_file_of_another_schema_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.json");
        std::fs::write(&path, r#"{"schema": 2, "models": {}}"#).unwrap();
        assert_eq!(read(&path), None);
    }
}
