//! How calls go, told to everybody.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::simulation::{SECOND, all_see, simulate, start};
use crate::testing::{Memory, Node};
use crate::{CallEnd, NodeName, ServiceName, Summary, SummaryEdge};

fn edge(end: CallEnd, calls: u64) -> SummaryEdge {
    SummaryEdge {
        end,
        caller: ServiceName::parse("web").unwrap(),
        callee: ServiceName::parse("orders").unwrap(),
        protocol: "http".into(),
        calls,
        failed: 1,
        denied: 0,
        open: 0,
        percentiles_us: Some([10, 20, 30]),
    }
}

fn calls(node: &Node, count: u64) {
    let summary = Summary {
        lasted_s: 60,
        edges: vec![edge(CallEnd::Caller, count)],
    };
    node.membership.summarize(summary).unwrap();
}

/// What `at` has from `of`: how many calls, and how old that is.
fn heard(at: &Node, of: &str) -> Option<(u64, Duration)> {
    let of = NodeName::parse(of).unwrap();
    let all = at.membership.summaries().into_iter();
    let mut of = all.filter(|(node, ..)| *node == of);
    of.next()
        .map(|(_, age, summary)| (summary.edges.iter().map(|edge| edge.calls).sum(), age))
}

async fn until_all_hear(nodes: &[Node], of: &str, calls: u64, limit: Duration) {
    let began = Instant::now();
    let others = || nodes.iter().filter(|node| node.name() != of);
    while others().any(|node| heard(node, of).is_none_or(|(heard, _)| heard != calls)) {
        assert!(began.elapsed() < limit, "not within {limit:?}");
        sleep(SECOND / 10).await;
    }
}

#[test]
fn all_hear_how_calls_go_and_keep_it_when_a_node_dies() {
    simulate(|network| async move {
        let mut nodes = start(&network, 12).await;
        all_see(&nodes, 10 * SECOND).await;
        let versions: Vec<u64> = nodes.iter().map(|node| node.catalogue().version).collect();
        calls(&nodes[3], 7);
        until_all_hear(&nodes, "n3", 7, 10 * SECOND).await;
        // Nobody is told sooner than half a minute later, and then the newest.
        for count in 8..=20 {
            calls(&nodes[3], count);
            sleep(SECOND).await;
            assert_eq!(heard(&nodes[9], "n3").unwrap().0, 7);
        }
        sleep(18 * SECOND).await;
        calls(&nodes[3], 21);
        until_all_hear(&nodes, "n3", 21, 10 * SECOND).await;
        // It is no change of the mesh.
        for (node, version) in nodes.iter().zip(versions) {
            assert_eq!(node.catalogue().version, version, "{}", node.name());
        }
        let dead = nodes.remove(3);
        network.unplug(dead.name());
        dead.membership.close().await;
        sleep(120 * SECOND).await;
        for node in &nodes {
            let (calls, age) = heard(node, "n3").unwrap();
            assert_eq!(calls, 21);
            assert!(age > 110 * SECOND, "{age:?}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn who_does_not_offer_a_service_has_no_word_for_it() {
    let network = Memory::new(1);
    let mut a = Node::start(&network, "a", &[]).await;
    let b = Node::start(&network, "b", &[a.port.addr]).await;
    b.until("a", 10 * SECOND, |view| view.members.len() == 2)
        .await;
    let summary = Summary {
        lasted_s: 60,
        edges: vec![edge(CallEnd::Callee, 5), edge(CallEnd::Caller, 3)],
    };
    a.membership.summarize(summary).unwrap();
    let nodes = [a, b];
    until_all_hear(&nodes, "a", 3, 10 * SECOND).await;
    let [mut a_again, b] = nodes;
    a_again.offer(&network, "orders", &[]);
    a = a_again;
    until_all_hear(&[a, b], "a", 8, 10 * SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_nothing_new_says_nothing() {
    let network = Memory::new(1);
    let a = Node::start(&network, "a", &[]).await;
    let sequence = || a.membership.announced().1;
    calls(&a, 5);
    let first = sequence();
    for _ in 0..5 {
        sleep(40 * SECOND).await;
        calls(&a, 5);
    }
    assert_eq!(sequence(), first);
    a.membership.summarize(Summary::default()).unwrap();
    assert_eq!(sequence(), first + 1);
}
