//! What the running agent knows: the answer to `/v1/check`.

use serde::{Deserialize, Serialize};

use super::certificates::{self, Certificate};
use super::documents::Documents;
use super::lines::Lines;
use super::peers::Peer;
use super::{Check, Finding, Severity, drift, reach};
use crate::admin::view;
use crate::span::span;

/// One agent and what it found out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    pub own: Own,
    /// Where its keys and certificates are.
    pub state: String,
    /// Where its configuration is.
    pub directory: String,
    /// Why the files there are not in force.
    pub config_error: Option<String>,
    /// Entries of the configuration in force that go without what they need.
    #[serde(default)]
    pub absent: Vec<view::Absent>,
    /// Those in force: of the node, its services, its CA.
    pub certificates: Vec<Certificate>,
    pub renewal: Option<view::Renewal>,
    pub refused: Option<view::RefusedByPeer>,
    pub open_files: Option<OpenFiles>,
    /// Those that have no effect, here and elsewhere.
    #[serde(default)]
    pub documents: Documents,
    /// What revocations reach.
    #[serde(default)]
    pub lines: Lines,
    /// What came of asking the seeds, if no other node is known.
    pub seeds: Vec<Seed>,
    pub peers: Vec<Peer>,
    /// Nodes that were not looked at, as there are too many.
    pub left_out: usize,
}

/// What the node is to the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    pub node: String,
    pub version: String,
    /// Which announcement of which life is the newest.
    pub generation: u64,
    pub sequence: u64,
    /// Since then.
    pub announced_s: u64,
    /// What tells the documents that it holds from other sets.
    pub documents: Option<String>,
    pub newest_document_s: Option<u64>,
}

/// File descriptors of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenFiles {
    pub open: u64,
    pub most: u64,
    /// `limits.connections`.
    pub connections: u64,
}

/// What came of dialling a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed {
    pub seed: String,
    /// Which node answered; or why none.
    pub answer: Result<String, String>,
}

impl Own {
    /// Whether the agent is of another version than the program on disk.
    pub fn is_old(&self, program: &str) -> Option<Finding> {
        (self.version != program).then(|| {
            Finding::new(
                Severity::Warn,
                Check::Version,
                format!(
                    "the agent runs {}, and this program is {program}",
                    self.version
                ),
                Vec::new(),
                "restart the agent after an upgrade: `systemctl restart starling`",
            )
        })
    }
}

impl Agent {
    pub fn judge(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.config());
        found.extend(self.absent());
        found.extend(certificates::judge(
            &self.certificates,
            self.renewal.as_ref(),
        ));
        found.extend(self.peers.iter().filter_map(peer_certificate));
        found.extend(self.refused.as_ref().map(refused));
        found.extend(self.open_files.as_ref().and_then(OpenFiles::finding));
        found.extend(self.alone());
        found.extend(reach::judge(&self.peers));
        found.extend(drift::judge(&self.own, &self.peers));
        found.extend(self.documents.judge());
        found.extend(self.lines.judge());
        found
    }

    fn config(&self) -> Option<Finding> {
        let error = self.config_error.clone()?;
        Some(Finding::new(
            Severity::Error,
            Check::Config,
            "the configuration was changed, but the change is not in force",
            error.lines().map(str::to_owned).collect(),
            "put it right; `starling validate` tells beforehand",
        ))
    }

    fn absent(&self) -> Option<Finding> {
        let evidence = self.absent.iter().take(EVIDENCE_MAX);
        let evidence = evidence.map(ToString::to_string);
        let count = self.absent.len();
        (count > 0).then(|| {
            Finding::new(
                Severity::Error,
                Check::Config,
                match count {
                    1 => "an entry of the configuration goes without what it needs".to_owned(),
                    many => format!("{many} entries of the configuration go without what they need"),
                },
                evidence.collect(),
                "give each what it lacks: the agent takes it up within seconds; the rest of the configuration is in force",
            )
        })
    }

    fn alone(&self) -> Option<Finding> {
        if self.seeds.is_empty() || !self.peers.is_empty() {
            return None;
        }
        let tried = self.seeds.iter().map(|seed| match &seed.answer {
            Ok(node) => format!("{} answers as {node}, but is not known yet", seed.seed),
            Err(why) => format!("{}: {why}", seed.seed),
        });
        Some(Finding::new(
            Severity::Error,
            Check::Alone,
            "no other node is known, though there are seeds",
            tried.collect(),
            "are the seeds right and running, and does every firewall on the way let UDP to them through, both ways?",
        ))
    }
}

fn peer_certificate(peer: &Peer) -> Option<Finding> {
    let certificate = peer.certificate.clone()?;
    let found = certificates::judge(&[certificate], None)
        .into_iter()
        .next()?;
    Some(Finding {
        what: format!("a certificate of {} ends soon", peer.node),
        fix: format!(
            "`starling check` on {} says why it is not renewed",
            peer.node
        ),
        ..found
    })
}

fn refused(refused: &view::RefusedByPeer) -> Finding {
    let (what, fix) = certificates::refusal(&refused.why);
    let evidence = format!("{} said so {} ago", refused.by, span(refused.age_s));
    Finding::new(
        Severity::Error,
        Check::Refused,
        format!("for a peer, {} {what}", refused.identity),
        vec![evidence],
        fix,
    )
}

impl OpenFiles {
    fn finding(&self) -> Option<Finding> {
        let Self {
            open,
            most,
            connections,
        } = *self;
        let wanted = 2 * connections + SPARE;
        let is_nearly_out = open * 10 > most * 9;
        if most >= wanted && !is_nearly_out {
            return None;
        }
        let severity = match is_nearly_out {
            true => Severity::Error,
            false => Severity::Warn,
        };
        let evidence = vec![
            format!("{open} of {most} are open"),
            format!(
                "limits.connections = {connections} takes two each, and {SPARE} are for all else"
            ),
        ];
        Some(Finding::new(
            severity,
            Check::OpenFiles,
            "the agent may not open as many files as its connections take",
            evidence,
            format!("`LimitNOFILE={wanted}` or more in the unit, or a lower limits.connections"),
        ))
    }
}

/// Descriptors for listeners, pooled connections to apps, the admin side and logs.
const SPARE: u64 = 512;

/// Entries may be many on a host with many services.
const EVIDENCE_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::super::tests::{agent, peer};
    use super::*;

    fn check(agent: &Agent, expected: &[(Severity, Check)]) {
        let found = agent.judge();
        let told: Vec<_> = found.iter().map(|one| (one.severity, one.check)).collect();
        assert_eq!(told, expected, "{found:?}");
    }

    #[test]
    fn files_that_are_too_few_for_the_connections() {
        let mut agent = agent();
        check(&agent, &[]);
        let files = |open, most| {
            Some(OpenFiles {
                open,
                most,
                connections: 4_096,
            })
        };
        agent.open_files = files(60, 1_024);
        check(&agent, &[(Severity::Warn, Check::OpenFiles)]);
        agent.open_files = files(1_000, 1_024);
        check(&agent, &[(Severity::Error, Check::OpenFiles)]);
        agent.open_files = files(60, 65_536);
        check(&agent, &[]);
    }

    #[test]
    fn a_node_that_finds_nobody_says_whom_it_tried() {
        let mut agent = agent();
        agent.peers.clear();
        check(&agent, &[]);
        agent.seeds = vec![Seed {
            seed: "10.0.0.1:7400".into(),
            answer: Err("no answer within 3s".into()),
        }];
        check(&agent, &[(Severity::Error, Check::Alone)]);
        assert_eq!(
            agent.judge()[0].evidence,
            ["10.0.0.1:7400: no answer within 3s"]
        );
    }

    #[test]
    fn the_certificate_of_a_peer_is_the_peers_to_renew() {
        let mut agent = agent();
        agent.peers = vec![Peer {
            certificate: Some(Certificate {
                name: "node/n2".into(),
                life_s: 86_400,
                left_s: 20_000,
                kind: certificates::Kind::Leaf,
            }),
            ..peer("n2")
        }];
        check(&agent, &[(Severity::Warn, Check::Certificate)]);
        assert!(agent.judge()[0].fix.contains("on n2"));
    }
}
