//! `starling invite`: a token for one more host.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use ring::digest::{SHA256, digest};
use starling_gossip::{NodeName, ServiceName};

use super::ask::span;
use super::table::Table;
use super::{block_on, ca, client, out, starter};
use crate::addresses;
use crate::admin::view;
use crate::ca::{Authority, INTERMEDIATE_KEY};
use crate::config::{Config, is_host_port};
use crate::invites::{End, Invite as Promise, Invites, Listed};
use crate::random;
use crate::state::StateDir;
use crate::token::{ISSUERS_MAX, InviteId, SERVICES_MAX, Token};

/// Let another host in: print a token for `starling join`; run it on an issuer
///
/// The token goes to standard output, alone. It is a secret until it is used: whoever has it can become that node, once.
#[derive(Debug, Args)]
pub(super) struct Invite {
    /// Name of the host in the mesh
    #[arg(long, value_name = "NAME", value_parser = NodeName::parse, required_unless_present_any = ["list", "revoke"])]
    node: Option<NodeName>,
    /// A service that runs or calls there; may be repeated
    #[arg(long = "service", value_name = "NAME", value_parser = ServiceName::parse, requires = "node")]
    services: Vec<ServiceName>,
    /// How long the token is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Join port of an issuer, this one or another; may be repeated [default: that of this host]
    #[arg(long = "issuer", value_name = "HOST:PORT", value_parser = join_port, requires = "node")]
    issuers: Vec<String>,
    /// List the invitations of this issuer instead
    #[arg(long, conflicts_with_all = ["node", "revoke"])]
    list: bool,
    /// Take an invitation back instead
    #[arg(long, value_name = "ID", value_parser = InviteId::parse, conflicts_with = "node")]
    revoke: Option<InviteId>,
    /// State directory of this issuer [default: /var/lib/starling]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Configuration of this issuer, for its addresses [default: /etc/starling, and none if --state is given]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
}

/// An issuer does not join by itself; it may be the only one, and makes its certificates without a token.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is this host itself")]
pub(super) struct OwnInvitation(NodeName, PathBuf);

impl OwnInvitation {
    pub(super) fn hint(&self) -> String {
        let state = self.1.display();
        format!(
            "`starling ca issue --node {} --state {state} --out {state}`, with a --service for each of its services, makes its \
             certificates anew; its agent takes them up",
            self.0
        )
    }
}

impl Invite {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let state = StateDir::open(&starter::state(self.state.as_deref()))?;
        let now = now();
        match (&self.node, self.revoke) {
            (Some(node), _) => self.invite(&state, node, now),
            (None, Some(id)) => revoke(&state, id, now),
            (None, None) => {
                let listed = Invites(&state).all()?;
                Ok(out::say(&list(&listed, now))?)
            }
        }
    }

    fn invite(&self, state: &StateDir, node: &NodeName, now: u64) -> anyhow::Result<()> {
        let authority = Authority::load(state)?;
        anyhow::ensure!(
            TTLS.contains(&self.ttl),
            "--ttl goes from 1 second to 30 days"
        );
        let home = state
            .node()?
            .and_then(|id| id.node_name().map(NodeName::parse));
        let home = home.context("this issuer has no certificate of its own yet")??;
        if *node == home {
            return Err(OwnInvitation(home, state.path().to_owned()).into());
        }
        let mut services = self.services.clone();
        services.sort();
        services.dedup();
        anyhow::ensure!(
            services.len() <= SERVICES_MAX,
            "a token names at most {SERVICES_MAX} services"
        );
        anyhow::ensure!(
            self.issuers.len() <= ISSUERS_MAX,
            "a token names at most {ISSUERS_MAX} issuers"
        );
        let root = authority.root(&home)?;
        let token = Token {
            trust_domain: authority.trust_domain().clone(),
            root_sha256: digest(&SHA256, &root)
                .as_ref()
                .try_into()
                .expect("SHA-256 has 32 bytes"),
            id: InviteId(random::bytes()?),
            seed: random::bytes()?,
            node: node.clone(),
            services,
            not_after: now + self.ttl.as_secs(),
            home,
            issuers: self.issuers()?,
        };
        let made_at = self.made_at(&token, now);
        Invites(state).add(token.id, &Promise::of(&token, made_at), now)?;
        out::complain(&format!(
            "Node {node}{} may join within {} at {}, once.\n\
             On that host: `starling join`, and paste the token. To take it back: `starling invite --revoke {}`.",
            ca::with(&token.services),
            humantime::format_duration(self.ttl),
            token.issuers.join(" or "),
            token.id,
        ));
        Ok(out::say(&token.encode())?)
    }

    /// Now, but after every revocation of these names that the agent knows: its second may be this one, or its clock ahead, and
    /// an invitation from before a revocation is refused. Without an agent it is now; then the worst is that the token has to be
    /// made again.
    fn made_at(&self, token: &Token, now: u64) -> u64 {
        let invited = view::Invited {
            node: token.node.to_string(),
            services: token.services.iter().map(ToString::to_string).collect(),
        };
        let socket = self.configuration().unwrap_or_default().admin.socket;
        let question = serde_json::to_vec(&invited).expect("strings can be written");
        let asked = client::post_for::<view::GoodFrom>(&socket, "/v1/good-from", &question);
        let good_from = block_on(asked).ok().and_then(Result::ok);
        let good_from = good_from.and_then(|known| known.good_from);
        good_from.map_or(now, |before| now.max(before.saturating_add(1)))
    }

    fn configuration(&self) -> anyhow::Result<Config> {
        let directory = starter::directory(self.config.as_deref(), self.state.as_deref());
        let directory = directory.filter(|directory| directory.is_dir());
        Ok(directory.map_or_else(
            || Ok(Config::default()),
            |directory| Config::load(&directory),
        )?)
    }

    /// Join ports for the token.
    fn issuers(&self) -> anyhow::Result<Vec<String>> {
        if !self.issuers.is_empty() {
            return Ok(self.issuers.clone());
        }
        let config = self.configuration()?;
        let listen = config.join_listen();
        let ip = match config.advertise {
            _ if !listen.ip().is_unspecified() => Some(listen.ip()),
            Some(advertise) => Some(advertise.ip()),
            None => block_on(addresses::of_this_host())?,
        };
        let ip = ip.context(
            "no address of this host is known to others; name it with --issuer HOST:PORT",
        )?;
        Ok(vec![SocketAddr::new(ip, listen.port()).to_string()])
    }
}

fn revoke(state: &StateDir, id: InviteId, now: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        state.exists(INTERMEDIATE_KEY),
        "{} is no issuer's state directory",
        state.path().display()
    );
    let invites = Invites(state);
    let invite = invites
        .find(id)?
        .with_context(|| format!("this issuer made no invitation {id}"))?;
    if invites.finish(id, &End::Revoked { at: now })? {
        return Ok(out::say(&format!(
            "Nobody can join as node {} with invitation {id} any more.",
            invite.node
        ))?);
    }
    match invites.end(id)? {
        Some(End::Spent { at, from, .. }) => anyhow::bail!(
            "a host at {from} joined with it {} ago as node {}",
            span(now.saturating_sub(at)),
            invite.node
        ),
        _ => Ok(out::say(&format!(
            "Invitation {id} was taken back before."
        ))?),
    }
}

fn list(all: &[Listed], now: u64) -> String {
    let mut table = Table::new(["INVITATION", "NODE", "SERVICES", "STATE"]);
    for Listed { id, invite, end } in all {
        let ago = |at: u64| span(now.saturating_sub(at));
        let state = match end {
            Some(End::Spent { at, from, .. }) => format!("used {} ago from {from}", ago(*at)),
            Some(End::Revoked { at }) => format!("taken back {} ago", ago(*at)),
            None if invite.not_after < now => format!("expired {} ago", ago(invite.not_after)),
            None => format!("open for {}", span(invite.not_after - now)),
        };
        table.row([
            id.to_string(),
            invite.node.clone(),
            invite.services.join(", "),
            state,
        ]);
    }
    table.render()
}

fn join_port(text: &str) -> Result<String, String> {
    if is_host_port(text) {
        Ok(text.to_owned())
    } else {
        Err("an issuer is HOST:PORT, as in 10.0.0.1:7402".to_owned())
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// A token lies around in mails and terminals; a month is for hosts that are shipped.
const TTLS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_sees() {
        let listed = |id: u8, not_after, end| Listed {
            id: InviteId([id; 16]),
            invite: Promise {
                node: format!("n{id}"),
                services: vec!["orders".into(), "web".into()],
                not_after,
                made_at: 400,
                public_key: [0; 32],
            },
            end,
        };
        let spent = End::Spent {
            at: 900,
            from: "10.0.0.2:5".into(),
            wish: [0; 32],
            joined: None,
        };
        let all = [
            listed(1, 500, None),
            listed(2, 2000, Some(spent)),
            listed(3, 2000, Some(End::Revoked { at: 990 })),
            listed(4, 4600, None),
        ];
        let expected = "\
INVITATION                        NODE  SERVICES     STATE
01010101010101010101010101010101  n1    orders, web  expired 8m 20s ago
02020202020202020202020202020202  n2    orders, web  used 1m 40s ago from 10.0.0.2:5
03030303030303030303030303030303  n3    orders, web  taken back 10s ago
04040404040404040404040404040404  n4    orders, web  open for 1h 0m";
        assert_eq!(list(&all, 1000), expected);
    }
}
