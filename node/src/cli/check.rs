//! `starling check`: what is wrong here?

mod look;
mod ports;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::client::{self, ClientError};
use super::{block_on, out};
use crate::check::agent::Agent;
use crate::check::{Facts, Finding, Severity, findings};
use crate::config::SOCKET;
use crate::said;

/// Look for what is wrong with this host, its agent, and the way to other nodes
///
/// Clocks, UDP both ways, packet sizes, ports, certificates, versions, gossip, files and the kernel. Each finding says what was
/// seen and what puts it right. Without a running agent it looks at what it can. Exits with 0 if nothing is wrong (notes do not
/// count), with 3 if there is an error, with 4 if there are only warnings.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Directory of starling.toml and services.d [default: the running agent's, else /etc/starling]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// State directory, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

/// Something is wrong; what is printed already.
#[derive(Debug, thiserror::Error)]
#[error("something is wrong")]
pub(super) struct Found(Severity);

/// The exit code that tells.
pub(super) fn code(error: &anyhow::Error) -> ExitCode {
    let worst = error.downcast_ref::<Found>().map(|found| found.0);
    ExitCode::from(match worst {
        Some(Severity::Warn) => 4,
        _ => 3,
    })
}

/// What `--json` prints. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Of the agent; none if none runs.
    node: Option<&'a str>,
    /// Nodes that were looked at.
    peers: Vec<&'a str>,
    /// Nodes that were not, as there are too many.
    left_out: usize,
    findings: &'a [Finding],
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let agent = self.agent()?;
        let facts = look::facts(agent, self.config, self.state, &self.socket)?;
        let found = findings(&facts);
        let report = report(&facts, &found);
        match self.json {
            true => out::say_json(&serde_json::to_string(&report)?)?,
            false => out::say(&render(&report))?,
        }
        match found.first().map(|worst| worst.severity) {
            None | Some(Severity::Note) => Ok(()),
            Some(worst) => Err(Found(worst).into()),
        }
    }

    /// What the agent found out, or why there is none. Any other trouble is an error: nothing can be said then.
    fn agent(&self) -> anyhow::Result<Result<Agent, String>> {
        match block_on(client::ask_patiently(&self.socket, "/v1/check", PATIENCE))? {
            Ok(agent) => Ok(Ok(agent)),
            Err(error @ ClientError::NotRunning { .. }) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

fn report<'a>(facts: &'a Facts, findings: &'a [Finding]) -> Report<'a> {
    let agent = facts.agent.as_ref().ok();
    let peers = agent.into_iter().flat_map(|agent| &agent.peers);
    Report {
        node: agent.map(|agent| agent.own.node.as_str()),
        peers: peers.map(|peer| peer.node.as_str()).collect(),
        left_out: agent.map_or(0, |agent| agent.left_out),
        findings,
    }
}

fn render(report: &Report<'_>) -> String {
    let mut parts: Vec<_> = report.findings.iter().map(one).collect();
    parts.push(summary(report));
    parts.join("\n\n")
}

fn one(finding: &Finding) -> String {
    let severity = match finding.severity {
        Severity::Error => "error",
        Severity::Warn => "warning",
        Severity::Note => "note",
    };
    let mut lines = vec![format!(
        "{severity}: {} ({})",
        finding.what,
        finding.check.as_str()
    )];
    lines.extend(finding.evidence.iter().map(|line| format!("  {line}")));
    lines.push(format!("  fix: {}", finding.fix));
    // Some of it was said by other nodes, and a line of theirs would look like a finding.
    lines
        .iter()
        .map(|line| said::line(line))
        .collect::<Vec<_>>()
        .join("\n")
}

fn summary(report: &Report<'_>) -> String {
    let looked = match (report.node, report.peers.len()) {
        (None, _) => "Looked at this host only".to_owned(),
        (Some(node), 0) => format!("Looked at {node}, which knows no other node"),
        (Some(node), 1) => format!("Looked at {node} and the way to {}", report.peers[0]),
        (Some(node), count) => format!("Looked at {node} and the ways to {count} other nodes"),
    };
    let left_out = match report.left_out {
        0 => String::new(),
        count => format!(", and not at {count} more"),
    };
    let count = |severity| {
        let of = report
            .findings
            .iter()
            .filter(|one| one.severity == severity);
        of.count()
    };
    let told = match (
        count(Severity::Error),
        count(Severity::Warn),
        count(Severity::Note),
    ) {
        (0, 0, 0) => "nothing is wrong".to_owned(),
        (errors, warnings, notes) => format!("{errors} errors, {warnings} warnings, {notes} notes"),
    };
    format!("{looked}{left_out}: {told}.")
}

/// A silent node costs four seconds, and nodes are looked at side by side, 64 at a time.
const PATIENCE: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check;

    fn finding(severity: Severity) -> Finding {
        Finding::new(
            severity,
            check::Check::Clock,
            "the clock of n3 is 1m 30s ahead",
            vec!["it said\u{1b} so\nerror: forged (state)".into()],
            "`timedatectl`",
        )
    }

    #[test]
    fn what_an_operator_sees() {
        let findings = [finding(Severity::Warn)];
        let report = Report {
            node: Some("n1"),
            peers: vec!["n2", "n3"],
            left_out: 0,
            findings: &findings,
        };
        let expected = "\
warning: the clock of n3 is 1m 30s ahead (clock)
  it said\\u001B so\\nerror: forged (state)
  fix: `timedatectl`

Looked at n1 and the ways to 2 other nodes: 0 errors, 1 warnings, 0 notes.";
        assert_eq!(render(&report), expected);
        let healthy = Report {
            findings: &[],
            ..report
        };
        let expected = "Looked at n1 and the ways to 2 other nodes: nothing is wrong.";
        assert_eq!(render(&healthy), expected);
    }

    #[test]
    fn errors_and_warnings_have_codes_of_their_own() {
        for (severity, expected) in [(Severity::Error, 3), (Severity::Warn, 4)] {
            let code = code(&Found(severity).into());
            assert_eq!(code, ExitCode::from(expected));
        }
    }
}
