//! Where batches run.

use super::Runner;
use super::owner::own;
use super::queue::Queue;
use crate::batch::Policy;
use sconce_kernels::Threads;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};

/// So long one row may take to run on a thread that reads sockets, which meanwhile reads none.
const INLINE_LIMIT: Duration = Duration::from_micros(300);

/// Where batches run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executor {
    /// On the threads that read the sockets, each a batch of its own: no request crosses to another thread, which costs two
    /// wake-ups.
    Inline,
    /// On the model's own thread, which others help.
    Thread,
}

impl Executor {
    /// For a model that takes so long for one row when it is warm.
    pub fn suited(one_row: Duration) -> Self {
        if one_row <= INLINE_LIMIT { Self::Inline } else { Self::Thread }
    }

    /// As flags and logs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Thread => "thread",
        }
    }

    /// Leaves a model the threads that it has here: inline the others have batches, and sockets, of their own.
    pub fn fit(self, runner: Runner) -> Runner {
        match self {
            Self::Inline => Runner { threads: Threads::one(), ..runner },
            Self::Thread => runner,
        }
    }

    pub(super) fn start(self, queue: &Arc<Queue>, runner: Runner, policy: Policy) -> io::Result<()> {
        let runner = Arc::new(self.fit(runner));
        match self {
            Self::Inline => {
                let runtime = Handle::try_current().map_err(io::Error::other)?;
                for _ in 0..runtime.metrics().num_workers() {
                    runtime.spawn(own(queue.clone(), runner.clone(), policy));
                }
            }
            Self::Thread => {
                let runtime = Builder::new_current_thread().enable_time().build()?;
                let owner = own(queue.clone(), runner, policy);
                std::thread::Builder::new().name("model".into()).spawn(move || runtime.block_on(owner))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_models_run_where_requests_are_read() {
        let check = |us: u64, expected: Executor| assert_eq!(Executor::suited(Duration::from_micros(us)), expected);
        check(30, Executor::Inline);
        check(300, Executor::Inline);
        check(301, Executor::Thread);
    }
}
