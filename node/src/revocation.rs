//! Who is thrown out: documents of kind `revocation`, and what becomes of them on this node.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use starling_transport::{
    DATED_BACK, KeyHash, LineName, Refusal, Revocations, Revoked, SpiffeId, TrustBundle,
};
use tokio::time::{Instant, sleep_until};

use crate::host::Host;
use crate::policy::{self, InForce, ServiceSet};

/// One `[[revoked]]` of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which certificates.
    pub what: What,
    /// For people.
    pub reason: Option<String>,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Certificates whose line began before a time. It never ends by date, as a line can be renewed for ever.
    Certificates(Revoked, SystemTime),
    /// Certificates of an identity that name a line.
    Line(LineName, SpiffeId),
    /// Certificates with a key, until no certificate can have it any more; None means for ever.
    Key(KeyHash, Option<SystemTime>),
}

/// Refuses entries that reach further ahead of the moment when they were signed than clocks are apart: they would throw out
/// hosts that are set up anew. `issued` is in seconds since 1970.
pub fn check_dates(entries: &[Entry], issued: u64) -> Result<(), String> {
    let latest = UNIX_EPOCH + Duration::from_secs(issued.min(SECONDS_MAX)) + DATED_BACK;
    let is_ahead = |entry: &Entry| match &entry.what {
        What::Certificates(_, issued_before) => *issued_before > latest,
        What::Line(..) | What::Key(..) => false,
    };
    if entries.iter().any(is_ahead) {
        return Err(format!(
            "`issued_before` is more than {} after the document was signed",
            humantime::format_duration(DATED_BACK)
        ));
    }
    Ok(())
}

/// What all documents revoke together, at `now`.
pub fn union<'e>(entries: impl Iterator<Item = &'e Entry>, now: SystemTime) -> Revocations {
    let mut revocations = Revocations::default();
    for entry in entries {
        match &entry.what {
            What::Certificates(what, issued_before) => {
                revocations.add(what.clone(), *issued_before);
            }
            What::Line(line, id) => revocations.add_line(*line, id.clone()),
            What::Key(key, end) if end.is_none_or(|end| now < end) => revocations.add_key(*key),
            What::Key(..) => {}
        }
    }
    revocations
}

/// Puts revocations in force. Connections of the revoked end, and what gossip knows of them is judged again.
///
/// A revocation of the issuer of this node, which it mostly shares with its peers, would end the connections by which it is
/// passed on. So it waits for a second; all calls are denied meanwhile. At a start there is
/// nothing to pass on.
#[derive(Debug)]
pub struct Enforcer {
    host: Arc<Host>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    has_started: bool,
    /// When the one that waits longest is put in force.
    due: Option<Instant>,
    /// Counts sets, so that an older one is not put in force after a newer one.
    set: u64,
}

impl Enforcer {
    pub fn new(host: Arc<Host>) -> Arc<Self> {
        Arc::new(Self {
            host,
            waiting: Mutex::default(),
        })
    }

    /// Puts this set in force, and `stand_ins` for what is missing.
    pub fn enforce(self: &Arc<Self>, revocations: Revocations, stand_ins: Vec<InForce>) {
        let Some((due, set)) = self.due(&revocations) else {
            self.put(revocations, stand_ins);
            return;
        };
        tracing::warn!(
            wait = ?PASS_ON,
            "the issuer of this node is revoked: the revocation is passed on before it is put in force, and all calls are denied"
        );
        let everything = policy::Document::deny_all_calls_to(&ServiceSet::All);
        let denied = InForce::single("revocation".into(), 0, Arc::new(everything));
        let mut denying = stand_ins.clone();
        denying.push(denied);
        self.host.policy.stand_in(denying);
        let enforcer = self.clone();
        self.host.spawn(async move {
            sleep_until(due).await;
            if enforcer.waiting().set == set {
                enforcer.waiting().due = None;
                enforcer.put(revocations, stand_ins);
            }
        });
    }

    /// When the set is put in force, and its number, unless it is put in force at once.
    fn due(&self, revocations: &Revocations) -> Option<(Instant, u64)> {
        let mut waiting = self.waiting();
        waiting.set += 1;
        let is_start = !std::mem::replace(&mut waiting.has_started, true);
        let set = self.host.identities.current();
        // Of an issuer, by its host or by its key. Without that gossip goes on, also of a node that is revoked by name.
        let throws_out = |trust: &TrustBundle| {
            let judged = trust.verify_der(&set.node.chain(), SystemTime::now());
            let revocations = trust.revocations();
            revocations.check_signers(set.node.leaf()).is_err()
                || judged == Err(Refusal::RevokedIssuer)
        };
        let new = set.trust.without(Arc::new(revocations.clone()));
        if is_start || throws_out(&set.trust) || !throws_out(&new) {
            waiting.due = None;
            return None;
        }
        let due = *waiting.due.get_or_insert_with(|| Instant::now() + PASS_ON);
        Some((due, waiting.set))
    }

    fn put(&self, revocations: Revocations, stand_ins: Vec<InForce>) {
        let host = &self.host;
        let in_force = host.identities.current().trust.revocations().clone();
        if *in_force != revocations {
            host.identities.revoke(revocations);
            host.membership.recheck();
        }
        host.policy.stand_in(stand_ins);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Long enough for peers to hear of a document and to fetch it over several round trips of a slow link, and within the two
/// seconds in which a revocation is to be in force everywhere.
const PASS_ON: Duration = Duration::from_secs(1);

/// The end of the year 9999, the last that a document can name.
const SECONDS_MAX: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: What) -> Entry {
        Entry { what, reason: None }
    }

    #[test]
    fn a_key_counts_until_its_end_and_everything_else_for_ever() {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let (host, line) = (Revoked::Host("n1".into()), LineName([1; 16]));
        let id = SpiffeId::parse("spiffe://example.org/node/n1").unwrap();
        let key = |n| KeyHash::from_bytes([n; 32]);
        let all = [
            entry(What::Certificates(host.clone(), now - 4000 * day)),
            entry(What::Line(line, id.clone())),
            entry(What::Key(key(1), None)),
            entry(What::Key(key(2), Some(now + day))),
            entry(What::Key(key(3), Some(now))),
        ];
        let mut expected = Revocations::default();
        expected.add(host, now - 4000 * day);
        expected.add_line(line, id);
        expected.add_key(key(1));
        expected.add_key(key(2));
        assert_eq!(union(all.iter(), now), expected);
        assert!(union([].into_iter(), now).is_empty());
    }

    #[test]
    fn a_revocation_of_what_will_be_issued_is_refused() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let before = |time| [entry(What::Certificates(Revoked::Host("n1".into()), time))];
        assert_eq!(check_dates(&before(at(1300)), 1000), Ok(()));
        assert!(check_dates(&before(at(1301)), 1000).is_err());
        assert_eq!(check_dates(&before(at(0)), 1000), Ok(()));
        assert_eq!(check_dates(&before(at(5)), u64::MAX), Ok(()));
        assert_eq!(
            check_dates(&[entry(What::Key(KeyHash::from_bytes([1; 32]), None))], 0),
            Ok(())
        );
    }
}
