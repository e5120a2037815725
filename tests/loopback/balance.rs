//! Which instance takes a call, among real agents: slow ones, sick ones, those of other zones, those of a key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::apps::{Moody, Reply};
use harness::http::Client;
use harness::load::{Load, Report, State};
use harness::{Mesh, Need, need, turn, wait_until};

/// `web` on n1 calls `site`, which these apps offer on n2, n3, ...
pub(crate) struct Farm {
    pub(crate) mesh: Mesh,
    pub(crate) apps: Vec<Moody>,
    pub(crate) address: SocketAddr,
}

impl Farm {
    /// Nothing runs yet. `upstream` and `service` are added to the TOML; `app` makes the app of one host.
    pub(crate) fn new(
        servers: &[&'static str],
        upstream: &str,
        service: &str,
        app: impl Fn(&harness::Host) -> Moody,
    ) -> Self {
        let mut hosts: Vec<(&str, &[&str])> = vec![("n1", &["web"])];
        hosts.extend(servers.iter().map(|name| (*name, &["site"][..])));
        let mesh = Mesh::loopback(&hosts);
        let serve = |name: &&str| {
            let node = mesh.node(name);
            let app = app(node.host());
            node.serve("site", app.address(), "http", &["web"], service);
            app
        };
        let apps = servers.iter().map(serve).collect();
        let address = mesh.node("n1").call_as_told("site", "web", upstream);
        Self {
            mesh,
            apps,
            address,
        }
    }

    pub(crate) fn start(self) -> Self {
        self.mesh.start();
        let nodes = self.mesh.nodes()[1..].iter();
        let names: Vec<_> = nodes.map(harness::Node::name).collect();
        self.mesh.wait_healthy("site", &names, crate::PATIENCE);
        self
    }

    /// Lets `callers` send requests until there are `good` good answers more.
    pub(crate) fn load(&self, callers: usize, good: u64) -> Report {
        let state = State::default();
        let host = self.mesh.node("n1").host();
        std::thread::scope(|scope| {
            let load = Load::start(scope, &state, host, callers, self.address, "/");
            wait_until(crate::PATIENCE, "answers", || load.good() >= good);
            load.stop()
        })
    }

    pub(crate) fn calls(&self) -> Vec<u64> {
        self.apps.iter().map(Moody::calls).collect()
    }
}

#[test]
fn a_slow_instance_gets_few_calls() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let farm = Farm::new(&["n2", "n3", "n4"], "", "", |host| {
        let is_slow = host.name() == "n2";
        let delay = Duration::from_secs(u64::from(is_slow));
        Moody::start(host, move |_, _| Reply::status(200).after(delay))
    });
    let farm = farm.start();
    let report = farm.load(16, 4000);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let calls = farm.calls();
    // Each of the callers may meet it before anyone has heard from it.
    assert!((1..200).contains(&calls[0]), "{calls:?}");
}

#[test]
fn a_zone_gives_away_what_it_cannot_carry_and_is_replaced_when_lost() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let sick = Arc::new(AtomicBool::new(false));
    let mood = sick.clone();
    let health =
        "health = { kind = \"http\", path = \"/healthz\", interval = \"200ms\", up = 1, down = 1 }";
    let farm = Farm::new(&["n2", "n3", "n4", "n5"], "", health, |host| {
        let mood = (host.name() == "n2").then(|| mood.clone());
        Moody::start(host, move |_, head| {
            let is_sick = mood
                .as_ref()
                .is_some_and(|mood| mood.load(Ordering::Relaxed));
            let is_check = head.starts_with("GET /healthz ");
            Reply::status(if is_sick && is_check { 503 } else { 200 })
        })
    });
    for (node, zone) in farm.mesh.nodes().iter().zip(["a", "a", "a", "b", "b"]) {
        node.in_zone(zone);
    }
    let farm = farm.start();
    let report = farm.load(8, 500);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let calls = farm.calls();
    assert_eq!(calls[2] + calls[3], 0, "{calls:?}");

    // Half of the zone is out, of which 70 % must work: it keeps 71 % of the calls.
    sick.store(true, Ordering::Relaxed);
    farm.mesh
        .wait_healthy("site", &["n3", "n4", "n5"], crate::PATIENCE);
    let before = farm.calls();
    let report = farm.load(8, 2000);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let got: Vec<_> = farm
        .calls()
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    let total: u64 = got.iter().sum();
    let far = (got[2] + got[3]) as f64 / total as f64;
    assert!((0.2..0.4).contains(&far), "{got:?}");

    // All of the zone dies, agents and all.
    let before = farm.calls();
    let report = std::thread::scope(|scope| {
        let state = Box::leak(Box::<State>::default());
        let host = farm.mesh.node("n1").host();
        let load = Load::start(scope, state, host, 8, farm.address, "/");
        farm.mesh.node("n2").kill();
        farm.mesh.node("n3").kill();
        let already = load.good();
        wait_until(crate::PATIENCE, "answers", || load.good() >= already + 500);
        load.stop()
    });
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let got: Vec<_> = farm
        .calls()
        .iter()
        .zip(before)
        .map(|(now, then)| now - then)
        .collect();
    assert!(got[2] + got[3] >= 500, "{got:?}");
}

#[test]
fn a_user_stays_with_its_instance_and_others_take_over() {
    need!(Need::Agent);
    let _turn = turn::shared();
    for algorithm in ["ring-hash", "maglev"] {
        let balance =
            format!("balance = {{ algorithm = \"{algorithm}\", on = \"header:x-user\" }}");
        let farm = Farm::new(&["n2", "n3", "n4"], &balance, "", Moody::well).start();
        let mut client = Client::new(farm.address);
        let mut places = || -> BTreeMap<u32, String> {
            (0..60)
                .map(|user| {
                    let field = ("x-user", &*user.to_string());
                    let answer = client.ask("GET", "/", &[field], b"").expect("an answer");
                    assert_eq!(answer.status, 200, "{answer:?}");
                    (user, answer.text())
                })
                .collect()
        };
        let before = places();
        assert_eq!(places(), before);
        for name in ["n2", "n3", "n4"] {
            assert!(
                before.values().any(|at| at == name),
                "{algorithm}: {before:?}"
            );
        }
        farm.mesh.node("n3").kill();
        for (user, at) in places() {
            assert_ne!(at, "n3");
            assert!(
                before[&user] == "n3" || before[&user] == at,
                "{algorithm}: {user} moved"
            );
        }
    }
}

#[test]
fn in_turn_means_in_turn() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let balance = "balance = { algorithm = \"round-robin\" }";
    let farm = Farm::new(&["n2", "n3", "n4"], balance, "", Moody::well).start();
    let mut client = Client::new(farm.address);
    for _ in 0..90 {
        assert_eq!(client.get("/").expect("an answer").status, 200);
    }
    let calls = farm.calls();
    assert!(
        calls.iter().all(|calls| calls.abs_diff(30) <= 1),
        "{calls:?}"
    );
}

#[test]
fn who_asks_to_be_spared_is() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let farm = Farm::new(&["n2", "n3"], "", "", |host| {
        let is_busy = host.name() == "n2";
        Moody::start(host, move |_, _| match is_busy {
            true => Reply::status(503).field("retry-after", "3600"),
            false => Reply::status(200),
        })
    });
    let farm = farm.start();
    let mut client = Client::new(farm.address);
    wait_until(crate::PATIENCE, "n2 to be asked", || {
        client.get("/").is_ok_and(|answer| answer.status == 503)
    });
    // Half a minute is the longest that anyone is spared, and these take no second.
    for _ in 0..50 {
        assert_eq!(client.get("/").expect("an answer").text(), "n3");
    }
    let spared = farm
        .mesh
        .node("n1")
        .metrics()
        .sum("starling_instances_spared_total", &[("callee", "site")]);
    assert_eq!(spared, 1.0);
}
