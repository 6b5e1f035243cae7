//! What happened when, and how often the site's answers were right meanwhile: as JSON, and drawn.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(240);
const SIZE: (f64, f64) = (1020.0, 420.0);
/// Left, top, right, bottom of the plot.
const FRAME: (f64, f64, f64, f64) = (56.0, 150.0, 940.0, 380.0);
/// Between the names of two events.
const APART: f64 = 17.0;

/// A run of the client.
#[derive(Clone, Copy)]
struct Point {
    second: f64,
    /// Of images as they look once the site's world has shifted.
    shifted: bool,
    /// Share of right answers.
    right: f64,
}

pub struct Story {
    began: Instant,
    floor: f64,
    shifted: watch::Sender<bool>,
    points: watch::Sender<Vec<Point>>,
    events: watch::Sender<Vec<(f64, &'static str)>>,
    end: RefCell<Value>,
}

impl Story {
    pub fn begin(floor: f64) -> Self {
        Self {
            began: Instant::now(),
            floor,
            shifted: watch::Sender::default(),
            points: watch::Sender::default(),
            events: watch::Sender::default(),
            end: RefCell::default(),
        }
    }

    fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn has_shifted(&self) -> bool {
        *self.shifted.borrow()
    }

    pub fn happens(&self, what: &'static str) {
        let second = self.now();
        println!("{second:6.1} s: {what}");
        self.events.send_modify(|events| events.push((second, what)));
    }

    pub fn shifts(&self, what: &'static str) {
        self.happens(what);
        self.shifted.send_replace(true);
    }

    /// Returns once anything has happened.
    pub async fn begun(&self) {
        // Nobody else closes it.
        self.events.subscribe().wait_for(|events| !events.is_empty()).await.ok();
    }

    pub fn judged(&self, shifted: bool, right: f64) {
        let point = Point { second: self.now(), shifted, right };
        self.points.send_modify(|points| points.push(point));
    }

    /// Waits for a run of the client, begun from now on, whose share of right answers is as wanted. Returns it.
    pub async fn until(&self, what: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let (shifted, before) = (self.has_shifted(), self.points.borrow().len());
        let is_so = |point: &&Point| point.shifted == shifted && wanted(point.right);
        // One may have begun before.
        let find = |points: &Vec<Point>| points.iter().skip(before + 1).find(is_so).map(|point| point.right);
        let mut points = self.points.subscribe();
        let found = tokio::time::timeout(LIMIT, points.wait_for(|points| find(points).is_some())).await;
        let last = || self.points.borrow().last().map(|point| point.right);
        let found = found.with_context(|| format!("after {LIMIT:?} still not: {what}; right are {:?}", last()))??;
        find(&found).context("it was just there")
    }

    /// What came of it.
    pub fn ends(&self, end: Value) {
        self.end.replace(end);
    }

    pub fn json(&self) -> Value {
        let rounded = |number: f64| (number * 1_000.0).round() / 1_000.0;
        let point =
            |point: &Point| json!({"second": rounded(point.second), "shifted": point.shifted, "right": point.right});
        let event = |(second, what): &(f64, &str)| json!({"second": rounded(*second), "what": what});
        json!({
            "floor": self.floor,
            "end": &*self.end.borrow(),
            "events": self.events.borrow().iter().map(event).collect::<Vec<_>>(),
            "points": self.points.borrow().iter().map(point).collect::<Vec<_>>(),
        })
    }

    /// Right answers over time, the floor that they are held against, and what happened.
    pub fn svg(&self) -> String {
        let (left, top, right, bottom) = FRAME;
        let (points, events) = (self.points.borrow(), self.events.borrow());
        let last = points.last().map_or(0.0, |point| point.second);
        let end = events.last().map_or(0.0, |(second, _)| *second).max(last).max(1.0);
        let x = |second: f64| left + second / end * (right - left);
        let y = |share: f64| bottom - share * (bottom - top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Right answers at the site over time\">\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
            SIZE.0, SIZE.1
        );
        let mut line = |text: String| writeln!(svg, "{text}").ok();
        if let Some(first) = points.iter().find(|point| point.shifted) {
            let from = x(first.second);
            line(format!(
                r#"<rect class="shifted" x="{from:.1}" y="{top}" width="{:.1}" height="{:.1}"/>"#,
                right - from,
                bottom - top
            ));
        }
        for percent in [0, 25, 50, 75, 100] {
            let at = y(f64::from(percent) / 100.0);
            line(format!(
                r#"<path class="grid" d="M{left} {at:.1}H{right}"/><text x="{}" y="{:.1}" text-anchor="end">{percent} %</text>"#,
                left - 8.0,
                at + 4.0
            ));
        }
        let step = [10.0, 20.0, 30.0, 60.0, 120.0].into_iter().find(|step| end / step <= 10.0).unwrap_or(300.0);
        for tick in (0..).map(|tick| f64::from(tick) * step).take_while(|second| *second <= end) {
            line(format!(r#"<text x="{:.1}" y="{}" text-anchor="middle">{tick} s</text>"#, x(tick), bottom + 18.0));
        }
        let mut named = f64::MIN;
        for (second, what) in events.iter() {
            let at = x(*second);
            named = at.max(named + APART);
            line(format!(r#"<path class="event" d="M{at:.1} {bottom}V{top}L{named:.1} {}"/>"#, top - 14.0));
            line(format!(
                r#"<text class="what" transform="translate({:.1} {}) rotate(-45)">{what}</text>"#,
                named + 3.0,
                top - 18.0
            ));
        }
        let floor = y(self.floor);
        line(format!(
            r#"<path class="floor" d="M{left} {floor:.1}H{right}"/><text class="floor-name" x="{}" y="{:.1}" text-anchor="end">floor {:.0} %</text>"#,
            right - 4.0,
            floor + 15.0,
            self.floor * 100.0
        ));
        let path: Vec<String> =
            points.iter().map(|point| format!("{:.1},{:.1}", x(point.second), y(point.right))).collect();
        line(format!(r#"<polyline class="right" points="{}"/>"#, path.join(" ")));
        for point in points.iter() {
            line(format!(
                r#"<circle class="right-dot" cx="{:.1}" cy="{:.1}" r="2.2"/>"#,
                x(point.second),
                y(point.right)
            ));
        }
        line(format!(
            r#"<text class="title" x="{left}" y="24">Right answers at the site, of images that no run learned from</text>"#
        ));
        svg + "</svg>\n"
    }
}

const STYLE: &str = "text{font:12px sans-serif;fill:#444}.title{font-size:15px;font-weight:600;fill:#222}.ground{fill:#fff}.shifted{fill:#fbe8a6;opacity:.45}\
.grid{stroke:#ddd;fill:none}.event{stroke:#888;stroke-dasharray:2 3;fill:none}.floor{stroke:#b3261e;stroke-width:1.5;stroke-dasharray:6 4;fill:none}\
.floor-name{fill:#b3261e}.right{fill:none;stroke:#1f5fa8;stroke-width:2}.right-dot{fill:#1f5fa8}\
@media(prefers-color-scheme:dark){text{fill:#bbb}.title{fill:#eee}.ground{fill:#16181b}.shifted{fill:#6b5a17}.grid{stroke:#333}.right{stroke:#7db4f0}\
.right-dot{fill:#7db4f0}.floor{stroke:#ff8a80}.floor-name{fill:#ff8a80}}";
