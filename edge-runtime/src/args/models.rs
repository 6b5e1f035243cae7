//! What `--model` names, one by one.

use super::Serve;
use crate::fetch::Source;
use sconce_registry::Keyring;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// A model of its own.
pub struct Asked {
    /// As clients ask for it.
    pub name: String,
    pub place: Place,
    /// What its manifest must be.
    pub digest: Option<String>,
}

/// Where its artifact is.
pub enum Place {
    Folder(PathBuf),
    Registry(Box<Source>),
}

impl Serve {
    /// Models that have a place of their own.
    ///
    /// # Errors
    /// If a name, or a place, is missing, or no place.
    pub fn models(&self) -> Result<Vec<Asked>, String> {
        match (&self.name, &self.model[..]) {
            (Some(name), [place]) => Ok(vec![self.asked(Some(name), place)?]),
            (Some(_), models) => {
                Err(format!("--name is of one --model, and there are {}; without it each is NAME=DIR", models.len()))
            }
            (None, models) => models.iter().map(|model| self.parted(model)).collect(),
        }
    }

    fn parted(&self, model: &str) -> Result<Asked, String> {
        match model.split_once('=') {
            _ if model.starts_with("oci://") => self.asked(None, model),
            Some((name, place)) if !name.is_empty() && !place.is_empty() => self.asked(Some(name), place),
            _ => Err(format!("--model {model}: need NAME=DIR, or --name beside it, or oci://HOST/REPOSITORY:TAG")),
        }
    }

    fn asked(&self, name: Option<&str>, place: &str) -> Result<Asked, String> {
        if !place.starts_with("oci://") {
            let (name, digest) = (name.unwrap_or_default().into(), self.digest.clone());
            return Ok(Asked { name, place: Place::Folder(place.into()), digest });
        }
        let source = Source::new(place, &self.registries.insecure_registry).map_err(|error| error.to_string())?;
        let keyring = Keyring::of_user().map_err(|error| error.to_string())?;
        let source = source.with_keyring(Arc::new(keyring));
        let digest = match (self.digest.as_deref(), source.digest()) {
            (Some(flag), Some(address)) if flag != address => {
                return Err(format!("--model {place} names another digest than --digest {flag}; give one of them"));
            }
            (flag, address) => flag.or(address).map(str::to_owned),
        };
        let name = name.unwrap_or(source.name()).to_owned();
        Ok(Asked { name, place: Place::Registry(Box::new(source)), digest })
    }

    /// Where models of registries are kept.
    ///
    /// # Errors
    /// If no folder is named, and there is no home.
    pub fn model_store(&self) -> Result<PathBuf, String> {
        let default = || cache(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir());
        let none = "models of registries need a folder to be kept in, and there is no $HOME: give --model-store DIR";
        self.model_store.clone().or_else(default).ok_or_else(|| none.into())
    }
}

/// As the XDG Base Directory specification has it: a path that is not absolute is none.
fn cache(xdg: Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let xdg = xdg.map(PathBuf::from).filter(absolute);
    let cache = xdg.or_else(|| Some(home.filter(absolute)?.join(".cache")));
    cache.map(|cache| cache.join("sconce/models"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Verb};
    use clap::Parser as _;

    /// Names, places and digests.
    fn models(args: &[&str]) -> Result<Vec<[String; 3]>, String> {
        let args = ["edge-runtime", "serve"].iter().chain(args);
        let Verb::Serve(serve) = Args::try_parse_from(args).map_err(|error| error.to_string())?.verb else {
            unreachable!("it is serve")
        };
        let told = |Asked { name, place, digest }: Asked| {
            let place = match place {
                Place::Folder(folder) => folder.display().to_string(),
                Place::Registry(source) => source.repository().to_string(),
            };
            [name, place, digest.unwrap_or_default()]
        };
        Ok(serve.models()?.into_iter().map(told).collect())
    }

    fn check(args: &[&str], expected: &[[&str; 3]]) {
        let expected: Vec<_> = expected.iter().map(|model| model.map(str::to_owned)).collect();
        assert_eq!(models(args), Ok(expected), "{args:?}");
    }

    fn refused(args: &[&str], expected: &str) {
        let told = models(args).unwrap_err();
        assert!(told.contains(expected), "{told}");
    }

    #[test]
    fn a_model_has_a_name_and_a_folder() {
        check(&["--model", "/models", "--name", "digits"], &[["digits", "/models", ""]]);
        check(&["--model", "/a=b", "--name", "digits"], &[["digits", "/a=b", ""]]);
        check(&["--model", "a=/x", "--model", "b=/y=z"], &[["a", "/x", ""], ["b", "/y=z", ""]]);
        check(&["--model-repository", "/models"], &[]);
        check(&["--test-models"], &[]);
        refused(&["--model", "/models"], "--model /models: need NAME=DIR, or --name beside it, or oci://");
        refused(&["--model", "=/models"], "--model =/models: need NAME=DIR");
        refused(&["--model", "a=/x", "--model", "b=/y", "--name", "c"], "--name is of one --model, and there are 2");
        refused(&[], "--model <NAME=DIR|oci://...>");
        refused(&["--model", "a=/x", "--load-model", "a"], "--model-repository <DIR>");
    }

    #[test]
    fn a_model_of_a_registry_has_its_repositorys_name_or_another() {
        let (digest, other) = (format!("sha256:{}", "a".repeat(64)), format!("sha256:{}", "b".repeat(64)));
        let tagged = "oci://r.example.com:5000/models/digits:1.0";
        let kept = "r.example.com:5000/models/digits:1.0";
        check(&["--model", tagged], &[["digits", kept, ""]]);
        check(&["--model", &format!("a={tagged}"), "--model", "b=/y"], &[["a", kept, ""], ["b", "/y", ""]]);
        check(&["--model", tagged, "--name", "a.b", "--digest", &digest], &[["a.b", kept, &digest]]);
        let exact = format!("oci://r.example.com/digits@{digest}");
        check(&["--model", &exact], &[["digits", &exact["oci://".len()..], &digest]]);
        check(&["--model", "oci://r.example.com/digits"], &[["digits", "r.example.com/digits:latest", ""]]);
        refused(&["--model", &exact, "--name", "a", "--digest", &other], "names another digest than --digest sha256:b");
        refused(&["--model", "oci://r.example.com/Digits:1"], "need oci://HOST/REPOSITORY");
        refused(&["--model", "a=oci://"], "need oci://HOST/REPOSITORY");
        let long = format!("oci://r.example.com/digits@sha512:{}", "a".repeat(128));
        refused(&["--model", &long], "a digest is sha256: and 64 hexadecimal digits");
    }

    #[test]
    fn models_are_kept_where_xdg_says() {
        let check = |xdg: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            assert_eq!(cache(xdg.map(Into::into), home.map(Into::into)), expected.map(Into::into), "{xdg:?} {home:?}");
        };
        check(Some("/c"), Some("/home/me"), Some("/c/sconce/models"));
        check(None, Some("/home/me"), Some("/home/me/.cache/sconce/models"));
        check(Some("c"), Some("/home/me"), Some("/home/me/.cache/sconce/models"));
        check(Some(""), Some("/home/me"), Some("/home/me/.cache/sconce/models"));
        check(None, Some(""), None);
        check(None, None, None);
    }
}
