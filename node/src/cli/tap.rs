//! `starling tap`: calls as they end, from all over the mesh.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, ValueEnum};
use http::HeaderName;
use starling_gossip::{NodeName, ServiceName};

use super::sign::{self, NotAllowed};
use super::{block_on, client, out, table, units};
use crate::admin::{PASS, view};
use crate::config::SOCKET;
use crate::mesh::unix_s;
use crate::operator::Operator;
use crate::pass::{self, Pass, Serial, TAP, Taps};
use crate::tap::{Asked, Call, Filter, News, Wanted};

/// Show calls to a service as they end, from all over the mesh
///
/// Every node that runs the service or calls it is asked, and shows its end of each call, at most --sample a second. Bodies and
/// queries are never shown. An operator with the right `tap` signs for it, and every node that is asked writes that into its log.
#[derive(Debug, Args)]
pub(super) struct Tap {
    /// The service that is called
    #[arg(value_name = "CALLEE", value_parser = ServiceName::parse)]
    callee: ServiceName,
    /// Only calls of this service
    #[arg(long, value_name = "NAME")]
    caller: Option<String>,
    /// Only requests with this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only requests whose path fits, such as /cart, /cart/** or /items/{id}
    #[arg(long, value_name = "PATTERN")]
    path: Option<String>,
    /// Only answers with this status, such as 404 or 5xx
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only calls that the mesh failed or that were answered with 5xx
    #[arg(long)]
    errors: bool,
    /// Only one of the two ends of each call
    #[arg(long, value_name = "END")]
    side: Option<End>,
    /// Ask only this node; can be given several times
    #[arg(long = "node", value_name = "NODE")]
    nodes: Vec<NodeName>,
    /// Show the names of header fields
    #[arg(long)]
    headers: bool,
    /// Show the values of this header field; can be given several times
    ///
    /// Values of authorization, cookie and other fields that may let others in are never shown.
    #[arg(long, value_name = "FIELD")]
    show: Vec<HeaderName>,
    /// Calls that each node shows in a second, at most; what is left out is counted
    #[arg(long, value_name = "CALLS", default_value_t = 20)]
    sample: u32,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    within: Duration,
    /// End after so many calls
    #[arg(long, value_name = "CALLS")]
    count: Option<u64>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// The operator's file [default: $STARLING_OPERATOR]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum End {
    Caller,
    Callee,
}

/// What was told so far.
struct Told {
    json: bool,
    most: Option<u64>,
    calls: u64,
    left_out: u64,
    lost: u64,
    nodes: Vec<Asked>,
    /// Standard output is gone, and why it ended otherwise.
    failed: Option<std::io::Error>,
    ended: Option<String>,
}

impl Tap {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let wanted = self.wanted();
        Filter::parse(&wanted)?;
        let operator = sign::operator(self.key.clone())?;
        may_tap(&operator)?;
        let status: view::Status = block_on(client::ask_for(&self.socket, "/v1/status"))??;
        let pass = self.pass(status.node.parse()?)?.sign(&operator)?;
        let nodes = self.nodes.iter().map(|node| format!("&node={node}"));
        let path = format!("/v1/tap?{}{}", wanted.to_query(), nodes.collect::<String>());
        let mut told = Told::new(self.json, self.count);
        let followed = block_on(async {
            let each = |message: &str| told.take(message);
            let following = client::follow(&self.socket, &path, (PASS, &pass), each);
            tokio::select! {
                followed = following => followed,
                () = tokio::time::sleep(self.within) => Ok(()),
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })?;
        followed?;
        told.finish()
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            callee: self.callee.to_string(),
            caller: self.caller.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            status: self.status.clone(),
            side: self.side.map(|end| match end {
                End::Caller => "caller".to_owned(),
                End::Callee => "callee".to_owned(),
            }),
            errors: self.errors,
            headers: self.headers || !self.show.is_empty(),
            show: self.show.iter().map(ToString::to_string).collect(),
            rate: Some(self.sample),
        }
    }

    /// For this service alone, and no longer than it takes.
    fn pass(&self, node: NodeName) -> anyhow::Result<Pass> {
        anyhow::ensure!(
            self.within <= pass::LIFETIME_MAX,
            "--for is 12 hours at most: a pass is good for no longer"
        );
        let now = unix_s(SystemTime::now());
        Ok(Pass {
            node,
            sees: false,
            taps: Taps::Only([self.callee.clone()].into()),
            headers: self.show.clone(),
            not_before: now,
            not_after: now + self.within.as_secs(),
            serial: Serial::random()?,
        })
    }
}

/// The nodes would refuse it, and this tells why at once.
fn may_tap(operator: &Operator) -> Result<(), NotAllowed> {
    let grant = operator.grant();
    let mut kinds = grant.kinds.iter();
    if kinds.any(|kind| kind.as_str() == TAP) {
        return Ok(());
    }
    let name = &grant.operator;
    Err(NotAllowed::new(format!(
        "{name} may not look at live calls: the grant lacks `{TAP}`"
    )))
}

impl Told {
    fn new(json: bool, most: Option<u64>) -> Self {
        Self {
            json,
            most,
            calls: 0,
            left_out: 0,
            lost: 0,
            nodes: Vec::new(),
            failed: None,
            ended: None,
        }
    }

    fn take(&mut self, message: &str) -> ControlFlow<()> {
        // A message of a later version, or a pulse.
        let Ok(news) = serde_json::from_str::<News>(message) else {
            return ControlFlow::Continue(());
        };
        let printed = match self.json {
            true => out::say_json(message),
            false => self.show(&news),
        };
        self.note(news);
        if let Err(error) = printed {
            self.failed = Some(error);
            return ControlFlow::Break(());
        }
        let is_enough = self.most.is_some_and(|most| self.calls >= most) || out::is_closed();
        match is_enough || self.ended.is_some() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn show(&self, news: &News) -> std::io::Result<()> {
        match news {
            News::Call { node, call } => out::say(&line(node, call)),
            News::Nodes { nodes, unasked } => {
                let changed = nodes.iter().filter(|node| !self.nodes.contains(node));
                for node in changed.filter(|node| node.state == "silent") {
                    let why = node.why.as_deref().unwrap_or_default();
                    out::complain(&table::plain(&format!(
                        "# {} shows nothing: {why}",
                        node.node
                    )));
                }
                if nodes.is_empty() {
                    out::complain("# no node is known that runs or calls it");
                }
                if *unasked > 0 {
                    out::complain(&format!("# {unasked} more nodes are not asked"));
                }
                Ok(())
            }
            News::Missing { .. } | News::End { .. } => Ok(()),
        }
    }

    fn note(&mut self, news: News) {
        match news {
            News::Call { .. } => self.calls += 1,
            News::Missing { left_out, lost, .. } => {
                self.left_out = self.left_out.saturating_add(left_out);
                self.lost = self.lost.saturating_add(lost);
            }
            News::Nodes { nodes, .. } => self.nodes = nodes,
            News::End { why } => self.ended = Some(why),
        }
    }

    fn finish(self) -> anyhow::Result<()> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        if !self.json {
            out::complain(&self.summary());
        }
        match self.ended {
            Some(why) => anyhow::bail!("the tap ended: {why}"),
            None => Ok(()),
        }
    }

    fn summary(&self) -> String {
        let Self {
            calls,
            left_out,
            lost,
            ..
        } = self;
        let answering = self.nodes.iter().filter(|node| node.state == "answers");
        let mut parts = vec![format!(
            "# {calls} shown, by {} of {} nodes",
            answering.count(),
            self.nodes.len()
        )];
        if *left_out > 0 {
            parts.push(format!("{left_out} left out by --sample"));
        }
        if *lost > 0 {
            parts.push(format!(
                "{lost} lost, as they came faster than they were read"
            ));
        }
        parts.join("; ")
    }
}

/// One call in a line, and a line for each header field.
fn line(node: &str, call: &Call) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(call.at_ms);
    let time = humantime::format_rfc3339_millis(at).to_string();
    let instance = call.instance.as_deref().unwrap_or("-");
    let outcome = match (call.status, &call.reason) {
        (Some(status), Some(reason)) => format!("{status} {reason}"),
        (Some(status), None) => status.to_string(),
        (None, Some(reason)) => reason.clone(),
        (None, None) => "ok".to_owned(),
    };
    let request = [&call.method, &call.path].map(|part| part.as_deref().unwrap_or_default());
    let rule = call.rule.as_ref().map(|rule| format!("  ({rule})"));
    let text = format!(
        "{}  {} {node}  {} → {}@{instance}  {outcome}  {}  {} in {} out  {}{}",
        time.get(11..).unwrap_or(&time),
        call.side,
        call.caller,
        call.callee,
        units::micros(Some(call.duration_us)),
        bytes(call.bytes_in),
        bytes(call.bytes_out),
        request.join(" ").trim(),
        rule.unwrap_or_default(),
    );
    let fields = call.headers.iter().map(|field| {
        let value = field.value.as_deref().unwrap_or("(not shown)");
        format!(
            "\n    {}",
            table::plain(&format!("{}: {value}", field.name))
        )
    });
    let fields: String = fields.collect();
    table::plain(text.trim_end()) + &fields
}

/// Of nothing as well.
fn bytes(number: u64) -> String {
    match number {
        0 => "0B".to_owned(),
        _ => units::bytes(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tap::Field;

    fn call() -> Call {
        Call {
            at_ms: 1_000_000_000_123,
            side: "callee".into(),
            caller: "web".into(),
            callee: "orders".into(),
            instance: Some("n2".into()),
            protocol: "http".into(),
            method: Some("GET".into()),
            path: Some("/cart".into()),
            status: Some(403),
            reason: Some("denied".into()),
            rule: Some("orders.toml:7".into()),
            bytes_in: 5,
            bytes_out: 2048,
            duration_us: 3_210,
            headers: vec![
                Field {
                    name: "x-tenant".into(),
                    value: Some("acme".into()),
                },
                Field {
                    name: "cookie".into(),
                    value: None,
                },
            ],
            ..Call::default()
        }
    }

    #[test]
    fn a_call_is_a_line_with_its_header() {
        assert_eq!(
            line("n2", &call()),
            "01:46:40.123Z  callee n2  web → orders@n2  403 denied  3.2ms  5B in 2.0kB out  GET /cart  (orders.toml:7)\n    \
             x-tenant: acme\n    cookie: (not shown)"
        );
    }

    #[test]
    fn what_other_hosts_say_cannot_steer_the_terminal() {
        let evil = Call {
            path: Some("/\u{1b}[2J".into()),
            headers: vec![Field {
                name: "x".into(),
                value: Some("\r\nall is well".into()),
            }],
            ..call()
        };
        let text = line("n2", &evil);
        assert!(
            !text.contains('\u{1b}') && text.lines().count() == 2,
            "{text}"
        );
    }

    #[test]
    fn it_ends_when_there_is_enough_or_no_more() {
        let call = serde_json::to_string(&News::Call {
            node: "n2".into(),
            call: Box::new(call()),
        });
        let call = call.unwrap();
        let mut told = Told::new(false, Some(2));
        assert!(told.take("{}").is_continue() && told.take(&call).is_continue());
        assert!(told.take(&call).is_break());
        assert!(told.finish().is_ok());
        let mut told = Told::new(false, None);
        let end = r#"{"kind":"end","why":"the pass has ended"}"#;
        let missing = r#"{"kind":"missing","node":"n2","left_out":7,"lost":1}"#;
        assert!(told.take(missing).is_continue() && told.take(end).is_break());
        assert_eq!(
            told.summary(),
            "# 0 shown, by 0 of 0 nodes; 7 left out by --sample; 1 lost, as they came faster than they were read"
        );
        assert!(
            told.finish()
                .unwrap_err()
                .to_string()
                .contains("the pass has ended")
        );
    }
}
