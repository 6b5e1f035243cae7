//! The thread that loads models, one after another. It is always the same: the allocator gives it again what it freed before.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::Builder;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// Dropped, it ends once it has nothing more to do.
pub(super) struct Loader(mpsc::Sender<Work>);

impl Loader {
    /// # Errors
    /// If the system gives no thread, or there is no runtime for what is loaded to run on.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let (sender, works) = mpsc::channel::<Work>();
        Builder::new().name("loader".into()).spawn(move || {
            let _inside = runtime.enter();
            works.into_iter().for_each(|work| work());
        })?;
        Ok(Self(sender))
    }

    /// Beside the threads that read requests; `None` if it panicked, which the next does not notice.
    pub(super) async fn run<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let work = move || drop(catch_unwind(AssertUnwindSafe(run)).map(|ran| reply.send(ran)));
        self.0.send(Box::new(work)).ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told_and_the_next_is_run_by_the_same_thread() {
        let loader = Loader::start().unwrap();
        let thread = || std::thread::current().id();
        let first = loader.run(thread).await.unwrap();
        assert_eq!(
            loader
                .run(|| {
                    if true {
                        panic!("as a test")
                    }
                })
                .await,
            None
        );
        assert_eq!(loader.run(thread).await, Some(first));
    }
}
