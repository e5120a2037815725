//! Looking at other nodes: dial them, ask them, have them dial back, and ask others of those that do not answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use starling_gossip::{Member, NodeName};
use starling_transport::path::From;
use starling_transport::{Callee, Leaf, Path, SpiffeId};
use tokio::time::Instant;

use super::questions::{About, Afresh, DIAL_BACK, NO_ANSWER, PING, SECOND_OPINION};
use super::{Certificate, Kind, liveness};
use crate::check::peers::{Back, Failure, Offset, Opinion, Peer, Pong, Tried, Unsaid, Way};
use crate::control::ControlError;
use crate::host::Host;
use crate::said::causes;

/// Looks at each of `members`. Those that did not answer are looked at again through the eyes of those that did.
pub(super) async fn at_all(host: &Arc<Host>, members: Vec<Arc<Member>>) -> Vec<Peer> {
    let looked = stream::iter(members.into_iter().enumerate()).map(|(at, member)| {
        let host = host.clone();
        async move { at_one(&host, &member, at < AFRESH).await }
    });
    let began = Instant::now();
    let mut peers: Vec<_> = looked.buffered(AT_ONCE).collect().await;
    let reached = peers.iter().filter(|peer| peer.said().is_some());
    let witnesses: Vec<_> = reached
        .filter_map(|peer| NodeName::parse(&peer.node).ok())
        .take(WITNESSES)
        .collect();
    let silent = peers.iter().enumerate();
    let silent = silent.filter(|(_, peer)| peer.there.way().is_none());
    let silent: Vec<_> = silent.map(|(at, peer)| (at, peer.node.clone())).collect();
    let asked = stream::iter(silent).map(|(at, node)| {
        let (host, witnesses) = (host.clone(), witnesses.clone());
        async move { (at, opinions(&host, witnesses, node, began).await) }
    });
    let opinions: Vec<_> = asked.buffer_unordered(AT_ONCE).collect().await;
    for (at, opinions) in opinions {
        peers[at].opinions = opinions;
    }
    peers
}

async fn at_one(host: &Arc<Host>, member: &Member, afresh: bool) -> Peer {
    let (there, leaf) = there(host, member).await;
    let addr = member.addrs[0];
    let mut peer = Peer {
        node: member.name.to_string(),
        address: addr.to_string(),
        liveness: liveness(member).to_owned(),
        there,
        heard_ms: heard_ms(host, addr).filter(|ago| *ago < HEARD_NOW_MS),
        certificate: leaf.map(|leaf| certificate(&leaf)),
        pong: None,
        clock: None,
        back: None,
        opinions: Vec::new(),
        unproven: member.unproven.iter().map(ToString::to_string).collect(),
    };
    if peer.there.way().is_some() {
        let asked = ping(host, &member.name).await;
        peer.clock = asked.as_ref().ok().map(|(_, offset)| *offset);
        peer.pong = Some(asked.map(|(pong, _)| pong));
        let (control, question) = (host.control(), Afresh { afresh });
        let asked = control
            .ask::<Back>(&member.name, DIAL_BACK, &question)
            .await;
        // It may have been asked too often, or be too old to know the question. What it dialled goes into a fix.
        let is_address = |back: &Back| back.address.parse::<SocketAddr>().is_ok();
        peer.back = asked.ok().filter(is_address);
        // A node that was just lost is believed in again by what we did.
        let catalogue = host.membership.catalogue();
        if let Some(now) = catalogue.member(&peer.node) {
            liveness(now).clone_into(&mut peer.liveness);
        }
    }
    peer
}

async fn there(host: &Host, member: &Member) -> (Tried, Option<Leaf>) {
    let callee = SpiffeId::node(&host.trust_domain, member.name.as_str())
        .expect("a node name is a valid path segment of a SPIFFE ID");
    let callee = Callee::Exactly(callee);
    let mut last = (unreached("no_address", "no address is known"), None);
    for addr in member.addrs.iter().take(ADDRS_MAX) {
        last = dial(host, &callee, *addr, From::MeshPort, LOOK_BUDGET).await;
        if last.1.is_some() {
            break;
        }
    }
    last
}

/// One handshake, and the certificate that the peer showed.
pub(super) async fn dial(
    host: &Host,
    callee: &Callee,
    addr: SocketAddr,
    from: From,
    budget: Duration,
) -> (Tried, Option<Leaf>) {
    let own = host.identities.current().node.id().clone();
    let measured = host
        .pool
        .endpoint()
        .measure(&own, callee, addr, from, budget);
    match measured.await {
        Ok(Path {
            peer,
            handshake,
            mtu,
            ..
        }) => {
            let handshake_ms = u64::try_from(handshake.as_millis()).unwrap_or(u64::MAX);
            (Tried::Reached(Way { handshake_ms, mtu }), Some(peer))
        }
        Err(error) => (unreached(error.reason(), &causes(&error)), None),
    }
}

fn unreached(reason: &str, why: &str) -> Tried {
    Tried::Failed(Failure {
        reason: reason.to_owned(),
        why: why.to_owned(),
    })
}

/// Its answer, and its clock against ours. Asked again if the first answer took long, as it does when it takes a handshake.
async fn ping(host: &Arc<Host>, node: &NodeName) -> Result<(Pong, Offset), Unsaid> {
    let first = ping_once(host, node).await?;
    if first.1.error_ms <= CLOCK_ERROR_MS {
        return Ok(first);
    }
    let again = ping_once(host, node).await;
    Ok(again
        .ok()
        .filter(|again| again.1.error_ms < first.1.error_ms)
        .unwrap_or(first))
}

async fn ping_once(host: &Arc<Host>, node: &NodeName) -> Result<(Pong, Offset), Unsaid> {
    let (began, asked) = (now_ms(), Instant::now());
    let pong = host.control().ask(node, PING, &About { about: None }).await;
    let took = u64::try_from(asked.elapsed().as_millis()).unwrap_or(u64::MAX);
    let pong: Pong = pong.map_err(|error: ControlError| Unsaid {
        reason: error.refused().map(|refused| refused.reason.clone()),
        why: causes(&error),
    })?;
    let offset = offset(pong.now_ms, began, took);
    Ok((pong, offset))
}

/// How far a clock is ahead that showed `theirs` somewhen within `took` from `ours` on.
fn offset(theirs: u64, ours: u64, took: u64) -> Offset {
    let ours = ours.saturating_add(took / 2);
    let ahead = i128::from(theirs) - i128::from(ours);
    Offset {
        ahead_ms: i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX }),
        error_ms: took.div_ceil(2),
    }
}

async fn opinions(
    host: &Arc<Host>,
    witnesses: Vec<NodeName>,
    node: String,
    began: Instant,
) -> Vec<Opinion> {
    let asked = stream::iter(witnesses).map(|witness| {
        let (host, about) = (host.clone(), Some(node.clone()));
        async move { opinion(&host, &witness, About { about }, began).await }
    });
    let told = asked.buffered(WITNESSES);
    told.filter_map(std::future::ready).collect().await
}

/// What `witness` hears from a node that this one has tried to reach since `began`. A witness that could not be asked, or has been
/// asked too often, has no opinion.
async fn opinion(
    host: &Arc<Host>,
    witness: &NodeName,
    about: About,
    began: Instant,
) -> Option<Opinion> {
    let asked = host.control().ask(witness, SECOND_OPINION, &about).await;
    let pong: Result<Pong, String> = match asked {
        Ok(pong) => Ok(pong),
        Err(error) => {
            let refused = error.refused();
            Err(refused
                .filter(|refused| refused.reason == NO_ANSWER)?
                .why
                .clone())
        }
    };
    let heard_ms = pong.as_ref().ok().and_then(|pong| pong.heard_ms);
    Some(Opinion {
        node: witness.to_string(),
        pong,
        heard: heard_ms.is_some_and(|ago| Duration::from_millis(ago) < began.elapsed()),
    })
}

/// Since somebody at `addr` began a handshake here, if that is remembered.
pub(super) fn heard_ms(host: &Host, addr: SocketAddr) -> Option<u64> {
    let ago = host.pool.endpoint().heard_from(addr)?;
    u64::try_from(ago.as_millis()).ok()
}

fn certificate(leaf: &Leaf) -> Certificate {
    let name = leaf.id.to_string();
    let now = SystemTime::now();
    Certificate::new(name, Kind::Leaf, leaf.issued(), leaf.not_after, now)
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Has `node` dialled at its own announced address, as it asked: [`Back`] to tell it.
pub(super) async fn back(host: &Host, node: &SpiffeId, addr: SocketAddr, afresh: bool) -> Back {
    let callee = Callee::Exactly(node.clone());
    let (mesh_port, _) = dial(host, &callee, addr, From::MeshPort, BACK_BUDGET).await;
    let is_quick = mesh_port
        .way()
        .is_some_and(|way| way.handshake_ms < QUICK_MS);
    let another_port = match afresh && is_quick {
        true => Some(
            dial(host, &callee, addr, From::AnotherPort, AFRESH_BUDGET)
                .await
                .0,
        ),
        false => None,
    };
    Back {
        address: addr.to_string(),
        mesh_port,
        another_port,
    }
}

/// Nodes looked at side by side. Each costs a handshake or two, and seconds if it is silent.
const AT_ONCE: usize = 64;

/// Nodes that are asked to dial back from another port too: one that gets through is enough.
const AFRESH: usize = 3;

/// Nodes that are asked of one that is silent.
const WITNESSES: usize = 2;

/// Announced addresses that are tried.
const ADDRS_MAX: usize = 2;

/// Long enough for a handshake that loses its larger packets first.
const LOOK_BUDGET: Duration = Duration::from_secs(4);

/// The two dials back fit together into what an answer may take.
const BACK_BUDGET: Duration = Duration::from_millis(3_300);
const AFRESH_BUDGET: Duration = Duration::from_millis(1_200);

/// Beyond this a path is slow or loses packets, and the second dial would tell nothing.
const QUICK_MS: u64 = 500;

/// A node that does not hear from this one dials it every few seconds. What is older may be from before the trouble.
const HEARD_NOW_MS: u64 = 15_000;

/// What is asked again for if the error is larger.
const CLOCK_ERROR_MS: u64 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_at_the_middle_of_the_question() {
        let check = |theirs, ours, took, ahead_ms, error_ms| {
            assert_eq!(offset(theirs, ours, took), Offset { ahead_ms, error_ms });
        };
        check(1_010, 1_000, 20, 0, 10);
        check(91_010, 1_000, 20, 90_000, 10);
        check(1_000, 91_000, 1, -90_000, 1);
        check(u64::MAX, 0, 0, i64::MAX, 0);
    }
}
