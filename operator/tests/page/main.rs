//! The page as a browser meets it: over a real socket, with a world that the test makes up.
#![allow(clippy::unwrap_used, reason = "in tests")]

#[cfg(feature = "browser")]
mod browser;
#[cfg(feature = "browser")]
mod chromium;
mod fleet;
mod served;
mod server;
#[cfg(feature = "browser")]
#[path = "../../../e2e/src/untried.rs"]
mod untried;
