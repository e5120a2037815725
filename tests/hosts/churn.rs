//! Hosts and agents that die or restart under load.

use std::time::Duration;

use harness::apps::Nginx;
use harness::load::{Load, Report, State};
use harness::process::Signal;
use harness::{Mesh, Need, Wire, need, turn, wait_until};

/// `web` on c calls `site`, which nginx offers on s1, s2, ...
struct Farm {
    // Processes end before their hosts go.
    apps: Vec<Nginx>,
    mesh: Mesh,
    address: std::net::SocketAddr,
    _wire: Wire,
}

impl Farm {
    fn start(servers: &[&str]) -> Self {
        let mut wire = Wire::new();
        let mut hosts: Vec<(&str, &[&str])> = vec![("c", &["web"])];
        hosts.extend(servers.iter().map(|name| (*name, &["site"][..])));
        let mesh = Mesh::on(&mut wire, &hosts);
        let app = |name: &&str| {
            let node = mesh.node(name);
            let nginx = Nginx::start(
                node.host(),
                &mesh.scratch().directory(&format!("nginx-{name}")),
                name,
            );
            node.serve("site", nginx.address(), "http", &["web"], "");
            nginx
        };
        let apps = servers.iter().map(app).collect();
        let address = mesh.node("c").call("site", "web");
        mesh.start();
        mesh.wait_healthy("site", servers, crate::SEEN);
        Self {
            apps,
            mesh,
            address,
            _wire: wire,
        }
    }

    /// Runs `events` under 64 callers, with `good` answers before and after.
    fn under_load(&self, good: u64, events: impl FnOnce()) -> Report {
        let state = State::default();
        std::thread::scope(|scope| {
            let load = Load::start(
                scope,
                &state,
                self.mesh.node("c").host(),
                64,
                self.address,
                "/",
            );
            let more = || {
                let now = load.good();
                wait_until(crate::PATIENCE, "more answers", || {
                    load.good() >= now + good
                });
            };
            more();
            events();
            more();
            load.stop()
        })
    }
}

#[test]
fn a_host_killed_under_load_loses_no_request_that_can_be_retried() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let mut farm = Farm::start(&["s1", "s2", "s3"]);
    let killed = farm.apps.remove(1);
    let report = farm.under_load(3_000, || {
        farm.mesh.node("s2").host().cut();
        farm.mesh.node("s2").kill();
        drop(killed);
        // Until gossip agrees; calls go on meanwhile.
        wait_until(crate::PATIENCE, "c to know that s2 is gone", || {
            farm.mesh.node("c").liveness("s2").as_deref() != Some("alive")
        });
    });
    println!(
        "one of three hosts killed under 64 callers: {} answered, {} failed within {:?}, slowest {:?}",
        report.good,
        report.failures.len(),
        report.error_window(),
        report.slowest
    );
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert!(
        report.slowest < Duration::from_secs(8),
        "{:?}",
        report.slowest
    );
}

#[test]
fn an_agent_killed_under_load_loses_no_request_that_can_be_retried() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let farm = Farm::start(&["s1", "s2", "s3"]);
    let report = farm.under_load(3_000, || farm.mesh.node("s2").kill());
    assert!(
        report.failures.is_empty(),
        "{} failed: {:?}",
        report.failures.len(),
        report.failures.first()
    );
}

#[test]
fn every_app_and_then_every_agent_restarts_under_callers_that_notice_nothing() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let names = ["s1", "s2", "s3"];
    let mut farm = Farm::start(&names);
    let mut apps = std::mem::take(&mut farm.apps);
    let report = farm.under_load(5_000, || {
        for (name, app) in names.iter().zip(&mut apps) {
            let node = farm.mesh.node(name);
            app.restart(node.host());
            // A call that broke here is on its second try elsewhere, and a third app must not break that one too.
            let good = [("side", "callee"), ("status", "2xx")];
            let answered = || node.metrics().sum("starling_requests_total", &good);
            let before = answered();
            wait_until(crate::PATIENCE, "the app to answer again", || {
                answered() >= before + 200.0
            });
        }
        for name in names {
            let node = farm.mesh.node(name);
            node.stop();
            node.start();
            node.wait_ready();
            farm.mesh.wait_healthy("site", &names, crate::PATIENCE);
        }
    });
    println!(
        "apps, then agents, restarted in turn: {} answered, slowest {:?}",
        report.good, report.slowest
    );
    assert!(report.good >= 10_000, "{}", report.good);
    assert!(
        report.failures.is_empty(),
        "{} failed: {:?}",
        report.failures.len(),
        report.failures.first()
    );
}

#[test]
fn the_only_instance_restarts_within_the_wait_of_its_callers() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let farm = Farm::start(&["s1"]);
    // A restart takes about a second, and callers wait two by default; on a busy machine neither is sure.
    let caller = farm.mesh.node("c");
    caller.write_config(&[farm.mesh.node("s1")], "[limits]\nwait = \"10s\"");
    let reloads = || {
        let metrics = caller.metrics();
        metrics.sum("starling_config_reloads_total", &[("outcome", "taken")])
    };
    let before = reloads();
    caller.signal(Signal::HUP);
    wait_until(crate::PATIENCE, "the reload", || reloads() > before);
    let report = farm.under_load(1_000, || {
        let node = farm.mesh.node("s1");
        node.stop();
        node.start();
        node.wait_ready();
    });
    println!(
        "the only agent restarted: {} answered, {} failed, slowest {:?}",
        report.good,
        report.failures.len(),
        report.slowest
    );
    assert!(
        report.failures.is_empty(),
        "{} failed: {:?}",
        report.failures.len(),
        report.failures.first()
    );
}

#[test]
fn the_callers_own_agent_restarts_and_is_found_again() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nginx")
    );
    let _turn = turn::shared();
    let farm = Farm::start(&["s1"]);
    let client = farm.mesh.node("c");
    client.kill();
    client.start();
    client.wait_ready();
    wait_until(crate::SEEN, "calls to work again", || {
        client
            .host()
            .run(|| harness::http::get(farm.address, "/"))
            .is_ok_and(|answer| answer.status == 200)
    });
}
