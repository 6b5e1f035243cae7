//! A span for each request for inference, told by OTLP: in builds with the feature `otlp`, where the environment names an
//! endpoint. Others do nothing here.

#[cfg(not(feature = "otlp"))]
mod none;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(not(feature = "otlp"))]
pub use none::{Exporter, asked, door, layer, warn};
#[cfg(feature = "otlp")]
pub use otlp::{Exporter, asked, door, layer, warn};

/// Whether the environment, read by `variable`, names where spans are sent to.
fn endpoint(variable: impl Fn(&str) -> Option<String>) -> bool {
    let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let says = |name: &str, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
    let off = says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none");
    !off && (set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") || set("OTEL_EXPORTER_OTLP_ENDPOINT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_without_an_endpoint() {
        let check = |set: &[(&str, &str)], expected: bool| {
            let variable =
                |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(endpoint(variable), expected, "{set:?}");
        };
        let here = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4317");
        check(&[], false);
        check(&[("OTEL_SERVICE_NAME", "shop")], false);
        check(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], false);
        check(&[here], true);
        check(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://localhost:4317")], true);
        check(&[here, ("OTEL_TRACES_EXPORTER", "none")], false);
        check(&[here, ("OTEL_TRACES_EXPORTER", "otlp")], true);
        check(&[here, ("OTEL_SDK_DISABLED", "True")], false);
    }
}
