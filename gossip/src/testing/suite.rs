//! What every network has to carry: the same tests in memory and over QUIC. Each panics when a promise is broken.

pub mod documents;

use std::net::SocketAddr;
use std::time::Duration;

use super::attacker::{Forgery, Target};
use super::{Attacker, Counters, Network, Node};
use crate::catalogue::Catalogue;
use crate::wire::{Frame, Page};
use crate::{Caps, Liveness, State};

/// Runs all of it, one after the other, with nodes of different names.
pub async fn run(network: &dyn Network) {
    three_nodes_find_each_other(network).await;
    a_change_reaches_all(network).await;
    who_leaves_is_gone_at_once(network).await;
    a_restart_replaces_at_once(network).await;
    a_service_needs_proof(network).await;
    forgeries_have_no_effect(network, None).await;
    documents::run(network).await;
}

/// Nodes that know one seed between them end up with one view.
pub async fn three_nodes_find_each_other(network: &dyn Network) {
    let nodes = mesh(network, "find", 3).await;
    for node in &nodes {
        let member = node.catalogue().member(nodes[0].name()).unwrap().clone();
        assert_eq!(member.addrs, [nodes[0].port.addr]);
        assert_eq!(member.state, State::Serving);
        assert!(member.caps.has(Caps::ISSUER));
    }
}

/// A new service, another label, and its end are seen by all.
pub async fn a_change_reaches_all(network: &dyn Network) {
    let mut nodes = mesh(network, "change", 3).await;
    nodes[0].offer(network, "orders", &[("version", "v1")]);
    for node in &nodes {
        node.until("the new service", wait(network), |view| {
            view.instances("orders").len() == 1
        })
        .await;
    }
    nodes[0].offer(network, "orders", &[("version", "v2")]);
    for node in &nodes {
        let relabelled = |view: &Catalogue| {
            view.instances("orders")
                .iter()
                .any(|instance| instance.labels["version"] == "v2")
        };
        node.until("the new label", wait(network), relabelled).await;
    }
    nodes[0].local.services.clear();
    nodes[0].announce();
    for node in &nodes {
        node.until("the end of it", wait(network), |view| {
            view.instances("orders").is_empty()
        })
        .await;
    }
}

/// A node that leaves is drained and then gone from all catalogues, long before anybody would have missed it.
pub async fn who_leaves_is_gone_at_once(network: &dyn Network) {
    let mut nodes = mesh(network, "leave", 4).await;
    let mut leaver = nodes.remove(0);
    leaver.offer(network, "payments", &[]);
    for node in &nodes {
        node.until("the service", wait(network), |view| {
            view.instances("payments").len() == 1
        })
        .await;
    }
    leaver.membership.leave().await;
    for node in &nodes {
        let gone = |view: &Catalogue| {
            view.instances("payments").is_empty()
                && view.members[leaver.name()].state == State::Left
        };
        node.until("the departure", network.interval(), gone).await;
    }
}

/// A node that comes back is its new self at once; nothing of its former life stays.
pub async fn a_restart_replaces_at_once(network: &dyn Network) {
    let mut nodes = mesh(network, "restart", 3).await;
    let mut former = nodes.remove(2);
    former.offer(network, "search", &[("life", "first")]);
    for node in &nodes {
        node.until("the service", wait(network), |view| {
            view.instances("search").len() == 1
        })
        .await;
    }
    former.membership.close().await;
    let mut again = Node::start(network, former.name(), &[nodes[0].port.addr]).await;
    again.offer(network, "search", &[("life", "second")]);
    for node in &nodes {
        let renewed = |view: &Catalogue| match view.instances("search") {
            [instance] => instance.labels["life"] == "second",
            _ => false,
        };
        node.until("the second life", wait(network), renewed).await;
    }
}

/// Who announces a service without the service's own signature for it announces nothing.
pub async fn a_service_needs_proof(network: &dyn Network) {
    let nodes = mesh(network, "proof", 3).await;
    let port = network.port("proof-thief").await;
    let thief = Attacker::new(port, network.trust_domain());
    let now_ms = network.clock().now_ms();
    // It has the service's chain, which is no secret, and signs with the key it has.
    let honest = thief.manifest(now_ms, now_ms / 1000);
    let claim = thief.claim(honest, "bank", &*network.service("bank"));
    let page = Page {
        records: vec![claim.clone()],
        more: false,
    };
    for node in &nodes {
        let rumour = Frame::Rumour {
            hops: 5,
            records: vec![claim.record.clone()],
        };
        thief.send(node.port.addr, rumour.encode()).await;
    }
    let believed = |view: &Catalogue| view.member(thief.name().as_str()).is_some();
    let convinced = async {
        for node in &nodes {
            node.until("the thief as a member", wait(network), believed)
                .await;
        }
    };
    let serve = async { while thief.frame(&page, wait(network)).await.is_some() {} };
    tokio::select! {
        () = convinced => {}
        () = serve => panic!("nobody asked the thief for its credentials"),
    }
    for node in &nodes {
        let view = node.catalogue();
        assert!(view.instances("bank").is_empty());
        assert_eq!(view.members[thief.name()].unproven.len(), 1);
    }
}

/// What a member with a valid certificate can make up has no effect but a counter. The counters are looked at if they are given.
pub async fn forgeries_have_no_effect(network: &dyn Network, counters: Option<&Counters>) {
    let mut nodes = mesh(network, "forge", 3).await;
    nodes[1].offer(network, "web", &[("truth", "yes")]);
    for node in &nodes {
        node.until("the service", wait(network), |view| {
            view.instances("web").len() == 1
        })
        .await;
    }
    let port = network.port("forge-mallory").await;
    let mallory = Attacker::new(port, network.trust_domain());
    let (victim, owner) = (&nodes[0], &nodes[1]);
    let target = target(&mallory, victim, owner).await;
    for forgery in mallory.forgeries(&target, network.clock().now_ms()) {
        // To a third party, and to the one it is about.
        for at in [victim, owner] {
            inflict(network, &mallory, at.port.addr, &forgery, counters).await;
        }
        for node in &nodes {
            assert_unharmed(node, &nodes, forgery.name);
        }
    }
    lie_in_a_handshake(&mallory, victim, &target).await;
    // More heartbeats than there were, but not more than there can have been: the failure detector is fooled, we are not.
    for at in [victim, &nodes[2]] {
        mallory
            .send(at.port.addr, mallory.plausible_heartbeat(&target))
            .await;
    }
    // Long enough for a wrong heartbeat to kill, were it believed, and for poison to spread, were it kept.
    tokio::time::sleep(20 * network.interval()).await;
    for node in &nodes {
        assert_unharmed(node, &nodes, "all of them, a while later");
    }
    // And nothing keeps the owner from going on.
    nodes[1].offer(network, "web", &[("truth", "still")]);
    for node in &nodes {
        let moved_on = |view: &Catalogue| {
            view.instances("web")
                .iter()
                .all(|instance| instance.labels["truth"] == "still")
        };
        node.until("the next change", wait(network), moved_on).await;
    }
}

async fn target(mallory: &Attacker, victim: &Node, owner: &Node) -> Target {
    let id = crate::NodeId::of(&owner.catalogue().members[owner.name()].identity);
    mallory.look_up(victim.port.addr, id).await
}

/// Sends a forgery and waits for it to be counted.
async fn inflict(
    network: &dyn Network,
    mallory: &Attacker,
    to: SocketAddr,
    forgery: &Forgery,
    counters: Option<&Counters>,
) {
    let count = || counters.map_or(0, |counters| counters.refused(forgery.refusal));
    for frame in &forgery.frames {
        let before = count();
        mallory.send(to, frame.clone()).await;
        mallory.frame(&forgery.page, network.interval() / 4).await;
        assert!(
            counters.is_none() || count() > before,
            "{} is not counted as {:?}",
            forgery.name,
            forgery.refusal
        );
    }
}

/// Opens a handshake, as any member may, and lies in its last message.
async fn lie_in_a_handshake(mallory: &Attacker, victim: &Node, target: &Target) {
    mallory
        .send(
            victim.port.addr,
            Frame::Syn {
                nonce: 4711,
                digest: vec![],
            }
            .encode(),
        )
        .await;
    let limit = Duration::from_secs(2);
    while let Some((_, frame)) = mallory.frame(&Page::default(), limit).await {
        if matches!(frame, Frame::SynAck { nonce: 4711, .. }) {
            let mut forged = target.manifest.clone();
            forged.sequence += 50;
            forged.kv_version += 50;
            forged.services.clear();
            let records = vec![crate::wire::Blob(mallory.sign(&forged))];
            mallory
                .send(
                    victim.port.addr,
                    Frame::Ack {
                        nonce: 4711,
                        records,
                    }
                    .encode(),
                )
                .await;
            return;
        }
    }
    panic!("{} does not answer a handshake", victim.name());
}

/// The node sees everybody alive and the service as its owner announced it, and nobody else.
fn assert_unharmed(node: &Node, nodes: &[Node], after: &str) {
    let view = node.catalogue();
    for other in nodes {
        let member = &view.members[other.name()];
        assert_eq!(
            member.liveness,
            Liveness::Alive,
            "{} at {} after {after}",
            other.name(),
            node.name()
        );
        assert_eq!(member.state, State::Serving);
    }
    let [instance] = view.instances("web") else {
        panic!("after {after}: {:?}", view.services)
    };
    assert_eq!(instance.labels["truth"], "yes", "after {after}");
    let strangers = view
        .members
        .keys()
        .filter(|name| !nodes.iter().any(|other| other.name() == name.as_str()));
    assert_eq!(strangers.count(), 0, "after {after}");
}

/// `count` nodes that all see each other alive, each started with the first as its seed.
pub async fn mesh(network: &dyn Network, prefix: &str, count: usize) -> Vec<Node> {
    let mut nodes = vec![Node::start(network, &format!("{prefix}-0"), &[]).await];
    let seed = [nodes[0].port.addr];
    for index in 1..count {
        nodes.push(Node::start(network, &format!("{prefix}-{index}"), &seed).await);
    }
    for node in &nodes {
        let all_alive = |view: &Catalogue| {
            let alive = view
                .members
                .values()
                .filter(|member| member.liveness == Liveness::Alive);
            alive.count() == count
        };
        node.until("everybody", wait(network), all_alive).await;
    }
    nodes
}

/// How long anything may take that reconciliation alone would bring about too.
fn wait(network: &dyn Network) -> Duration {
    20 * network.interval()
}
