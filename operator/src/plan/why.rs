//! Why a place does not serve a model, in numbers: kept as values, and put into words only where somebody is told.
//! What it says has what, number, limit, basis and, where it can be computed, the next step.

use super::filter::Candidate;
use super::{AS_PREDICTED, Link, Model, ModelName, Prediction, Resources, predict, text};
use sconce_api::{Basis, Reason, Requirement};

/// The first filter that a place fails, whatever the model's speed there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Failure<'a> {
    /// The model, or else the site, is held as it is.
    Held {
        reason: Reason,
    },
    /// `what` excludes the tier.
    Excluded {
        what: &'a str,
    },
    NotReady {
        node: &'a str,
    },
    Leaving {
        node: &'a str,
    },
    Lacks {
        node: &'a str,
        requirement: &'a Requirement,
    },
    /// The cloud offers nothing; decided and told at the fleet's level.
    NoOffer {
        reason: Reason,
        message: &'a str,
    },
    BelowFloor {
        variant: &'a str,
        accuracy_millis: u64,
        floor_millis: u64,
    },
    NotEvaluated {
        variant: &'a str,
        floor_millis: u64,
    },
    NoMemory {
        node: &'a str,
        needs: u64,
        has: u64,
        others: bool,
    },
    NoCpu {
        node: &'a str,
        needs: u64,
        has: u64,
        others: bool,
    },
    NoStore {
        node: &'a str,
        needs: u64,
        has: u64,
    },
    /// More than the share of the node that our models may take.
    NoShare {
        node: &'a str,
        share_millis: u64,
        needs: Resources,
        has: Resources,
    },
    /// There would be room, if more important models had not taken it.
    Displaced {
        node: &'a str,
        by: &'a ModelName,
        priority: i32,
    },
    NoSpeedOfNode {
        node: &'a str,
    },
    NoSpeedOfClass {
        class: &'a str,
    },
}

impl Failure<'_> {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Held { reason } => *reason,
            Self::Excluded { .. } => Reason::TierExcluded,
            Self::NotReady { .. } => Reason::NodeNotReady,
            Self::Leaving { .. } => Reason::NodeLeaving,
            Self::Lacks { .. } => Reason::HardwareMismatch,
            Self::NoOffer { reason, .. } => *reason,
            Self::BelowFloor { .. } => Reason::BelowAccuracyFloor,
            Self::NotEvaluated { .. } => Reason::AccuracyUnknown,
            Self::NoMemory { .. } => Reason::InsufficientMemory,
            Self::NoCpu { .. } => Reason::InsufficientCpu,
            Self::NoStore { .. } => Reason::InsufficientStore,
            Self::NoShare { .. } => Reason::ShareExceeded,
            Self::Displaced { .. } => Reason::Displaced,
            Self::NoSpeedOfNode { .. } | Self::NoSpeedOfClass { .. } => Reason::NoProfile,
        }
    }

    pub fn message(&self) -> String {
        let lacks = |needs: String, node: &str, has: String, others: bool| {
            format!("needs {needs}, {node} has {has} left{}", if others { " by other models" } else { "" })
        };
        match *self {
            Self::Held { reason: Reason::Suspended } => {
                "the model is suspended; nothing new comes until it is not".into()
            }
            Self::Held { .. } => "the site is paused; nothing new comes until it is not".into(),
            Self::Excluded { what } => what.to_owned(),
            Self::NotReady { node } => format!("{node} is not Ready"),
            Self::Leaving { node } => format!("{node} is cordoned or about to leave"),
            Self::Lacks { node, requirement } => format!("{node} lacks {}", text::requirement(requirement)),
            Self::NoOffer { message, .. } => message.to_owned(),
            Self::BelowFloor { variant, accuracy_millis, floor_millis } => {
                format!("{variant} has {}, floor {}", text::percent(accuracy_millis), text::percent(floor_millis))
            }
            Self::NotEvaluated { variant, floor_millis } => {
                format!("{variant} was never evaluated, floor {}", text::percent(floor_millis))
            }
            Self::NoMemory { node, needs, has, others } => {
                lacks(text::mebibytes_up(needs), node, text::mebibytes_down(has), others)
            }
            Self::NoCpu { node, needs, has, others } => lacks(format!("{needs} m"), node, format!("{has} m"), others),
            Self::NoStore { node, needs, has } => {
                format!("needs {}, the disk of {node} has {}", text::mebibytes_up(needs), text::mebibytes_down(has))
            }
            Self::NoShare { node, share_millis, needs, has } => {
                let both = |amount: Resources, memory: fn(u64) -> String| {
                    format!("{} m and {}", amount.cpu_millis, memory(amount.memory_bytes))
                };
                let (needs, has) = (both(needs, text::mebibytes_up), both(has, text::mebibytes_down));
                format!("needs {needs}; {} of {node} (limits.maxShare) leave {has}", text::percent(share_millis))
            }
            Self::Displaced { node, by, priority } => {
                format!("{} (priority {priority}) took the room on {node}", by.name)
            }
            Self::NoSpeedOfNode { node } => format!("the agent of {node} has not reported its speed yet"),
            Self::NoSpeedOfClass { class } => format!("no speed is known of class {class}"),
        }
    }
}

/// The first of the budget's filters that a place fails. It still serves where nothing is faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slow {
    Link,
    Transfer,
    Service,
    Overloaded {
        busy_ppm: u64,
    },
    Sum,
    /// Not predicted: its clients have waited too long for too long.
    Missed {
        p99_us: Option<u64>,
    },
    /// It was left too lately to be returned to: a model stays away for so long.
    Left {
        seconds: u64,
    },
}

impl Slow {
    /// As predicted, and corrected by so many percent.
    pub fn of(model: &Model, prediction: &Prediction, busy_ppm: u64, percent: u64) -> Option<Self> {
        let budget = model.budget_us;
        let is_late = predict::ratio(predict::least_budget_us(prediction), percent, AS_PREDICTED) > budget;
        // The way is this site's own, and measured: what others tell shortens it for nobody.
        if prediction.link.p99_us > budget {
            Some(Self::Link)
        } else if prediction.transfer.p99_us >= budget {
            Some(Self::Transfer)
        } else if !is_late {
            (busy_ppm > predict::BUSY_LIMIT_PPM).then_some(Self::Overloaded { busy_ppm })
        } else if prediction.compute.p99_us > budget {
            Some(Self::Service)
        } else if busy_ppm > predict::BUSY_LIMIT_PPM {
            Some(Self::Overloaded { busy_ppm })
        } else {
            Some(Self::Sum)
        }
    }

    pub fn reason(self) -> Reason {
        match self {
            Self::Link => Reason::LinkTooSlow,
            Self::Transfer => Reason::TransferTooSlow,
            Self::Service => Reason::ServiceTooSlow,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::Sum => Reason::OverBudget,
            Self::Missed { p99_us: Some(_) } => Reason::OverBudget,
            Self::Missed { p99_us: None } => Reason::Failing,
            Self::Left { .. } => Reason::KeptByStability,
        }
    }

    pub fn message(self, model: &Model, at: &Link, candidate: &Candidate<'_>) -> String {
        let Prediction { link, transfer, queue, compute, p99_us, bound_us, basis } = &candidate.prediction;
        let budget = text::time(model.budget_us);
        let what = match self {
            Self::Link => {
                let basis = match link.basis {
                    Basis::Measured => format!("Measured, {} probes", text::count(text::two_digits(at.samples))),
                    basis => basis.to_string(),
                };
                format!("round trip p99 {} alone exceeds the budget of {budget} ({basis})", text::time(link.p99_us))
            }
            Self::Transfer => format!(
                "{} at {} takes {} of {budget} ({})",
                text::bytes(model.request_bytes.saturating_add(model.response_bytes)),
                text::rate(at.uplink_bits_per_second),
                text::time(transfer.p99_us),
                transfer.basis
            ),
            Self::Service => format!(
                "computing p99 {} alone exceeds the budget of {budget} ({})",
                text::time(compute.p99_us),
                compute.basis
            ),
            Self::Overloaded { busy_ppm } => {
                return format!(
                    "{} replicas would be {} busy at a peak of {} of {} req/s, limit 70% ({})",
                    candidate.replicas,
                    text::percent(text::two_digits(busy_ppm / 10)),
                    text::percent(model.peak_factor_millis),
                    text::count(model.requests_per_second),
                    compute.basis
                );
            }
            Self::Missed { p99_us: Some(waited) } => {
                return format!("clients have waited {} (p99) of {budget} for too long", text::time(waited));
            }
            Self::Missed { p99_us: None } => return "too many requests have failed there for too long".into(),
            Self::Left { seconds } => {
                return format!("held: left less than {} ago, four times the fleet's settle", text::seconds(seconds));
            }
            Self::Sum => {
                let (sum, margin) = match basis {
                    Basis::Measured => (format!("p99 {}", text::time(*p99_us)), "a tenth"),
                    _ => (format!("bound {}", text::time(*bound_us)), "half"),
                };
                let corrected = text::corrected(candidate.percent);
                format!(
                    "{sum}{corrected} (link {}, transfer {}, queue {}, compute {}; {basis}) with a margin of {margin} exceeds the \
                     budget of {budget}",
                    text::time(link.p99_us),
                    text::time(transfer.p99_us),
                    text::time(queue.p99_us),
                    text::time(compute.p99_us)
                )
            }
        };
        let least = candidate.least_budget_us();
        format!("{what}; would fit from a budget of {}", text::time(text::two_digits_up(least)))
    }
}
