//! The log's level, which clients may change while the server runs: Triton's logging extension.
//!
//! The extension has a switch for each level; here a level includes those above it, so only that is taken.

use crate::request::Parameter;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use thiserror::Error;
use tracing::level_filters::LevelFilter;

/// As messages have them, by name.
pub type Settings = BTreeMap<String, Parameter>;

type Apply = Box<dyn Fn(LevelFilter) -> Result<(), String> + Send + Sync>;

/// What is logged, and how that is changed.
pub struct Logs {
    level: Mutex<LevelFilter>,
    apply: Apply,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum LogsError {
    #[error("clients cannot change the log here; start the server with --model-control-mode explicit")]
    Denied,
    #[error(
        "\"{name}\" is no setting of the log that can be changed; log_error, log_warning, log_info and log_verbose_level are"
    )]
    Unknown { name: String },
    #[error("\"{name}\" needs {need}")]
    Value { name: String, need: &'static str },
    #[error(
        "a level is logged with all above it: log_verbose_level, log_info, log_warning, log_error; switch off the lower first"
    )]
    Gap,
    #[error("the log did not change: {why}")]
    Failed { why: String },
}

impl Logs {
    /// Of a log at this level, which `apply` changes.
    pub fn new(level: LevelFilter, apply: impl Fn(LevelFilter) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { level: Mutex::new(level), apply: Box::new(apply) }
    }

    /// As they are.
    pub fn settings(&self) -> Settings {
        told(*self.level.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that are not named stay.
    ///
    /// # Errors
    /// [`LogsError`] says what can be changed; nothing is then.
    pub fn change(&self, wanted: &Settings) -> Result<(), LogsError> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let next = changed(*level, wanted)?;
        (self.apply)(next).map_err(|why| LogsError::Failed { why })?;
        *level = next;
        Ok(())
    }
}

impl Default for Logs {
    /// Of a log that is somebody else's.
    fn default() -> Self {
        Self::new(LevelFilter::INFO, |_| Err("this process does not own it".into()))
    }
}

/// The levels that have a switch, and the name of each.
const SWITCHES: [(LevelFilter, &str); 3] =
    [(LevelFilter::ERROR, "log_error"), (LevelFilter::WARN, "log_warning"), (LevelFilter::INFO, "log_info")];
const VERBOSE: &str = "log_verbose_level";
/// What is not chosen here, as it is.
const FIXED: [(&str, &str); 2] = [("log_file", ""), ("log_format", "default")];

fn told(level: LevelFilter) -> Settings {
    let switches = SWITCHES.map(|(of, name)| (name.to_owned(), Parameter::Bool(of <= level)));
    let fixed = FIXED.map(|(name, value)| (name.to_owned(), Parameter::Text(value.into())));
    let verbose = match level {
        LevelFilter::TRACE => 2,
        LevelFilter::DEBUG => 1,
        _ => 0,
    };
    switches.into_iter().chain(fixed).chain([(VERBOSE.to_owned(), Parameter::Uint(verbose))]).collect()
}

fn changed(level: LevelFilter, wanted: &Settings) -> Result<LevelFilter, LogsError> {
    let mut settings = told(level);
    for (name, value) in wanted {
        let value = match value {
            Parameter::Int(number) => u64::try_from(*number).map_or_else(|_| value.clone(), Parameter::Uint),
            value => value.clone(),
        };
        let need = match (settings.get(name), &value) {
            (None, _) => return Err(LogsError::Unknown { name: name.clone() }),
            (Some(fixed @ Parameter::Text(_)), value) if fixed != value => {
                return Err(LogsError::Unknown { name: name.clone() });
            }
            (Some(Parameter::Bool(_)), Parameter::Bool(_)) | (Some(Parameter::Text(_)), _) => None,
            (Some(Parameter::Bool(_)), _) => Some("true or false"),
            (Some(_), Parameter::Uint(_)) => None,
            (Some(_), _) => Some("a whole number from 0"),
        };
        if let Some(need) = need {
            return Err(LogsError::Value { name: name.clone(), need });
        }
        settings.insert(name.clone(), value);
    }
    let verbose = match settings.get(VERBOSE) {
        Some(Parameter::Uint(0)) | None => None,
        Some(Parameter::Uint(1)) => Some(LevelFilter::DEBUG),
        Some(_) => Some(LevelFilter::TRACE),
    };
    let on = |name: &str| settings.get(name) == Some(&Parameter::Bool(true));
    let switched = SWITCHES.iter().rev().find(|(_, name)| on(name)).map(|(level, _)| *level);
    let level = verbose.or(switched).unwrap_or(LevelFilter::OFF);
    if SWITCHES.iter().all(|(of, name)| on(name) == (*of <= level)) { Ok(level) } else { Err(LogsError::Gap) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings<const N: usize>(of: [(&str, Parameter); N]) -> Settings {
        of.map(|(name, value)| (name.to_owned(), value)).into()
    }

    #[test]
    fn switches_and_verbosity_make_a_level() {
        use Parameter::{Bool, Int, Text, Uint};
        let check = |from: LevelFilter, wanted: Settings, expected: Result<LevelFilter, &str>| {
            let got = changed(from, &wanted).map_err(|error| error.to_string());
            match expected {
                Ok(level) => assert_eq!(got, Ok(level), "{wanted:?}"),
                Err(why) => assert!(got.as_ref().is_err_and(|told| told.contains(why)), "{wanted:?}: {got:?}"),
            }
        };
        let info = LevelFilter::INFO;
        check(info, settings([]), Ok(info));
        check(info, settings([("log_verbose_level", Uint(1))]), Ok(LevelFilter::DEBUG));
        check(info, settings([("log_verbose_level", Int(7))]), Ok(LevelFilter::TRACE));
        check(LevelFilter::TRACE, settings([("log_verbose_level", Uint(0))]), Ok(info));
        check(info, settings([("log_info", Bool(false))]), Ok(LevelFilter::WARN));
        check(LevelFilter::WARN, settings([("log_info", Bool(true)), ("log_file", Text(String::new()))]), Ok(info));
        check(LevelFilter::ERROR, settings([("log_error", Bool(false))]), Ok(LevelFilter::OFF));
        check(info, settings([("log_error", Bool(false))]), Err("switch off the lower first"));
        check(LevelFilter::DEBUG, settings([("log_info", Bool(false))]), Err("switch off the lower first"));
        check(info, settings([("log_verbose_level", Int(-1))]), Err("needs a whole number from 0"));
        check(info, settings([("log_info", Uint(1))]), Err("\"log_info\" needs true or false"));
        check(info, settings([("log_file", Text("/x".into()))]), Err("\"log_file\" is no setting of the log that can"));
        check(info, settings([("colour", Bool(true))]), Err("\"colour\" is no setting"));
    }

    #[test]
    fn what_was_changed_is_told() {
        let applied = std::sync::Arc::new(Mutex::new(Vec::new()));
        let seen = applied.clone();
        let logs = Logs::new(LevelFilter::INFO, move |level| {
            seen.lock().unwrap().push(level);
            Ok(())
        });
        logs.change(&settings([("log_verbose_level", Parameter::Uint(2))])).unwrap();
        assert_eq!(logs.settings()["log_verbose_level"], Parameter::Uint(2));
        assert_eq!(*applied.lock().unwrap(), [LevelFilter::TRACE]);
        assert!(Logs::default().change(&settings([])).unwrap_err().to_string().contains("does not own it"));
    }
}
