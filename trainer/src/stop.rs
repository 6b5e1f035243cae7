//! SIGTERM and Ctrl-C: while a network learns, they ask it to keep a checkpoint and end; at any other time they end the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::signal::unix::{SignalKind, signal};

/// As a shell has it of SIGTERM.
const EXIT: i32 = 143;

pub struct Stop {
    pub asked: Arc<AtomicBool>,
    learning: Arc<AtomicBool>,
}

/// Listens from now on.
///
/// # Errors
/// If signals cannot be listened to.
pub fn on_signal() -> io::Result<Stop> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = Stop { asked: Arc::default(), learning: Arc::default() };
    let (asked, learning) = (stop.asked.clone(), stop.learning.clone());
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                // The second time, nobody wants to wait.
                if asked.swap(true, SeqCst) || !learning.load(SeqCst) {
                    std::process::exit(EXIT);
                }
            }
        });
    })?;
    Ok(stop)
}

impl Stop {
    /// Meanwhile a signal only asks.
    pub fn during<T>(&self, learn: impl FnOnce() -> T) -> T {
        self.learning.store(true, SeqCst);
        let learned = learn();
        self.learning.store(false, SeqCst);
        learned
    }
}
