//! What is seen of a run: the network as a table; on a terminal a bar, and an epoch as a line for people; else, an epoch as a
//! line of JSON, for programs.

use crate::fit::{Epoch, Observer};
use indicatif::{ProgressBar, ProgressStyle};
use sconce_model::graph::Graph;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Instant;

/// One row a layer, and one for all of them.
pub fn table(graph: &Graph) -> String {
    let mut table = format!("{:<16} {:<16} {:>12} {:>12}\n", "layer", "output", "parameters", "MFLOP");
    let mut row = |name: &str, shape: &str, parameters: usize, flops: u64| {
        writeln!(table, "{name:<16} {shape:<16} {parameters:>12} {:>12.3}", flops as f64 / 1e6).ok();
    };
    for node in &graph.nodes {
        let parameters = node.parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>()).sum();
        row(&node.name, &format!("{:?}", node.shape), parameters, node.flops);
    }
    row("total", "", graph.parameter_count(), graph.flops());
    table
}

/// Shows a run, and keeps its epochs.
pub struct Progress {
    bar: ProgressBar,
    epochs: usize,
    began: Instant,
    /// Epochs of an earlier process, and the batches that it has done of the next one.
    before: (usize, usize),
    /// Of an epoch.
    batches: usize,
    /// Whether a person reads the lines.
    terminal: bool,
    pub seen: Vec<Epoch>,
}

impl Progress {
    pub fn new(epochs: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len}  loss {msg}  {eta}") {
            bar.set_style(style);
        }
        Self {
            bar,
            epochs,
            began: Instant::now(),
            before: (0, 0),
            batches: 0,
            terminal: std::io::stdout().is_terminal(),
            seen: Vec::new(),
        }
    }

    /// Epochs that this process has done, of the first one its part.
    fn done(&self, number: usize) -> f64 {
        let (epochs, batches) = self.before;
        (number - epochs) as f64 - batches as f64 / self.batches.max(1) as f64
    }
}

impl Observer for Progress {
    fn resumed(&mut self, epochs: &[Epoch], epoch: usize, batch: usize) {
        println!("going on from a checkpoint: epoch {epoch}, batch {batch}");
        self.seen = epochs.to_vec();
        self.before = (epochs.len(), batch);
    }

    fn batch(&mut self, epoch: usize, batch: usize, batches: usize, loss: f32) {
        self.batches = batches;
        if batch.is_multiple_of(20) || batch == batches {
            self.bar.set_prefix(format!("epoch {epoch}/{}", self.epochs));
            self.bar.set_length(batches as u64);
            self.bar.set_message(format!("{loss:.4}"));
            self.bar.set_position(batch as u64);
        }
    }

    fn epoch(&mut self, epoch: &Epoch) {
        let left = (self.epochs - epoch.number) as f64;
        let eta = self.began.elapsed().as_secs_f64() / self.done(epoch.number) * left;
        let line =
            if self.terminal { line(epoch, self.epochs, eta) } else { json_line(epoch, self.epochs, eta).to_string() };
        self.bar.suspend(|| println!("{line}"));
        self.seen.push(*epoch);
        if epoch.number == self.epochs {
            self.bar.finish_and_clear();
        }
    }
}

fn line(epoch: &Epoch, epochs: usize, eta: f64) -> String {
    let Epoch { number, loss, accuracy, validation, validation_loss, took } = epoch;
    let accuracy = accuracy.map(|accuracy| format!("  accuracy {accuracy:.4}")).unwrap_or_default();
    let validation = match (validation, validation_loss) {
        (Some(accuracy), _) => format!("  validation {accuracy:.4}"),
        (None, Some(loss)) => format!("  validation loss {loss:.4}"),
        (None, None) => String::new(),
    };
    let took = took.as_secs_f64();
    format!("epoch {number}/{epochs}  loss {loss:.4}{accuracy}{validation}  {took:.1} s  eta {eta:.0} s")
}

/// `accuracy` is that of the validation, or where nothing was held out for it, that of training; `null` where none is known.
fn json_line(epoch: &Epoch, epochs: usize, eta: f64) -> Value {
    let Epoch { number, loss, accuracy, validation, .. } = epoch;
    let accuracy = validation.or(*accuracy);
    json!({"epoch": number, "epochs": epochs, "loss": loss, "accuracy": accuracy, "etaSeconds": eta.round()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn after_a_resume_the_time_is_that_of_what_was_done_since() {
        let mut progress = Progress::new(10);
        progress.resumed(&[], 1, 75);
        progress.batch(1, 76, 100, 0.5);
        assert_eq!([1, 3].map(|number| progress.done(number)), [0.25, 2.25]);
        let mut anew = Progress::new(10);
        anew.batch(1, 1, 100, 0.5);
        assert_eq!(anew.done(1), 1.0);
    }

    #[test]
    fn an_epoch_is_one_line() {
        let took = Duration::from_millis(12_340);
        let (validation, validation_loss) = (Some(0.979), Some(0.07));
        let mut epoch = Epoch { number: 3, loss: 0.0512, accuracy: Some(0.9841), validation, validation_loss, took };
        assert_eq!(
            line(&epoch, 10, 86.4),
            "epoch 3/10  loss 0.0512  accuracy 0.9841  validation 0.9790  12.3 s  eta 86 s"
        );
        let json = json_line(&epoch, 10, 86.4);
        assert_eq!((&json["epoch"], &json["epochs"], &json["accuracy"]), (&3.into(), &10.into(), &0.979.into()));
        assert_eq!((&json["etaSeconds"], json["loss"].is_number()), (&86.0.into(), true));
        epoch.validation = None;
        assert_eq!(
            line(&Epoch { accuracy: None, ..epoch }, 10, 86.4),
            "epoch 3/10  loss 0.0512  validation loss 0.0700  12.3 s  eta 86 s"
        );
        epoch.validation_loss = None;
        assert_eq!(line(&epoch, 10, 86.4), "epoch 3/10  loss 0.0512  accuracy 0.9841  12.3 s  eta 86 s");
    }
}
