//! The report as one page for people: nothing is fetched, so it is read wherever it is carried.

use super::svg::{Series, lines, reliability, scatter};
use super::{Run, of_each};
use crate::calibration::reliability as bins;
use crate::finish::{Before, Row};
use crate::gate::{PartAccuracy, Verdict};
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");

/// Whom a page is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Who has run it, and on which machine.
    OfRun,
    /// Who has the artifact that holds it: without times, addresses and what it was compared with, since its bytes repeat.
    OfArtifact,
}

pub fn page(run: &Run<'_>, reader: Reader) -> String {
    let evaluation = &run.finished.evaluation;
    let first = run.finished.rows.first();
    let (metric, value) = first.map_or(("accuracy", 0.0), |row| (&*row.measured.metric, row.measured.value));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{name}: {value:.4}</title>\n<style>{STYLE}</style>\n<h1>{name}</h1>\n",
        name = escaped(run.name)
    );
    if let Some(Row { measured, .. }) = first {
        let (low, high) = measured.wilson95;
        write!(
            page,
            "<p class=\"large\">Test {metric}: <b>{value:.4}</b> <span>95 % interval {low:.4} to {high:.4}, {} samples</span></p>\n<p>{}{}</p>\n",
            evaluation.dataset.n,
            run.refusal.map_or_else(|| "Accepted".into(), |why| format!("Not published: {}", escaped(why))),
            run.published.map(|address| format!(", published as <code>{}</code>", escaped(address))).unwrap_or_default(),
        )
        .ok();
    }
    page += &facts(run, metric, reader);
    if !run.epochs.is_empty() {
        page += &section("Epochs", &epochs(run, metric));
    }
    page += &section("Variants", &variants(run, metric, reader));
    if let Some(Row { measured, .. }) = first.filter(|row| !row.measured.confusion.is_empty()) {
        page += &section("Confusion", &confusion(&measured.confusion));
    }
    let each = first.map(|row| of_each(run.graph, &row.measured)).unwrap_or_default();
    if !each.is_empty() {
        let row = |(name, what, value): &(String, &str, f64)| {
            format!("<tr><th>{}</th><td>{what} {value:.4}</td></tr>", escaped(name))
        };
        page += &section(
            "Each on its own",
            &format!("<table class=\"facts\">{}</table>", each.iter().map(row).collect::<String>()),
        );
    }
    if let Some((row, error)) = first.and_then(|row| Some((row, row.measured.ece?))) {
        let bars: Vec<(f64, f64)> =
            bins(&row.answers).iter().filter(|bin| bin.count > 0).map(|bin| (bin.confidence, bin.accuracy)).collect();
        let error = format!("<p>Expected calibration error: {error:.4}</p>");
        page += &section("Calibration", &(error + &reliability(&bars)));
    }
    page + "</html>\n"
}

fn section(title: &str, inside: &str) -> String {
    format!("<section><h2>{title}</h2>\n{inside}\n</section>\n")
}

fn facts(run: &Run<'_>, metric: &str, reader: Reader) -> String {
    let data = &run.finished.evaluation.dataset;
    let rows = [
        ("Data", format!("{} <code>{}</code>", escaped(&data.name), escaped(&data.digest))),
        ("Samples", format!("{} to train on, {} to validate, {} to test", run.train, run.validation, data.n)),
        ("Test split read", format!("{}×", run.finished.evaluation.test_reads)),
        ("Network", format!("{} parameters, {:.2} MFLOP", run.graph.parameter_count(), run.graph.flops() as f64 / 1e6)),
    ];
    let machine = (reader == Reader::OfRun).then(|| ("Machine", super::isa().into()));
    let part = |part: &PartAccuracy| {
        let PartAccuracy { name, accuracy, count, .. } = part;
        (metric, format!("{accuracy:.4} on the {count} test samples of {}", escaped(name)))
    };
    let before = run.finished.before.iter().filter(|_| reader == Reader::OfRun);
    let before =
        before.map(|Before { uri, value }| (metric, format!("{value:.4} before, by <code>{}</code>", escaped(uri))));
    let rows = rows.into_iter().chain(machine).chain(run.finished.parts.iter().map(part)).chain(before);
    let row = |(name, value): (&str, String)| format!("<tr><th>{name}</th><td>{value}</td></tr>");
    format!("<table class=\"facts\">{}</table>\n", rows.map(row).collect::<String>())
}

fn epochs(run: &Run<'_>, metric: &str) -> String {
    let series = |name, value: &dyn Fn(&crate::fit::Epoch) -> Option<f64>| {
        let point = |epoch: &crate::fit::Epoch| value(epoch).map(|value| (epoch.number as f64, value));
        Series { name, points: run.epochs.iter().filter_map(point).collect() }
    };
    let loss = [
        series("training", &|epoch| Some(f64::from(epoch.loss))),
        series("validation", &|epoch| epoch.validation_loss),
    ];
    let mut accuracy =
        vec![series("training", &|epoch| epoch.accuracy), series("validation", &|epoch| epoch.validation)];
    accuracy.retain(|series| !series.points.is_empty());
    let figure = |title: &str, svg| format!("<figure><figcaption>{title}</figcaption>{svg}</figure>");
    let accuracy = (!accuracy.is_empty()).then(|| figure(metric, lines(metric, "epoch", &accuracy)));
    figure("loss", lines("loss", "epoch", &loss)) + &accuracy.unwrap_or_default()
}

fn variants(run: &Run<'_>, metric: &str, reader: Reader) -> String {
    let rows = &run.finished.rows;
    let Some(first) = rows.first() else { return String::new() };
    let is_timed = reader == Reader::OfRun;
    let row = |row: &Row| {
        let slower = row.slower(first);
        let (low, high) = row.measured.wilson95;
        let why = if slower > 1.0 { ", not faster here" } else { "" };
        let time = format!("<td>{:.1} µs</td><td>{slower:.2}{why}</td>", row.latency.as_secs_f64() * 1e6);
        format!(
            "<tr class=\"{}\"><th>{}</th><td>{}</td><td>{:.2}</td>{}<td>{:.4}</td><td>{low:.4}–{high:.4}</td><td class=\"why\">{}</td></tr>",
            if row.verdict.passed { "passed" } else { "failed" },
            escaped(&row.verdict.variant),
            row.bytes,
            row.bytes as f64 / first.bytes as f64,
            if is_timed { &*time } else { "" },
            row.measured.value,
            escaped(&row.verdict.reason),
        )
    };
    let columns = if is_timed { 6 } else { 4 };
    let refused = |verdict: &Verdict| {
        let Verdict { variant, reason, .. } = verdict;
        format!(
            "<tr class=\"failed\"><th>{}</th><td colspan=\"{columns}\"></td><td class=\"why\">{}</td></tr>",
            escaped(variant),
            escaped(reason)
        )
    };
    let refused: String = run.finished.refused.iter().map(refused).collect();
    let figure = |unit: &str, measure: &dyn Fn(&Row) -> f64| {
        let point = |row: &Row| (escaped(&row.verdict.variant), (measure(row), row.measured.value));
        let points: Vec<_> = rows.iter().map(point).collect();
        format!("<figure><figcaption>{metric} by {unit}</figcaption>{}</figure>", scatter(metric, unit, &points))
    };
    let time = if is_timed { "<th>one request</th><th>of f32</th>" } else { "" };
    let by_time = is_timed.then(|| figure("µs", &|row| row.latency.as_secs_f64() * 1e6));
    format!(
        "<div class=\"wide\"><table><tr><th>variant</th><th>bytes</th><th>of f32</th>{time}<th>{metric}</th><th>95 % interval</th><th>verdict</th></tr>{}{refused}</table></div>{}{}",
        rows.iter().map(row).collect::<String>(),
        figure("KiB", &|row| row.bytes as f64 / 1024.0),
        by_time.unwrap_or_default(),
    )
}

/// A row for each label, a column for each answer; the darker, the larger the share of its row.
fn confusion(counts: &[Vec<u64>]) -> String {
    let head: String = (0..counts.len()).map(|answer| format!("<th>{answer}</th>")).collect();
    let row = |(label, row): (usize, &Vec<u64>)| {
        let all = row.iter().sum::<u64>().max(1) as f64;
        let cell = |(answer, count): (usize, &u64)| {
            let class = if answer == label { "right" } else { "wrong" };
            // The square root shows what is rare.
            format!("<td class=\"{class}\" style=\"--share:{:.3}\">{count}</td>", (*count as f64 / all).sqrt())
        };
        format!("<tr><th>{label}</th>{}</tr>", row.iter().enumerate().map(cell).collect::<String>())
    };
    format!(
        "<p>Rows are labels, columns are answers.</p><div class=\"wide\"><table class=\"confusion\"><tr><th></th>{head}</tr>{}</table></div>",
        counts.iter().enumerate().map(row).collect::<String>()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
