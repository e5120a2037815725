//! What connections and requests leave behind.

use std::net::TcpStream;
use std::time::Duration;

use harness::apps::Nginx;
use harness::http::Client;
use harness::load::{Load, State};
use harness::{Mesh, Need, need, turn, wait_until};

/// Allocators keep some of what they once had; a leak of 100 bytes a request would be twice this.
const MARGIN_BYTES: u64 = 5 << 20;
const CONNECTIONS: usize = 1_000;
const REQUESTS: u64 = 100_000;

#[test]
fn idle_connections_and_a_hundred_thousand_requests_leave_memory_where_it_was() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::alone();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    let nginx = Nginx::start(
        mesh.node("n2").host(),
        &mesh.scratch().directory("nginx"),
        "n2",
    );
    mesh.node("n2")
        .serve("site", nginx.address(), "http", &["web"], "");
    let address = mesh.node("n1").call("site", "web");
    for node in mesh.nodes() {
        let others: Vec<_> = mesh
            .nodes()
            .iter()
            .filter(|other| other.name() != node.name())
            .collect();
        // Access lines would be most of the work.
        node.write_config(&others, "");
        let config = node.directory().join("starling.toml");
        let text = std::fs::read_to_string(&config).expect("it was written");
        std::fs::write(
            &config,
            text.replace("level = \"info\"", "level = \"warn\""),
        )
        .expect("it is ours");
    }
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    let resident = || {
        [
            mesh.node("n1").resident_bytes(),
            mesh.node("n2").resident_bytes(),
        ]
    };

    // Warm: pools, buffers and code that later rounds use again.
    requests(&mesh, address, REQUESTS / 10);
    let before = resident();

    let mut idle: Vec<_> = (0..CONNECTIONS).map(|_| Client::new(address)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let with_idle = resident();
    let each = with_idle[0].saturating_sub(before[0]) / CONNECTIONS as u64;
    drop(idle);
    let open = || {
        mesh.node("n1")
            .metrics()
            .sum("starling_connections_open", &[("side", "caller")])
    };
    wait_until(
        crate::PATIENCE,
        "the agent to notice that they are gone",
        || open() == 0.0,
    );

    requests(&mesh, address, REQUESTS);
    let grown = || {
        resident()
            .iter()
            .zip(before)
            .map(|(now, then)| now.saturating_sub(then))
            .max()
            .unwrap_or_default()
    };
    println!(
        "{each} bytes for each idle connection; {} KiB more after all of it",
        grown() / 1024
    );
    // The target is 15 KiB; the kernel counts pages, which is coarser.
    assert!(each <= 20 * 1024, "{each} bytes for an idle connection");
    wait_until(crate::PATIENCE, "memory to be where it was", || {
        grown() < MARGIN_BYTES
    });
}

#[test]
fn connections_past_the_limit_wait_and_are_served_later() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    let nginx = Nginx::start(
        mesh.node("n2").host(),
        &mesh.scratch().directory("nginx"),
        "n2",
    );
    mesh.node("n2")
        .serve("site", nginx.address(), "http", &["web"], "");
    let address = mesh.node("n1").call("site", "web");
    mesh.node("n1")
        .write_config(&[mesh.node("n2")], "[limits]\nconnections = 10");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    let idle: Vec<_> = (0..10)
        .map(|_| TcpStream::connect(address).expect("within the limit"))
        .collect();
    let open = || {
        mesh.node("n1")
            .metrics()
            .sum("starling_connections_open", &[("side", "caller")])
    };
    wait_until(crate::PATIENCE, "ten connections", || open() == 10.0);
    std::thread::scope(|scope| {
        let late = scope.spawn(|| Client::new(address).get("/"));
        let finished = harness::wait::try_poll(Duration::from_millis(500), || {
            late.is_finished().then_some(())
        });
        assert!(finished.is_none(), "it had to wait");
        drop(idle);
        assert_eq!(
            late.join().expect("no panic").expect("an answer").status,
            200
        );
    });
}

fn requests(mesh: &Mesh, address: std::net::SocketAddr, count: u64) {
    let state = State::default();
    std::thread::scope(|scope| {
        let load = Load::start(scope, &state, mesh.node("n1").host(), 16, address, "/");
        wait_until(Duration::from_secs(300), "all answers", || {
            load.good() >= count
        });
        let report = load.stop();
        assert_eq!(report.failures.len(), 0, "{:?}", report.failures.first());
    });
}
