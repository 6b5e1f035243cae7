//! A broker that hears a camera, as sites have one: mosquitto, on the control plane's node. Both edge nodes listen to it, and each message
//! is for one of them.

use anyhow::{Context as _, Result, ensure};
use sconce_e2e::{Bed, Command, Running, tool, untried};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

const PROGRAM: &str = "/usr/sbin/mosquitto";
const CLIENT: &str = "/usr/bin/mosquitto_pub";
const HOST: &str = "10.89.0.1";
pub const ADDRESS: &str = "mqtt://10.89.0.1:1883";
const TOPIC: &str = "site-b/door/picture";
/// By a shared subscription: whoever subscribes, one gets it.
pub const HEARD: &str = "$share/shifted/site-b/+/picture";
const LIMIT: Duration = Duration::from_secs(120);
/// It says nothing until somebody subscribes, or it cannot go on.
const CONFIGURATION: &str = "listener 1883 10.89.0.1
allow_anonymous true
log_dest stderr
log_type error
log_type subscribe
";
/// Runs until its standard input ends. What it logs is told at once.
const RUN: &str = "\"$@\" 2>&1 & read -r end; kill $!";

pub struct Broker {
    cluster: &'static str,
    configuration: tempfile::NamedTempFile,
}

impl Broker {
    /// `None` where there is none, and that may be so.
    pub fn found(bed: &Bed) -> Result<Option<Self>> {
        if ![PROGRAM, CLIENT].iter().all(|program| Path::new(program).exists()) {
            let packages = "there is no mosquitto (apt-get install mosquitto mosquitto-clients)";
            untried(&format!("the loop with samples of a broker was NOT tried: {packages}"))?;
            return Ok(None);
        }
        let mut configuration = tempfile::NamedTempFile::new()?;
        configuration.write_all(CONFIGURATION.as_bytes())?;
        Ok(Some(Self { cluster: bed.spec.name, configuration }))
    }

    fn on_its_node(&self) -> Result<Command> {
        Ok(Command::new(tool("kubebox")?).args(["exec", "--name", self.cluster, "cp", "--"]))
    }

    /// Starts it; returns once so many listen.
    pub async fn heard_by(&self, nodes: usize) -> Result<Running> {
        let run = self.on_its_node()?.args(["sh", "-c", RUN, "sh", PROGRAM, "-c"]);
        let mut running = run.arg(self.configuration.path()).begin()?;
        let listening = async {
            for _ in 0..nodes {
                let said = running.says().await?;
                ensure!(said.contains(HEARD), "mosquitto says: {said}");
            }
            Ok(())
        };
        tokio::time::timeout(LIMIT, listening).await.context("nobody listens to the broker")??;
        Ok(running)
    }

    /// Each picture is a message; returns once the broker has all of them.
    pub async fn publish(&self, pictures: impl Iterator<Item = &[u8]>) -> Result<()> {
        for picture in pictures {
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(picture)?;
            let publish = self.on_its_node()?.args([CLIENT, "-h", HOST, "-q", "1", "-t", TOPIC, "-f"]);
            publish.arg(file.path()).output().await?;
        }
        Ok(())
    }
}
