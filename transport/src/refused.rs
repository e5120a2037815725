//! The log of refused handshakes: one line a minute for each reason and identity, however often a peer tries.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use tokio::time::Instant;

use crate::identity::SpiffeId;
use crate::svid::{Leaf, Refusal};

/// Logs a refused handshake, unless that was done within the last minute. `claimed` is the identity in the peer's certificate,
/// which proves nothing where the chain is not trusted.
pub(crate) fn log(refusal: Refusal, claimed: Option<SpiffeId>) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((times, claimed)) = log.due((refusal, claimed), Instant::now()) else {
        return;
    };
    drop(log);
    let reason = refusal.as_str();
    match claimed {
        Some(claimed) => tracing::warn!(reason, %claimed, times, "handshake refused"),
        None => tracing::warn!(reason, times, "handshake refused"),
    }
}

/// The identity that a certificate names. Nothing is checked.
pub(crate) fn claimed(leaf: &CertificateDer<'_>) -> Option<SpiffeId> {
    Leaf::parse(leaf).ok().map(|leaf| leaf.id)
}

static LOG: LazyLock<Mutex<Log>> = LazyLock::new(Mutex::default);

type What = (Refusal, Option<SpiffeId>);

#[derive(Default)]
struct Log(HashMap<What, Entry>);

struct Entry {
    logged: Instant,
    /// Refused since then, and not logged.
    left_out: u64,
}

impl Log {
    /// How often `what` was refused since it was logged last, this time included, if it is to be logged now. Past
    /// [`ENTRIES_MAX`] identities they count together.
    fn due(&mut self, what: What, now: Instant) -> Option<(u64, Option<SpiffeId>)> {
        let is_old = |entry: &Entry| now.duration_since(entry.logged) >= PAUSE;
        let what = match self.0.contains_key(&what) {
            true => what,
            false => {
                if self.0.len() >= ENTRIES_MAX {
                    self.0.retain(|_, entry| !is_old(entry));
                }
                match self.0.len() < ENTRIES_MAX {
                    true => what,
                    false => (what.0, None),
                }
            }
        };
        let claimed = what.1.clone();
        let times = match self.0.get_mut(&what) {
            Some(entry) if !is_old(entry) => {
                entry.left_out += 1;
                return None;
            }
            Some(entry) => entry.left_out + 1,
            None => 1,
        };
        let entry = Entry {
            logged: now,
            left_out: 0,
        };
        self.0.insert(what, entry);
        Some((times, claimed))
    }
}

const PAUSE: Duration = Duration::from_secs(60);

/// A peer can claim any identity, so they are bounded: some 100 bytes each. The reasons without an identity come on top.
const ENTRIES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Ca;

    #[test]
    fn a_revoked_host_that_goes_on_trying_is_one_line_a_minute() {
        let ca = Ca::new();
        let (mut log, began) = (Log::default(), Instant::now());
        let n3 = || (Refusal::Revoked, Some(ca.node("n3")));
        assert_eq!(log.due(n3(), began), Some((1, Some(ca.node("n3")))));
        for ms in (500..60_000).step_by(500) {
            assert_eq!(log.due(n3(), began + Duration::from_millis(ms)), None);
        }
        let other = (Refusal::Revoked, Some(ca.node("n4")));
        assert_eq!(log.due(other, began), Some((1, Some(ca.node("n4")))));
        assert_eq!(
            log.due(n3(), began + PAUSE),
            Some((120, Some(ca.node("n3"))))
        );
    }

    #[test]
    fn made_up_identities_cost_bounded_memory_and_lines() {
        let ca = Ca::new();
        let (mut log, began) = (Log::default(), Instant::now());
        let lines = (0..10_000).filter(|n| {
            let made_up = ca.node(&format!("n{n}"));
            log.due((Refusal::UnknownIssuer, Some(made_up)), began)
                .is_some()
        });
        assert_eq!(lines.count(), ENTRIES_MAX + 1);
        assert_eq!(log.0.len(), ENTRIES_MAX + 1);
    }
}
