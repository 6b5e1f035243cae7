//! Addresses in a registry. The library reads them by a regular expression: half a megabyte of code, for this.

use super::is_sha256;
use oci_client::Reference;

const NAME_MAX: usize = 255;
const TAG_MAX: usize = 128;

/// `HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`, and what everybody knows them by: without a host it is Docker's, whose own are in
/// `library`; without tag and digest it is `latest`. `None`: it is none, or its digest is no `sha256`.
pub(super) fn reference(text: &str) -> Option<Reference> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_sha256(digest) => (rest, Some(digest.to_owned())),
        Some(_) => return None,
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
        _ => (rest, None),
    };
    let (host, repository) = match name.split_once('/') {
        Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => (host, repository),
        _ => ("docker.io", name),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let is_dockers = host == "docker.io" && !repository.contains('/');
    let repository = if is_dockers { format!("library/{repository}") } else { repository.to_owned() };
    let fits = is_host(host) && repository.len() <= NAME_MAX && repository.split('/').all(is_component);
    if !fits || tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
        return None;
    }
    let host = host.to_owned();
    Some(match (tag, digest) {
        (None, None) => Reference::with_tag(host, repository, "latest".into()),
        (Some(tag), None) => Reference::with_tag(host, repository, tag),
        (None, Some(digest)) => Reference::with_digest(host, repository, digest),
        (Some(tag), Some(digest)) => Reference::with_tag_and_digest(host, repository, tag, digest),
    })
}

/// Labels between dots, and perhaps a port. Without one the library takes it for a part of a path first, which may have underscores.
fn is_host(host: &str) -> bool {
    let Some((name, port)) = host.split_once(':') else { return is_component(host) || is_name(host) };
    is_name(name) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inside = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(is_label)
}

/// Small letters and digits, and between them a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_letter = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let mut between = component.split(is_letter).filter(|between| !between.is_empty());
    component.starts_with(is_letter)
        && component.ends_with(is_letter)
        && between.all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    tag.len() <= TAG_MAX
        && tag.starts_with(is_word)
        && tag.chars().all(|letter| is_word(letter) || ".-".contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn library(text: &str) -> Option<Reference> {
        text.parse().ok()
    }

    #[test]
    fn an_address_is_read_as_the_library_reads_it() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        let exact = [format!("r.example/m@{digest}"), format!("r.example:5000/a/m:1@{digest}")];
        let good = [
            "r.example/m",
            "r.example:5000/models/digits:1.0",
            "localhost/m",
            "localhost:5000/m:V_1.2-rc",
            "a-b.example/x__y/z---1/q.r_s",
            "10.1.2.3:80/m",
            "busybox",
            "library/busybox:1",
            "docker.io/m",
            "index.docker.io/m",
            "team/m",
            "R.Example/m",
            "my_registry.example/m",
        ];
        for text in good.into_iter().chain(exact.iter().map(String::as_str)) {
            assert!(reference(text).is_some(), "{text}");
            assert_eq!(reference(text), library(text), "{text}");
        }
        let long = format!("r.example/{}", "a".repeat(256));
        let long_tag = format!("r.example/m:{}", "a".repeat(129));
        let bad = [
            "",
            "/",
            "r.example/",
            "r.example/M",
            "r.example/m:",
            "r.example/m@",
            "r.example/m@sha256:0",
            "r.example/a//b",
            "r.example:/m",
            "r.example:a/m",
            "-r.example/m",
            "r..example/m",
            "r.example/.m",
            "r.example/m.",
            "r.example/a._b",
            "r.example/m:-1",
            "r.example/m:a b",
            "r.example/m n",
            "r.example/a___b",
            "[::1]:5000/m",
            &long,
            &long_tag,
        ];
        for text in bad {
            assert_eq!((reference(text), library(text)), (None, None), "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_the_library_reads_alike(text in "[a-zA-B0-2.:/_@-]{0,16}") {
            if let Some(read) = reference(&text) {
                prop_assert_eq!(Some(read), library(&text));
            }
        }

        #[test]
        fn whatever_names_a_host_as_it_should_is_read(
            host in "[a-z0-9]{1,3}(\\.[a-z0-9]{1,3}){1,2}(:[0-9]{1,3})?", path in "[a-b0._/-]{1,8}", tag in "(:[\\-a-bA_.0]{0,4})?"
        ) {
            let text = format!("{host}/{path}{tag}");
            prop_assert_eq!(reference(&text), library(&text), "{}", text);
        }
    }
}
