//! How the objects that we make are called.

use sha2::{Digest, Sha256};

/// The first `digits` of a text's SHA-256.
pub fn short_hash(text: &str, digits: usize) -> String {
    let mut hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

/// The EdgePlacement of a model at a site, and its Deployment at the edge.
pub fn placement(model: &str, site: &str) -> String {
    format!("{model}-{}", short_hash(site, 8))
}

/// The pool of one version and variant in the cloud.
pub fn pool(model: &str, digest: &str, variant: &str) -> String {
    format!("{model}-cloud-{}", short_hash(&format!("{digest}{variant}"), 8))
}

/// The EdgeModelVersion of an artifact; `r1` = the first revision of how we read it.
pub fn version(model: &str, digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    format!("{model}-{}-r1", hex.get(..10).unwrap_or(hex))
}

/// The Job of a training's next run: of the same recipe it may run again, after the run named `before`.
pub fn run(training: &str, uid: &str, recipe: &str, before: &str) -> String {
    format!("{training}-{}", short_hash(&format!("{uid}/{recipe}/{before}"), 8))
}

/// A label's value as the name of an EdgeSite: itself if it is a DNS label, else made one, with a hash.
pub fn site(value: &str) -> String {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = value.len() <= 63
        && !value.is_empty()
        && value.chars().all(inside)
        && !value.starts_with('-')
        && !value.ends_with('-');
    if is_label { value.to_owned() } else { site_hashed(value, "") }
}

/// A name for a label's value whose own name cannot be had.
pub fn site_hashed(value: &str, fleet: &str) -> String {
    let lower = value.to_ascii_lowercase();
    let mut stem: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    stem.truncate(54);
    let stem = match stem.trim_matches('-') {
        "" => "site",
        stem => stem,
    };
    format!("{stem}-{}", short_hash(&format!("{fleet}/{value}"), 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_the_same_each_time() {
        assert_eq!(placement("digits", "munich"), format!("digits-{}", short_hash("munich", 8)));
        assert_eq!(version("digits", "sha256:0123456789abcdef"), "digits-0123456789-r1");
        assert_ne!(pool("digits", "sha256:00", "f32"), pool("digits", "sha256:00", "int8"));
        assert_eq!(run("digits", "u", "r", ""), run("digits", "u", "r", ""));
        assert_ne!(run("digits", "u", "r", ""), run("digits", "u", "r", "digits-1"));
        assert!(pool(&"m".repeat(40), "sha256:00", "f32").len() <= 63);
        assert!(version(&"m".repeat(40), "sha256:0123456789abcdef").len() <= 63);
    }

    #[test]
    fn a_site_is_named_as_its_label_where_that_is_a_name() {
        assert_eq!(site("munich-1"), "munich-1");
        for odd in ["Munich_1", "a.b", "-x", "x-", "___", &"z".repeat(64)] {
            let name = site(odd);
            assert_eq!(site(&name), name, "{odd} → {name}");
            assert_ne!(name, odd);
        }
        assert_ne!(site_hashed("a", "f"), site_hashed("a", "g"));
    }
}
