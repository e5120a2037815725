//! What this agent knows of its own health and of the way to others, gathered when an operator asks.

mod look;
mod questions;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{self, StreamExt};
use starling_gossip::{Documents, Liveness, Member, State};
use starling_transport::path::From;
use starling_transport::{Callee, Refusal, SpiffeId, Svid};
use tokio::net::lookup_host;

use crate::ca::{Authority, INTERMEDIATE_KEY};
use crate::state::StateDir;

use super::source::{Facts, refused, renewal};
use crate::check::agent::{Agent, OpenFiles, Own, Seed};
use crate::check::certificates::{self, Certificate, Kind};
use crate::check::lines::{Lines, LooseKey, Revoked};
use crate::host::Host;
use crate::mesh::unix_s;
use crate::telemetry::process;

pub(crate) use questions::handlers;

/// Asks the system, the catalogue, and each other node.
pub(super) async fn facts(host: Arc<Host>, facts: Arc<Facts>) -> Agent {
    let catalogue = host.membership.catalogue();
    let others = catalogue
        .members
        .values()
        .filter(|member| member.name != host.node && member.state != State::Left);
    let mut others: Vec<_> = others.cloned().collect();
    let left_out = others.len().saturating_sub(PEERS_MAX);
    others.truncate(PEERS_MAX);
    let seeds = match others.is_empty() {
        true => seeds(&host).await,
        false => Vec::new(),
    };
    let config = host.config.load_full();
    Agent {
        peers: look::at_all(&host, others).await,
        own: own(&host),
        state: config.state.display().to_string(),
        directory: facts.directory.display().to_string(),
        config_error: facts.config_error(),
        absent: facts.means.absent(),
        certificates: held(&host),
        renewal: host.renewal_trouble.load().as_deref().map(renewal),
        refused: host.identities.refused_by_peer().as_deref().map(refused),
        open_files: process::files().map(|(open, most)| OpenFiles {
            open,
            most,
            connections: config.limits.connections.into(),
        }),
        documents: crate::check::documents::Documents::default(),
        lines: lines(&host).await,
        seeds,
        left_out,
    }
}

fn own(host: &Host) -> Own {
    let catalogue = host.membership.catalogue();
    let member = catalogue.member(host.node.as_str());
    let documents = host.membership.documents();
    Own {
        node: host.node.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: member.map_or(0, |member| member.generation),
        sequence: member.map_or(0, |member| member.sequence),
        announced_s: member.map_or(0, |member| member.heard_at.elapsed().as_secs()),
        documents: digest(&documents),
        newest_document_s: newest_s(&documents),
    }
}

fn held(host: &Host) -> Vec<Certificate> {
    let (set, now) = (host.identities.current(), SystemTime::now());
    let svids = std::iter::once(&set.node).chain(set.services.values());
    let leaf = |leaf: &starling_transport::Leaf| {
        let name = leaf.id.to_string();
        Certificate::new(name, Kind::Leaf, leaf.issued(), leaf.not_after, now)
    };
    let mut held: Vec<_> = svids.map(|svid| leaf(svid.leaf())).collect();
    if let Some(role) = host.issuer.load_full() {
        let pem = role.authority().intermediate_pem();
        let name = "the intermediate of this issuer";
        held.extend(certificates::read(
            name,
            Kind::Authority,
            pem.as_bytes(),
            now,
        ));
    }
    held
}

async fn lines(host: &Arc<Host>) -> Lines {
    let (set, now) = (host.identities.current(), SystemTime::now());
    let own: Vec<_> = std::iter::once(&set.node)
        .chain(set.services.values())
        .map(Svid::leaf)
        .collect();
    let revoked = own.iter().filter_map(|leaf| {
        let refusal = host.identities.judge_own(&leaf.id).err()?;
        matches!(refusal, Refusal::Revoked | Refusal::RevokedIssuer).then(|| Revoked {
            identity: leaf.id.to_string(),
            why: refusal.to_string(),
        })
    });
    let known = host.lines.good(now);
    let unnamed = own.iter().copied().chain(&known);
    let unnamed = unnamed.filter(|leaf| leaf.line.is_none() && leaf.begins == UNIX_EPOCH);
    let mut unnamed: Vec<_> = unnamed.map(|leaf| leaf.id.to_string()).collect();
    unnamed.sort_unstable();
    unnamed.dedup();
    let revocations = set.trust.revocations().clone();
    let own_issue = host.issuer.load().is_some().then(|| own_issue(host));
    let role = host.issuer.load_full();
    let unbooked = role.as_ref().and_then(|role| role.authority().unbooked());
    let book = move || {
        let book = role?.authority().book().good(now);
        book.inspect_err(|error| tracing::warn!(%error, "failed to read the book of this issuer"))
            .ok()
    };
    // A book may have 64 MiB, and without a revoked key nothing is looked for.
    let booked = match revocations.keys().next() {
        Some(_) => tokio::task::spawn_blocking(book).await.ok().flatten(),
        None => None,
    };
    let (host, state) = (host.clone(), host.config.load().state.clone());
    let revoked_issuer = move || {
        let state = StateDir::open(&state).ok()?;
        let authority = state
            .exists(INTERMEDIATE_KEY)
            .then(|| Authority::read(&state));
        let authority = authority?.ok()?;
        Some(authority.is_revoked(host.identities.current().trust.revocations()))
    };
    let revoked_issuer = tokio::task::spawn_blocking(revoked_issuer).await;
    let booked = booked.iter().flatten().map(|signed| &signed.leaf);
    let loose = booked.filter(|leaf| {
        revocations.has_key(&leaf.key_hash) && leaf.line.is_some() && !revocations.has_line(leaf)
    });
    Lines {
        revoked: revoked.collect(),
        unnamed,
        loose_keys: loose
            .map(|leaf| LooseKey {
                key: leaf.key_hash.to_string(),
                identity: leaf.id.to_string(),
                host: leaf.host.clone(),
            })
            .collect(),
        unbooked,
        has_revoked_issuer: revoked_issuer.ok().flatten().unwrap_or(false),
        own_issue,
    }
}

/// The command by which this issuer makes its own certificates anew.
fn own_issue(host: &Host) -> String {
    let set = host.identities.current();
    let services = set.services.keys().filter_map(SpiffeId::service_name);
    let services = services.map(|name| format!(" --service {name}"));
    let state = host.config.load().state.display().to_string();
    let services: String = services.collect();
    format!(
        "starling ca issue --node {}{services} --state {state} --out {state}",
        host.node
    )
}

/// What tells a set of documents from others, as text.
fn digest(documents: &Documents) -> Option<String> {
    documents.digest().map(|digest| STANDARD.encode(digest))
}

/// Since the newest document was issued, by its operator's clock.
fn newest_s(documents: &Documents) -> Option<u64> {
    let all = documents.entries.values();
    let newest = all.map(|document| document.newest().issued).max()?;
    Some(unix_s(SystemTime::now()).saturating_sub(newest))
}

fn liveness(member: &Member) -> &'static str {
    match member.liveness {
        Liveness::Alive => "alive",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "dead",
    }
}

/// What comes of asking whoever is at the seeds.
async fn seeds(host: &Arc<Host>) -> Vec<Seed> {
    let config = host.config.load_full();
    let seeds = config.seeds.iter().take(SEEDS_MAX).cloned();
    let asked = stream::iter(seeds).map(|seed| async {
        let answer = seed_answer(host, &seed).await;
        Seed { seed, answer }
    });
    let asked: Vec<_> = asked.buffered(SEEDS_MAX).collect().await;
    let node = host.identities.current().node.id().to_string();
    // A host may be its own seed.
    let others = asked
        .into_iter()
        .filter(|seed| seed.answer.as_ref() != Ok(&node));
    others.collect()
}

async fn seed_answer(host: &Arc<Host>, seed: &str) -> Result<String, String> {
    let mut addrs = lookup_host(seed)
        .await
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let addr = addrs.next().ok_or("the name has no address")?;
    let own = host.identities.current().node.id().clone();
    let endpoint = host.pool.endpoint();
    let path = endpoint
        .measure(&own, &Callee::AnyNode, addr, From::MeshPort, SEED_BUDGET)
        .await;
    path.map(|path| path.peer.id.to_string())
        .map_err(|error| crate::said::causes(&error))
}

/// A cell is meant for as many.
const PEERS_MAX: usize = 256;

/// Enough to tell that the network is the trouble.
const SEEDS_MAX: usize = 8;

const SEED_BUDGET: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests;
