//! Who is thrown out: documents of kind `revocation`, and what becomes of them on this node.

use std::sync::Arc;
use std::time::SystemTime;

use starling_transport::{KeyHash, Revocations, Revoked};

use crate::host::Host;

/// One `[[revoked]]` of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Which certificates.
    pub what: What,
    /// When nobody can hold such a certificate any more, so that this need not be kept. None means never.
    pub not_after: Option<SystemTime>,
    /// For people.
    pub reason: Option<String>,
}

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Certificates that became valid before a time.
    Certificates(Revoked, SystemTime),
    /// Certificates with a key.
    Key(KeyHash),
}

/// What all documents revoke together, at `now`.
pub fn union<'e>(entries: impl Iterator<Item = &'e Entry>, now: SystemTime) -> Revocations {
    let mut revocations = Revocations::default();
    let kept = entries.filter(|entry| entry.not_after.is_none_or(|end| now < end));
    for entry in kept {
        match &entry.what {
            What::Certificates(what, issued_before) => {
                revocations.add(what.clone(), *issued_before);
            }
            What::Key(key) => revocations.add_key(*key),
        }
    }
    revocations
}

/// Puts `entries` in force. Connections of the revoked end, and what gossip knows of them is judged again.
pub fn enforce<'e>(host: &Arc<Host>, entries: impl Iterator<Item = &'e Entry>) {
    let revocations = union(entries, SystemTime::now());
    let in_force = host.identities.current().trust.revocations().clone();
    if *in_force == revocations {
        return;
    }
    host.identities.revoke(revocations);
    host.membership.recheck();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_entry_counts_until_its_end_and_without_one_for_ever() {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let entry = |host: &str, not_after| Entry {
            what: What::Certificates(Revoked::Host(host.to_owned()), now),
            not_after,
            reason: None,
        };
        let all = [
            entry("n1", None),
            entry("n2", Some(now + day)),
            entry("n3", Some(now)),
        ];
        let mut expected = Revocations::default();
        expected.add(Revoked::Host("n1".into()), now);
        expected.add(Revoked::Host("n2".into()), now);
        assert_eq!(union(all.iter(), now), expected);
        assert!(union([].into_iter(), now).is_empty());
    }
}
