//! The door to an EdgeDataset: where its samples are, and how many labels were imported.

use anyhow::{Context as _, Result, bail};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Error};
use sconce_api::EdgeDataset;
use serde_json::json;

/// The operator writes the status, too.
const TRIES: usize = 10;

pub struct Counter {
    api: Api<DynamicObject>,
    namespace: String,
    name: String,
}

impl Counter {
    pub fn new(client: Client, namespace: &str, name: &str) -> Self {
        let resource = ApiResource::erase::<EdgeDataset>(&());
        let api = Api::namespaced_with(client, namespace, &resource);
        Self { api, namespace: namespace.into(), name: name.into() }
    }

    /// Where its samples are.
    pub async fn uri(&self) -> Result<String> {
        let dataset = self.read().await?;
        Ok(dataset.data["spec"]["uri"].as_str().unwrap_or_default().into())
    }

    /// Counts labels of samples that had none.
    ///
    /// # Errors
    /// If that may not be written, or others write all the time.
    pub async fn add(&self, fresh: usize) -> Result<()> {
        for _ in 0..TRIES {
            let dataset = self.read().await?;
            let imported = dataset.data["status"]["imported"].as_u64().unwrap_or(0) + fresh as u64;
            // Only onto what was read: two who import at once both count.
            let patch = json!({"metadata": {"resourceVersion": dataset.metadata.resource_version}, "status": {"imported": imported}});
            let patched = self.api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await;
            match patched {
                Ok(_) => return Ok(()),
                Err(Error::Api(status)) if status.code == 409 => {}
                Err(error) => {
                    return Err(error)
                        .context("patching edgedatasets/status (it takes that right: the role sconce-edit)");
                }
            }
        }
        bail!("others changed it each of {TRIES} times")
    }

    async fn read(&self) -> Result<DynamicObject> {
        let Self { namespace, name, .. } = self;
        let read = self.api.get_opt(name).await.with_context(|| format!("reading EdgeDataset {namespace}/{name}"))?;
        read.with_context(|| format!("there is no EdgeDataset {name} in {namespace} (kubectl get ed -A lists them)"))
    }
}
