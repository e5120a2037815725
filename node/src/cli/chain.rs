//! Which earlier revisions led to the one that counts: each names the hash of the one that it replaced.
//!
//! A member who holds an operator's key can bring lower numbers and rivals made today; they stand in the history and on no chain.

use crate::admin::view;

/// The newest revision that counts; one of a revoked operator may stand above it.
pub(super) fn newest(history: &view::History) -> Option<&view::Revision> {
    let mut revisions = history.revisions.iter();
    revisions.find(|held| !held.lost && held.standing == "counts")
}

/// The newest that counts, and what each one replaced, as far as it is held.
pub(super) fn chain(history: &view::History) -> Vec<&view::Revision> {
    let mut chain: Vec<&view::Revision> = newest(history).into_iter().collect();
    while let Some(last) = chain.last() {
        let before = history.revisions.iter().find(|held| {
            Some(&held.hash) == last.replaces.as_ref() && held.revision < last.revision
        });
        match before {
            Some(before) => chain.push(before),
            None => break,
        }
    }
    chain
}

/// The one revision whose hash begins so.
pub(super) fn by_hash<'h>(
    history: &'h view::History,
    begin: &str,
) -> anyhow::Result<&'h view::Revision> {
    anyhow::ensure!(
        begin.len() >= HASH_DIGITS_MIN,
        "a hash needs at least {HASH_DIGITS_MIN} digits"
    );
    let mut found = history
        .revisions
        .iter()
        .filter(|held| held.hash.starts_with(begin));
    match (found.next(), found.next()) {
        (Some(held), None) => Ok(held),
        (Some(_), Some(_)) => {
            anyhow::bail!("several revisions have a hash that begins with {begin}")
        }
        (None, _) => anyhow::bail!("no revision with a hash that begins with {begin} is held"),
    }
}

/// The first digits of a hash.
pub(super) fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

/// Fewer digits could be met by chance, or on purpose.
const HASH_DIGITS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn held(revision: u64, hash: &str, replaces: Option<&str>) -> view::Revision {
        view::Revision {
            revision,
            operator: "alice".into(),
            public_key: String::new(),
            age_s: 0,
            deleted: false,
            lost: false,
            has_effect: true,
            hash: hash.repeat(16),
            replaces: replaces.map(|hash| hash.repeat(16)),
            standing: "counts".into(),
            body: String::new(),
            signed: String::new(),
        }
    }

    #[test]
    fn a_lower_number_made_today_was_what_rollback_put_in_force() {
        // 4 replaced 2; a thief with a stolen key brings a 3, and a rival of 2 that won.
        let history = view::History {
            revisions: vec![
                held(4, "dddd", Some("bbbb")),
                held(3, "cccc", Some("aaaa")),
                held(2, "abcd", None),
                view::Revision {
                    lost: true,
                    ..held(2, "bbbb", Some("aaaa"))
                },
                held(1, "aaaa", None),
            ],
            ..view::History::default()
        };
        let numbers: Vec<_> = chain(&history)
            .iter()
            .map(|held| held.hash[..4].to_owned())
            .collect();
        assert_eq!(numbers, ["dddd", "bbbb", "aaaa"]);
        assert_eq!(by_hash(&history, "cccccccc").unwrap().revision, 3);
        by_hash(&history, "cccc").unwrap_err();
        by_hash(&history, "eeeeeeee").unwrap_err();
    }

    #[test]
    fn a_revoked_operator_s_text_is_not_the_newest() {
        let stolen = view::Revision {
            standing: "kept".into(),
            ..held(5, "eeee", Some("dddd"))
        };
        let history = view::History {
            revisions: vec![stolen, held(4, "dddd", None)],
            ..view::History::default()
        };
        assert_eq!(newest(&history).unwrap().revision, 4);
    }
}
