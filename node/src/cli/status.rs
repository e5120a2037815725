//! `starling status`: how is the agent of this host?

use clap::Args;

use super::ask::{Ask, span};
use super::table::Table;
use crate::admin::view;
use crate::check::certificates;
use crate::check::documents::not_in_force;

/// Show how the agent of this host is doing
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    ask: Ask,
}

impl Status {
    pub(super) fn run(self) -> anyhow::Result<()> {
        self.ask.print("/v1/status", render)
    }
}

fn render(status: &view::Status) -> String {
    let view::Gossip {
        alive,
        suspect,
        dead,
    } = status.gossip;
    let mut parts = vec![format!(
        "{} of {} is {}, for {} (starling {})\n\
         mesh port {}, reached at {}{}\n\
         members: {alive} alive, {suspect} suspect, {dead} dead\n\
         documents: {}\n\
         configuration {}, read {} ago",
        status.node,
        status.trust_domain,
        status.state,
        span(status.uptime_s),
        status.version,
        status.listen,
        status.advertise,
        if status.zone.is_empty() {
            String::new()
        } else {
            format!(", zone {}", status.zone)
        },
        documents(&status.documents, alive),
        status.config.directory,
        span(status.config.age_s),
    )];
    if let Some(error) = &status.config.last_error {
        parts.push(format!(
            "The files were changed since, but are not in force:\n{error}"
        ));
    }
    if !status.config.absent.is_empty() {
        let entries = status.config.absent.iter().map(ToString::to_string);
        let entries: Vec<_> = entries.collect();
        parts.push(format!(
            "The configuration is in force, but for:\n{}",
            entries.join("\n")
        ));
    }
    if let Some(refused) = &status.refused_by_peer {
        parts.push(refusal(refused));
    }
    parts.push(certificates(&status.svids));
    if let Some(renewal) = &status.renewal {
        parts.push(format!(
            "Not renewed for {}: {}: {}\nBring an issuer back before it ends, or make one: `starling ca add-issuer`.",
            span(renewal.failing_s),
            renewal.identity,
            renewal.error,
        ));
    }
    if let Some(issuer) = &status.issuer {
        parts.push(format!(
            "This node is an issuer, with its join port at {}; its own certificate ends {}.",
            issuer.join,
            ends(issuer.seconds_left),
        ));
    }
    if !status.services.is_empty() {
        parts.push(services(&status.services));
    }
    if !status.upstreams.is_empty() {
        parts.push(upstreams(&status.upstreams));
    }
    if !status.plaintext.is_empty() {
        parts.push(plaintext(&status.plaintext));
    }
    parts.join("\n\n")
}

fn documents(documents: &view::DocumentCount, alive: usize) -> String {
    // What is lost may be all there is.
    let mut text = match documents.newest_age_s {
        None => "none held".to_owned(),
        Some(newest) => format!(
            "{}, the newest {} ago, the same on {} of {alive} nodes",
            documents.count,
            span(newest),
            documents.same_nodes
        ),
    };
    if documents.forks > 0 {
        text += &format!(", {} forked", documents.forks);
    }
    if documents.not_in_force > 0 {
        text += &format!(
            ", {} NOT IN FORCE here (see `starling get`)",
            documents.not_in_force
        );
    }
    if documents.unsaved > 0 {
        text += &format!(
            ", {} NOT ON DISK here (see `starling check`)",
            documents.unsaved
        );
    }
    for view::OutOfForceOn { node, count } in &documents.elsewhere {
        let count = not_in_force((*count).into());
        text += &format!("\n{node}: {count} (see `starling check` there)");
    }
    text
}

/// Why this node may be alone, and what to do about it.
fn refusal(refused: &view::RefusedByPeer) -> String {
    let view::RefusedByPeer {
        identity,
        by,
        why,
        age_s,
    } = refused;
    let ago = span(*age_s);
    let (what, fix) = certificates::refusal(why);
    let what = what.to_uppercase();
    format!("For {by}, {identity} {what} ({ago} ago).\n  hint: {fix}")
}

fn certificates(svids: &[view::Svid]) -> String {
    let mut table = Table::new(["CERTIFICATE", "ISSUERS IN ITS LINE", "ENDS"]);
    for svid in svids {
        let ends = ends(svid.seconds_left);
        table.row([
            svid.identity.clone(),
            svid.signers.join(", "),
            match &svid.revoked {
                Some(why) => format!("{ends}, but here it counts as REVOKED: {why}"),
                None => ends,
            },
        ]);
    }
    table.render()
}

fn ends(seconds_left: i64) -> String {
    let span = span(seconds_left.unsigned_abs());
    if seconds_left < 0 {
        format!("{span} ago")
    } else {
        format!("in {span}")
    }
}

fn services(services: &[view::Declared]) -> String {
    let mut table = Table::new([
        "SERVICE", "PROTOCOL", "APP", "HEALTH", "ALLOWS", "MODE", "DECLARED",
    ]);
    for service in services {
        let health = match (service.healthy, &service.problem) {
            (true, _) => "healthy".to_owned(),
            (false, None) => "unhealthy".to_owned(),
            (false, Some(problem)) => format!("unhealthy: {problem}"),
        };
        table.row([
            service.service.clone(),
            service.protocol.clone(),
            service.address.clone(),
            health,
            service.allow.join(", "),
            service.mode.clone(),
            service.declared.clone(),
        ]);
    }
    table.render()
}

fn plaintext(callers: &[view::PlaintextCaller]) -> String {
    let mut table = Table::new(["IN PLAINTEXT", "FROM", "CONNECTIONS", "LAST"]);
    for caller in callers {
        table.row([
            caller.service.clone(),
            caller.address.clone(),
            caller.connections.to_string(),
            format!("{} ago", span(caller.age_s)),
        ]);
    }
    table.render()
}

fn upstreams(upstreams: &[view::Upstream]) -> String {
    let mut table = Table::new([
        "UPSTREAM", "AS", "LISTENS", "PROTOCOL", "USABLE", "DECLARED",
    ]);
    for upstream in upstreams {
        table.row([
            upstream.service.clone(),
            upstream.caller.clone(),
            upstream.listen.clone(),
            upstream.protocol.clone(),
            format!("{} of {}", upstream.usable, upstream.instances),
            upstream.declared.clone(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> view::Status {
        view::Status {
            node: "n1".into(),
            identity: "spiffe://example.org/node/n1".into(),
            trust_domain: "example.org".into(),
            version: "0.1.0".into(),
            uptime_s: 3_700,
            state: "serving".into(),
            listen: "0.0.0.0:7400".into(),
            advertise: "10.0.0.1:7400".into(),
            zone: "rack-1".into(),
            svids: vec![
                view::Svid {
                    identity: "spiffe://example.org/node/n1".into(),
                    seconds_left: 80_000,
                    key: "sha256:00".into(),
                    line: Some("11".into()),
                    signers: vec!["n1".into(), "n3".into()],
                    revoked: Some("the certificate is revoked".into()),
                },
                view::Svid {
                    identity: "spiffe://example.org/svc/web".into(),
                    seconds_left: -61,
                    key: "sha256:01".into(),
                    line: None,
                    signers: Vec::new(),
                    revoked: None,
                },
            ],
            renewal: Some(view::Renewal {
                identity: "spiffe://example.org/node/n1".into(),
                failing_s: 7_300,
                error: "no issuer is known and alive".into(),
            }),
            issuer: Some(view::Issuer {
                join: "0.0.0.0:7402".into(),
                seconds_left: 31_000_000,
            }),
            refused_by_peer: Some(view::RefusedByPeer {
                identity: "spiffe://example.org/svc/web".into(),
                by: "10.0.0.2:7400".into(),
                why: "expired".into(),
                age_s: 5,
            }),
            gossip: view::Gossip {
                alive: 3,
                suspect: 1,
                dead: 0,
            },
            documents: view::DocumentCount {
                count: 4,
                newest_age_s: Some(61),
                forks: 1,
                not_in_force: 2,
                elsewhere: vec![view::OutOfForceOn {
                    node: "n3".into(),
                    count: 1,
                }],
                unsaved: 0,
                same_nodes: 2,
            },
            services: vec![view::Declared {
                service: "orders".into(),
                protocol: "http".into(),
                address: "127.0.0.1:8080".into(),
                allow: vec!["web".into(), "batch".into()],
                mode: "permissive".into(),
                healthy: false,
                problem: Some("answered 503".into()),
                declared: "orders.toml:1".into(),
            }],
            upstreams: vec![view::Upstream {
                service: "pay".into(),
                listen: "127.0.0.1:9001".into(),
                caller: "web".into(),
                protocol: "http".into(),
                usable: 1,
                instances: 2,
                declared: "web.toml:4".into(),
            }],
            dashboard: None,
            plaintext: vec![view::PlaintextCaller {
                service: "orders".into(),
                address: "10.0.0.9".into(),
                connections: 3,
                age_s: 70,
            }],
            config: view::Config {
                directory: "/etc/starling".into(),
                age_s: 12,
                last_error: Some("error: web.toml:1: unknown key `x`".into()),
                absent: vec![view::Absent {
                    entry: "upstream `pay`".into(),
                    declared: "web.toml:4".into(),
                    why: "cannot listen on 127.0.0.1:9001: in use".into(),
                }],
            },
        }
    }

    #[test]
    fn a_lost_document_is_seen_where_no_other_is_held() {
        let mut count = status().documents;
        count.newest_age_s = None;
        count.elsewhere.clear();
        (count.forks, count.not_in_force) = (0, 1);
        assert!(documents(&count, 1).contains("1 NOT IN FORCE here"));
        count.not_in_force = 0;
        assert_eq!(documents(&count, 1), "none held");
    }

    #[test]
    fn what_an_operator_sees() {
        let expected = "\
n1 of example.org is serving, for 1h 1m (starling 0.1.0)
mesh port 0.0.0.0:7400, reached at 10.0.0.1:7400, zone rack-1
members: 3 alive, 1 suspect, 0 dead
documents: 4, the newest 1m 1s ago, the same on 2 of 3 nodes, 1 forked, 2 NOT IN FORCE here (see `starling get`)
n3: 1 document not in force (see `starling check` there)
configuration /etc/starling, read 12s ago

The files were changed since, but are not in force:
error: web.toml:1: unknown key `x`

The configuration is in force, but for:
web.toml:4: upstream `pay`: cannot listen on 127.0.0.1:9001: in use

For 10.0.0.2:7400, spiffe://example.org/svc/web HAS EXPIRED (5s ago).
  hint: renew it, or put the clock right, here or there: `timedatectl`

CERTIFICATE                   ISSUERS IN ITS LINE  ENDS
spiffe://example.org/node/n1  n1, n3               in 22h 13m, but here it counts as REVOKED: the certificate is revoked
spiffe://example.org/svc/web  -                    1m 1s ago

Not renewed for 2h 1m: spiffe://example.org/node/n1: no issuer is known and alive
Bring an issuer back before it ends, or make one: `starling ca add-issuer`.

This node is an issuer, with its join port at 0.0.0.0:7402; its own certificate ends in 358d 19h.

SERVICE  PROTOCOL  APP             HEALTH                   ALLOWS      MODE        DECLARED
orders   http      127.0.0.1:8080  unhealthy: answered 503  web, batch  permissive  orders.toml:1

UPSTREAM  AS   LISTENS         PROTOCOL  USABLE  DECLARED
pay       web  127.0.0.1:9001  http      1 of 2  web.toml:4

IN PLAINTEXT  FROM      CONNECTIONS  LAST
orders        10.0.0.9  3            1m 10s ago";
        assert_eq!(render(&status()), expected);
    }
}
