//! Threads that help with one kernel at a time: awake for 20 µs after their last work, then parked.
//!
//! Work is split by its size, never by the number of threads; but where tasks make again what others make, too, there are no more of
//! them than threads (`conv_depthwise.rs`). No bit depends on it.

use std::any::Any;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Waking a parked thread takes longer than this; the next kernel of a model mostly comes sooner.
const SPIN: Duration = Duration::from_micros(20);

/// The gate's bits: which job it is, whether workers may enter, how many are inside.
const EPOCH: u64 = 1 << 32;
const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

/// The caller and its helpers.
#[derive(Debug)]
pub struct Threads {
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    /// A kernel is running; another one meanwhile runs on its caller alone.
    busy: AtomicBool,
}

#[derive(Debug)]
struct State {
    gate: AtomicU64,
    job: AtomicPtr<Job<'static>>,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
}

struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn work(&self) {
        loop {
            let task = self.next.fetch_add(1, Relaxed);
            if task >= self.tasks {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.task)(task))) {
                self.next.store(self.tasks, Relaxed);
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
        }
    }
}

impl Threads {
    /// `count` threads, the caller's own among them.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn new(count: usize) -> io::Result<Self> {
        let helpers = count.saturating_sub(1);
        let state = Arc::new(State {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            parked: (0..helpers).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
        });
        let mut threads = Self { state, workers: Vec::with_capacity(helpers), busy: AtomicBool::new(false) };
        for index in 0..helpers {
            let state = Arc::clone(&threads.state);
            let worker =
                thread::Builder::new().name(format!("kernels-{}", index + 1)).spawn(move || state.serve(index))?;
            threads.workers.push(worker);
        }
        Ok(threads)
    }

    /// As many as the process may run at once: its CPUs, or the whole CPUs of its cgroup's quota where that is less. More would
    /// be throttled.
    ///
    /// # Errors
    /// If the system gives no more threads.
    pub fn available() -> io::Result<Self> {
        // The standard library reads the quotas of cgroup v1 and v2, rounded down, and the affinity.
        Self::new(thread::available_parallelism().map_or(1, |count| count.get()))
    }

    /// The caller alone.
    pub fn one() -> Self {
        let state = State {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(ptr::null_mut()),
            parked: Vec::new(),
            stop: AtomicBool::new(false),
        };
        Self { state: Arc::new(state), workers: Vec::new(), busy: AtomicBool::new(false) }
    }

    pub fn count(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(tasks - 1)`, in any order, and returns when all are done.
    ///
    /// # Panics
    /// If a task does, with what it said; tasks not yet begun are then dropped.
    pub fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() || self.busy.swap(true, Acquire) {
            return (0..tasks).for_each(task);
        }
        let job = Job { task, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        self.state.job.store(ptr::from_ref(&job).cast::<Job<'static>>().cast_mut(), Relaxed);
        let epoch = (self.state.gate.load(Relaxed) / EPOCH).wrapping_add(1);
        self.state.gate.store(epoch.wrapping_mul(EPOCH) | OPEN, SeqCst);
        for (parked, worker) in self.state.parked.iter().zip(&self.workers).take(tasks - 1) {
            if parked.swap(false, SeqCst) {
                worker.thread().unpark();
            }
        }
        job.work();
        // Nobody enters any more; who is inside still reads the job. Who was not awake in time is not waited for.
        self.state.gate.fetch_and(!OPEN, AcqRel);
        let mut spins = 0;
        while self.state.gate.load(Acquire) & INSIDE != 0 {
            spins += 1;
            if spins < 1000 { std::hint::spin_loop() } else { thread::yield_now() }
        }
        self.busy.store(false, Release);
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        for worker in &self.workers {
            worker.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // Workers catch what their tasks panic with.
            let _ = worker.join();
        }
    }
}

impl State {
    fn serve(&self, index: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.enter(index, seen) {
            // SAFETY: the job outlives its callers' wait for the gate to be empty, and this worker is inside.
            unsafe { &*self.job.load(Relaxed) }.work();
            self.gate.fetch_sub(1, Release);
            seen = epoch;
        }
    }

    /// Waits for a job other than `seen`, and goes in; `None` is the end.
    fn enter(&self, index: usize, seen: u64) -> Option<u64> {
        let is_news = |gate: u64| gate & OPEN != 0 && gate / EPOCH != seen;
        let mut awake_since = Instant::now();
        while !self.stop.load(SeqCst) {
            let gate = self.gate.load(Acquire);
            if is_news(gate) {
                if self.gate.compare_exchange_weak(gate, gate + 1, AcqRel, Relaxed).is_ok() {
                    return Some(gate / EPOCH);
                }
            } else if awake_since.elapsed() < SPIN {
                (0..16).for_each(|_| std::hint::spin_loop());
            } else {
                // Either the caller sees the flag, or this sees the caller's job: both are `SeqCst`.
                self.parked[index].store(true, SeqCst);
                if !is_news(self.gate.load(SeqCst)) {
                    thread::park();
                }
                self.parked[index].store(false, SeqCst);
                awake_since = Instant::now();
            }
        }
        None
    }
}

/// A slice of which several threads write disjoint parts.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    values: PhantomData<&'a mut [T]>,
}

// SAFETY: `part` leaves it to its callers that no two have the same part.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), values: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// # Safety
    /// `range` lies inside, and nobody else has any of it.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the callers' parts are disjoint")]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        debug_assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: the caller's promise; the whole is borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for count in [1, 2, 5] {
            let threads = Threads::new(count).unwrap();
            for tasks in [0, 1, 2, 3, 100] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                threads.run(tasks, &|task| {
                    runs[task].fetch_add(1, Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Relaxed) == 1), "{count} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn panic_in_a_task_reaches_the_caller_and_the_next_kernel_runs() {
        let threads = Threads::new(2).unwrap();
        for _ in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                threads.run(8, &|task| assert!(task != 5, "task five"));
            }));
            let panic = caught.unwrap_err();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"task five"));
        }
        every_task_runs_once();
    }

    #[test]
    fn kernels_at_the_same_time_and_within_one_another_all_end() {
        let threads = Threads::new(3).unwrap();
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        threads.run(3, &|_| {
                            threads.run(2, &|_| {
                                done.fetch_add(1, Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 4 * 500 * 3 * 2);
    }

    #[test]
    fn idle_threads_park() {
        let threads = Threads::new(2).unwrap();
        threads.run(2, &|_| ());
        let since = Instant::now();
        while !threads.state.parked[0].load(SeqCst) {
            assert!(since.elapsed() < Duration::from_secs(10), "still awake");
            thread::yield_now();
        }
        every_task_runs_once();
    }
}
