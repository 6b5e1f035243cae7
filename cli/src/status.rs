//! Fleets, their sites, and what runs there.

use crate::explain::{home, lacking, round_trip_text, time};
use crate::print::{BAD, GOOD, STRONG, styled};
use anyhow::{Result, bail};
use kube::ResourceExt as _;
use sconce_api::{EdgePlacement, RoundTrip, condition};
use sconce_operator::observe::World;
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

#[derive(Serialize)]
#[serde(transparent)]
pub struct Status(Vec<Fleet>);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fleet {
    name: String,
    sites: Vec<Site>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Site {
    name: String,
    connected: bool,
    round_trip: Option<RoundTrip>,
    models: Vec<Row>,
}

/// One model at one site.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    model: String,
    /// Where it runs; absent = nowhere.
    home: Option<String>,
    p99: Option<String>,
    budget: Option<String>,
    ready: bool,
    reason: String,
    message: String,
}

/// Of what is asked: all, or one fleet, one model.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub fleet: Option<String>,
    /// Namespace and name.
    pub model: Option<(String, String)>,
}

impl Selection {
    /// # Errors
    /// If what it names is not there.
    pub fn of(self, world: &World) -> Result<Self> {
        if let Some(fleet) =
            self.fleet.as_ref().filter(|fleet| !world.fleets.contains_key(&(String::new(), (*fleet).clone())))
        {
            bail!("there is no EdgeFleet {fleet} (kubectl get ef lists them)");
        }
        if let Some((namespace, name)) = self.model.as_ref().filter(|model| !world.models.contains_key(model)) {
            bail!(lacking(world, namespace, name));
        }
        Ok(self)
    }

    pub fn has_fleet(&self, name: &str) -> bool {
        self.fleet.as_ref().is_none_or(|fleet| fleet == name)
    }

    pub fn has_model(&self, namespace: &str, name: &str) -> bool {
        self.model.as_ref().is_none_or(|model| (model.0.as_str(), model.1.as_str()) == (namespace, name))
    }
}

pub fn status(world: &World, selection: &Selection) -> Status {
    let fleet = |name: String| Fleet { sites: sites(world, &name, selection), name };
    let fleets = world.fleets.values().map(|object| object.name_any());
    Status(fleets.filter(|name| selection.has_fleet(name)).map(fleet).collect())
}

fn sites(world: &World, fleet: &str, selection: &Selection) -> Vec<Site> {
    let of_fleet = world.sites.values().filter(|site| site.spec.fleet_ref.name == fleet);
    let site = |site: &std::sync::Arc<sconce_api::EdgeSite>| {
        let status = site.status.clone().unwrap_or_default();
        Site {
            name: site.name_any(),
            connected: condition(&status.conditions, "Connected").is_some_and(|condition| condition.status == "True"),
            round_trip: status.link.map(|link| link.round_trip),
            models: rows(world, &site.name_any(), selection),
        }
    };
    of_fleet.map(site).collect()
}

fn rows(world: &World, site: &str, selection: &Selection) -> Vec<Row> {
    let asked = |placement: &EdgePlacement| {
        selection.has_model(&placement.namespace().unwrap_or_default(), &placement.spec.model_ref.name)
    };
    let here = world.placements.values().filter(|placement| placement.spec.site_ref.name == site && asked(placement));
    here.map(|placement| row(placement)).collect()
}

fn row(placement: &EdgePlacement) -> Row {
    let status = placement.status.clone().unwrap_or_default();
    let ready = condition(&status.conditions, "Ready").cloned();
    Row {
        model: format!("{}/{}", placement.namespace().unwrap_or_default(), placement.spec.model_ref.name),
        home: status.decision.as_ref().map(home),
        p99: status.predicted.as_ref().map(|predicted| time(&predicted.p99)),
        budget: status.budget.as_ref().map(time),
        ready: ready.as_ref().is_some_and(|ready| ready.status == "True"),
        reason: ready.as_ref().map(|ready| ready.reason.clone()).unwrap_or_default(),
        message: ready.map(|ready| ready.message).unwrap_or_default(),
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            writeln!(f, "there is no EdgeFleet")?;
        }
        for fleet in &self.0 {
            let sites = fleet.sites.len();
            writeln!(f, "{}   {sites} site{}", styled(STRONG, &fleet.name), if sites == 1 { "" } else { "s" })?;
            for (i, site) in fleet.sites.iter().enumerate() {
                let last = i + 1 == fleet.sites.len();
                site.write(f, if last { ["└─", "  "] } else { ["├─", "│ "] })?;
            }
        }
        Ok(())
    }
}

impl Site {
    fn write(&self, f: &mut Formatter<'_>, [branch, trunk]: [&str; 2]) -> fmt::Result {
        let contact = if self.connected { styled(GOOD, "connected") } else { styled(BAD, "no contact") };
        let link = self.round_trip.as_ref().map_or_else(String::new, |link| format!("   {}", round_trip_text(link)));
        writeln!(f, "{branch} {}   {contact}{link}", self.name)?;
        for (i, row) in self.models.iter().enumerate() {
            let branch = if i + 1 == self.models.len() { "└─" } else { "├─" };
            writeln!(f, "{trunk} {branch} {row}")?;
        }
        Ok(())
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let home = self.home.as_deref().unwrap_or("nowhere");
        write!(f, "{}   {home}", self.model)?;
        if let (Some(p99), Some(budget)) = (&self.p99, &self.budget) {
            write!(f, "   p99 {p99} of {budget}")?;
        }
        if self.ready {
            return write!(f, "   {}", styled(GOOD, "Ready"));
        }
        write!(f, "   {} {}", styled(BAD, &self.reason), self.message)
    }
}
