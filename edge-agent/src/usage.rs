//! What others take of the node: busy cores of all that is no model of ours, over an hour, and memory.

use crate::metrics::Metrics;
use crate::round::two_digits;
use crate::router;
use crate::watch::Here;
use sconce_api::{Amount, NodeUsage};
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// The kernel's unit in `/proc/stat`: `USER_HZ` is 100 on every architecture that we build for.
const TICK: Duration = Duration::from_millis(10);
/// So far back busy cores are remembered.
const HOUR: Duration = Duration::from_secs(3600);
/// Of so few their 95th percentile is the largest.
const LEAST_SAMPLES: usize = 20;
/// Where the server of a model tells its CPU time.
const MODEL_METRICS: u16 = 8002;

/// Busy cores, in thousandths, the oldest first.
#[derive(Default)]
struct Window(VecDeque<u64>);

impl Window {
    fn push(&mut self, millis: u64, capacity: usize) {
        while self.0.len() >= capacity.max(LEAST_SAMPLES) {
            self.0.pop_front();
        }
        self.0.push_back(millis);
    }

    fn p95(&self) -> Option<u64> {
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied().filter(|_| sorted.len() >= LEAST_SAMPLES)
    }
}

/// CPU time at one moment: of the whole node, and of the models' servers here by their address.
#[derive(Clone, Debug)]
struct Reading {
    at: Instant,
    node: Duration,
    models: BTreeMap<IpAddr, Duration>,
}

/// Thousandths of a core that others kept busy between two readings. A server that was read once only, or has started anew,
/// counts among the others for that time.
fn busy_of_others(before: &Reading, now: &Reading) -> Option<u64> {
    let models = now.models.iter().filter_map(|(address, now)| now.checked_sub(*before.models.get(address)?));
    let others = now.node.checked_sub(before.node)?.saturating_sub(models.sum());
    let elapsed = now.at.duration_since(before.at).as_micros().max(1);
    u64::try_from(others.as_micros() * 1_000 / elapsed).ok()
}

/// Time that the node's CPUs have worked since it started, from `/proc/stat`: all but idle and waiting for disks. What a
/// hypervisor takes away is as busy. Guests are in `user`.
fn node_cpu(stat: &str) -> Option<Duration> {
    let fields = stat.lines().find_map(|line| line.strip_prefix("cpu "))?.split_ascii_whitespace();
    let ticks: Vec<u64> = fields.take(8).map_while(|ticks| ticks.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { return None };
    TICK.checked_mul(u32::try_from(user + nice + system + irq + softirq + steal).ok()?)
}

/// Bytes that the node has in use, from `/proc/meminfo`.
fn memory_used(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(kib("MemTotal")?.saturating_sub(kib("MemAvailable")?) * 1024)
}

/// CPU time of a server, from its metrics.
fn server_cpu(metrics: &str) -> Option<Duration> {
    let seconds = metrics.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "))?;
    Duration::try_from_secs_f64(seconds.split_ascii_whitespace().next()?.parse().ok()?).ok()
}

fn usage(window: &Window, memory_used: u64) -> Option<NodeUsage> {
    let mebibytes = two_digits(memory_used >> 20);
    Some(NodeUsage {
        cpu_busy_p95: Amount(format!("{}m", two_digits(window.p95()?))),
        memory_used: Amount(format!("{mebibytes}Mi")),
    })
}

/// Reads for ever, each `pace`. While a model is being measured here nothing counts: that is soon over.
pub async fn read(
    pace: Duration,
    here: watch::Receiver<Option<Here>>,
    measuring: impl Fn() -> bool,
    told: watch::Sender<Option<NodeUsage>>,
    metrics: Metrics,
) {
    let capacity = usize::try_from(HOUR.as_secs() / pace.as_secs().max(1)).unwrap_or(LEAST_SAMPLES);
    let (mut window, mut before, mut was_measuring) = (Window::default(), None, true);
    let mut tick = interval_at(Instant::now() + pace, pace);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let client = router::client();
    loop {
        tick.tick().await;
        let addresses = here.borrow().as_ref().map(|here| here.servers.clone()).unwrap_or_default();
        let mut models = BTreeMap::new();
        for address in addresses {
            let uri = format!("http://{}/metrics", std::net::SocketAddr::new(address, MODEL_METRICS));
            let text = match uri.parse() {
                Ok(uri) => router::text_within(&client, &uri).await.ok(),
                Err(_) => None,
            };
            models.extend(text.as_deref().and_then(server_cpu).map(|cpu| (address, cpu)));
        }
        let files = std::fs::read_to_string("/proc/stat").ok().zip(std::fs::read_to_string("/proc/meminfo").ok());
        let Some((node, memory)) = files.and_then(|(stat, memory)| node_cpu(&stat).zip(memory_used(&memory))) else {
            tracing::debug!("/proc/stat or /proc/meminfo cannot be read");
            continue;
        };
        let now = Reading { at: Instant::now(), node, models };
        let is_measuring = measuring();
        if let Some(before) = before.filter(|_| !is_measuring && !was_measuring)
            && let Some(busy) = busy_of_others(&before, &now)
        {
            metrics.others_busy(busy);
            window.push(busy, capacity);
        }
        (before, was_measuring) = (Some(now), is_measuring);
        if let Some(usage) = usage(&window, memory) {
            told.send_replace(Some(usage));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_and_waiting_for_disks_is_not_busy() {
        let stat = "cpu  100 20 30 9000 500 4 6 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n";
        assert_eq!(node_cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!((node_cpu("cpu 1 2\n"), node_cpu("")), (None, None));
        assert_eq!(memory_used("MemTotal: 4000 kB\nMemFree: 1 kB\nMemAvailable:  3000 kB\n"), Some(1000 * 1024));
        let metrics = "# TYPE process_cpu_seconds counter\nprocess_cpu_seconds_total 12.5\n# EOF\n";
        assert_eq!(server_cpu(metrics), Some(Duration::from_millis(12_500)));
    }

    #[test]
    fn models_are_not_others() {
        let at = Instant::now();
        let reading = |after: u64, node: u64, models: &[(&str, u64)]| Reading {
            at: at + Duration::from_secs(after),
            node: Duration::from_secs(node),
            models: models.iter().map(|(ip, cpu)| (ip.parse().unwrap(), Duration::from_secs(*cpu))).collect(),
        };
        let before = reading(0, 100, &[("10.0.0.1", 50), ("10.0.0.2", 7)]);
        assert_eq!(busy_of_others(&before, &reading(10, 115, &[])), Some(1500));
        assert_eq!(busy_of_others(&before, &reading(10, 115, &[("10.0.0.1", 54)])), Some(1100));
        // One that started anew, and one that nobody has read before, are among the others.
        assert_eq!(busy_of_others(&before, &reading(10, 115, &[("10.0.0.2", 2), ("10.0.0.3", 4)])), Some(1500));
        assert_eq!(busy_of_others(&before, &reading(10, 99, &[])), None, "the node has started anew");
    }

    #[test]
    fn the_hour_is_told_from_twenty_samples_on() {
        let mut window = Window::default();
        (0..19).for_each(|_| window.push(200, 240));
        assert_eq!(usage(&window, 1 << 30), None);
        window.push(2_000, 240);
        let expected = NodeUsage { cpu_busy_p95: "200m".into(), memory_used: "1000Mi".into() };
        assert_eq!(usage(&window, 1 << 30), Some(expected));
        (0..240).for_each(|_| window.push(1_149, 240));
        assert_eq!(usage(&window, 0).unwrap().cpu_busy_p95, "1100m".into());
        assert_eq!(window.0.len(), 240);
    }
}
