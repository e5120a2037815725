//! Documents that have no effect in their newest revision, on this node and on others.

use serde::{Deserialize, Serialize};

use super::{Check, Finding, Severity, list};
use crate::admin::view::{Operator, OutOfForceOn};

/// What the agent knows of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Documents {
    /// The first of those on this node.
    pub here: Vec<OutOfForce>,
    /// How many there are on this node.
    pub count: usize,
    pub elsewhere: Vec<OutOfForceOn>,
    /// Why documents are not checked in a child process.
    pub no_child: Option<String>,
    /// What could not be written to disk.
    #[serde(default)]
    pub unsaved: Option<Unsaved>,
    /// Who signed what is held here.
    #[serde(default)]
    pub operators: Vec<Operator>,
}

/// A document of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfForce {
    pub document: String,
    /// In one word.
    pub state: String,
    pub why: String,
}

/// Documents in force that could not be written to disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsaved {
    pub count: usize,
    /// How many of them a crash forgets; the others deny after it until a peer gives them back.
    pub unnoted: usize,
    pub error: String,
}

impl Documents {
    pub fn judge(&self) -> Vec<Finding> {
        let found = [
            self.here(),
            self.elsewhere(),
            self.unsaved(),
            self.no_child(),
        ];
        let operators = super::operators::judge(&self.operators);
        found.into_iter().flatten().chain(operators).collect()
    }

    fn here(&self) -> Option<Finding> {
        let evidence = self.here.iter().take(EVIDENCE_MAX);
        let evidence =
            evidence.map(|one| format!("{} is {}: {}", one.document, one.state, one.why));
        (self.count > 0).then(|| {
            Finding::new(
                Severity::Error,
                Check::Documents,
                format!("on this node: {}", not_in_force(self.count)),
                evidence.collect(),
                "if it cannot be read, bring this host to the version of its operator; if it is held back, apply it again in other \
                 words, or delete it, and report the crash; if it is lost, apply it again",
            )
        })
    }

    fn elsewhere(&self) -> Option<Finding> {
        let names: Vec<_> = self.elsewhere.iter().map(|on| on.node.as_str()).collect();
        let evidence = self.elsewhere.iter().take(EVIDENCE_MAX);
        let evidence = evidence.map(|on| format!("{}: {}", on.node, not_in_force(on.count.into())));
        (!names.is_empty()).then(|| {
            Finding::new(
                Severity::Warn,
                Check::Documents,
                format!("documents are not in force on {}", list(&names)),
                evidence.collect(),
                "run `starling check` on each of these hosts",
            )
        })
    }

    fn unsaved(&self) -> Option<Finding> {
        let Unsaved {
            count,
            unnoted,
            error,
        } = self.unsaved.as_ref()?;
        let after = match unnoted {
            0 => "after a restart of the agent, calls are denied until a peer sends them again"
                .to_owned(),
            unnoted => format!(
                "after a restart of the agent, {unnoted} of them have no effect until a peer sends them again"
            ),
        };
        Some(Finding::new(
            Severity::Error,
            Check::Documents,
            format!("{} in force here and not on disk", texts(*count)),
            vec![error.clone(), after],
            "make room on the disk of the state directory; the agent writes them again by itself. Do not restart it before",
        ))
    }

    fn no_child(&self) -> Option<Finding> {
        let why = self.no_child.clone()?;
        Some(Finding::new(
            Severity::Warn,
            Check::Documents,
            "the agent reads documents without a check in a child process, so one that crashes it can stop it",
            vec![why],
            "let the agent start its own program: process limits (`TasksMax`), /proc, and the system call filter of its unit",
        ))
    }
}

fn texts(count: usize) -> String {
    match count {
        1 => "1 document is".to_owned(),
        many => format!("{many} documents are"),
    }
}

/// `1 document not in force`.
pub fn not_in_force(count: usize) -> String {
    match count {
        1 => "1 document not in force".to_owned(),
        many => format!("{many} documents not in force"),
    }
}

/// Enough to tell what they have in common.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_that_is_not_in_force_is_something_wrong() {
        assert_eq!(Documents::default().judge(), []);
        let documents = Documents {
            here: vec![OutOfForce {
                document: "policy/orders".into(),
                state: "not in force".into(),
                why: "unknown key `x`; calls to all services are denied".into(),
            }],
            count: 1,
            elsewhere: vec![OutOfForceOn {
                node: "n3".into(),
                count: 2,
            }],
            no_child: Some("no child process can be started".into()),
            unsaved: None,
            operators: Vec::new(),
        };
        let found = documents.judge();
        let whats: Vec<_> = found
            .iter()
            .map(|one| (one.severity, one.what.as_str()))
            .collect();
        assert_eq!(
            whats[0],
            (Severity::Error, "on this node: 1 document not in force")
        );
        assert_eq!(
            whats[1],
            (Severity::Warn, "documents are not in force on n3")
        );
        assert_eq!(found[1].evidence, ["n3: 2 documents not in force"]);
        assert_eq!(whats[2].0, Severity::Warn);
        assert!(found[0].evidence[0].starts_with("policy/orders is not in force: unknown key"));
    }

    #[test]
    fn documents_that_are_not_on_disk_are_something_wrong() {
        let unsaved = |count, unnoted| Documents {
            unsaved: Some(Unsaved {
                count,
                unnoted,
                error: "No space left on device".into(),
            }),
            ..Documents::default()
        };
        let found = &unsaved(1, 0).judge()[0];
        let what = "1 document is in force here and not on disk";
        assert_eq!(
            (found.severity, found.what.as_str()),
            (Severity::Error, what)
        );
        assert_eq!(found.evidence[0], "No space left on device");
        assert!(found.evidence[1].contains("calls are denied"));
        let found = &unsaved(9, 2).judge()[0];
        assert!(found.evidence[1].contains("2 of them have no effect"));
    }
}
