//! Which text is checked next, by which child, and what follows from how that child ended. Pure.
//!
//! New texts are checked in batches. A child says which text it is at, so the text that ended a batch is known: it is tried again
//! by itself, and the rest of the batch goes on without it. Two ends of a child that had nothing but this text to do are evidence.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{End, Ending, Evidence, Text};
use crate::documents::clearance::Hash;

/// Whose turn it is. Each lane has one child at a time, so a slow policy delays no revocation, and a suspect nothing new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) revocations: bool,
    /// Texts that ended a batch, each by itself.
    pub(super) suspects: bool,
}

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::documents) enum Outcome {
    Cleared,
    Held(Evidence),
    /// There is no child process to be had.
    Unsandboxed,
}

/// The texts that are not decided.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<Hash, Waiting>,
    /// Children in a row that did not begin with their first text, and why.
    missed: u32,
    /// Why there is no child, while that is so.
    pub(super) no_child: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    text: Text,
    stage: Stage,
    is_running: bool,
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    /// It ended a batch. How often it ended a child that had nothing else to do, and how often such a child ended without that
    /// being evidence.
    Suspect {
        crashes: u32,
        stops: u32,
    },
}

impl Lane {
    pub(super) const ALL: [Self; 4] = [
        Self::new(true, false),
        Self::new(true, true),
        Self::new(false, false),
        Self::new(false, true),
    ];

    const fn new(revocations: bool, suspects: bool) -> Self {
        Self {
            revocations,
            suspects,
        }
    }

    fn takes(self, waiting: &Waiting) -> bool {
        let is_revocation = waiting.text.key.kind.as_str() == "revocation";
        let is_suspect = waiting.stage != Stage::New;
        !waiting.is_running && (is_revocation, is_suspect) == (self.revocations, self.suspects)
    }
}

impl Queue {
    /// These are to be decided, and no others. What is under way is not broken off.
    pub(super) fn want(&mut self, texts: Vec<(Hash, Text)>, now: Instant) -> bool {
        let mut is_news = false;
        let mut before = std::mem::take(&mut self.waiting);
        for (hash, text) in texts {
            let waiting = before.remove(&hash).unwrap_or_else(|| {
                is_news = true;
                Waiting {
                    text,
                    stage: Stage::New,
                    is_running: false,
                    due: now,
                }
            });
            self.waiting.insert(hash, waiting);
        }
        let running = before.into_iter().filter(|(_, waiting)| waiting.is_running);
        self.waiting.extend(running);
        is_news
    }

    /// What a child of this lane is to do now.
    pub(super) fn take(&mut self, lane: Lane, now: Instant) -> Vec<(Hash, Text)> {
        let most = if lane.suspects { 1 } else { BATCH_TEXTS_MAX };
        let due = self.waiting.iter_mut();
        let due = due.filter(|(_, waiting)| lane.takes(waiting) && waiting.due <= now);
        let mut bytes = 0;
        let mut batch = Vec::new();
        for (hash, waiting) in due.take(most) {
            bytes += waiting.text.body.len();
            if bytes > BATCH_BYTES_MAX && !batch.is_empty() {
                break;
            }
            waiting.is_running = true;
            batch.push((*hash, waiting.text.clone()));
        }
        batch
    }

    /// When there is something to do for this lane.
    pub(super) fn due(&self, lane: Lane) -> Option<Instant> {
        let waiting = self.waiting.values().filter(|one| lane.takes(one));
        waiting.map(|one| one.due).min()
    }

    /// Takes in how a child ended that had these texts to do. Says what is decided.
    pub(super) fn finish(
        &mut self,
        batch: &[Hash],
        ending: &Ending,
        now: Instant,
    ) -> Vec<(Hash, Outcome)> {
        for hash in batch {
            if let Some(waiting) = self.waiting.get_mut(hash) {
                waiting.is_running = false;
            }
        }
        if ending.begun == 0 && !batch.is_empty() {
            return self.miss(batch, &ending.end, now);
        }
        self.missed = 0;
        self.no_child = None;
        let done = ending.done.min(batch.len());
        let mut outcomes: Vec<_> = batch[..done]
            .iter()
            .map(|hash| (*hash, Outcome::Cleared))
            .collect();
        if let Some(suspect) = batch.get(done) {
            let outcome = self.suspect(suspect, batch.len() == 1, &ending.end, now);
            outcomes.extend(outcome.map(|outcome| (*suspect, outcome)));
        }
        for (hash, _) in &outcomes {
            self.waiting.remove(hash);
        }
        outcomes
    }

    /// The child ended before it began with anything, which is no text's fault.
    fn miss(&mut self, batch: &[Hash], end: &End, now: Instant) -> Vec<(Hash, Outcome)> {
        self.missed = self.missed.saturating_add(1);
        if self.missed < MISSES {
            for hash in batch {
                if let Some(waiting) = self.waiting.get_mut(hash) {
                    waiting.due = now + FIRST_PAUSE;
                }
            }
            return Vec::new();
        }
        self.no_child = Some(end.to_string());
        let all = batch.iter().map(|hash| (*hash, Outcome::Unsandboxed));
        let all: Vec<_> = all.collect();
        for hash in batch {
            self.waiting.remove(hash);
        }
        all
    }

    fn suspect(
        &mut self,
        hash: &Hash,
        was_alone: bool,
        end: &End,
        now: Instant,
    ) -> Option<Outcome> {
        let waiting = self.waiting.get_mut(hash)?;
        waiting.due = now;
        if waiting.stage == Stage::New {
            waiting.stage = Stage::Suspect {
                crashes: 0,
                stops: 0,
            };
            if !was_alone {
                return None;
            }
        }
        let Stage::Suspect { crashes, stops } = &mut waiting.stage else {
            return None;
        };
        match end {
            End::Crashed(evidence) => {
                *crashes += 1;
                (*crashes >= CRASHES).then_some(Outcome::Held(*evidence))
            }
            End::Ended | End::Stopped(_) => {
                let pause = if *stops == 0 { FIRST_PAUSE } else { PAUSE };
                *stops = stops.saturating_add(1);
                waiting.due = now + pause;
                None
            }
        }
    }
}

/// Ends of a child that had one text to do, for that text to be held back.
const CRASHES: u32 = 2;

/// Children in a row that did not begin, for the agent to do without.
const MISSES: u32 = 2;

/// After the first end that is no evidence. What ended it may be gone.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// After every further one.
const PAUSE: Duration = Duration::from_secs(60);

/// Texts of one child: all documents of a usual mesh, and a pipe's worth of reports.
const BATCH_TEXTS_MAX: usize = 1_024;

/// Bytes of the texts of one child. A second's worth of reading is a tenth of a second.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const REVOCATIONS: Lane = Lane::new(true, false);
    const OTHERS: Lane = Lane::new(false, false);
    const SUSPECTS: Lane = Lane::new(false, true);

    fn texts(keys: &[&str]) -> Vec<(Hash, Text)> {
        let text = |(at, key): (usize, &&str)| {
            let text = Text {
                key: key.parse().unwrap(),
                body: "x".into(),
            };
            ([u8::try_from(at).unwrap(); 32], text)
        };
        keys.iter().enumerate().map(text).collect()
    }

    fn ending(begun: usize, done: usize, end: End) -> Ending {
        Ending {
            begun,
            done,
            end,
            ..Ending::default()
        }
    }

    fn hashes(batch: &[(Hash, Text)]) -> Vec<Hash> {
        batch.iter().map(|(hash, _)| *hash).collect()
    }

    fn segv() -> End {
        End::Crashed(Evidence::Segv)
    }

    struct Rig(Queue, Instant);

    impl Rig {
        fn new(keys: &[&str]) -> Self {
            let (mut queue, now) = (Queue::default(), Instant::now());
            assert!(queue.want(texts(keys), now));
            Self(queue, now)
        }

        fn take(&mut self, lane: Lane) -> Vec<Hash> {
            hashes(&self.0.take(lane, self.1))
        }

        fn finish(&mut self, batch: &[Hash], ending: &Ending) -> Vec<(Hash, Outcome)> {
            self.0.finish(batch, ending, self.1)
        }
    }

    #[tokio::test]
    async fn revocations_are_checked_by_themselves() {
        let mut rig = Rig::new(&["policy/a", "revocation/b", "route/c"]);
        let (revocations, others) = (rig.take(REVOCATIONS), rig.take(OTHERS));
        assert_eq!((&revocations[..], others.len()), (&[[1; 32]][..], 2));
        assert!(rig.take(OTHERS).is_empty(), "it is under way");
        let cleared = rig.finish(&revocations, &ending(1, 1, End::Ended));
        assert_eq!(cleared, [([1; 32], Outcome::Cleared)]);
    }

    #[tokio::test]
    async fn the_one_that_ends_a_batch_is_found_and_held_back_and_no_other() {
        let mut rig = Rig::new(&["policy/a", "policy/b", "policy/c"]);
        let batch = rig.take(OTHERS);
        let outcomes = rig.finish(&batch, &ending(2, 1, segv()));
        assert_eq!(outcomes, [([0; 32], Outcome::Cleared)]);
        let rest = rig.take(OTHERS);
        assert_eq!(rest, [[2; 32]]);
        // Twice more, by itself.
        for expected in [vec![], vec![([1; 32], Outcome::Held(Evidence::Segv))]] {
            let alone = rig.take(SUSPECTS);
            assert_eq!(alone, [[1; 32]]);
            assert_eq!(rig.finish(&alone, &ending(1, 0, segv())), expected);
        }
        assert!(rig.take(SUSPECTS).is_empty());
        let outcomes = rig.finish(&rest, &ending(1, 1, End::Ended));
        assert_eq!(outcomes, [([2; 32], Outcome::Cleared)]);
    }

    #[tokio::test]
    async fn one_that_ends_a_batch_and_not_a_child_of_its_own_is_cleared() {
        let mut rig = Rig::new(&["policy/a", "policy/b"]);
        let batch = rig.take(OTHERS);
        rig.finish(&batch, &ending(1, 0, segv()));
        let alone = rig.take(SUSPECTS);
        let outcomes = rig.finish(&alone, &ending(1, 1, End::Ended));
        assert_eq!(outcomes, [([0; 32], Outcome::Cleared)]);
    }

    #[tokio::test]
    async fn a_child_that_was_killed_is_no_evidence_however_often() {
        let mut rig = Rig::new(&["policy/a"]);
        let killed = ending(1, 0, End::Stopped("SIGKILL".into()));
        let batch = rig.take(OTHERS);
        assert!(rig.finish(&batch, &killed).is_empty());
        for pause in [FIRST_PAUSE, PAUSE, PAUSE] {
            assert!(rig.take(SUSPECTS).is_empty());
            rig.1 += pause;
            let alone = rig.take(SUSPECTS);
            assert_eq!(alone.len(), 1, "after {pause:?}");
            assert!(rig.finish(&alone, &killed).is_empty());
        }
    }

    #[tokio::test]
    async fn without_a_child_the_agent_reads_it_itself_after_a_second_try() {
        let mut rig = Rig::new(&["policy/a"]);
        let missed = ending(0, 0, End::Stopped("it cannot be started".into()));
        let batch = rig.take(OTHERS);
        assert!(rig.finish(&batch, &missed).is_empty());
        assert!(rig.take(OTHERS).is_empty());
        assert_eq!(rig.0.due(OTHERS), Some(rig.1 + FIRST_PAUSE));
        rig.1 += FIRST_PAUSE;
        let batch = rig.take(OTHERS);
        let outcomes = rig.finish(&batch, &missed);
        assert_eq!(outcomes, [([0; 32], Outcome::Unsandboxed)]);
        assert_eq!(rig.0.no_child.as_deref(), Some("it cannot be started"));
        // The next one that begins ends that.
        assert!(rig.0.want(texts(&["policy/b"]), rig.1));
        let batch = rig.take(OTHERS);
        rig.finish(&batch, &ending(1, 1, End::Ended));
        assert_eq!(rig.0.no_child, None);
    }

    #[tokio::test]
    async fn what_is_no_longer_wanted_is_forgotten_unless_it_is_under_way() {
        let mut rig = Rig::new(&["policy/a", "revocation/b"]);
        let batch = rig.take(REVOCATIONS);
        assert!(!rig.0.want(Vec::new(), rig.1));
        assert!(rig.take(OTHERS).is_empty());
        let outcomes = rig.finish(&batch, &ending(1, 1, End::Ended));
        assert_eq!(outcomes.len(), 1);
    }
}
