//! The state directory: who may read and write what lies there, and whether it fits together.

use super::certificates::Certificate;
use super::{Check, Finding, Severity};

/// What lies in the state directory.
#[derive(Debug, Default)]
pub struct Files {
    /// The directory.
    pub path: String,
    /// Whom all of it has to belong to.
    pub owner: u32,
    pub entries: Vec<Entry>,
    /// Why what is there cannot be used, and what puts it right; whatever the rights say.
    pub problem: Option<(String, Option<String>)>,
    /// Of the node, its services and its CA.
    pub certificates: Vec<Certificate>,
    /// The roots, whose end is the end of the mesh.
    pub roots: Vec<Certificate>,
}

/// A file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below the state directory; empty for the directory itself.
    pub name: String,
    pub owner: u32,
    /// The permission bits.
    pub mode: u32,
    pub kind: Kind,
}

/// What kind of entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// Others may read it, never write it.
    Public,
    /// Nobody else may do anything.
    Secret,
    Link,
}

impl Entry {
    fn problem(&self, owner: u32) -> Option<String> {
        let name = match self.name.as_str() {
            "" => "the directory itself",
            name => name,
        };
        if self.kind == Kind::Link {
            return Some(format!("{name} is a symbolic link, which is not followed"));
        }
        if self.owner != owner {
            return Some(format!("{name} belongs to user {}", self.owner));
        }
        let forbidden = match self.kind {
            Kind::Public => 0o022,
            Kind::Directory | Kind::Secret | Kind::Link => 0o077,
        };
        (self.mode & forbidden != 0).then(|| format!("{name} has mode {:04o}", self.mode))
    }
}

impl Files {
    pub fn judge(&self) -> Vec<Finding> {
        let mut loose: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| entry.problem(self.owner))
            .collect();
        if !loose.is_empty() {
            let count = loose.len();
            loose.truncate(EVIDENCE_MAX);
            let what = format!(
                "{count} of the files of {} are not closed to other users; an agent does not start with them",
                self.path
            );
            let fix = format!(
                "`chmod -R go= {0}` and `chown -R {1} {0}`; if others may have read a key, have the host join again",
                self.path, self.owner
            );
            return vec![Finding::new(
                Severity::Error,
                Check::Files,
                what,
                loose,
                fix,
            )];
        }
        let problem = self.problem.as_ref().map(|(problem, hint)| {
            let what = "keys and certificates cannot be used as they are";
            let fix = hint.clone();
            let fix =
                fix.unwrap_or_else(|| "docs/enrolment.md has the ways to a new set".to_owned());
            Finding::new(
                Severity::Error,
                Check::State,
                what,
                vec![problem.clone()],
                fix,
            )
        });
        problem.into_iter().collect()
    }
}

/// A whole directory may have been opened.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, owner: u32, mode: u32, expected: Option<&str>) {
        let entry = Entry {
            name: "x".into(),
            owner,
            mode,
            kind,
        };
        assert_eq!(entry.problem(7).as_deref(), expected, "{entry:?}");
    }

    #[test]
    fn rights() {
        check(Kind::Secret, 7, 0o600, None);
        check(Kind::Secret, 7, 0o640, Some("x has mode 0640"));
        check(Kind::Secret, 8, 0o600, Some("x belongs to user 8"));
        check(Kind::Public, 7, 0o644, None);
        check(Kind::Public, 7, 0o664, Some("x has mode 0664"));
        check(Kind::Directory, 7, 0o700, None);
        check(Kind::Directory, 7, 0o755, Some("x has mode 0755"));
        let link = "x is a symbolic link, which is not followed";
        check(Kind::Link, 7, 0o777, Some(link));
    }

    #[test]
    fn what_is_open_is_told_once_and_before_all_else() {
        let entry = |name: &str, mode| Entry {
            name: name.into(),
            owner: 7,
            mode,
            kind: Kind::Secret,
        };
        let mut files = Files {
            path: "/s".into(),
            owner: 7,
            entries: vec![entry("node.key", 0o644), entry("svc/web.key", 0o640)],
            problem: Some(("/s/node.key is open".into(), None)),
            ..Files::default()
        };
        let found = files.judge();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].check, Check::Files);
        assert_eq!(found[0].evidence.len(), 2);
        files.entries.clear();
        assert_eq!(files.judge()[0].check, Check::State);
        files.problem = None;
        assert!(files.judge().is_empty());
    }
}
