//! A cluster with Sconce on it: kubebox, our images, the chart, the examples.

use crate::{Answers, ClientRun, Command};
use anyhow::{Context as _, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which cluster, and on which of the machine's loopback ports its API server and registry answer.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub api_port: u16,
    pub registry_port: u16,
    /// Seconds for which a silent node still counts as Ready.
    pub grace: u16,
}

impl Spec {
    pub const DEMO: Spec = Spec { name: "sconce-demo", api_port: 16443, registry_port: 15000, grace: 50 };
    /// Stands beside a demo; a short grace, since the suite waits for a lost node.
    pub const TEST: Spec = Spec { name: "sconce-test", api_port: 26443, registry_port: 25000, grace: 12 };

    fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    pub fn folder(&self) -> PathBuf {
        Path::new("/var/lib/kubebox").join(self.name)
    }
}

/// The registry as pods and nodes reach it.
const REGISTRY_INSIDE: &str = "10.89.0.1:5000";

/// What a training run left in its folder.
pub struct Training {
    pub artifact: PathBuf,
    pub held_out: PathBuf,
}

impl Training {
    pub fn in_folder(folder: &Path) -> Self {
        Self { artifact: folder.join("artifact"), held_out: folder.join("held-out") }
    }

    /// Trains by a manifest, with the trainer's output on ours; `data` replaces the manifest's data set.
    pub async fn run(&self, manifest: &Path, data: Option<&Path>) -> Result<()> {
        let mut train = Command::new(program("sconce-trainer")?).arg("train").arg(manifest);
        train = train.arg("--output").arg(&self.artifact).arg("--held-out").arg(&self.held_out);
        if let Some(data) = data {
            train = train.arg("--data").arg(data);
        }
        train.show().await
    }
}

pub struct Bed {
    pub spec: Spec,
    pub client: kube::Client,
}

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A folder for what people are shown afterwards.
pub fn figures(of: &str) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join(of)
}

/// A program of ours, beside this one.
pub fn program(name: &str) -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let folder = me.parent().context("this program has no folder")?;
    // Cargo puts tests one folder below programs.
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is missing: run `make build`", path.display());
    }
    Ok(path)
}

/// A program of the embedded Kubernetes.
pub fn tool(name: &str) -> Result<PathBuf> {
    let folder = std::env::var("KUBEBOX_BIN").context("KUBEBOX_BIN is not set: run by make")?;
    let path = Path::new(&folder).join(name);
    if !path.exists() {
        bail!("{} is missing: run `make kubernetes`", path.display());
    }
    Ok(path)
}

fn kubebox(spec: &Spec, command: &[&str]) -> Result<Command> {
    Ok(Command::new(tool("kubebox")?).args(command).arg("--name").arg(spec.name))
}

impl Bed {
    /// Where a scenario may have a registry of its own, on the control plane's node.
    pub const PRIVATE_REGISTRY: &'static str = "10.89.0.1:5001";

    /// Starts the cluster, with progress on our output.
    pub async fn start(spec: Spec) -> Result<Self> {
        kubebox(&spec, &["up"])?
            .arg("--config")
            .arg(root().join("e2e/cluster.yaml"))
            .arg("--api-port")
            .arg(spec.api_port.to_string())
            .arg("--registry-port")
            .arg(spec.registry_port.to_string())
            .arg("--grace")
            .arg(spec.grace.to_string())
            .show()
            .await?;
        Self::open(spec).await
    }

    /// A cluster that runs already.
    pub async fn open(spec: Spec) -> Result<Self> {
        // Another provider of TLS may have been installed by whoever came first; both are ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = spec.kubeconfig();
        let kubeconfig = Kubeconfig::read_from(&file).with_context(|| format!("no cluster {} runs", spec.name))?;
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.read_timeout = None;
        Ok(Self { spec, client: kube::Client::try_from(config)? })
    }

    /// Removes the cluster without trace; nothing to do if it is not there.
    pub async fn stop(spec: Spec) -> Result<()> {
        kubebox(&spec, &["down"])?.show().await
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.spec.kubeconfig()
    }

    /// `HOST:PORT` of the registry as this machine reaches it.
    pub fn registry_outside(&self) -> String {
        format!("127.0.0.1:{}", self.spec.registry_port)
    }

    /// The address under which the cluster reaches what was published as `repository`.
    pub fn model_uri(repository: &str) -> String {
        format!("oci://{REGISTRY_INSIDE}/{repository}")
    }

    /// Publishes an artifact folder; returns the manifest's digest.
    pub async fn publish(&self, artifact: &Path, repository: &str) -> Result<String> {
        self.publish_as(artifact, repository, &[]).await
    }

    /// Publishes it signed by the private key in a file.
    pub async fn publish_signed(&self, artifact: &Path, repository: &str, key: &Path) -> Result<String> {
        self.publish_as(artifact, repository, &["--signing-key".as_ref(), key]).await
    }

    async fn publish_as(&self, artifact: &Path, repository: &str, flags: &[&Path]) -> Result<String> {
        let uri = format!("oci://{}/{repository}", self.registry_outside());
        let publish = Command::new(program("sconce-trainer")?).arg("publish").arg(artifact).arg(uri);
        let said = flags.iter().fold(publish, |publish, flag| publish.arg(flag)).output().await?;
        let digest = said.split_whitespace().rev().find_map(|word| Some(word.split_once('@')?.1.to_owned()));
        digest.with_context(|| format!("no digest in `{}`", said.trim()))
    }

    /// Makes images of our programs, pushes them, and installs the chart with some values; `held_out` goes into the client's image.
    pub async fn install(&self, held_out: &Path, values: &[&str]) -> Result<()> {
        let image = |name: &str, binary: &str| {
            Ok::<_, anyhow::Error>(format!("sconce/{name}:dev={}", program(binary)?.display()))
        };
        let data = |file: &str| format!("{}:/data/{file}", held_out.join(file).display());
        let client = [
            image("digits-client", "digits-client")?,
            data("images.idx3"),
            data("labels.idx1"),
            data("preprocess.json"),
        ];
        let pushed = kubebox(&self.spec, &["images"])?
            .arg(image("operator", "sconce-operator")?)
            .arg(image("agent", "edge-agent")?)
            .arg(image("runtime", "edge-runtime")?)
            .arg(image("trainer", "sconce-trainer")?)
            .arg(image("collector", "sconce-collector")?)
            .arg(client.join(","))
            .output()
            .await?;
        let mut install = self.helm().args(["upgrade", "--install", "sconce"]).arg(root().join("charts/sconce"));
        install = install.args(["--namespace", "sconce-system", "--create-namespace", "--wait", "--timeout", "5m"]);
        for component in ["operator", "agent", "runtime", "trainer", "collector"] {
            let digest = pushed
                .lines()
                .find_map(|line| line.split_once(&format!("sconce/{component}:dev@"))?.1.split_whitespace().next())
                .with_context(|| format!("no digest of {component} in `{}`", pushed.trim()))?;
            install = install.arg("--set-string").arg(format!("image.{component}.digest={digest}"));
        }
        install = values.iter().fold(install, |install, value| install.args(["--set", value]));
        let insecure = format!("insecureRegistries={{{REGISTRY_INSIDE},{}}}", Self::PRIVATE_REGISTRY);
        install.arg("--set").arg(insecure).output().await?;
        Ok(())
    }

    pub fn helm(&self) -> Command {
        let helm = tool("helm").unwrap_or_else(|_| "helm".into());
        Command::new(helm).env("KUBECONFIG", self.kubeconfig())
    }

    pub fn kubectl(&self) -> Command {
        let kubectl = tool("kubectl").unwrap_or_else(|_| "kubectl".into());
        Command::new(kubectl).env("KUBECONFIG", self.kubeconfig())
    }

    pub fn sconce(&self) -> Result<Command> {
        Ok(Command::new(program("sconce")?).env("KUBECONFIG", self.kubeconfig()))
    }

    pub async fn apply(&self, file: &Path) -> Result<String> {
        self.kubectl().args(["apply", "--server-side", "--force-conflicts", "-f"]).arg(file).output().await
    }

    pub async fn apply_text(&self, yaml: &str) -> Result<String> {
        self.kubectl().args(["apply", "--server-side", "--force-conflicts", "-f", "-"]).input(yaml).output().await
    }

    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, merge: serde_json::Value) -> Result<String> {
        let merge = merge.to_string();
        self.kubectl().args(["patch", kind, name, "-n", namespace, "--type=merge", "-p", &merge]).output().await
    }

    /// Cuts (`--down`), shapes or restores a node's link.
    pub async fn link(&self, node: &str, shape: &[&str]) -> Result<()> {
        kubebox(&self.spec, &["link"])?.arg(node).args(shape).output().await.map(drop)
    }

    /// Runs a line of bash in the namespaces of a node.
    pub async fn on(&self, node: &str, line: &str) -> Result<String> {
        kubebox(&self.spec, &["exec"])?.arg(node).args(["--", "bash", "-c", line]).output().await
    }

    /// Ends a node as a power cut would, or boots it again.
    pub async fn node(&self, verb: &str, node: &str) -> Result<()> {
        kubebox(&self.spec, &["node", verb])?.arg(node).output().await.map(drop)
    }

    /// Waits for an object to be as wanted, woken by its changes.
    pub async fn until<K>(
        &self,
        api: &Api<K>,
        name: &str,
        what: &str,
        limit: Duration,
        holds: impl Condition<K>,
    ) -> Result<Option<K>>
    where
        K: kube::Resource + Clone + Debug + Send + serde::de::DeserializeOwned + serde::Serialize + 'static,
    {
        match tokio::time::timeout(limit, await_condition(api.clone(), name, holds)).await {
            Ok(found) => Ok(found?),
            Err(_) => {
                let last = match api.get_opt(name).await {
                    Ok(mut last) => {
                        last.iter_mut().for_each(|last| last.meta_mut().managed_fields = None);
                        serde_json::to_string_pretty(&last)?
                    }
                    Err(error) => error.to_string(),
                };
                Err(anyhow!("after {limit:?} still not: {what}. {name} is {last}"))
            }
        }
    }

    /// The client's pod on a node.
    pub async fn client_pod(&self, node: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "vision");
        let mine = ListParams::default()
            .labels("app.kubernetes.io/name=digits-client")
            .fields(&format!("spec.nodeName={node}"));
        let pod = pods.list(&mine).await?.items.into_iter().find(|pod| pod.metadata.deletion_timestamp.is_none());
        pod.and_then(|pod| pod.metadata.name).with_context(|| format!("no digits-client runs on {node}"))
    }

    /// Sends requests from inside a site, by its client's pod, to the node's router.
    pub async fn ask(&self, node: &str, run: &ClientRun) -> Result<Answers> {
        let pod = self.client_pod(node).await?;
        let exec = self.kubectl().args(["exec", "-n", "vision", &pod, "--", "/digits-client"]).args(run.arguments());
        // A run with failed requests ends with 1 and still reports.
        let (_, stdout, stderr) = exec.try_output().await?;
        serde_json::from_str(&stdout)
            .with_context(|| format!("the client on {node} said: {}", format!("{stdout}{stderr}").trim()))
    }
}

/// Name of the EdgePlacement of a model at a site.
pub fn placement_name(model: &str, site: &str) -> String {
    use sha2::Digest as _;
    let hash = sha2::Sha256::digest(site.as_bytes());
    let hex: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{model}-{hex}")
}
