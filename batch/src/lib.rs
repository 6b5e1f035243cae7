//! When to run how many requests at once, and what that makes a request wait: the policy that serves, and a table of what
//! its clients wait, made by simulating that very policy.

pub mod formula;
mod policy;
mod response;
mod table;

pub use policy::*;
pub use response::{BUSY, GAINS, Load, Response, SIZES, TAILS, UNIT, response};
