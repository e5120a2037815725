//! How often certificates are renewed: not while they are young, and of each line one in a while.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use starling_transport::{KeyHash, Leaf, LineName, SpiffeId};
use tokio::time::Instant;

use crate::ca::Life;

/// What one issuer has renewed lately, and what it refused to. Outlives a change of the CA's files.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limit: Limit,
    refused: Untold<String>,
    failed: Untold<()>,
}

/// Says which leaves may be renewed now. Pure: the caller brings the clocks.
///
/// A leaf with more than two thirds of its life left is not renewed. Besides, each line has one renewal in a tenth of the
/// life of the leaf that is shown, at most a minute, so a copy of one key makes no more certificates than its owner does.
#[derive(Debug, Default)]
struct Limit {
    /// When each line was renewed last; what is older than [`INTERVAL_MAX`] may be missing.
    turns: HashMap<Key, Instant>,
    purged: Option<Instant>,
    /// When it is worth while to look for room again. Counts only while there is none.
    full_until: Option<Instant>,
}

/// What has turns of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    /// Of an identity: with a stolen issuer's key one can name another's line.
    Line(LineName, SpiffeId),
    /// A leaf without a line: what is renewed from it begins another each time.
    Leaf(KeyHash),
}

/// The one renewal that a line has for a while. It counts, also if the request turns out to be bad.
#[derive(Debug)]
pub(super) struct Turn {
    key: Key,
    at: Instant,
    interval: Duration,
}

/// A renewal that is refused now and not for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotYet {
    pub(super) why: Why,
    /// Until the same may be asked with success, by the clock of this issuer.
    pub(super) after: Duration,
}

/// Why a renewal is refused now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// More than two thirds of the leaf's life are left.
    TooEarly,
    /// The line was renewed just now.
    TooOften,
    /// So many lines were renewed within a minute that this issuer cannot remember another one.
    Full,
}

/// How often something happened since it was last told, and the last detail of it.
#[derive(Debug, Default)]
struct Untold<T> {
    times: u64,
    last: Option<T>,
    told: Option<Instant>,
}

impl Renewals {
    /// Takes the turn of the leaf's line. A refusal is remembered for the log.
    pub(super) fn take(&self, leaf: &Leaf) -> Result<Turn, NotYet> {
        let (wall, now) = (SystemTime::now(), Instant::now());
        let mut state = self.lock();
        let taken = state.limit.take(leaf, wall, now);
        if let Err(refused) = &taken {
            state.refused.note(about(leaf, refused.why.as_str()));
        }
        taken
    }

    /// This issuer failed, not the request: the line need not wait for its next turn. Returns how many failures a log line is
    /// to stand for, if it is time for one.
    pub(super) fn give_back(&self, turn: &Turn) -> Option<u64> {
        let mut state = self.lock();
        state.limit.give_back(turn);
        state.failed.note(());
        state.failed.tell(Instant::now()).map(|(times, ())| times)
    }

    /// Logs what was refused, at most once a minute.
    pub(super) fn tell(&self) {
        let told = self.lock().refused.tell(Instant::now());
        if let Some((times, last)) = told {
            tracing::warn!(times, last, "renewals refused");
        }
    }

    /// Whether anything was refused.
    #[cfg(test)]
    pub(super) fn has_refused(&self) -> bool {
        self.lock().refused.told.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose certificate, and what became of it.
fn about(leaf: &Leaf, what: &str) -> String {
    let id = &leaf.id;
    match &leaf.host {
        Some(host) if id.node_name().is_none() => format!("{id} on {host}: {what}"),
        _ => format!("{id}: {what}"),
    }
}

impl Limit {
    /// `wall` is what the dates of the leaf are compared with, `now` what turns are counted by.
    fn take(&mut self, leaf: &Leaf, wall: SystemTime, now: Instant) -> Result<Turn, NotYet> {
        let life = Life::of(leaf);
        if let Ok(after) = life.third().duration_since(wall)
            && !after.is_zero()
        {
            return Err(Why::TooEarly.for_now(after));
        }
        let interval = (life.length / 10).min(INTERVAL_MAX);
        let key = match &leaf.line {
            Some(line) => Key::Line(line.name, leaf.id.clone()),
            None => Key::Leaf(leaf.key_hash),
        };
        match self.turns.get(&key) {
            Some(last) => {
                let after = (*last + interval).saturating_duration_since(now);
                if !after.is_zero() {
                    return Err(Why::TooOften.for_now(after));
                }
            }
            None => self.make_room(now)?,
        }
        self.turns.insert(key.clone(), now);
        Ok(Turn {
            key,
            at: now,
            interval,
        })
    }

    /// Lets the line ask again after [`AFTER_FAILURE`], so that what fails is not free either.
    fn give_back(&mut self, turn: &Turn) {
        let earlier = turn.interval.saturating_sub(AFTER_FAILURE);
        if let Some(last) = self.turns.get_mut(&turn.key)
            && *last == turn.at
            && let Some(earlier) = turn.at.checked_sub(earlier)
        {
            *last = earlier;
        }
    }

    /// Forgets what cannot refuse anything any more: once a minute, and when there is no room, though never for each request.
    fn make_room(&mut self, now: Instant) -> Result<(), NotYet> {
        let is_full = self.turns.len() >= LINES_MAX;
        let is_due = match (is_full, self.full_until) {
            (true, Some(until)) => now >= until,
            (true, None) => true,
            (false, _) => self
                .purged
                .is_none_or(|purged| now >= purged + INTERVAL_MAX),
        };
        if is_due {
            self.purged = Some(now);
            self.turns.retain(|_, last| now < *last + INTERVAL_MAX);
            let frees = self.turns.values().min().map(|last| *last + INTERVAL_MAX);
            self.full_until = frees.map(|frees| frees.max(now + FULL_MIN));
        }
        if self.turns.len() < LINES_MAX {
            return Ok(());
        }
        let until = self.full_until.unwrap_or(now + FULL_MIN);
        Err(Why::Full.for_now(until.saturating_duration_since(now)))
    }
}

impl Why {
    /// The word of the answer and of the metric.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::TooEarly => "too_early",
            Self::TooOften => "too_often",
            Self::Full => "full",
        }
    }

    /// For people.
    pub(super) fn explain(self) -> &'static str {
        match self {
            Self::TooEarly => "more than two thirds of the certificate's life are left",
            Self::TooOften => "a certificate of this line was renewed just now",
            Self::Full => "too many certificates were renewed within a minute",
        }
    }

    fn for_now(self, after: Duration) -> NotYet {
        NotYet { why: self, after }
    }
}

impl<T> Untold<T> {
    fn note(&mut self, last: T) {
        self.times += 1;
        self.last = Some(last);
    }

    /// How often, and the last, if there is something to tell and the last time is long enough ago.
    fn tell(&mut self, now: Instant) -> Option<(u64, T)> {
        if self.told.is_some_and(|told| now < told + TELL_EVERY) {
            return None;
        }
        let last = self.last.take()?;
        self.told = Some(now);
        Some((std::mem::take(&mut self.times), last))
    }
}

/// The longest time between two renewals of a line.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Lines remembered at a time, some 150 bytes each: more than the 51,600 certificates of 400 hosts with 128 services, if all came
/// to one issuer within a minute. Beyond that a line must wait that was not renewed within the minute.
const LINES_MAX: usize = 65_536;

/// Between two looks for room when there is none.
const FULL_MIN: Duration = Duration::from_secs(1);

/// Until a line may ask again for what this issuer failed to sign.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Between two log lines.
const TELL_EVERY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
