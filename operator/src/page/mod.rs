//! The page shows: fleets, their sites, what runs there and why, live. It reads; there is nothing to press.

mod details;
mod feed;
mod host;
mod server;
mod view;

pub use feed::Source;
pub use server::serve_page;
