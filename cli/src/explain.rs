//! Why a model is where it is: the decision as the operator recorded it. Nothing is decided a second time.

use crate::inputs::{Inputs, inputs};
use crate::print::{BAD, GOOD, STRONG, columns, styled};
use anyhow::{Result, bail};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use sconce_api::{
    Amount, Basis, Decision, DurationText, EdgeModel, EdgePlacement, Percent, Prediction, Reason, Rejection, RoundTrip,
    Term, VariantFacts,
};
use sconce_operator::observe::{Placement, World};
use sconce_operator::plan::text;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

#[derive(Serialize)]
#[serde(transparent)]
pub struct Explanations(Vec<Explanation>);

/// One model at one site.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    namespace: String,
    model: String,
    site: String,
    budget: Option<DurationText>,
    accuracy_floor: Option<Percent>,
    decision: Option<Decision>,
    predicted: Option<Prediction>,
    cost: Option<Amount>,
    /// Of the variant that was chosen.
    variant: Option<VariantFacts>,
    rejected: Vec<Rejection>,
    inputs: Inputs,
    conditions: Vec<Condition>,
}

pub fn explain(world: &World, namespace: &str, model: &str, site: Option<&str>) -> Result<Explanations> {
    let Some(object) = world.models.get(&(namespace.to_owned(), model.to_owned())) else {
        bail!(lacking(world, namespace, model));
    };
    let mine = |placement: &&Placement| {
        placement.namespace().as_deref() == Some(namespace)
            && placement.spec.model_ref.name == model
            && site.is_none_or(|site| placement.spec.site_ref.name == site)
    };
    let mut placements: Vec<_> = world.placements.values().map(AsRef::as_ref).filter(mine).collect();
    placements.sort_by_key(|placement| &placement.spec.site_ref.name);
    if placements.is_empty() {
        let conditions = object.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let of_model = conditions.iter().filter(|condition| condition.type_ != "Ready").find(|c| c.status != "True");
        let why = of_model.map_or_else(|| "nothing is decided yet".into(), |c| format!("{}: {}", c.reason, c.message));
        match site {
            Some(site) if !world.sites.contains_key(&(String::new(), site.to_owned())) => {
                bail!("there is no EdgeSite {site} (kubectl get es lists them)")
            }
            Some(site) => {
                bail!("{namespace}/{model} has no placement at {site}: it does not select the site, or {why}")
            }
            None => bail!("{namespace}/{model} has no placement: {why}"),
        }
    }
    Ok(Explanations(placements.into_iter().map(|placement| explanation(world, object, placement)).collect()))
}

/// That there is no such model, and where one of its name is.
pub fn lacking(world: &World, namespace: &str, model: &str) -> String {
    let homonyms = world.models.keys().filter(|(_, name)| name == model);
    let elsewhere: Vec<_> = homonyms.map(|(namespace, _)| namespace.as_str()).collect();
    match elsewhere.as_slice() {
        [] => format!("there is no EdgeModel {model} (kubectl get em -A lists them)"),
        [one] => format!("there is no EdgeModel {model} in {namespace}, but in {one}: give -n {one}"),
        _ => format!("there is no EdgeModel {model} in {namespace}, but in {}", elsewhere.join(", ")),
    }
}

fn explanation(world: &World, model: &EdgeModel, placement: &EdgePlacement) -> Explanation {
    let status = placement.status.clone().unwrap_or_default();
    let site = placement.spec.site_ref.name.clone();
    let namespace = placement.namespace().unwrap_or_default();
    let version = world.versions.get(&(namespace.clone(), placement.spec.version_ref.name.clone()));
    let variants = version.and_then(|version| version.status.as_ref()).map(|status| status.variants.as_slice());
    let chosen = status.decision.as_ref().map(|decision| &decision.variant);
    Explanation {
        namespace,
        model: model.name_any(),
        budget: status.budget,
        accuracy_floor: model.spec.accuracy_floor.clone(),
        variant: variants.unwrap_or_default().iter().find(|variant| Some(&variant.name) == chosen).cloned(),
        decision: status.decision,
        predicted: status.predicted,
        cost: status.cost,
        rejected: status.rejected,
        inputs: inputs(world, placement, version.map(AsRef::as_ref)),
        site,
        conditions: status.conditions,
    }
}

impl Display for Explanations {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, explanation) in self.0.iter().enumerate() {
            write!(f, "{}{explanation}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { namespace, model, site, .. } = self;
        writeln!(f, "{}", styled(STRONG, format!("{namespace}/{model} at {site}")))?;
        match &self.decision {
            Some(decision) => self.chosen(f, decision)?,
            None => writeln!(f, "  {} no place", styled(BAD, "✗"))?,
        }
        let rejected: Vec<_> = self
            .rejected
            .iter()
            .map(|Rejection { candidate, reason, message }| {
                vec![format!("  {} {candidate}", styled(BAD, "✗")), reason.clone(), message.clone()]
            })
            .collect();
        f.write_str(&columns(&rejected))?;
        write!(f, "{}", self.inputs)?;
        for condition in self.conditions.iter().filter(|condition| is_news(condition)) {
            let Condition { type_, status, reason, message, .. } = condition;
            writeln!(f, "  {type_}={status} {reason}: {message}")?;
        }
        Ok(())
    }
}

impl Explanation {
    fn chosen(&self, f: &mut Formatter<'_>, decision: &Decision) -> fmt::Result {
        write!(f, "  {} {}", styled(GOOD, "✓"), styled(STRONG, home(decision)))?;
        if decision.replicas > 1 {
            write!(f, " ×{}", decision.replicas)?;
        }
        write!(f, "   {}", decision.reason)?;
        if let Some(accuracy) = self.variant.as_ref().and_then(|variant| variant.accuracy.as_ref()) {
            let floor = self.accuracy_floor.as_ref().map_or_else(String::new, |floor| format!(" ≥ {floor}"));
            write!(f, "   accuracy {accuracy}{floor}")?;
        }
        if let Some(cost) = self.cost.as_ref().and_then(|cost| cost.millis()) {
            write!(f, "   {}", text::cost(cost))?;
        }
        writeln!(f, "   since {}", decision.since.0)?;
        if let Some(predicted) = &self.predicted {
            let budget = self.budget.as_ref().map_or_else(String::new, |budget| format!(" of {}", time(budget)));
            writeln!(
                f,
                "    p99 {}{budget}, bound {}: {}",
                time(&predicted.p99),
                time(&predicted.bound),
                terms(predicted)
            )?;
        }
        Ok(())
    }
}

/// What is wrong, under way or held back; what is as it would best be is not told.
fn is_news(condition: &Condition) -> bool {
    const HELD: [Reason; 3] = [Reason::KeptByStability, Reason::MovesCapped, Reason::MassChangeHeld];
    match condition.type_.as_str() {
        "Ready" => false,
        "Placed" if HELD.iter().any(|held| condition.reason == held.as_str()) => true,
        "Reconciling" | "Stalled" => condition.status == "True",
        _ => condition.status != "True",
    }
}

/// `edge/int8 on gw-a`.
pub fn home(decision: &Decision) -> String {
    text::place(decision.tier, decision.nodes.first().map(String::as_str), &decision.variant)
}

fn terms(prediction: &Prediction) -> String {
    let Prediction { link, transfer, queue, compute, .. } = prediction;
    let named = [("link", link), ("transfer", transfer), ("queue", queue), ("compute", compute)];
    let term =
        |(name, term): &(&str, &Term)| format!("{name} {} {}", time(&term.p99), term.basis.to_string().to_lowercase());
    named.iter().map(term).collect::<Vec<_>>().join(" · ")
}

pub fn round_trip_text(round_trip: &RoundTrip) -> String {
    let RoundTrip { p50, p99, samples, basis } = round_trip;
    let p99 = p99.as_ref().map_or_else(String::new, |p99| format!(", p99 {}", time(p99)));
    let probes = match basis {
        Basis::Measured => format!(", {} probes", text::count(u64::try_from(*samples).unwrap_or(0))),
        _ => String::new(),
    };
    format!("round trip p50 {}{p99} ({basis}{probes})", time(p50))
}

/// `1900us` as `1.9 ms`.
pub fn time(duration: &DurationText) -> String {
    duration.parse().map_or_else(
        || duration.to_string(),
        |time| text::time(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)).to_string(),
    )
}
