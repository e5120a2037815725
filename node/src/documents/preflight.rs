//! Reading, compiling and trying a document in a child process before the agent does.
//!
//! A text that ends the process that reads it must not end the agent, and must not be taken for the cause when the agent ends for
//! another reason: then a crash, a kill or a power cut would put an earlier text in force, and open what the newer one closed.
//! So evidence comes from a child alone, one that did nothing but read this text.

mod child;
mod program;
mod queue;
mod rehearsal;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use starling_gossip::DocumentKey;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::clearance::Hash;
use crate::policy::ServiceSet;
use queue::{Lane, Queue};

pub use child::run as run_child;
pub use program::Program;
pub(super) use queue::Outcome;
#[cfg(test)]
pub(super) use rehearsal::rehearse;

/// What is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub key: DocumentKey,
    pub body: Arc<str>,
}

/// How a child ended that is taken for evidence against its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    Panic,
    Segv,
    Bus,
    Ill,
    Abrt,
    /// It used up its CPU time.
    Cpu,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum End {
    /// In order.
    #[default]
    Ended,
    Crashed(Evidence),
    /// For a reason that says nothing of the text: killed, out of memory, too slow, not started. For people.
    Stopped(String),
}

/// What a child did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// The texts that it began with, and those that it was done with.
    pub begun: usize,
    pub done: usize,
    pub end: End,
    /// What policies are about, by their place among the texts.
    pub coverages: Vec<(usize, ServiceSet)>,
    /// Why texts cannot be read.
    pub problems: Vec<(usize, String)>,
}

/// How long a child may take, by the wall. Running out is no evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// One of many: what takes longer is tried by itself later.
    Batch,
    /// By itself, until its CPU time is used up on a busy host.
    Alone,
    /// A caller waits for the answer.
    Answer,
}

/// What starts a child. The agent's is a [`Program`].
pub trait Runner: Send + Sync + 'static {
    /// Checks `texts` in this order.
    fn run<'a>(&'a self, texts: &'a [Text], patience: Patience) -> BoxFuture<'a, Ending>;
}

/// The checks that are due, and the tasks that make them. Dropped, it ends its children.
pub struct Preflight {
    shared: Arc<Shared>,
    _lanes: JoinSet<()>,
}

struct Shared {
    runner: Arc<dyn Runner>,
    queue: Mutex<Queue>,
    news: Mutex<News>,
    /// There is something to do.
    work: watch::Sender<()>,
    /// There is news.
    decided: Notify,
}

/// What the checks found since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) coverages: Vec<(Hash, ServiceSet)>,
    pub(super) outcomes: Vec<(Hash, Outcome)>,
}

impl Preflight {
    /// Checks with children that `runner` starts.
    pub fn new(runner: Arc<dyn Runner>) -> Self {
        let shared = Arc::new(Shared {
            runner,
            queue: Mutex::default(),
            news: Mutex::default(),
            work: watch::Sender::new(()),
            decided: Notify::new(),
        });
        let mut lanes = JoinSet::new();
        for lane in Lane::ALL {
            lanes.spawn(shared.clone().serve(lane));
        }
        Self {
            shared,
            _lanes: lanes,
        }
    }

    /// These are to be decided, and no others.
    pub(super) fn want(&self, texts: Vec<(Hash, Text)>) {
        if self.shared.queue().want(texts, Instant::now()) {
            self.shared.work.send_replace(());
        }
    }

    pub(super) fn take_news(&self) -> News {
        std::mem::take(&mut *self.shared.news())
    }

    /// Resolves when there is news. Cancel-safe.
    pub(super) async fn decided(&self) {
        self.shared.decided.notified().await;
    }

    /// Why the agent reads documents itself, if it has to.
    pub(super) fn no_child(&self) -> Option<String> {
        self.shared.queue().no_child.clone()
    }

    /// Checks one text now, for an answer.
    pub(super) async fn check(&self, text: Text) -> Checked {
        check(&*self.shared.runner, text).await
    }
}

/// What checking one text came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    Readable,
    Unreadable(String),
    Crashed(Evidence),
    /// Nobody knows: there was no child, or it did not get to the end.
    Undecided {
        began: bool,
        why: String,
    },
}

/// Checks one text by itself.
pub async fn check(runner: &dyn Runner, text: Text) -> Checked {
    let ending = runner.run(&[text], Patience::Answer).await;
    if ending.done > 0 {
        let mut problems = ending.problems.into_iter();
        return match problems.next() {
            Some((_, problem)) => Checked::Unreadable(problem),
            None => Checked::Readable,
        };
    }
    match ending.end {
        End::Crashed(evidence) if ending.begun > 0 => Checked::Crashed(evidence),
        end => Checked::Undecided {
            began: ending.begun > 0,
            why: end.to_string(),
        },
    }
}

/// Which of `texts` cannot be read, with the reasons.
pub async fn problems(runner: &dyn Runner, texts: &[Text]) -> Vec<(String, String)> {
    let ending = runner.run(texts, Patience::Answer).await;
    let key = |at: usize| texts.get(at).map(|text| text.key.to_string());
    let problems = ending.problems.into_iter();
    let mut problems: Vec<_> = problems
        .filter_map(|(at, problem)| Some((key(at)?, problem)))
        .collect();
    // Whatever ended it, what came behind is not known to be readable either.
    let undone = key(ending.done).map(|key| (key, ending.end.to_string()));
    problems.extend(undone);
    problems
}

/// What tells this program from other builds, on whatever host: its version and its size.
pub fn build() -> String {
    let size = std::fs::metadata("/proc/self/exe").map_or(0, |file| file.len());
    format!("{}+{size:x}", env!("CARGO_PKG_VERSION"))
}

impl Shared {
    async fn serve(self: Arc<Self>, lane: Lane) {
        let mut work = self.work.subscribe();
        loop {
            work.mark_unchanged();
            let now = Instant::now();
            let batch = self.queue().take(lane, now);
            if !batch.is_empty() {
                self.check(lane, batch).await;
                continue;
            }
            let due = self.queue().due(lane);
            tokio::select! {
                // The sender lives as long as this task.
                _changed = work.changed() => {}
                () = sleep_until(due.unwrap_or(now + IDLE)) => {}
            }
        }
    }

    async fn check(&self, lane: Lane, batch: Vec<(Hash, Text)>) {
        let (hashes, texts): (Vec<Hash>, Vec<Text>) = batch.into_iter().unzip();
        let patience = match texts.len() {
            1 if lane.suspects => Patience::Alone,
            _ => Patience::Batch,
        };
        let ending = self.runner.run(&texts, patience).await;
        if ending.end != End::Ended || ending.done < texts.len() {
            let text = texts
                .get(ending.done)
                .filter(|_| ending.begun > ending.done);
            tracing::warn!(
                document = text.map(|text| text.key.to_string()),
                end = %ending.end,
                "document check ended early"
            );
        }
        let outcomes = self.queue().finish(&hashes, &ending, Instant::now());
        let coverages = ending.coverages.into_iter();
        let coverages = coverages.filter_map(|(at, coverage)| Some((*hashes.get(at)?, coverage)));
        {
            let mut news = self.news();
            news.coverages.extend(coverages);
            news.outcomes.extend(outcomes);
        }
        self.work.send_replace(());
        self.decided.notify_one();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Evidence {
    const ALL: [Self; 6] = [
        Self::Panic,
        Self::Segv,
        Self::Bus,
        Self::Ill,
        Self::Abrt,
        Self::Cpu,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Segv => "SIGSEGV",
            Self::Bus => "SIGBUS",
            Self::Ill => "SIGILL",
            Self::Abrt => "SIGABRT",
            Self::Cpu => "SIGXCPU",
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Evidence {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text).ok_or(())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("it ended before it was done"),
            Self::Crashed(evidence) => write!(f, "{evidence}"),
            Self::Stopped(why) => f.write_str(why),
        }
    }
}

impl fmt::Debug for Preflight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preflight").finish_non_exhaustive()
    }
}

impl Patience {
    /// For the first report. A host may be starting, and its disk busy with everything else.
    const fn to_begin(self) -> Duration {
        match self {
            Self::Batch | Self::Alone => Duration::from_secs(10),
            Self::Answer => Duration::from_secs(3),
        }
    }

    /// For each report after that.
    const fn to_go_on(self) -> Duration {
        match self {
            Self::Batch => Duration::from_secs(1),
            // Ten seconds of CPU on a host whose CPU six others want.
            Self::Alone => Duration::from_secs(60),
            Self::Answer => Duration::from_secs(3),
        }
    }
}

/// A lane without work waits for some.
const IDLE: Duration = Duration::from_secs(3600);
