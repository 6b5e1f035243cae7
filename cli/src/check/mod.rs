//! Whether a cluster has what Sconce needs, and Sconce is there as it should be: facts in, findings out.

mod ask;
mod before;
mod definitions;
mod installed;
#[cfg(test)]
mod tests;

pub use ask::{ask_before, ask_installed};
pub use before::before;
pub use installed::installed;

use crate::print::{BAD, DOUBTFUL, GOOD, STRONG, styled};
use serde::Serialize;
use std::fmt::{self, Display, Formatter};

/// What was asked, or why there is no answer.
type Asked<T> = Result<T, String>;

#[derive(Serialize, Debug)]
pub struct Report {
    findings: Vec<Finding>,
    failed: usize,
}

#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// It may be meant so.
    Doubtful,
    Failed,
}

#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `kubernetes`, `rights`, ...
    about: &'static str,
    outcome: Outcome,
    /// What is so, and where it is not as it should be, why.
    message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Finding {
    fn passed(about: &'static str, message: impl Into<String>) -> Self {
        Self { about, outcome: Outcome::Passed, message: message.into(), next: None }
    }

    fn doubtful(about: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { about, outcome: Outcome::Doubtful, message: message.into(), next: Some(next.into()) }
    }

    fn failed(about: &'static str, message: impl Into<String>, next: impl Into<String>) -> Self {
        Self { about, outcome: Outcome::Failed, message: message.into(), next: Some(next.into()) }
    }
}

impl Report {
    pub fn new(findings: Vec<Finding>) -> Self {
        let failed = findings.iter().filter(|finding| finding.outcome == Outcome::Failed).count();
        Self { findings, failed }
    }

    pub fn is_good(&self) -> bool {
        self.failed == 0
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut about = "";
        for finding in &self.findings {
            if finding.about != about {
                about = finding.about;
                writeln!(f, "{}", styled(STRONG, about))?;
            }
            let mark = match finding.outcome {
                Outcome::Passed => styled(GOOD, "✓"),
                Outcome::Doubtful => styled(DOUBTFUL, "!"),
                Outcome::Failed => styled(BAD, "✗"),
            };
            writeln!(f, "  {mark} {}", finding.message)?;
            if let Some(next) = &finding.next {
                writeln!(f, "    next: {next}")?;
            }
        }
        let count = self.findings.len();
        writeln!(f, "{}", styled(STRONG, format!("{} of {count} checks failed", self.failed)))
    }
}
