//! Certificates that a revocation does not reach, or reaches by mistake, and what this issuer no longer remembers.

use serde::{Deserialize, Serialize};

use super::{Check, Finding, Severity, list};

/// What an agent knows of lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// Own identities that this node itself knows to be revoked, and how.
    pub revoked: Vec<Revoked>,
    /// Certificates of issuers of ours that name no line: whose they are.
    pub unnamed: Vec<String>,
    /// Keys that are revoked while the line of their certificate is not.
    pub loose_keys: Vec<LooseKey>,
    /// Why this issuer could not write the last certificate into its book.
    pub unbooked: Option<String>,
    /// Whether this host would be an issuer if its intermediate were not revoked.
    #[serde(default)]
    pub has_revoked_issuer: bool,
    /// The command that makes the certificates of this host anew, if it is an issuer itself.
    #[serde(default)]
    pub own_issue: Option<String>,
}

/// One identity of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub identity: String,
    pub why: String,
}

/// A key by which a certificate was revoked, but nothing that it was renewed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LooseKey {
    pub key: String,
    pub identity: String,
    pub host: Option<String>,
}

impl Lines {
    pub fn judge(&self) -> Vec<Finding> {
        let found = [
            self.revoked(),
            self.loose_keys(),
            self.unnamed(),
            self.unbooked(),
            self.revoked_issuer(),
        ];
        found.into_iter().flatten().collect()
    }

    fn revoked(&self) -> Option<Finding> {
        let names: Vec<_> = self.revoked.iter().map(|one| &one.identity).collect();
        let evidence = self.revoked.iter().take(EVIDENCE_MAX);
        let evidence = evidence.map(|one| format!("{}: {}", one.identity, one.why));
        let evidence: Vec<_> = evidence.collect();
        (!names.is_empty()).then(|| {
            Finding::new(
                Severity::Error,
                Check::Refused,
                format!("an operator revoked certificates of this host: {}", list(&names)),
                evidence,
                match &self.own_issue {
                    // No issuer invites itself, and it may be the only one.
                    Some(issue) => format!("`starling get` shows the revocation and its reason; to bring this host back, run `{issue}` here"),
                    None => "`starling get` shows the revocation and its reason; to bring this host back: `starling invite` on an issuer, then here stop the \
                             agent, `starling join TOKEN`, and start the agent".to_owned(),
                },
            )
        })
    }

    fn loose_keys(&self) -> Option<Finding> {
        let first = self.loose_keys.first()?;
        let evidence = self.loose_keys.iter().take(EVIDENCE_MAX).map(|loose| {
            let on = loose.host.as_deref().unwrap_or("another host");
            format!("{} is of {} on {on}", loose.key, loose.identity)
        });
        Some(Finding::new(
            Severity::Error,
            Check::Certificate,
            match self.loose_keys.len() {
                1 => "a key is revoked, but not what its certificate was renewed to".to_owned(),
                many => format!(
                    "{many} keys are revoked, but not what their certificates were renewed to"
                ),
            },
            evidence.collect(),
            format!(
                "`starling revoke key/{} --reason …` again: this issuer knows the certificate",
                first.key
            ),
        ))
    }

    fn unnamed(&self) -> Option<Finding> {
        (!self.unnamed.is_empty()).then(|| {
            Finding::new(
                Severity::Warn,
                Check::Certificate,
                format!("certificates from before there were lines: {}", list(&self.unnamed)),
                vec!["they count as begun in 1970, and renewals of them too: any revocation of their name reaches them".to_owned()],
                "`starling invite` on an issuer and `starling join` there, or `starling ca issue`",
            )
        })
    }

    fn revoked_issuer(&self) -> Option<Finding> {
        self.has_revoked_issuer.then(|| {
            Finding::new(
                Severity::Error,
                Check::Certificate,
                "the intermediate certificate of this issuer is revoked, so this host is no issuer any more",
                vec!["what it signs is refused; `starling invite` and `starling ca issue` do nothing here".to_owned()],
                "run `starling ca add-issuer` where the root's key is and copy what it writes here; or remove ca/intermediate.key from the \
                 state directory of this host",
            )
        })
    }

    fn unbooked(&self) -> Option<Finding> {
        let why = self.unbooked.clone()?;
        Some(Finding::new(
            Severity::Warn,
            Check::State,
            "this issuer could not note a certificate that it signed",
            vec![why],
            "make room on the disk of the state directory, and see that the agent's user may write ca/issued there; until then a leaked key \
             may be revoked without what was renewed from it",
        ))
    }
}

/// Names of certificates are many on a host with many services.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_lines_is_a_finding_with_its_command() {
        assert!(Lines::default().judge().is_empty());
        let loose = |key: &str| LooseKey {
            key: key.into(),
            identity: "spiffe://example.org/node/n3".into(),
            host: Some("n3".into()),
        };
        let lines = Lines {
            revoked: vec![Revoked {
                identity: "spiffe://example.org/node/n1".into(),
                why: "the certificate is revoked".into(),
            }],
            unnamed: vec!["spiffe://example.org/node/n2".into()],
            loose_keys: vec![loose("sha256:01"), loose("sha256:02")],
            unbooked: Some("no space left on device".into()),
            has_revoked_issuer: true,
            own_issue: None,
        };
        let found = lines.judge();
        let told: Vec<_> = found.iter().map(|one| (one.severity, one.check)).collect();
        assert_eq!(
            told,
            [
                (Severity::Error, Check::Refused),
                (Severity::Error, Check::Certificate),
                (Severity::Warn, Check::Certificate),
                (Severity::Warn, Check::State),
                (Severity::Error, Check::Certificate),
            ]
        );
        assert!(found[0].fix.contains("starling join"), "{}", found[0].fix);
        assert_eq!(
            found[1].what,
            "2 keys are revoked, but not what their certificates were renewed to"
        );
        assert!(
            found[1].fix.contains("starling revoke key/sha256:01"),
            "{}",
            found[1].fix
        );
    }

    #[test]
    fn the_last_issuer_was_told_to_invite_itself() {
        let lines = Lines {
            revoked: vec![Revoked {
                identity: "spiffe://example.org/node/n1".into(),
                why: "the certificate is revoked".into(),
            }],
            own_issue: Some("starling ca issue --node n1 --out /var/lib/starling".into()),
            ..Lines::default()
        };
        let fix = &lines.judge()[0].fix;
        assert!(
            fix.contains("ca issue --node n1") && !fix.contains("invite"),
            "{fix}"
        );
    }
}
