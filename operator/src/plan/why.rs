//! Why a place does not serve a model, in numbers: kept as values, and put into words only where somebody is told.
//! What it says has what, number, limit, basis and, where it can be computed, the next step.

use super::filter::Candidate;
use super::{AS_PREDICTED, Link, Model, ModelName, Prediction, Room, predict, text};
use sconce_api::{Basis, Reason, Requirement};
use std::fmt::{self, Display, Formatter, from_fn};

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
        others: bool,
    },
    /// More than the share of the node that our models may take.
    NoShare {
        node: &'a str,
        share_millis: u64,
        needs: Room,
        has: Room,
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

    pub fn message(&self) -> impl Display {
        from_fn(move |f| self.write(f))
    }

    fn write(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lacks = |f: &mut Formatter<'_>, needs: &dyn Display, node: &str, has: &dyn Display, others: bool| {
            write!(f, "needs {needs}, {node} has {has} left{}", if others { " by other models" } else { "" })
        };
        match *self {
            Self::Held { reason: Reason::Suspended } => {
                f.write_str("the model is suspended; nothing new comes until it is not")
            }
            Self::Held { .. } => f.write_str("the site is paused; nothing new comes until it is not"),
            Self::Excluded { what } => f.write_str(what),
            Self::NotReady { node } => write!(f, "{node} is not Ready"),
            Self::Leaving { node } => write!(f, "{node} is cordoned or about to leave"),
            Self::Lacks { node, requirement } => write!(f, "{node} lacks {}", text::requirement(requirement)),
            Self::NoOffer { message, .. } => f.write_str(message),
            Self::BelowFloor { variant, accuracy_millis, floor_millis } => {
                write!(f, "{variant} has {}, floor {}", text::percent(accuracy_millis), text::percent(floor_millis))
            }
            Self::NotEvaluated { variant, floor_millis } => {
                write!(f, "{variant} was never evaluated, floor {}", text::percent(floor_millis))
            }
            Self::NoMemory { node, needs, has, others } => {
                lacks(f, &text::mebibytes_up(needs), node, &text::mebibytes_down(has), others)
            }
            Self::NoCpu { node, needs, has, others } => {
                lacks(f, &format_args!("{needs} m"), node, &format_args!("{has} m"), others)
            }
            Self::NoStore { node, needs, has, others } => {
                let (needs, has) = (text::mebibytes_up(needs), text::mebibytes_down(has));
                let left = if others { " left by other models" } else { "" };
                write!(f, "needs {needs}, the disk of {node} has {has}{left}")
            }
            Self::NoShare { node, share_millis, needs, has } => {
                let needed = (needs.cpu_millis, text::mebibytes_up(needs.memory_bytes));
                let left = (has.cpu_millis, text::mebibytes_down(has.memory_bytes));
                let share = text::percent(share_millis);
                write!(f, "needs {} m and {}; {share} of {node} (limits.maxShare) leave ", needed.0, needed.1)?;
                write!(f, "{} m and {}", left.0, left.1)
            }
            Self::Displaced { node, by, priority } => {
                write!(f, "{} (priority {priority}) took the room on {node}", by.name)
            }
            Self::NoSpeedOfNode { node } => write!(f, "the agent of {node} has not reported its speed yet"),
            Self::NoSpeedOfClass { class } => write!(f, "no speed is known of class {class}"),
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

    pub fn message(self, model: &Model, at: &Link, candidate: &Candidate<'_>) -> impl Display {
        from_fn(move |f| {
            self.write(f, model, at, candidate)?;
            match self {
                Self::Overloaded { .. } | Self::Missed { .. } | Self::Left { .. } => Ok(()),
                _ => {
                    let least = text::two_digits_up(candidate.least_budget_us());
                    write!(f, "; would fit from a budget of {}", text::time(least))
                }
            }
        })
    }

    fn write(self, f: &mut Formatter<'_>, model: &Model, at: &Link, candidate: &Candidate<'_>) -> fmt::Result {
        let Prediction { link, transfer, queue, compute, p99_us, bound_us, basis } = &candidate.prediction;
        let budget = text::time(model.budget_us);
        match self {
            Self::Link => {
                write!(f, "round trip p99 {} alone exceeds the budget of {budget} (", text::time(link.p99_us))?;
                match link.basis {
                    Basis::Measured => write!(f, "Measured, {} probes)", text::count(text::two_digits(at.samples))),
                    basis => write!(f, "{basis})"),
                }
            }
            Self::Transfer => write!(
                f,
                "{} at {} takes {} of {budget} ({})",
                text::bytes(model.request_bytes.saturating_add(model.response_bytes)),
                text::rate(at.uplink_bits_per_second),
                text::time(transfer.p99_us),
                transfer.basis
            ),
            Self::Service => write!(
                f,
                "computing p99 {} alone exceeds the budget of {budget} ({})",
                text::time(compute.p99_us),
                compute.basis
            ),
            Self::Overloaded { busy_ppm } => write!(
                f,
                "{} replicas would be {} busy at a peak of {} of {} req/s, limit 70% ({})",
                candidate.replicas,
                text::percent(text::two_digits(busy_ppm / 10)),
                text::percent(model.peak_factor_millis),
                text::count(model.requests_per_second),
                compute.basis
            ),
            Self::Missed { p99_us: Some(waited) } => {
                write!(f, "clients have waited {} (p99) of {budget} for too long", text::time(waited))
            }
            Self::Missed { p99_us: None } => f.write_str("too many requests have failed there for too long"),
            Self::Left { seconds } => {
                write!(f, "held: left less than {} ago, four times the fleet's settle", text::seconds(seconds))
            }
            Self::Sum => {
                let (sum, us, margin) = match basis {
                    Basis::Measured => ("p99", *p99_us, "a tenth"),
                    _ => ("bound", *bound_us, "half"),
                };
                write!(
                    f,
                    "{sum} {}{} (link {}, transfer {}, queue {}, compute {}; {basis}) with a margin of {margin} exceeds the \
                     budget of {budget}",
                    text::time(us),
                    text::corrected(candidate.percent),
                    text::time(link.p99_us),
                    text::time(transfer.p99_us),
                    text::time(queue.p99_us),
                    text::time(compute.p99_us)
                )
            }
        }
    }
}
