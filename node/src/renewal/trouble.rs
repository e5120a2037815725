//! A certificate that could not be renewed: how often to try, and how loudly to say so.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use starling_transport::{Leaf, SpiffeId};

use super::RenewalError;
use crate::said;

/// What is known of the tries so far. Pure but for the log; the caller brings the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    identity: String,
    error: String,
    since: SystemTime,
    ends: SystemTime,
    due: SystemTime,
    said: Option<SystemTime>,
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            identity: String::new(),
            error: String::new(),
            since: UNIX_EPOCH,
            ends: UNIX_EPOCH,
            due: UNIX_EPOCH,
            said: None,
        }
    }
}

impl Trouble {
    /// One more try failed.
    pub(super) fn note(&mut self, leaf: &Leaf, error: &RenewalError, now: SystemTime) {
        if self.identity.is_empty() {
            self.since = now;
        }
        self.identity = leaf.id.to_string();
        self.error = said::causes(error);
        self.ends = leaf.not_after;
        let left = leaf.time_left(now);
        self.due = now + pause(left).mul_f64(0.75 + fastrand::f64() / 2.0);
        if self.said.is_none_or(|said| now >= said + silence(left)) {
            self.said = Some(now);
            self.say(&leaf.id, left);
        }
    }

    fn say(&self, id: &SpiffeId, left: Duration) {
        let error = &self.error;
        if left.is_zero() {
            tracing::error!(
                identity = %id, error,
                "the certificate has ended: the mesh refuses this node; on an issuer `starling invite`, here `starling join`"
            );
            return;
        }
        let left = humantime::format_duration(Duration::from_secs(left.as_secs())).to_string();
        tracing::warn!(
            identity = %id, left, error,
            "the certificate is not renewed: bring an issuer back before it ends, or make one with `starling ca add-issuer`"
        );
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> SystemTime {
        self.due
    }

    /// When the certificate ends.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// The identity whose certificate it is.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The last error with its causes.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// When the first try failed.
    pub fn since(&self) -> SystemTime {
        self.since
    }
}

/// Until the next try: a twentieth of what is left, so that there are dozens.
fn pause(left: Duration) -> Duration {
    (left / 20).clamp(Duration::from_secs(1), Duration::from_secs(5 * 60))
}

/// Until the next log line: a day, or half of what is left, so that it grows louder towards the end.
fn silence(left: Duration) -> Duration {
    match left {
        Duration::ZERO => Duration::from_secs(60 * 60),
        left => (left / 2).clamp(Duration::from_secs(60), Duration::from_secs(24 * 60 * 60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_and_words_come_closer_together_towards_the_end() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        assert_eq!(silence(hours(24 * 180)), hours(24));
        assert_eq!(silence(hours(12)), hours(6));
        assert_eq!(silence(Duration::from_secs(10)), Duration::from_secs(60));
        assert_eq!(silence(Duration::ZERO), hours(1));
        assert_eq!(pause(hours(12)), Duration::from_secs(300));
        assert_eq!(pause(Duration::from_secs(60)), Duration::from_secs(3));
        assert_eq!(pause(Duration::ZERO), Duration::from_secs(1));
    }
}
