//! The loop: a site's world shifts (all is brighter and noisier, and strokes are thicker), its answers get worse, its node tells that the
//! model drifts, people label what it sent and what a camera there saw, a run learns from that, and its answers are good again. And labels
//! by lot, from which nothing is deployed. What was seen is in `target/e2e`: `loop.json` and `loop.svg`.

mod broker;
#[path = "../../../../examples/digits/client/src/shift.rs"]
mod shift;
mod story;
mod truth;

use crate::lake::{Lake, VARIABLES};
use crate::suite::{bed, training};
use anyhow::{Context as _, Result, bail, ensure};
use broker::Broker;
use kube::api::Api;
use sconce_api::{EdgeNode, EdgeTraining, RunState, Tier, condition};
use sconce_e2e::{Bed, ClientRun, Command, NAMESPACE, Training, figures, placement_name};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use story::Story;
use tempfile::TempDir;
use truth::{Truth, lot};

const NAME: &str = "shifted";
const SITE: &str = "site-b";
const NODE: &str = "site-b-1";
const EDGE_NODES: usize = 2;
const LIMIT: Duration = Duration::from_secs(300);
/// Share of right answers that is good enough.
const FLOOR: f64 = 0.9;
/// Of the client's images: what people label truly; those of them that no model was asked, since a camera sent them; what somebody
/// labels by lot; and what the answers are judged by, of which no run learns.
const TRUE: Range<usize> = 0..250;
const OF_CAMERA: Range<usize> = 0..60;
const BY_LOT: Range<usize> = 250..375;
const JUDGED: Range<usize> = 375..500;

fn dataset() -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: lake, namespace: {NAMESPACE}}}
stringData: {}
---
apiVersion: sconce.dev/v1alpha1
kind: EdgeDataset
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  fleetRef: {{name: shops}}
  uri: 's3://lake/{NAME}'
  kind: Image
  sources: [{{mqtt: {{broker: '{}', topic: '{}'}}}}]
  privacy: {{policy: Raw}}
  upload: {{delay: 1s}}
",
        Value::from_iter(VARIABLES),
        broker::ADDRESS,
        broker::HEARD,
    )
}

/// The world must be another, and people must have said what it is.
const BY_DRIFT: &str = "{drift: {}, minNew: 120}";
const BY_SAMPLES: &str = "{samples: {new: 120}}";

fn recipe(base: &str, trigger: &str) -> String {
    format!(
        "apiVersion: sconce.dev/v1alpha1
kind: EdgeTraining
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  dataset:
    ref: {{name: {NAME}}}
    secretRef: {{name: lake}}
    mix: [{{uri: 'synthetic:digits', format: idx}}]
  base: {{uri: '{base}', freeze: None}}
  fit: {{epochs: 4, batchSize: 32, optimizer: {{adam: {{learningRate: 0.001}}}}, seed: 7}}
  compress: {{variants: [f16, int8], maxAccuracyDrop: 2%}}
  accept: {{minAccuracy: 90%, improveBy: 0%}}
  trigger: {trigger}
  output: {{uri: 'oci://10.89.0.1:5000/models/{NAME}'}}
  run: {{resources: {{cpu: '1', memory: 1Gi}}}}
"
    )
}

fn model(source: &Value) -> String {
    json!({
        "apiVersion": "sconce.dev/v1alpha1", "kind": "EdgeModel", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "fleetRef": {"name": "shops"}, "model": source, "latencyBudget": "3s", "accuracyFloor": "90%",
            "placement": {"tier": "Edge"}, "collect": {"datasetRef": {"name": NAME}, "share": "100%"},
        },
    })
    .to_string()
}

#[tokio::test]
async fn a_model_learns_the_shifted_world_of_its_site_and_nothing_from_labels_by_lot() -> Result<()> {
    let bed = bed().await?;
    let Some(lake) = Lake::open(&bed).await? else { return Ok(()) };
    let Some(broker) = Broker::found(&bed)? else { return Ok(()) };
    let story = Story::begin(FLOOR);
    let outcome = tokio::select! {
        asked = asked_for_ever(&bed, &story) => asked,
        told = from_shift_to_labels_by_lot(&bed, &lake, &broker, &story) => told,
    };
    bed.kubectl().args(["delete", "em,et,ed", NAME, "-n", NAMESPACE, "--ignore-not-found"]).output().await?;
    bed.kubectl().args(["delete", "secret", "lake", "-n", NAMESPACE]).output().await?;
    let folder = figures("e2e");
    std::fs::create_dir_all(&folder)?;
    let (figures, drawn) = (story.json(), story.svg());
    std::fs::write(folder.join("loop.json"), format!("{figures:#}\n"))?;
    std::fs::write(folder.join("loop.svg"), &drawn)?;
    outcome?;
    let of = |list: &str| figures[list].as_array().into_iter().flatten();
    ensure!(drawn.matches("<circle").count() == of("points").count() && of("points").any(|it| it["shifted"] == true));
    ensure!(
        of("events").count() > 4 && of("events").all(|it| it["what"].as_str().is_some_and(|it| drawn.contains(it)))
    );
    Ok(())
}

/// The site's client, while all this happens.
async fn asked_for_ever(bed: &Bed, story: &Story) -> Result<()> {
    story.begun().await;
    loop {
        let shifted = story.has_shifted();
        let run = ClientRun::of(&asked()).images(JUDGED).shifted(shifted).rate(60).count(JUDGED.len() as u64);
        let answers = bed.ask(NODE, &run).await?;
        ensure!(answers.failed == 0, "{answers:?}");
        story.judged(shifted, answers.accuracy);
    }
}

fn asked() -> String {
    format!("{NAME}.{NAMESPACE}")
}

async fn from_shift_to_labels_by_lot(bed: &Bed, lake: &Lake, broker: &Broker, story: &Story) -> Result<()> {
    let Training { artifact, held_out } = training();
    let hurried = hurried(&artifact).await?;
    let first = bed.publish(hurried.path(), &format!("models/{NAME}:1.0.0")).await?;
    let base = format!("{}@{first}", Bed::model_uri(&format!("models/{NAME}")));
    let dataset = dataset();
    let (_running, _) = tokio::try_join!(broker.heard_by(EDGE_NODES), bed.apply_text(&dataset))?;
    bed.apply_text(&model(&json!({"uri": base}))).await?;
    bed.until_served(NAME, SITE, Tier::Edge).await?;
    bed.apply_text(&recipe(&base, BY_DRIFT)).await?;
    // From now on what its training publishes; until there is something, what it has.
    bed.apply_text(&model(&json!({"trainingRef": {"name": NAME}, "promotion": "Automatic"}))).await?;
    story.happens("the model is served");
    let before = story.until("the answers are good at first", |right| right >= FLOOR).await?;

    until_waits_for_drift(bed).await?;

    story.shifts("the world shifts");
    let shifted = story.until("the answers get worse", |right| right < FLOOR).await?;
    let truth = Truth::read(&held_out)?;
    broker.publish(OF_CAMERA.map(|image| truth.picture(image))).await?;
    let rest = OF_CAMERA.end..BY_LOT.end;
    let seen = ClientRun::of(&asked()).images(rest.clone()).shifted(true).rate(60).count(rest.len() as u64);
    ensure!(bed.ask(NODE, &seen).await?.failed == 0);
    let folder = tempfile::tempdir()?;
    let samples = exported(bed, lake, &truth, folder.path()).await?;
    ensure_heard_once(lake).await?;
    story.happens("samples have arrived");

    let table = folder.path().join("labels.csv");
    let of = |images: Range<usize>| samples.iter().filter(move |(_, image, _)| images.contains(image));
    truth::table(&table, of(TRUE).map(|(id, _, digit)| (id, *digit)))?;
    import(bed, lake, &table, "ann", TRUE.len()).await?;
    story.happens("true labels by CSV");
    until_drift_is_told(bed).await?;
    story.happens("drift is told");
    let run = bed.until_run(NAME, 0, "a run learns from them", |run| run.state == RunState::Running).await?;
    story.happens("a run begins");
    let learned = bed.until_run(NAME, 0, "it has learned", |run| run.state.is_over()).await?;
    ensure!(learned.state == RunState::Succeeded && learned.name == run.name, "{learned:?}");
    story.happens("accepted, published");
    let published = learned.artifact.clone().context("what succeeded is published")?;
    let after = story.until("the answers are good again", |right| right >= FLOOR).await?;
    bed.until_follows(NAME, &published).await?;
    let placed = version(bed).await?;
    story.happens("right again");

    // The new version knows the new world: it does not drift, and what comes now is asked for by its number.
    bed.apply_text(&recipe(&base, BY_SAMPLES)).await?;
    truth::table(&table, of(BY_LOT).map(|(id, image, digit)| (id, lot(*image, *digit))))?;
    import(bed, lake, &table, "carl", BY_LOT.len()).await?;
    story.happens("labels by lot");
    let refused = bed.until_run(NAME, 1, "a run has learned from these", |run| run.state.is_over()).await?;
    ensure!(refused.state == RunState::Rejected && refused.artifact.is_none(), "{refused:?}");
    story.happens("not accepted");
    println!("{:?}", refused.message);
    bed.until_follows(NAME, &published).await?;
    ensure!(version(bed).await? == placed, "another version is placed than {placed}");
    let still = story.until("the answers stay good", |right| right >= FLOOR).await?;

    println!(
        "right at the site: {before:.3}, after the shift {shifted:.3}, learned {after:.3}, after labels by lot {still:.3}"
    );
    let shares = json!({"before": before, "shifted": shifted, "learned": after, "afterLabelsByLot": still});
    story.ends(json!({"right": shares, "runs": [learned, refused]}));
    Ok(())
}

/// A copy whose windows end once they have answers enough, however short they were: drift is told within a minute. The client asks the
/// same 125 images again and again, of which a window of 500 answers is spread as widely as one of 125: twice as far.
async fn hurried(artifact: &Path) -> Result<TempDir> {
    let copy = tempfile::tempdir()?;
    Command::new("cp").arg("-r").arg(artifact.join(".")).arg(copy.path()).output().await?;
    let file = copy.path().join("variants.json");
    let mut variants: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
    for variant in variants["variants"].as_array_mut().context("an artifact has variants")? {
        let reference = &mut variant["reference"];
        *reference.get_mut("seconds").context("of each it is known what it said")? = json!(1);
        for of in ["/classes", "/confidence", "/inputs/means/expected", "/inputs/deviations/expected"] {
            if let Some(limit) = reference.pointer_mut(&format!("{of}/limit")) {
                *limit = json!(limit.as_f64().context("a limit is a number")? * 2.0);
            }
        }
    }
    std::fs::write(file, variants.to_string())?;
    Ok(copy)
}

async fn until_waits_for_drift(bed: &Bed) -> Result<()> {
    let trainings: Api<EdgeTraining> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let waits = |found: Option<&EdgeTraining>| {
        let status = found.and_then(|training| training.status.as_ref());
        let told = status.and_then(|status| condition(&status.conditions, "Training"));
        told.is_some_and(|told| {
            told.reason == "WaitingForDrift" && told.message == format!("no node tells that {NAME} drifts")
        })
    };
    bed.until(&trainings, NAME, "the recipe waits for drift", LIMIT, waits).await.map(drop)
}

async fn until_drift_is_told(bed: &Bed) -> Result<()> {
    let nodes: Api<EdgeNode> = Api::all(bed.client.clone());
    let drifts = |found: Option<&EdgeNode>| {
        let mut models = found.and_then(|node| node.status.as_ref()).into_iter().flat_map(|status| &status.models);
        models.any(|model| model.name == NAME && model.drifted > 0)
    };
    bed.until(&nodes, NODE, "its node tells that the model drifts", LIMIT, drifts).await.map(drop)
}

async fn data(bed: &Bed, lake: &Lake, args: &[&Path]) -> Result<String> {
    lake.sconce(bed)?.arg("data").args(args).args(["-n", NAMESPACE]).output().await
}

/// What has arrived, once each image that is to be labelled is there: id, number of the image, digit.
async fn exported(bed: &Bed, lake: &Lake, truth: &Truth, folder: &Path) -> Result<Vec<(String, usize, u8)>> {
    lake.rows_until(NAME, |rows| !rows.is_empty()).await?;
    let all: BTreeSet<usize> = (0..BY_LOT.end).collect();
    let exporting = async {
        for number in 0.. {
            let to = folder.join(format!("out-{number}"));
            let told = data(bed, lake, &["export".as_ref(), NAME.as_ref(), "--to".as_ref(), &to]).await?;
            let shown = truth.shown(&to)?;
            if all.is_subset(&shown.iter().map(|(_, image, _)| *image).collect()) {
                println!("{told}");
                return Ok(shown);
            }
        }
        bail!("they are numbered for ever")
    };
    tokio::time::timeout(LIMIT, exporting).await.context("not all samples have arrived")?
}

/// Each picture of the camera is one sample, of one node.
async fn ensure_heard_once(lake: &Lake) -> Result<()> {
    let mut rows = lake.rows_until(NAME, |rows| !rows.is_empty()).await?;
    rows.retain(|row| row.source.starts_with("mqtt:"));
    let ids: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    ensure!(ids.len() == OF_CAMERA.len() && rows.len() == ids.len(), "{rows:?}");
    ensure!(rows.iter().all(|row| row.media == "png" && row.model.is_none()), "{rows:?}");
    let nodes: BTreeSet<_> = rows.iter().filter_map(|row| row.node(NAME)).collect();
    ensure!(nodes.len() == EDGE_NODES, "all of them went to {nodes:?}");
    println!("{} pictures of the camera, taken by {nodes:?}", rows.len());
    Ok(())
}

/// Each of them is new, and the dataset counts it.
async fn import(bed: &Bed, lake: &Lake, labels: &Path, by: &str, count: usize) -> Result<()> {
    let told = data(bed, lake, &["import".as_ref(), NAME.as_ref(), labels, "--by".as_ref(), by.as_ref()]).await?;
    println!("{told}");
    let kept = format!("{count} labels are kept in ");
    ensure!(told.starts_with(&kept) && told.contains(&format!(", {count} of them of samples that had none")), "{told}");
    Ok(())
}

/// The version that is placed at the site.
async fn version(bed: &Bed) -> Result<String> {
    Ok(bed.placements().get(&placement_name(NAME, SITE)).await?.spec.version_ref.name)
}
