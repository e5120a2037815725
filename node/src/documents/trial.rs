//! Which revisions are on trial: for a minute after it was taken, a revision is suspected if the agent crashes.
//!
//! The file lists those on trial, those that passed and those that are held back. An agent that finds a revision on trial when
//! it starts did not end in order while it was new, and holds it back until a newer one comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::{Documents, Revision};
use tokio::time::Instant;

use crate::state::{StateDir, StateError};

/// The outcome of a revision's trial, so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Until when.
    Trial(Instant),
    Passed,
    Held,
}

/// The verdicts on revisions, by hash.
#[derive(Debug, Default)]
pub(super) struct Trials(BTreeMap<[u8; 32], Verdict>);

impl Trials {
    /// Reads the file. One that is missing or broken forgets what passed and what was held back: all of it goes on trial again.
    pub(super) fn open(state: &StateDir) -> Self {
        let text = match state.read(FILE) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(StateError::Missing { .. }) => return Self::default(),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!(
                    error = format!("{error:#}"),
                    "which documents were on trial is not known"
                );
                return Self::default();
            }
        };
        let Some(trials) = Self::parse(&text) else {
            tracing::error!(
                file = FILE,
                "which documents were on trial is not known: the file is broken"
            );
            return Self::default();
        };
        trials
    }

    /// The file as read after the agent ended: what is on trial in it is held back.
    fn parse(text: &str) -> Option<Self> {
        let verdict = |line: &str| {
            let (word, hash) = line.split_once(' ')?;
            let verdict = match word {
                "passed" => Verdict::Passed,
                "trial" | "held" => Verdict::Held,
                _ => return None,
            };
            Some((from_hex(hash)?, verdict))
        };
        text.lines().map(verdict).collect::<Option<_>>().map(Self)
    }

    pub(super) fn to_text(&self) -> String {
        let line = |(hash, verdict): (&[u8; 32], &Verdict)| {
            let word = match verdict {
                Verdict::Trial(_) => "trial",
                Verdict::Passed => "passed",
                Verdict::Held => "held",
            };
            format!("{word} {}\n", to_hex(hash))
        };
        self.0.iter().map(line).collect()
    }

    pub(super) fn is_held(&self, hash: &[u8; 32]) -> bool {
        self.0.get(hash) == Some(&Verdict::Held)
    }

    /// Puts on trial what is in force and was not yet. Says whether anything was put on trial.
    pub(super) fn begin<'r>(
        &mut self,
        in_force: impl Iterator<Item = &'r Arc<Revision>>,
        now: Instant,
    ) -> bool {
        let before = self.0.len();
        for revision in in_force {
            self.0
                .entry(revision.hash)
                .or_insert(Verdict::Trial(now + TRIAL_TIME));
        }
        self.0.len() > before
    }

    /// Forgets what is held by the mesh no more.
    pub(super) fn keep_only(&mut self, documents: &Documents) {
        let held = documents.entries.values();
        let held: std::collections::BTreeSet<[u8; 32]> = held
            .flat_map(|document| document.revisions())
            .map(|revision| revision.hash)
            .collect();
        self.0.retain(|hash, _| held.contains(hash));
    }

    /// When the next trial ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends = self.0.values().filter_map(|verdict| match verdict {
            Verdict::Trial(end) => Some(*end),
            Verdict::Passed | Verdict::Held => None,
        });
        ends.min()
    }

    /// Ends the trials whose time is over.
    pub(super) fn pass(&mut self, now: Instant) {
        for verdict in self.0.values_mut() {
            if matches!(verdict, Verdict::Trial(end) if *end <= now) {
                *verdict = Verdict::Passed;
            }
        }
    }

    /// Ends all trials without an outcome.
    pub(super) fn adjourn(&mut self) {
        self.0
            .retain(|_, verdict| !matches!(verdict, Verdict::Trial(_)));
    }
}

fn to_hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

/// Beside the documents.
pub(super) const FILE: &str = "documents/trial";

/// An agent that lives for as long with a revision does not die of it.
const TRIAL_TIME: Duration = Duration::from_secs(60);
