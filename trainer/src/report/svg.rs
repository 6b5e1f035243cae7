//! Plots as SVG: the colours are the page's, by class, so that they are right in the light and in the dark.

use std::fmt::Write as _;

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 256.0;
/// Left, top, right, bottom of the plot itself.
const FRAME: [f64; 4] = [52.0, 28.0, 448.0, 222.0];
/// Of a letter of a name, about, and of a line.
const LETTER: (f64, f64) = (6.5, 13.0);
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
    let mut svg = frame(what, below, &axes, true);
    for (index, Series { name, points }) in series.iter().enumerate() {
        let finite = points.iter().filter(|(_, y)| y.is_finite());
        let path: Vec<String> = finite.map(|point| axes.at(*point)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        write!(svg, r#"<polyline class="line s{index}" points="{}"/>"#, path.join(" ")).ok();
        let (x, y) = (FRAME[2] - 90.0 * (series.len() - 1 - index) as f64, FRAME[1] - 10.0);
        write!(svg, r#"<text class="name s{index}" x="{x}" y="{y}" text-anchor="end">{name}</text>"#).ok();
    }
    svg + "</svg>"
}

/// Points of two measures, each with its name.
pub fn scatter(what: &str, below: &str, points: &[(String, (f64, f64))]) -> String {
    let axes = Axes::around(points.iter().map(|(_, point)| *point));
    // Some room, so that no name is cut off; no size and no time is below zero.
    let wider = |(low, high): (f64, f64), by: f64| (low - (high - low) * by, high + (high - low) * by);
    let (x, y) = (wider(axes.x, 0.2), wider(axes.y, 0.15));
    let axes = Axes { x: (x.0.max(0.0), x.1), y };
    let mut svg = frame(what, below, &axes, false);
    let mut named: Vec<(f64, f64, f64)> = Vec::new();
    for (index, (name, point)) in points.iter().enumerate() {
        let (x, y) = axes.at(*point);
        let (half, mut above) = (name.len() as f64 * LETTER.0 / 2.0, y - 8.0);
        // Over the names that are there already.
        while named.iter().any(|(at, up, wide)| (at - x).abs() < half + wide && (up - above).abs() < LETTER.1) {
            above -= LETTER.1;
        }
        named.push((x, above, half));
        write!(svg, r#"<circle class="dot s{}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#, index % 4).ok();
        write!(svg, r#"<text class="name" x="{x:.1}" y="{above:.1}" text-anchor="middle">{name}</text>"#).ok();
    }
    svg + "</svg>"
}

/// How often the answers of a confidence are right: bars, a tenth of confidence each, beside the line on which both are the same.
pub fn reliability(bars: &[(f64, f64)]) -> String {
    let axes = Axes { x: (0.0, 1.0), y: (0.0, 1.0) };
    let mut svg = frame("share of right answers", "confidence", &axes, false);
    let tenth = (FRAME[2] - FRAME[0]) / 10.0;
    for &(confidence, accuracy) in bars {
        let (_, y) = axes.at((confidence, accuracy));
        let (left, width, height) =
            (FRAME[0] + (confidence * 10.0).floor().min(9.0) * tenth + 2.0, tenth - 4.0, FRAME[3] - y);
        write!(svg, r#"<rect class="bar" x="{left:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#).ok();
    }
    let ((x1, y1), (x2, y2)) = (axes.at((0.0, 0.0)), axes.at((1.0, 1.0)));
    write!(svg, r#"<line class="ideal" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>"#).ok();
    svg + "</svg>"
}

/// The axes with their ticks; those of counted things, such as epochs, are whole numbers.
fn frame(what: &str, below: &str, axes: &Axes, counted: bool) -> String {
    let [left, _, right, bottom] = FRAME;
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{what} by {below}">"#);
    for tick in ticks(axes.y, false) {
        let ((_, y), label) = (axes.at((axes.x.0, tick)), number(tick, axes.y.1 - axes.y.0));
        write!(svg, r#"<line class="grid" x1="{left}" y1="{y:.1}" x2="{right}" y2="{y:.1}"/>"#).ok();
        let (x, y) = (left - 6.0, y + 4.0);
        write!(svg, r#"<text class="tick" x="{x}" y="{y:.1}" text-anchor="end">{label}</text>"#).ok();
    }
    for tick in ticks(axes.x, counted) {
        let (x, y) = (axes.at((tick, axes.y.0)).0, bottom + 16.0);
        let label = if counted { format!("{tick:.0}") } else { number(tick, axes.x.1 - axes.x.0) };
        write!(svg, r#"<text class="tick" x="{x:.1}" y="{y}" text-anchor="middle">{label}</text>"#).ok();
    }
    write!(svg, r#"<text class="tick" x="{right}" y="{}" text-anchor="end">{below}</text>"#, bottom + 31.0).ok();
    svg
}

/// From the lowest to the highest, evenly.
fn ticks((low, high): (f64, f64), whole: bool) -> Vec<f64> {
    let step = (high - low) / TICKS as f64;
    let (first, step) = if whole { (low.ceil(), step.ceil().max(1.0)) } else { (low, step) };
    (0..=TICKS).map(|tick| first + step * tick as f64).filter(|tick| *tick <= high + step * 1e-6).collect()
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

    /// A network that tells amounts may be worse than their mean.
    #[test]
    fn what_is_below_zero_lies_inside_the_frame_too() {
        let svg = scatter("r2", "KiB", &[("f32".into(), (20.0, -5.0)), ("int8".into(), (5.0, -7.0))]);
        for dot in svg.split("cy=\"").skip(1) {
            let y: f64 = dot.split('"').next().unwrap().parse().unwrap();
            assert!((FRAME[1]..=FRAME[3]).contains(&y), "{svg}");
        }
    }

    #[test]
    fn names_of_points_that_lie_together_are_all_read() {
        let points: Vec<_> = ["f32", "f16", "int8"].map(|name| (name.to_owned(), (2.0, 0.98))).to_vec();
        let svg = scatter("accuracy", "KiB", &points);
        let y = |name: &str| {
            let text = svg.split("<text class=\"name\"").find(|text| text.contains(name)).unwrap();
            text.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap()
        };
        let (first, second, third) = (y("f32"), y("f16"), y("int8"));
        assert!(first - second >= 12.9 && second - third >= 12.9, "{first} {second} {third}");
    }

    #[test]
    fn ticks_are_told_apart_and_those_of_counts_are_whole() {
        assert_eq!(ticks((1.0, 10.0), true), [1.0, 4.0, 7.0, 10.0]);
        assert_eq!(ticks((0.5, 1.5), true), [1.0], "one epoch");
        assert_eq!(ticks((1.0, 3.0), false), [1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!(
            (number(0.985, 0.01), number(3.0, 9.0), number(1500.0, 4000.0)),
            ("0.9850".into(), "3.0".into(), "1500".into())
        );
    }
}
