//! `starling check`: what is wrong with this host's part of the mesh, found from facts.
//!
//! Facts are gathered elsewhere: from files and the system by the command line (`cli/check`), from the running agent and
//! its peers by the agent (`agent/check`). What follows from them is decided here, by functions that touch nothing.

use serde::{Deserialize, Serialize};

pub mod agent;
pub mod certificates;
pub mod documents;
pub mod drift;
pub mod files;
pub mod lines;
pub(crate) mod operators;
pub mod peers;
pub mod reach;
pub mod system;
pub mod turns;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Calls fail, or will soon.
    Error,
    /// It works, but not as it should, or not for ever.
    Warn,
    /// Good to know.
    Note,
}

/// What a finding is about: one closed list, which `docs/check.md` explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    Agent,
    Config,
    Files,
    State,
    Certificate,
    Refused,
    Port,
    App,
    Kernel,
    OpenFiles,
    Alone,
    Reach,
    ReachBack,
    Firewall,
    Mtu,
    Clock,
    Version,
    Gossip,
    Documents,
}

impl Check {
    /// All of them, in the order in which they are explained.
    pub const ALL: [Self; 19] = [
        Self::Agent,
        Self::Config,
        Self::Files,
        Self::State,
        Self::Certificate,
        Self::Refused,
        Self::Port,
        Self::App,
        Self::Kernel,
        Self::OpenFiles,
        Self::Alone,
        Self::Reach,
        Self::ReachBack,
        Self::Firewall,
        Self::Mtu,
        Self::Clock,
        Self::Version,
        Self::Gossip,
        Self::Documents,
    ];

    /// The word in text and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Config => "config",
            Self::Files => "files",
            Self::State => "state",
            Self::Certificate => "certificate",
            Self::Refused => "refused",
            Self::Port => "port",
            Self::App => "app",
            Self::Kernel => "kernel",
            Self::OpenFiles => "open-files",
            Self::Alone => "alone",
            Self::Reach => "reach",
            Self::ReachBack => "reach-back",
            Self::Firewall => "firewall",
            Self::Mtu => "mtu",
            Self::Clock => "clock",
            Self::Version => "version",
            Self::Gossip => "gossip",
            Self::Documents => "documents",
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub check: Check,
    /// One line.
    pub what: String,
    /// What was seen, one line each.
    pub evidence: Vec<String>,
    /// What puts it right.
    pub fix: String,
}

impl Finding {
    pub fn new(
        severity: Severity,
        check: Check,
        what: impl Into<String>,
        evidence: Vec<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            check,
            what: what.into(),
            evidence,
            fix: fix.into(),
        }
    }
}

/// All that is known.
#[derive(Debug)]
pub struct Facts {
    pub system: system::System,
    pub files: files::Files,
    /// Of the program that looks.
    pub version: String,
    /// Or why there is none.
    pub agent: Result<agent::Agent, String>,
}

/// What is wrong, the worst first.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(facts.system.judge());
    found.extend(facts.files.judge());
    found.extend(certificates::judge(&facts.files.roots, None));
    match &facts.agent {
        Ok(agent) => {
            // What is wrong with the files keeps the agent from taking them, and is told better by the files.
            let is_explained = found
                .iter()
                .any(|one| matches!(one.check, Check::Config | Check::Files | Check::State));
            let told = agent.judge().into_iter();
            found.extend(told.filter(|one| one.check != Check::Config || !is_explained));
            found.extend(agent.own.is_old(&facts.version));
        }
        Err(why) => {
            found.extend(certificates::judge(&facts.files.certificates, None));
            found.push(Finding::new(
                Severity::Warn,
                Check::Agent,
                "no agent runs here, so nothing was asked of the mesh",
                vec![why.clone()],
                "start it: `systemctl start starling`; if it does not stay, `journalctl -u starling` says why",
            ));
        }
    }
    found.sort_by_key(|finding| (finding.severity, finding.check));
    found
}

/// `n1`, `n1 and n2`, `n1, n2 and 3 more`.
fn list<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] if names.len() <= NAMED_MAX => {
            format!("{} and {last}", first.join(", "))
        }
        many => {
            let (named, rest) = many.split_at(NAMED_MAX - 1);
            format!("{} and {} more", named.join(", "), rest.len())
        }
    }
}

/// A finding may be about all nodes of a cell.
const NAMED_MAX: usize = 6;

#[cfg(test)]
pub(crate) mod tests;
