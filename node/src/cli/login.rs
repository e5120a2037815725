//! `starling login`: a pass, as an address to open or as text.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Args;
use http::HeaderName;
use starling_gossip::{NodeName, ServiceName};

use super::sign::{self, NotAllowed};
use super::{block_on, client, out};
use crate::admin::view;
use crate::config::SOCKET;
use crate::mesh::unix_s;
use crate::operator::Operator;
use crate::pass::{ALL, HEADERS_MAX, LIFETIME_MAX, Pass, SEE, Serial, TAP, TAPS_MAX, Taps};

/// Make a pass: an address that opens a dashboard, with live calls if wanted
///
/// The pass is behind the # of the address, which a browser sends nowhere. Whoever has it may look for as long as it is good.
/// With --node and --url no agent is asked, so it can be made wherever the operator's file is.
#[derive(Debug, Args)]
pub(super) struct Login {
    /// The node whose dashboard it opens; the one of this host unless told otherwise
    #[arg(long, value_name = "NODE", requires = "url")]
    node: Option<NodeName>,
    /// Address of the dashboard, such as https://10.0.0.1:7443/
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Live calls to this service, or '*' for all; can be given several times
    #[arg(long = "tap", value_name = "NAME", value_parser = callee)]
    taps: Vec<Callee>,
    /// Show the values of this header field of live calls; can be given several times
    #[arg(long, value_name = "FIELD", requires = "taps")]
    show: Vec<HeaderName>,
    /// For how long, 12 hours at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Print the pass alone
    #[arg(long)]
    bare: bool,
    /// The operator's file [default: $STARLING_OPERATOR]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Callee {
    All,
    One(ServiceName),
}

impl Login {
    pub(super) fn run(self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.within <= LIFETIME_MAX && self.within >= Duration::from_secs(1),
            "--for is between a second and 12 hours"
        );
        let counts_ok = self.show.len() <= HEADERS_MAX && self.taps.len() <= TAPS_MAX;
        anyhow::ensure!(
            counts_ok,
            "a pass names {TAPS_MAX} services and {HEADERS_MAX} header fields at most"
        );
        let operator = sign::operator(self.key.clone())?;
        let (node, url) = match (&self.node, &self.url) {
            (Some(node), Some(url)) => (node.clone(), url.clone()),
            (_, url) => self.ask(url.as_ref())?,
        };
        let sees = may(&operator, !self.taps.is_empty())?;
        let pass = self.pass(node, sees)?;
        let text = pass.sign(&operator)?;
        if self.bare {
            out::say(&text)?;
        } else {
            out::say(&format!("{}/#pass={text}", url.trim_end_matches('/')))?;
        }
        out::complain(&told(&pass, &operator, self.within));
        Ok(())
    }

    /// The agent of this host says who it is and where its dashboard is.
    fn ask(&self, url: Option<&String>) -> anyhow::Result<(NodeName, String)> {
        let status: view::Status = block_on(client::ask_for(&self.socket, "/v1/status"))??;
        let url = url.cloned().or(status.dashboard);
        let url = match self.bare {
            true => url.unwrap_or_default(),
            false => url.context("this agent has no dashboard ([admin] dashboard = false)")?,
        };
        Ok((status.node.parse()?, url))
    }

    fn pass(&self, node: NodeName, sees: bool) -> anyhow::Result<Pass> {
        let now = unix_s(SystemTime::now());
        let names = self.taps.iter().filter_map(|tap| match tap {
            Callee::All => None,
            Callee::One(name) => Some(name.clone()),
        });
        Ok(Pass {
            node,
            sees,
            taps: match self.taps.contains(&Callee::All) {
                true => Taps::All,
                false => Taps::Only(names.collect()),
            },
            headers: self.show.clone(),
            not_before: now,
            not_after: now + self.within.as_secs(),
            serial: Serial::random()?,
        })
    }
}

/// Whether the pass opens a dashboard; an error if the operator may not give what is asked for.
fn may(operator: &Operator, taps: bool) -> Result<bool, NotAllowed> {
    let grant = operator.grant();
    let has = |right: &str| grant.kinds.iter().any(|kind| kind.as_str() == right);
    let lacks = |right: &str| {
        let name = &grant.operator;
        NotAllowed::new(format!(
            "{name} may not give such passes: the grant lacks `{right}`"
        ))
    };
    match (taps, has(SEE), has(TAP)) {
        (true, _, false) => Err(lacks(TAP)),
        (false, false, _) => Err(lacks(SEE)),
        (_, sees, _) => Ok(sees),
    }
}

fn told(pass: &Pass, operator: &Operator, within: Duration) -> String {
    let mut opens = Vec::new();
    if pass.sees {
        opens.push(format!("the dashboard of {}", pass.node));
    }
    match &pass.taps {
        Taps::All => opens.push("live calls to all services".to_owned()),
        Taps::Only(some) if some.is_empty() => {}
        Taps::Only(some) => {
            let names: Vec<_> = some.iter().map(ServiceName::as_str).collect();
            opens.push(format!("live calls to {}", names.join(", ")));
        }
    }
    format!(
        "Opens {} for {}, to whoever has it. {} signed it; logs name it {}.",
        opens.join(" and "),
        humantime::format_duration(within),
        operator.grant().operator,
        pass.serial
    )
}

fn callee(text: &str) -> Result<Callee, starling_gossip::NameError> {
    match text {
        ALL => Ok(Callee::All),
        name => ServiceName::parse(name).map(Callee::One),
    }
}
