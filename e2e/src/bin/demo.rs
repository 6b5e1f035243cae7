//! `make demo`: the main job, from training to an answer at the edge, told step by step.

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use sconce_api::{EdgeModel, EdgePlacement, Tier};
use sconce_e2e::{Answers, Bed, ClientRun, NAMESPACE, Spec, Training, figures, program, root, serves_from, stands};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Shows the main job of Sconce on an embedded Kubernetes.
#[derive(Parser)]
#[command(name = "sconce-demo", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Train, start Kubernetes, install Sconce, serve, measure; the cluster stays up.
    Up {
        /// Folder with MNIST's IDX files; without it the data is drawn.
        #[arg(long)]
        mnist: Option<PathBuf>,
    },
    /// Remove the cluster without trace.
    Down,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().verb {
        Verb::Up { mnist } => Demo::new()?.run(mnist.as_deref()).await,
        Verb::Down => Bed::stop(Spec::DEMO).await,
    }
}

const STEPS: usize = 7;

/// Folder of what the demo leaves: the artifact and the report.
fn folder() -> PathBuf {
    figures("demo")
}

struct Demo {
    training: Training,
    step: usize,
    began: Instant,
    report: Value,
}

impl Demo {
    fn new() -> Result<Self> {
        if Spec::DEMO.folder().exists() {
            bail!("a demo runs already, or was left behind: `make demo-down` removes it");
        }
        std::fs::create_dir_all(folder())?;
        let report = json!({"steps": [], "placements": {}, "latency": {}});
        Ok(Self { training: Training::in_folder(&folder()), step: 0, began: Instant::now(), report })
    }

    fn begin(&mut self, title: &str) -> Instant {
        self.step += 1;
        println!("\n\u{2500}\u{2500} {}/{STEPS}  {title}", self.step);
        Instant::now()
    }

    fn end(&mut self, title: &str, since: Instant) {
        let seconds = (since.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        println!("   ({seconds} s)");
        if let Some(steps) = self.report["steps"].as_array_mut() {
            steps.push(json!({"step": title, "seconds": seconds}));
        }
    }

    async fn run(mut self, mnist: Option<&Path>) -> Result<()> {
        let title = "Train the network, before the cluster needs the cores";
        let since = self.begin(title);
        self.training.run(&root().join("examples/digits/training.yaml"), mnist).await?;
        self.report["accuracy"] = accuracy(&self.training.artifact)?;
        self.end(title, since);

        let title = "Start a real Kubernetes: one cloud node, two edge sites behind links of 20 and 3 ms each way";
        let since = self.begin(title);
        let bed = Bed::start(Spec::DEMO).await?;
        say(&bed, &["get", "nodes", "-L", "sconce.dev/tier,topology.kubernetes.io/zone"]).await?;
        self.end(title, since);

        let title = "Publish the model, named by its digest";
        let since = self.begin(title);
        let digest = bed.publish(&self.training.artifact, "models/digits:1.0.0").await?;
        println!("   {}@{digest}", Bed::model_uri("models/digits"));
        self.report["model"] = json!({"uri": Bed::model_uri("models/digits:1.0.0"), "digest": digest});
        self.end(title, since);

        let title = "Install Sconce with Helm";
        let since = self.begin(title);
        bed.install(&self.training.held_out, &[]).await?;
        say(&bed, &["get", "pods", "-A", "-l", "app.kubernetes.io/part-of=sconce", "-o", "wide"]).await?;
        self.end(title, since);

        let title = "Say what must hold: 25 ms, 97 %, 10 requests/s. Sconce decides where";
        let since = self.begin(title);
        for file in ["fleet.yaml", "model.yaml", "model-cloud.yaml", "client/daemonset.yaml"] {
            println!("   $ kubectl apply --server-side -f examples/digits/{file}");
            bed.apply(&root().join("examples/digits").join(file)).await?;
        }
        let a = bed.until_served("digits", "site-a", Tier::Edge).await?;
        let b = bed.until_served("digits", "site-b", Tier::Cloud).await?;
        bed.until_served("digits-cloud", "site-a", Tier::Cloud).await?;
        bed.until_served("digits-cloud", "site-b", Tier::Cloud).await?;
        say(&bed, &["get", "em,epl,es,emv", "-n", NAMESPACE]).await?;
        for placement in [&a, &b] {
            println!("   {}: {}", placement.spec.site_ref.name, why(placement));
            self.report["placements"][&placement.spec.site_ref.name] = json!(placement.status);
        }
        self.end(title, since);

        let title = "Answer: each site's client asks its own node's router, and the cloud beside it";
        let since = self.begin(title);
        self.measure(&bed).await?;
        self.end(title, since);

        let title = "Change the wish, and the place follows";
        let since = self.begin(title);
        self.change_wishes(&bed).await?;
        self.end(title, since);

        self.report["seconds"] = json!(self.began.elapsed().as_secs());
        let file = folder().join("report.json");
        std::fs::write(&file, serde_json::to_string_pretty(&self.report)?)?;
        println!("\nThe cluster stays up. Try next:");
        println!(
            "   export KUBECONFIG={} PATH=$PATH:{}:{}",
            bed.kubeconfig().display(),
            std::env::var("KUBEBOX_BIN").unwrap_or_default(),
            program("sconce")?.parent().unwrap_or(Path::new(".")).display()
        );
        println!("   kubectl get em,epl,es,en,emv -A");
        println!("   sconce explain digits -n {NAMESPACE}       # every number of the decision, and what was rejected");
        println!(
            "   kubectl patch em digits -n {NAMESPACE} --type=merge -p '{{\"spec\":{{\"latencyBudget\":\"200ms\"}}}}'"
        );
        println!("   helm test sconce -n sconce-system");
        println!("   make demo-down                       # removes it without trace");
        println!("Report: {}", file.display());
        Ok(())
    }

    /// The seed's claim: lower latency and saved uplink at the edge.
    async fn measure(&mut self, bed: &Bed) -> Result<()> {
        println!(
            "   {:8} {:20} {:>6} {:>10} {:>10} {:>10} {:>7}",
            "site", "model", "sent", "accuracy", "p50", "p99", "failed"
        );
        for (site, node) in [("site-a", "site-a-1"), ("site-b", "site-b-1")] {
            for model in ["digits", "digits-cloud"] {
                let answers = bed.ask(node, &ClientRun::of(&format!("{model}.{NAMESPACE}")).count(500)).await?;
                println!("   {site:8} {}", row(&answers));
                self.report["latency"][site][model] = json!(answers);
            }
        }
        let p50 = |model: &str| self.report["latency"]["site-a"][model]["p50Ms"].as_f64().unwrap_or(f64::NAN);
        let bytes = &self.report["latency"]["site-a"]["digits"]["requestBytes"];
        println!(
            "   At site-a the edge answers {:.0} times sooner than the cloud, and saves {bytes} bytes of uplink a request.",
            p50("digits-cloud") / p50("digits")
        );
        Ok(())
    }

    async fn change_wishes(&mut self, bed: &Bed) -> Result<()> {
        println!("   latencyBudget: 200ms, while site-a asks 50 times a second");
        let run = ClientRun::of(&format!("digits.{NAMESPACE}")).rate(50).duration("25s");
        let moving = async {
            bed.patch("em", NAMESPACE, "digits", json!({"spec": {"latencyBudget": "200ms"}})).await?;
            let moved = bed.until_served("digits", "site-a", Tier::Cloud).await?;
            println!("   site-a: {}", why(&moved));
            anyhow::Ok(moved)
        };
        let (answers, moved) = tokio::join!(bed.ask("site-a-1", &run), moving);
        let (answers, moved) = (answers?, moved?);
        println!("   {} requests during the move, {} failed", answers.sent, answers.failed);
        self.report["move"] = json!({"answers": answers, "placement": moved.status});
        if answers.failed > 0 {
            bail!("{} requests failed during the move: {:?}", answers.failed, answers.errors);
        }

        println!("   hardware: only nodes with sconce.dev/camera=v2, which site-b's node has");
        bed.kubectl().args(["label", "node", "site-b-1", "sconce.dev/camera=v2", "--overwrite"]).output().await?;
        let require = json!([{"key": "sconce.dev/camera", "operator": "In", "values": ["v2"]}]);
        bed.patch("em", NAMESPACE, "digits", json!({"spec": {"hardware": {"require": require}}})).await?;
        let unplaced = bed
            .until_placement("digits", "site-a", "no place for lack of the label", |found| {
                stands(found, "Placed") == "False/NoCandidate"
            })
            .await?;
        println!("   site-a: {}", why(&unplaced));
        self.report["placements"]["site-a without the label"] = json!(unplaced.status);
        println!("   the cloud node gets the label too");
        bed.kubectl().args(["label", "node", "cloud-1", "sconce.dev/camera=v2", "--overwrite"]).output().await?;
        let placed = bed.until_served("digits", "site-a", Tier::Cloud).await?;
        println!("   site-a: {}", why(&placed));

        println!("   kubectl delete em --all: everything of ours goes with it");
        bed.kubectl().args(["delete", "em", "--all", "-n", NAMESPACE, "--wait=true"]).output().await?;
        gone(bed).await?;
        println!("   no Deployment, placement or version of a model is left");
        bed.kubectl().args(["label", "node", "site-b-1", "cloud-1", "sconce.dev/camera-"]).output().await?;
        bed.apply(&root().join("examples/digits/model.yaml")).await?;
        bed.until_placement("digits", "site-a", "served again", |found| serves_from(found, Tier::Edge)).await?;
        Ok(())
    }
}

/// Waits until garbage collection has removed all that models own.
async fn gone(bed: &Bed) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(90);
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=sconce");
    loop {
        let deployments = Api::<Deployment>::namespaced(bed.client.clone(), NAMESPACE).list(&ours).await?.items.len();
        let placements = bed.placements().list(&ListParams::default()).await?.items.len();
        let models =
            Api::<EdgeModel>::namespaced(bed.client.clone(), NAMESPACE).list(&ListParams::default()).await?.items.len();
        if deployments + placements + models == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{deployments} Deployments, {placements} placements and {models} models are still there");
        }
        // Three kinds are awaited at once, and they only ever become fewer: polling is simpler than three watches.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Shows a kubectl command and what it prints.
async fn say(bed: &Bed, arguments: &[&str]) -> Result<()> {
    println!("   $ kubectl {}", arguments.join(" "));
    for line in bed.kubectl().args(arguments).output().await?.lines() {
        println!("   {line}");
    }
    Ok(())
}

fn why(placement: &EdgePlacement) -> String {
    let conditions = placement.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    sconce_e2e::condition(conditions, "Placed")
        .map(|placed| format!("{}: {}", placed.reason, placed.message))
        .unwrap_or_default()
}

fn row(answers: &Answers) -> String {
    let Answers { model, sent, failed, accuracy, p50_ms, p99_ms, .. } = answers;
    format!("{model:20} {sent:6} {:8.1} % {p50_ms:7.2} ms {p99_ms:7.2} ms {failed:7}", accuracy * 100.0)
}

fn accuracy(artifact: &Path) -> Result<Value> {
    let file = artifact.join("evaluation.json");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let evaluation: Value = serde_json::from_str(&text)?;
    let variants =
        evaluation["variants"].as_object().into_iter().flatten().map(|(name, measured)| {
            (name.clone(), json!({"test": measured["value"], "wilson95": measured["wilson95"]}))
        });
    Ok(json!({"dataset": evaluation["dataset"], "variants": variants.collect::<serde_json::Map<_, _>>()}))
}
