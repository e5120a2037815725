//! Calls that meet failing instances: black holes, brown-outs, storms of retries.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::apps::{Moody, Reply};
use harness::http::{self, Client};
use harness::load::{Load, State};
use harness::{Mesh, Need, need, turn, wait_until};

use crate::balance::Farm;

#[test]
fn a_black_hole_costs_its_first_callers_time_and_nobody_an_answer() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let upstream =
        "timeout = { per_try = \"2s\" }\nretry = { attempts = 3, budget = { percent = 100 } }";
    let farm = Farm::new(&["n2", "n3", "n4"], upstream, "", |host| {
        match host.name() {
            "n2" => Moody::start(host, |_, _| Reply::silence()),
            _ => Moody::well(host),
        }
    });
    let farm = farm.start();
    let report = farm.load(16, 3000);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    let calls = farm.calls();
    assert!((1..100).contains(&calls[0]), "{calls:?}");
}

#[test]
fn a_brown_out_of_one_instance_is_hidden_from_callers() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let upstream = "retry = { attempts = 3, on = [\"5xx\"], budget = { percent = 100 } }\n\
                    outlier = { consecutive = 3, base = \"30s\" }";
    let farm = Farm::new(&["n2", "n3", "n4"], upstream, "", |host| {
        let is_ill = host.name() == "n2";
        Moody::start(host, move |call, _| {
            Reply::status(if is_ill && call % 2 == 0 { 500 } else { 200 })
        })
    });
    let farm = farm.start();
    let report = farm.load(8, 3000);
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    // Errors never come three in a row, so it is the rate that tells.
    let ejected = farm.mesh.node("n1").metrics().sum(
        "starling_ejections_total",
        &[("callee", "site"), ("reason", "success-rate")],
    );
    assert!(ejected >= 1.0);
    let calls = farm.calls();
    assert!(calls[0] < 600, "{calls:?}");
}

/// An app that answers with what `address` answers.
fn relay(host: &harness::Host, address: SocketAddr) -> Moody {
    Moody::start(host, move |_, _| {
        let answer = http::get(address, "/");
        Reply::status(answer.map_or(502, |answer| answer.status))
    })
}

/// web → a → b → c, everybody retries, and c fails. The load at each stays near what is offered.
#[test]
fn retries_of_three_layers_do_not_multiply() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let mesh = Mesh::loopback(&[
        ("n1", &["web"]),
        ("n2", &["a"]),
        ("n3", &["b"]),
        ("n4", &["c"]),
    ]);
    // The least per second is left out, so that the figure does not depend on how fast this machine is.
    let upstream = "retry = { attempts = 4, on = [\"5xx\"], backoff = \"1ms\", budget = { percent = 20, min_per_second = 0 } }";
    let c = Moody::start(mesh.node("n4").host(), |_, _| Reply::status(503));
    mesh.node("n4").serve("c", c.address(), "http", &["b"], "");
    let to_c = mesh.node("n3").call_as_told("c", "b", upstream);
    let b = relay(mesh.node("n3").host(), to_c);
    mesh.node("n3").serve("b", b.address(), "http", &["a"], "");
    let to_b = mesh.node("n2").call_as_told("b", "a", upstream);
    let a = relay(mesh.node("n2").host(), to_b);
    mesh.node("n2")
        .serve("a", a.address(), "http", &["web"], "");
    let to_a = mesh.node("n1").call_as_told("a", "web", upstream);
    mesh.start();
    for service in ["a", "b", "c"] {
        wait_until(crate::PATIENCE, service, || {
            mesh.nodes()
                .iter()
                .all(|node| !node.healthy(service).is_empty())
        });
    }
    let offered = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::new(to_a);
                for _ in 0..100 {
                    offered.fetch_add(1, Ordering::Relaxed);
                    let answer = client.get("/").expect("an answer");
                    assert_eq!(answer.status, 503, "{answer:?}");
                    assert_eq!(answer.mesh_error(), None, "{answer:?}");
                    assert_eq!(answer.header("starling-retry"), None, "{answer:?}");
                }
            });
        }
    });
    let offered = offered.into_inner();
    let loads = [a.calls(), b.calls(), c.calls()];
    println!("{offered} offered: {loads:?}");
    assert!(
        loads.iter().all(|load| *load * 10 <= offered * 13),
        "{loads:?}"
    );
    assert!(
        c.calls() > offered,
        "whoever is next to the trouble does retry: {loads:?}"
    );
}

#[test]
fn a_post_is_repeated_only_where_somebody_says_so() {
    need!(Need::Agent);
    let _turn = turn::shared();
    for (methods, expected) in [("", 500), ("methods = [\"POST\"], ", 200)] {
        let upstream = format!("retry = {{ {methods}attempts = 2, on = [\"5xx\"] }}");
        let farm = Farm::new(&["n2"], &upstream, "", |host| {
            Moody::start(host, |call, _| {
                Reply::status(if call == 1 { 500 } else { 200 })
            })
        });
        let farm = farm.start();
        let answer = Client::new(farm.address)
            .send("POST", "/", b"")
            .expect("an answer");
        assert_eq!(answer.status, expected, "{methods}");
    }
}

#[test]
fn settings_of_calls_change_under_connections_that_stay() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let farm = Farm::new(&["n2"], "", "", |host| {
        Moody::start(host, |call, _| {
            Reply::status(if call % 2 == 1 { 500 } else { 200 })
        })
    });
    let farm = farm.start();
    let node = farm.mesh.node("n1");
    let mut client = Client::new(farm.address);
    assert_eq!(client.get("/").expect("an answer").status, 500);
    assert_eq!(client.get("/").expect("an answer").status, 200);
    let text = format!(
        "[[upstream]]\nservice = \"site\"\nlisten = \"{}\"\nas = \"web\"\nretry = {{ on = [\"5xx\"], budget = {{ percent = 100 }} }}\n",
        farm.address
    );
    node.write("call-site-as-web.toml", &text);
    node.signal(harness::process::Signal::HUP);
    wait_until(crate::PATIENCE, "no error to come through", || {
        (0..10).all(|_| client.get("/").expect("an answer").status == 200)
    });
}

#[test]
fn nobody_waits_longer_than_it_says() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let farm = Farm::new(&["n2"], "timeout = { request = \"500ms\" }", "", |host| {
        Moody::start(host, |_, head| {
            if head.starts_with("GET /hang ") {
                Reply::silence()
            } else {
                Reply::status(200)
            }
        })
    });
    let farm = farm.start();
    let mut client = Client::new(farm.address);
    let answer = client.get("/hang").expect("an answer");
    assert_eq!((answer.status, answer.mesh_error()), (504, Some("timeout")));
    let mut ask = |fields: &[(&str, &str)]| {
        let answer = client.ask("GET", "/", fields, b"").expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let head = farm.apps[0].last();
        let field = |name: &str| {
            let mut lines = head.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            value.map(str::to_owned)
        };
        (field("starling-deadline-ms"), field("grpc-timeout"))
    };
    // The app is told what is left of the shorter one.
    let left = |told: Option<String>| told.expect("it is told").parse::<u64>().expect("a number");
    assert!(left(ask(&[]).0) <= 500);
    assert!(left(ask(&[("starling-deadline-ms", "400")]).0) <= 400);
    assert!(left(ask(&[("starling-deadline-ms", "86400000")]).0) <= 500);
    let (ours, grpc) = ask(&[("grpc-timeout", "9S")]);
    assert!(left(ours) <= 500);
    let grpc = grpc.expect("it stays").trim_end_matches('m').parse::<u64>();
    assert!(grpc.expect("shortened to milliseconds") <= 500);
}

/// The instance in which a call hangs is left; the deadline holds for the tries together.
#[test]
fn a_callers_deadline_holds_for_its_tries_together() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let upstream = "timeout = { per_try = \"200ms\" }\nretry = { attempts = 10 }";
    let farm = Farm::new(&["n2"], upstream, "", |host| {
        Moody::start(host, |_, _| Reply::silence())
    });
    let farm = farm.start();
    let field = ("starling-deadline-ms", "1000");
    let answer = Client::new(farm.address).ask("GET", "/", &[field], b"");
    let answer = answer.expect("an answer");
    assert_eq!((answer.status, answer.mesh_error()), (504, Some("timeout")));
    let calls = farm.apps[0].calls();
    assert!((2..=6).contains(&calls), "{calls}");
}

#[test]
fn a_service_with_one_good_instance_left_is_not_given_up() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let upstream = "outlier = { max_share = 100 }\nbalance = { panic = 50 }";
    let farm = Farm::new(&["n2", "n3", "n4"], upstream, "", |host| {
        match host.name() {
            "n4" => Moody::well(host),
            _ => Moody::start(host, |_, _| Reply::status(500)),
        }
    });
    let farm = farm.start();
    let state = State::default();
    std::thread::scope(|scope| {
        let host = farm.mesh.node("n1").host();
        let load = Load::start(scope, &state, host, 4, farm.address, "/");
        wait_until(crate::PATIENCE, "good answers", || load.good() >= 200);
        load.stop()
    });
    // In the panic all get calls again: the errors of two of three are not two instances' fault.
    let calls = farm.calls();
    assert!(calls.iter().all(|calls| *calls > 10), "{calls:?}");
}
