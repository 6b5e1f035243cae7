//! The closed table of reasons: conditions, decisions and messages use no others.

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Why a condition or a decision is as it is.
        #[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// Every reason with its meaning, in the order of the table.
            pub const ALL: &[(Reason, &str)] = &[$((Reason::$name, concat!($($doc),+)),)+];

            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)+ }
            }
        }
    };
}

reasons! {
    // Ready
    /// All that was asked for holds.
    Ready,
    // Resolved
    /// The artifact was found and read.
    Resolved,
    /// The floor lies inside the accuracy's interval.
    AccuracyUncertain,
    /// The registry has no such artifact.
    ArtifactMissing,
    /// Bytes do not match their digest.
    DigestMismatch,
    /// The version is not signed by a key that the fleet trusts, or was changed since.
    SignatureInvalid,
    /// The artifact's network has layers that this version does not know, or is no model of ours.
    UnknownArchitecture,
    /// The registry cannot be reached.
    RegistryUnreachable,
    /// The registry does not let us in: a name and a password are missing, cannot be read, or are wrong.
    Unauthorized,
    /// There is no such EdgeTraining.
    TrainingNotFound,
    /// The EdgeTraining has published nothing yet.
    NotPublished,
    /// The EdgeTraining has published a model that nobody has promoted.
    NotPromoted,
    // Placed: filters, in their order
    /// It is suspended: a model keeps what it has, and nothing new comes; no run begins.
    Suspended,
    /// The site is paused: what it has stays, and nothing new comes.
    SitePaused,
    /// The model's placement excludes the tier.
    TierExcluded,
    /// What the model sees must stay at the site: the dataset that it is collected for is not Raw, or not there.
    DataMustStay,
    /// The node is not Ready.
    NodeNotReady,
    /// The node is cordoned or about to leave.
    NodeLeaving,
    /// The node lacks a label that the model requires.
    HardwareMismatch,
    /// The variant's accuracy is below the floor.
    BelowAccuracyFloor,
    /// The variant was never evaluated, and there is a floor.
    AccuracyUnknown,
    /// The node has too little memory left.
    InsufficientMemory,
    /// The node has too little CPU left.
    InsufficientCpu,
    /// The node's disk is too small for the model's bytes.
    InsufficientStore,
    /// The node has room, but not within the share of it that the fleet's models may take.
    ShareExceeded,
    /// The node's agent has not reported its speed yet.
    NoProfile,
    /// The round trip alone exceeds the budget.
    LinkTooSlow,
    /// Sending the bytes alone exceeds the budget.
    TransferTooSlow,
    /// Computing alone exceeds the budget.
    ServiceTooSlow,
    /// The load keeps a replica busier than 70 %.
    Overloaded,
    /// The terms together exceed the budget.
    OverBudget,
    // Placed: outcomes
    /// Runs on an edge node of the site.
    ChosenAtEdge,
    /// Runs in the cloud.
    ChosenInCloud,
    /// Nothing keeps the budget: the fastest serves.
    BestEffort,
    /// Kept where it is: the site cannot be reached.
    KeptUnreachable,
    /// Kept where it is: another place is better, but not by enough, not for long enough, or left too lately.
    KeptByStability,
    /// Kept where it is: enough others of the fleet have moved within the last minute.
    MovesCapped,
    /// Kept where it is: so much of the fleet would lose its place that a person has to confirm it.
    MassChangeHeld,
    /// More important models took the room.
    Displaced,
    /// Another place costs less.
    Costlier,
    /// Another place is faster.
    Slower,
    /// No place passes the filters.
    NoCandidate,
    /// Places would pass, but the site is full.
    NoCapacity,
    /// The fleet has no node for the site.
    NoNodes,
    /// Sites are being decided.
    Pending,
    // Serving
    /// A Ready pod answers.
    Serving,
    /// The pod is starting.
    Starting,
    /// The pod is fetching the model's bytes.
    Fetching,
    /// The model's bytes could not be fetched.
    FetchFailed,
    /// The pod crashes again and again.
    CrashLooping,
    /// The pod was ended for its memory.
    OutOfMemory,
    /// Fewer sites serve than asked for.
    NotEnoughSites,
    // WithinBudget
    /// What clients waited keeps the budget.
    Within,
    /// More than one request in a hundred failed.
    Failing,
    /// Too few requests to tell what clients wait.
    TooFewSamples,
    // Overridden
    /// Every override applies at some site.
    Overridden,
    /// An override applies nowhere.
    OverrideUnused,
    // Training, Accepted, Published
    /// A run is going on.
    Running,
    /// The run waits for a node or for its queue.
    Waiting,
    /// The run has ended.
    Ended,
    /// The model is good enough.
    Accepted,
    /// The model is not good enough: nothing was published.
    NotAccepted,
    /// The model is in the registry.
    Published,
    /// The run ended without a model.
    RunFailed,
    /// There is no such EdgeDataset.
    DatasetNotFound,
    /// A run begins when enough labelled samples are new.
    WaitingForSamples,
    /// A run begins when a model drifts.
    WaitingForDrift,
    /// A run begins at a time of the clock.
    WaitingForSchedule,
    /// A run begins when somebody asks for it.
    WaitingForRequest,
    /// A run is due, and the last one began too short a time ago.
    CoolingDown,
    /// A run is due, and is put off since those before it failed.
    BackingOff,
    // Connected
    /// A node of the site is Ready.
    Connected,
    /// No node has told that it collects the dataset.
    NotCollected,
    /// No node of the site has been Ready of late.
    NoContact,
    /// The node's agent is measuring the round trip to the cloud tier.
    Probing,
    // Profiled
    /// Every variant that may run on the node was measured there.
    Profiled,
    /// Variants are being measured on the node.
    Profiling,
    /// A variant could not be measured on the node: its estimate stands.
    ProfileFailed,
    // Stalled
    /// The spec contradicts itself.
    InvalidSpec,
    /// There is no such EdgeFleet.
    FleetNotFound,
    /// A node is selected by two fleets: the older one has it.
    NodeInTwoFleets,
    /// An object of that name belongs to somebody else.
    NameConflict,
    /// A change is being carried out.
    Progressing,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
