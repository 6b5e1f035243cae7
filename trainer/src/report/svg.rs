//! Plots as SVG: the colours are the page's, by class, so that they are right in the light and in the dark.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 240.0;
/// Left, top, right, bottom of the plot itself.
const FRAME: [f64; 4] = [52.0, 12.0, 448.0, 206.0];
const TICKS: usize = 4;

/// A line of points `(x, y)`.
pub struct Series<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// Where values lie in the frame.
struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn around(points: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let range = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values
                .filter(|value| value.is_finite())
                .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
            match high - low {
                _ if low > high => (0.0, 1.0),
                // One value alone lies in the middle.
                0.0 => (low - 0.5, low + 0.5),
                _ => (low, high),
            }
        };
        Self { x: range(&mut points.clone().map(|(x, _)| x)), y: range(&mut points.map(|(_, y)| y)) }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let [left, top, right, bottom] = FRAME;
        let along = |value: f64, (low, high): (f64, f64)| (value - low) / (high - low);
        (left + along(x, self.x) * (right - left), bottom - along(y, self.y) * (bottom - top))
    }
}

/// Lines over a common axis, such as epochs.
pub fn lines(what: &str, below: &str, series: &[Series<'_>]) -> String {
    let axes = Axes::around(series.iter().flat_map(|series| series.points.iter().copied()));
    let mut svg = frame(what, below, &axes);
    for (index, Series { name, points }) in series.iter().enumerate() {
        let finite = points.iter().filter(|(_, y)| y.is_finite());
        let path: Vec<String> = finite.map(|point| axes.at(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        write!(svg, r#"<polyline class="line s{index}" points="{}"/>"#, path.join(" ")).ok();
        let y = FRAME[1] + 14.0 + 16.0 * index as f64;
        write!(svg, r#"<text class="name s{index}" x="{}" y="{y}" text-anchor="end">{name}</text>"#, FRAME[2] - 6.0)
            .ok();
    }
    svg + "</svg>"
}

/// Points of two measures, each with its name.
pub fn scatter(what: &str, below: &str, points: &[(String, (f64, f64))]) -> String {
    let axes = Axes::around(points.iter().map(|(_, point)| *point));
    // Some room, so that no name is cut off.
    let wider = |(low, high): (f64, f64), by: f64| (low - (high - low) * by, high + (high - low) * by);
    let axes = Axes { x: wider(axes.x, 0.2), y: wider(axes.y, 0.15) };
    let mut svg = frame(what, below, &axes);
    for (index, (name, point)) in points.iter().enumerate() {
        let (x, y) = axes.at(*point);
        write!(svg, r#"<circle class="dot s{}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#, index % 4).ok();
        write!(svg, r#"<text class="name" x="{x:.1}" y="{:.1}" text-anchor="middle">{name}</text>"#, y - 8.0).ok();
    }
    svg + "</svg>"
}

/// How often the answers of a confidence are right: bars, beside the line on which both are the same.
pub fn reliability(bars: &[(f64, f64)]) -> String {
    let axes = Axes { x: (0.0, 1.0), y: (0.0, 1.0) };
    let mut svg = frame("share of right answers", "confidence", &axes);
    let width = (FRAME[2] - FRAME[0]) / 10.0 - 4.0;
    for &(confidence, accuracy) in bars {
        let (x, y) = axes.at((confidence, accuracy));
        let height = FRAME[3] - y;
        let left = (x - width / 2.0).clamp(FRAME[0], FRAME[2] - width);
        write!(svg, r#"<rect class="bar" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#).ok();
    }
    let ((x1, y1), (x2, y2)) = (axes.at((0.0, 0.0)), axes.at((1.0, 1.0)));
    write!(svg, r#"<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#).ok();
    svg + "</svg>"
}

fn frame(what: &str, below: &str, axes: &Axes) -> String {
    let [left, top, right, bottom] = FRAME;
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{what} by {below}">"#);
    for tick in 0..=TICKS {
        let along = tick as f64 / TICKS as f64;
        let value = |(low, high): (f64, f64)| number(low + (high - low) * along, high - low);
        let (x, y) = (left + along * (right - left), bottom - along * (bottom - top));
        write!(svg, r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#).ok();
        write!(
            svg,
            r#"<text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            left - 6.0,
            y + 4.0,
            value(axes.y)
        )
        .ok();
        write!(
            svg,
            r#"<text class="tick" x="{x:.1}" y="{}" text-anchor="middle">{}</text>"#,
            bottom + 16.0,
            value(axes.x)
        )
        .ok();
    }
    write!(svg, r#"<text class="tick" x="{right}" y="{}" text-anchor="end">{below}</text>"#, bottom + 31.0).ok();
    svg
}

/// As many places as it takes to tell the ticks apart.
fn number(value: f64, range: f64) -> String {
    let places = (2.0 - range.log10()).ceil().clamp(0.0, 6.0) as usize;
    let places = if range >= TICKS as f64 { places.min(1) } else { places };
    format!("{value:.places$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_inside_the_frame_whatever_was_measured() {
        let check = |points: Vec<(f64, f64)>| {
            let svg = lines("loss", "epoch", &[Series { name: "training", points }]);
            let drawn = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
            for point in drawn.split_whitespace() {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((FRAME[0]..=FRAME[2]).contains(&x) && (FRAME[1]..=FRAME[3]).contains(&y), "{point}");
            }
        };
        check(vec![(1.0, 0.5), (2.0, 0.1), (3.0, 1e9)]);
        check(vec![(1.0, 0.5)]);
        check(vec![(1.0, f64::NAN), (2.0, 0.1), (3.0, 0.3)]);
        check(Vec::new());
    }

    #[test]
    fn ticks_are_told_apart() {
        assert_eq!(
            (number(0.985, 0.01), number(3.0, 9.0), number(1500.0, 4000.0)),
            ("0.9850".into(), "3.0".into(), "1500".into())
        );
    }
}
