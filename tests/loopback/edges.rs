//! Who calls whom: the same numbers wherever one looks, also after a node is gone.

use harness::apps::{Moody, Reply};
use harness::http::Client;
use harness::{Mesh, Need, Node, need, poll, turn, wait_until};
use serde_json::Value;
use std::time::Duration;

const CALLERS: usize = 4;
const CALLS_EACH: u64 = 75;
const CALLS: u64 = CALLERS as u64 * CALLS_EACH;

/// Every tenth request of an instance fails, and n3 takes its time.
fn app(node: &Node) -> Moody {
    let wait = Duration::from_millis(if node.name() == "n3" { 20 } else { 1 });
    Moody::start(node.host(), move |call, _| {
        Reply::status(if call % 10 == 0 { 500 } else { 200 }).after(wait)
    })
}

/// Sends all calls; returns how many were answered with 500.
fn load(address: std::net::SocketAddr) -> u64 {
    let caller = move || {
        let mut client = Client::new(address);
        let statuses = (0..CALLS_EACH).map(|_| client.get("/").expect("an answer").status);
        statuses.filter(|status| *status == 500).count() as u64
    };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
        let failed = callers
            .into_iter()
            .map(|one| one.join().expect("it does not panic"));
        failed.sum()
    })
}

/// The edge from web to orders as a node tells it.
fn edge(node: &Node) -> Option<Value> {
    let answer = node.admin("/v1/edges?window=10m").ok()?;
    let seen: Value = serde_json::from_slice(&answer.body).ok()?;
    let mut edges = seen["edges"].as_array()?.iter();
    edges
        .find(|edge| edge["caller"] == "web" && edge["callee"] == "orders")
        .cloned()
}

fn calls_at_both_ends(edge: &Value) -> (Option<u64>, Option<u64>) {
    let calls = |side: &str| edge[side]["calls"].as_u64();
    (calls("caller_side"), calls("callee_side"))
}

/// How long the calls took by the access log of the caller's agent, in microseconds, in order.
fn logged(node: &Node) -> Vec<f64> {
    let log = node.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines =
        lines.filter(|line| line["target"] == "starling::access" && line["side"] == "caller");
    let times = lines.map(|line| line["duration_ms"].as_f64().expect("a time") * 1000.0);
    let mut times: Vec<_> = times.collect();
    times.sort_by(f64::total_cmp);
    times
}

fn requests(node: &Node, side: &str, more: &[(&str, &str)]) -> u64 {
    let labels = [&[("side", side), ("callee", "orders")], more].concat();
    node.metrics().sum("starling_requests_total", &labels) as u64
}

#[test]
fn numbers_agree_wherever_one_looks_and_stay_when_a_node_dies() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["orders"]), ("n3", &["orders"])]);
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
    n1.write_config(&[n2, n3], "format = \"json\"");
    let apps = [n2, n3].map(|node| {
        let app = app(node);
        node.serve("orders", app.address(), "http", &["web"], "");
        app
    });
    let address = n1.call("orders", "web");
    mesh.start();
    mesh.wait_healthy("orders", &["n2", "n3"], crate::PATIENCE);
    let failed = load(address);
    assert_eq!(apps.iter().map(Moody::calls).sum::<u64>(), CALLS);
    assert!(failed >= CALLS / 10 - 2, "{failed}");

    // A node that neither calls nor is called so much tells the same: it asks the others.
    let edge = poll(crate::PATIENCE, "all calls to be told", || {
        edge(n2).filter(|edge| calls_at_both_ends(edge) == (Some(CALLS), Some(CALLS)))
    });
    for side in ["caller_side", "callee_side"] {
        let told = &edge[side];
        assert_eq!(
            (&told["failed"], &told["denied"], &told["open"]),
            (&failed.into(), &0.into(), &0.into())
        );
    }
    assert_eq!(requests(n1, "caller", &[]), CALLS);
    assert_eq!(requests(n1, "caller", &[("status", "5xx")]), failed);
    assert_eq!(
        requests(n2, "callee", &[]) + requests(n3, "callee", &[]),
        CALLS
    );
    wait_until(crate::PATIENCE, "all access lines", || {
        logged(n1).len() as u64 == CALLS
    });
    for (name, part) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99)] {
        let exact = logged(n1)[(part * CALLS as f64).ceil() as usize - 1];
        let (told, error) = (
            edge["caller_side"][name].as_f64(),
            edge["caller_side"]["error"].as_f64(),
        );
        let (told, error) = (told.expect("a time"), error.expect("a part"));
        // The log cuts off to whole microseconds, and so does the agent.
        assert!(
            (told - exact).abs() <= exact * error + 2.0,
            "{name}: {told} µs, exactly {exact} µs"
        );
    }
    let top = n3
        .show("top", &["--once", "--window", "10m"])
        .expect("it prints");
    let row = top
        .lines()
        .find(|line| line.starts_with("web "))
        .expect("a row of web");
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!((words[1], words[4]), ("orders", "300"), "{top}");
    let services = n3.show("top", &["--once", "--window", "10m", "--table", "services"]);
    let services = services.expect("it prints");
    assert!(
        services.contains("n3 (p50 "),
        "the slow instance is named:\n{services}"
    );

    n3.kill();
    wait_until(crate::PATIENCE, "n2 to say that n3 is missing", || {
        let seen = n2.ask("edges").unwrap_or_default();
        let mut gaps = seen["gaps"].as_array().into_iter().flatten();
        gaps.any(|gap| gap["node"] == "n3")
    });
    let after = crate::edges::edge(n2).expect("the edge is still there");
    assert_eq!(calls_at_both_ends(&after), (Some(CALLS), Some(CALLS)));
    let shown = n2
        .show("edges", &["--window", "10m", "--ends"])
        .expect("it prints");
    let last = shown.lines().last().expect("lines");
    assert!(
        last.starts_with("n3: ") && last.ends_with(" old"),
        "{shown}"
    );
}
