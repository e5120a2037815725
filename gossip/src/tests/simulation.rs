//! Many nodes, a clock that does not wait, and faults drawn from a seed. `STARLING_SEED=… cargo test` draws the same again.
//! (chitchat draws its partners from randomness of its own, so the same seed gives the same faults, not the same packets.)

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use crate::catalogue::Catalogue;
use crate::metrics::{RESTARTS, Refusal};
use crate::testing::{Attacker, Counters, Faults, Memory, Network, Node};
use crate::{Hint, Liveness, NodeName, Settings, State};

/// Runs a simulation under a seed, and tells which it was if it fails.
pub(super) fn simulate<F: Future<Output = ()>>(story: impl FnOnce(Memory) -> F) {
    let seed = std::env::var("STARLING_SEED").ok().map_or_else(
        || fastrand::u64(..),
        |seed| seed.parse().expect("STARLING_SEED is a number"),
    );
    let told = Told(seed);
    fastrand::seed(seed);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(async { story(Memory::new(seed)).await });
    drop(told);
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed under STARLING_SEED={}", self.0);
        }
    }
}

/// `count` nodes, each with two earlier ones as seeds.
pub(super) async fn start(network: &Memory, count: usize) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for index in 0..count {
        let seeds: Vec<_> = nodes.iter().take(2).map(|node| node.port.addr).collect();
        nodes.push(Node::start(network, &format!("n{index}"), &seeds).await);
    }
    nodes
}

fn sees_alive(view: &Catalogue, expected: &BTreeSet<&str>) -> bool {
    let alive = view
        .members
        .values()
        .filter(|member| member.liveness == Liveness::Alive && member.state == State::Serving);
    alive
        .map(|member| member.name.as_str())
        .collect::<BTreeSet<_>>()
        == *expected
}

pub(super) async fn all_see<'a>(
    nodes: impl IntoIterator<Item = &'a Node> + Clone,
    limit: Duration,
) {
    let names: BTreeSet<&str> = nodes.clone().into_iter().map(Node::name).collect();
    for node in nodes {
        node.until("everybody and nobody else", limit, |view| {
            sees_alive(view, &names)
        })
        .await;
    }
}

/// Announces a service at `nodes[at]` and returns how long it took to be in every catalogue.
async fn spread(network: &Memory, nodes: &mut [Node], at: usize, service: &str) -> Duration {
    nodes[at].offer(network, service, &[]);
    let mut slowest = Duration::ZERO;
    let began = tokio::time::Instant::now();
    for node in nodes.iter() {
        node.until("the new service", Duration::from_secs(20), |view| {
            !view.instances(service).is_empty()
        })
        .await;
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn lossy(network: &Memory, loss: f64) {
    network.set_faults(Faults {
        loss,
        latency_max: Duration::from_millis(20),
        ..network.faults()
    });
}

#[test]
fn fifty_nodes_agree_within_moments_though_packets_are_lost() {
    simulate(|network| async move {
        let mut nodes = start(&network, 50).await;
        all_see(&nodes, 10 * SECOND).await;
        for (loss, limit) in [(0.0, 3 * SECOND / 2), (0.05, 2 * SECOND), (0.1, 3 * SECOND)] {
            lossy(&network, loss);
            for at in [0, 17, 49] {
                let service = format!("s{at}-{}", (loss * 100.0) as u32);
                let took = spread(&network, &mut nodes, at, &service).await;
                assert!(took < limit, "{took:?} with {loss} lost");
            }
        }
        // Loss alone kills nobody.
        for _ in 0..60 {
            sleep(SECOND).await;
            for node in &nodes {
                let dead = node
                    .catalogue()
                    .members
                    .values()
                    .filter(|m| m.liveness == Liveness::Dead)
                    .count();
                assert_eq!(dead, 0, "{} holds live nodes dead", node.name());
            }
        }
    });
}

#[test]
fn a_newcomer_sees_all_and_is_seen_at_once() {
    simulate(|network| async move {
        let mut nodes = start(&network, 30).await;
        all_see(&nodes, 10 * SECOND).await;
        nodes[3].offer(&network, "orders", &[]);
        sleep(SECOND).await;
        let newcomer = Node::start(&network, "newcomer", &[nodes[7].port.addr]).await;
        let usable =
            |view: &Catalogue| view.members.len() == 31 && !view.instances("orders").is_empty();
        newcomer.until("the whole mesh", SECOND / 3, usable).await;
        for node in &nodes {
            node.until("the newcomer", 2 * SECOND, |view| {
                view.members.contains_key("newcomer")
            })
            .await;
        }
    });
}

#[test]
fn who_crashes_is_dead_everywhere_and_may_come_back() {
    simulate(|network| async move {
        let mut nodes = start(&network, 30).await;
        for node in nodes.iter_mut().take(4) {
            node.offer(&network, "orders", &[]);
        }
        all_see(&nodes, 10 * SECOND).await;
        sleep(20 * SECOND).await;
        let crashed = nodes.remove(2);
        network.unplug(crashed.name());
        crashed.membership.close().await;
        for node in &nodes {
            let noticed = |view: &Catalogue| {
                view.members[crashed.name()].liveness == Liveness::Dead
                    && view.instances("orders").len() == 3
            };
            node.until("the crash", 20 * SECOND, noticed).await;
        }
        let again = Node::start(&network, crashed.name(), &[nodes[0].port.addr]).await;
        nodes.push(again);
        all_see(&nodes, 3 * SECOND).await;
    });
}

#[test]
fn a_partition_keeps_what_it_knows_and_heals() {
    simulate(|network| async move {
        let mut nodes = start(&network, 50).await;
        nodes[0].offer(&network, "left-only", &[]);
        nodes[0].offer(&network, "both", &[]);
        nodes[49].offer(&network, "both", &[]);
        all_see(&nodes, 10 * SECOND).await;
        sleep(20 * SECOND).await;
        let right: Vec<String> = (25..50).map(|index| format!("n{index}")).collect();
        network.part(1, right.iter().map(String::as_str));
        sleep(60 * SECOND).await;
        for node in &nodes[25..] {
            let view = node.catalogue();
            // All of a service is over there: better a suspect instance than none.
            assert_eq!(view.instances("left-only")[0].liveness, Liveness::Suspect);
            // Half of it is: that half is dropped.
            let names: Vec<_> = view
                .instances("both")
                .iter()
                .map(|instance| instance.node.as_str())
                .collect();
            assert_eq!(names, ["n49"]);
        }
        nodes[30].offer(&network, "new-over-there", &[]);
        sleep(SECOND).await;
        network.heal();
        all_see(&nodes, 10 * SECOND).await;
        for node in &nodes {
            node.until("what changed meanwhile", 2 * SECOND, |view| {
                !view.instances("new-over-there").is_empty()
            })
            .await;
        }
    });
}

#[test]
fn a_partition_longer_than_all_memory_heals() {
    simulate(|network| async move {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = Vec::new();
        let mut seeds = Vec::new();
        for index in 0..8 {
            let name = format!("n{index}");
            let port = network.port(&name).await;
            let settings = Settings {
                peers_file: Some(dir.path().join(&name)),
                dead_grace: 60 * SECOND,
                ..Node::settings(&network, &seeds)
            };
            // Only a seed of its own side, once it is cut off.
            seeds = vec![port.addr];
            nodes.push(Node::start_at(port, settings));
        }
        all_see(&nodes, 10 * SECOND).await;
        sleep(15 * SECOND).await;
        network.part(1, ["n4", "n5", "n6", "n7"]);
        sleep(1200 * SECOND).await;
        for node in &nodes {
            assert_eq!(
                node.catalogue().members.len(),
                4,
                "the other side is not forgotten"
            );
        }
        network.heal();
        all_see(&nodes, 120 * SECOND).await;
    });
}

#[test]
fn all_seeds_are_gone_and_a_restarted_node_still_finds_the_mesh() {
    simulate(|network| async move {
        let dir = tempfile::tempdir().unwrap();
        let seed = Node::start(&network, "seed", &[]).await;
        let mut nodes = Vec::new();
        for index in 0..4 {
            let port = network.port(&format!("n{index}")).await;
            let settings = Settings {
                peers_file: Some(dir.path().join(index.to_string())),
                ..Node::settings(&network, &[seed.port.addr])
            };
            nodes.push(Node::start_at(port, settings));
        }
        all_see(nodes.iter().chain([&seed]), 10 * SECOND).await;
        sleep(15 * SECOND).await;
        network.unplug("seed");
        seed.membership.close().await;
        let former = nodes.pop().unwrap();
        network.unplug(former.name());
        former.membership.close().await;
        let port = network.port(former.name()).await;
        let settings = Settings {
            peers_file: Some(dir.path().join("3")),
            ..Node::settings(&network, &[seed.port.addr])
        };
        nodes.push(Node::start_at(port, settings));
        all_see(&nodes, 30 * SECOND).await;
    });
}

#[test]
fn a_node_whose_clock_went_back_outranks_its_former_life() {
    simulate(|network| async move {
        let dir = tempfile::tempdir().unwrap();
        let offset = Arc::new(AtomicI64::new(0));
        let mut nodes = start(&network, 3).await;
        let settings = |network: &Memory, file: Option<&str>| Settings {
            clock: network.clock_with(offset.clone()),
            generation_file: file.map(|file| dir.path().join(file)),
            ..Node::settings(network, &[nodes[0].port.addr])
        };
        // With its generation kept, and with the file lost: then the mesh tells it.
        for (name, first_file, second_file) in
            [("kept", Some("g"), Some("g")), ("lost", None, None)]
        {
            offset.store(0, Ordering::Relaxed);
            let first = Node::start_at(network.port(name).await, settings(&network, first_file));
            for node in &nodes {
                node.until("the first life", 5 * SECOND, |view| {
                    view.members.contains_key(name)
                })
                .await;
            }
            network.unplug(name);
            first.membership.close().await;
            offset.store(-240_000, Ordering::Relaxed);
            let mut second =
                Node::start_at(network.port(name).await, settings(&network, second_file));
            second.offer(&network, name, &[]);
            for node in &nodes {
                node.until("the second life", 20 * SECOND, |view| {
                    view.instances(name).len() == 1
                })
                .await;
            }
            second.membership.close().await;
            network.unplug(name);
        }
        nodes.clear();
    });
}

#[test]
fn our_own_connections_are_believed_before_gossip() {
    simulate(|network| async move {
        let nodes = start(&network, 5).await;
        all_see(&nodes, 10 * SECOND).await;
        sleep(20 * SECOND).await;
        let watcher = &nodes[0];
        let name = NodeName::parse("n4").unwrap();
        // A wrong hint is mended by a probe.
        watcher.membership.hint(&name, Hint::Suspect);
        watcher
            .until("suspicion", SECOND, |view| {
                view.members[&name].liveness == Liveness::Suspect
            })
            .await;
        watcher
            .until("relief", 2 * SECOND, |view| {
                view.members[&name].liveness == Liveness::Alive
            })
            .await;
        // A right one is confirmed long before the failure detector would.
        network.unplug("n4");
        // What it sent before still arrives, and rightly speaks for it.
        sleep(SECOND / 10).await;
        watcher.membership.hint(&name, Hint::Suspect);
        watcher
            .until("death", 5 * SECOND, |view| {
                view.members[&name].liveness == Liveness::Dead
            })
            .await;
    });
}

#[test]
fn a_certificate_that_runs_out_takes_its_services_along() {
    simulate(|network| async move {
        let mut nodes = start(&network, 3).await;
        let now_s = network.clock().now_s();
        network.authority.set_validity(now_s - 1, now_s + 60);
        nodes[0].offer(&network, "brief", &[]);
        network.authority.set_validity(0, u64::MAX);
        nodes[0].offer(&network, "lasting", &[]);
        for node in &nodes {
            node.until("both", 5 * SECOND, |view| view.services.len() == 2)
                .await;
        }
        // Five minutes of grace for clocks that differ.
        sleep(375 * SECOND).await;
        for node in &nodes {
            let view = node.catalogue();
            assert!(view.instances("brief").is_empty());
            assert_eq!(view.instances("lasting").len(), 1);
            assert_eq!(view.members["n0"].unproven.len(), 1);
        }
    });
}

#[test]
fn reconciliation_that_ends_by_itself_is_started_again() {
    simulate(|network| async move {
        let counters = Counters::default();
        let _guard = counters.install();
        let mut nodes = start(&network, 4).await;
        all_see(&nodes, 10 * SECOND).await;
        let before = nodes[1].catalogue().members["n2"].generation;
        nodes[2].membership.abort_engine();
        for node in &nodes {
            let renewed = |view: &Catalogue| view.members["n2"].generation > before;
            node.until("another life", 5 * SECOND, renewed).await;
        }
        assert_eq!(counters.value(RESTARTS), 1);
        sleep(30 * SECOND).await;
        all_see(&nodes, SECOND).await;
        let took = spread(&network, &mut nodes, 2, "orders").await;
        assert!(took < 2 * SECOND, "{took:?}");
    });
}

#[test]
fn one_that_moves_is_found_at_its_new_address() {
    simulate(|network| async move {
        let mut nodes = start(&network, 4).await;
        all_see(&nodes, 10 * SECOND).await;
        let other = network.port("n3-elsewhere").await.addr;
        nodes[3].local.addrs.insert(0, other);
        nodes[3].announce();
        for node in &nodes {
            node.until("the new address", 5 * SECOND, |view| {
                view.members["n3"].addrs[0] == other
            })
            .await;
        }
    });
}

#[test]
fn a_peer_that_stands_still_holds_up_nobody() {
    simulate(|network| async move {
        let mut nodes = start(&network, 6).await;
        all_see(&nodes, 10 * SECOND).await;
        network.stall("n5");
        sleep(60 * SECOND).await;
        nodes.pop();
        let took = spread(&network, &mut nodes, 0, "orders").await;
        assert!(took < 2 * SECOND, "{took:?}");
        for node in &nodes {
            let alive = node
                .catalogue()
                .members
                .values()
                .filter(|m| m.liveness == Liveness::Alive)
                .count();
            assert!(alive >= 5, "{} is held up", node.name());
        }
    });
}

#[test]
fn what_was_captured_does_not_come_back_to_life() {
    simulate(|network| async move {
        let counters = Counters::default();
        let _guard = counters.install();
        let nodes = start(&network, 3).await;
        let leaver = Node::start(&network, "leaver", &[nodes[0].port.addr]).await;
        all_see(nodes.iter().chain([&leaver]), 10 * SECOND).await;
        let mallory = Attacker::new(network.port("mallory").await, network.trust_domain());
        let captured = mallory.capture(nodes[0].port.addr, &leaver).await;
        leaver.membership.leave().await;
        // At once, when the others still know that it left; when they have forgotten all but its number; and to somebody new.
        for (pause, refusal) in [(SECOND, None), (1500 * SECOND, Some(Refusal::Expired))] {
            sleep(pause).await;
            for node in &nodes {
                mallory.replay(node.port.addr, &captured).await;
            }
            let fresh = Node::start(&network, "fresh", &[nodes[0].port.addr]).await;
            all_see(nodes.iter().chain([&fresh]), 10 * SECOND).await;
            mallory.replay(fresh.port.addr, &captured).await;
            for node in nodes.iter().chain([&fresh]) {
                let view = node.catalogue();
                let back = view
                    .member("leaver")
                    .is_some_and(|member| member.state != State::Left);
                assert!(!back, "it is back at {}", node.name());
            }
            assert!(refusal.is_none_or(|refusal| counters.refused(refusal) > 0));
            fresh.membership.leave().await;
        }
    });
}

#[test]
fn an_idle_mesh_is_quiet() {
    simulate(|network| async move {
        let nodes = start(&network, 50).await;
        all_see(&nodes, 10 * SECOND).await;
        sleep(20 * SECOND).await;
        let (_, before) = network.traffic();
        sleep(20 * SECOND).await;
        let (_, after) = network.traffic();
        let per_second = (after - before) / 20 / 50;
        // chitchat by itself sends 19,900 at this size.
        assert!(per_second < 12_000, "{per_second} bytes a second and node");
    });
}

#[test]
fn a_hundred_nodes_agree() {
    simulate(|network| async move {
        let mut nodes = start(&network, 100).await;
        all_see(&nodes, 15 * SECOND).await;
        let took = spread(&network, &mut nodes, 60, "orders").await;
        assert!(took < SECOND, "{took:?}");
    });
}
