//! The server with its model on the threads that read the sockets, and on one of its own: nobody can tell them apart.

#![allow(clippy::unwrap_used, reason = "in tests")]
#![allow(clippy::duplicate_mod, reason = "each executor passes the same tests")]

mod common;

#[path = "on_each_executor"]
mod inline {
    const EXECUTOR: sconce_edge_runtime::engine::Executor = sconce_edge_runtime::engine::Executor::Inline;

    mod builtin;
    mod features;
    mod images;
    mod rest;
    mod sequences;
    mod serving;
    mod swapping;
    mod waiting;
    mod words;
}

#[path = "on_each_executor"]
mod thread {
    const EXECUTOR: sconce_edge_runtime::engine::Executor = sconce_edge_runtime::engine::Executor::Thread;

    mod builtin;
    mod features;
    mod images;
    mod rest;
    mod sequences;
    mod serving;
    mod swapping;
    mod waiting;
    mod words;
}
