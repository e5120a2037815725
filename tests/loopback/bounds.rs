//! What keeps calls within bounds: rates, places, queues, at either end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::apps::{Moody, Reply};
use harness::http::{Answer, Client};
use harness::{Mesh, Need, need, turn, wait_until};

use crate::balance::Farm;

fn statuses(answers: &[Answer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

/// Seconds after which a refused caller may come again.
fn after(answer: &Answer) -> u64 {
    let seconds = answer.header("retry-after").expect("it says when");
    seconds.parse().expect("seconds")
}

#[test]
fn each_caller_has_a_rate_of_its_own_at_the_callee() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web", "batch"]), ("n2", &["site"])]);
    let node = mesh.node("n2");
    let app = Moody::well(node.host());
    let limits = "limits = { rate = { requests = 5, per = \"1h\" } }";
    node.serve("site", app.address(), "http", &["web", "batch"], limits);
    let addresses = ["web", "batch"].map(|caller| mesh.node("n1").call("site", caller));
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::PATIENCE);
    for address in addresses {
        let mut client = Client::new(address);
        let answers: Vec<_> = (0..7)
            .map(|_| client.get("/").expect("an answer"))
            .collect();
        assert_eq!(statuses(&answers), [200, 200, 200, 200, 200, 429, 429]);
        assert_eq!(answers[6].mesh_error(), Some("rate-limited"));
        assert!((600..=720).contains(&after(&answers[6])));
    }
    assert_eq!(app.calls(), 10);
}

#[test]
fn each_value_of_a_key_has_a_rate_of_its_own_at_the_caller() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let limits = "limits = { rate = { requests = 2, per = \"1h\", key = \"header:x-user\" } }";
    let farm = Farm::new(&["n2"], limits, "", Moody::well).start();
    // A rule has its own, beside that of the upstream.
    farm.mesh.node("n1").write(
        "route.toml",
        "[[route]]\nservice = \"site\"\n[[route.rule]]\nmatch = { path = \"/dear\" }\n\
         limits = { rate = { requests = 1, per = \"1h\" } }\n",
    );
    let mut client = Client::new(farm.address);
    wait_until(crate::PATIENCE, "the rule to be in force", || {
        let answer = client.get("/dear").expect("an answer");
        answer.status == 429
    });
    for user in ["alice", "bob"] {
        let mut ask = || {
            let field = ("x-user", user);
            client.ask("GET", "/", &[field], b"").expect("an answer")
        };
        let answers: Vec<_> = (0..3).map(|_| ask()).collect();
        assert_eq!(statuses(&answers), [200, 200, 429], "{user}");
        assert!((1700..=1800).contains(&after(&answers[2])));
    }
}

/// An app that keeps calls until it is told to let them go.
fn keeper(host: &harness::Host, gate: &Arc<AtomicBool>) -> Moody {
    let gate = gate.clone();
    Moody::start(host, move |_, _| {
        wait_until(crate::PATIENCE, "the gate", || gate.load(Ordering::Relaxed));
        Reply::status(200)
    })
}

#[test]
fn a_busy_app_gets_so_many_at_a_time_a_few_wait_and_the_rest_is_told() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let gate = Arc::new(AtomicBool::new(false));
    let limits = "limits = { concurrent = 2, queue = 3, queue_wait = \"1m\" }";
    let farm = Farm::new(&["n2"], "", limits, |host| keeper(host, &gate)).start();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let call = || Client::new(farm.address).get("/").expect("an answer");
        let callers: Vec<_> = (0..5).map(|_| scope.spawn(call)).collect();
        let metrics = || farm.mesh.node("n2").metrics();
        wait_until(crate::PATIENCE, "the queue to fill", || {
            metrics().sum("starling_queued_requests", &[("service", "site")]) == 3.0
        });
        // No other instance can take it, and its agent waits for one as long as usual.
        let refused = call();
        assert_eq!(
            (refused.status, refused.mesh_error()),
            (503, Some("overloaded"))
        );
        assert_eq!(after(&refused), 1);
        gate.store(true, Ordering::Relaxed);
        callers
            .into_iter()
            .map(|caller| caller.join().expect("no panic"))
            .collect()
    });
    assert_eq!(statuses(&answers), [200; 5]);
    assert_eq!(farm.apps[0].most_at_a_time(), 2);
    let queued = farm.mesh.node("n2").metrics();
    assert_eq!(queued.sum("starling_queued_requests", &[]), 0.0);
}

#[test]
fn a_full_instance_sends_calls_to_another() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let gate = Arc::new(AtomicBool::new(false));
    let limits = "limits = { concurrent = 1, queue = 0 }";
    let farm = Farm::new(&["n2", "n3"], "", limits, |host| match host.name() {
        "n2" => keeper(host, &gate),
        _ => Moody::well(host),
    });
    let farm = farm.start();
    std::thread::scope(|scope| {
        let mut client = Client::new(farm.address);
        let caller = scope.spawn(|| {
            // One of its calls is kept by n2.
            let mut client = Client::new(farm.address);
            while farm.apps[0].calls() == 0 {
                assert_eq!(client.get("/").expect("an answer").status, 200);
            }
        });
        wait_until(crate::PATIENCE, "n2 to be full", || {
            farm.apps[0].calls() == 1
        });
        for _ in 0..50 {
            assert_eq!(client.get("/").expect("an answer").text(), "n3");
        }
        gate.store(true, Ordering::Relaxed);
        caller.join().expect("no panic");
    });
}

#[test]
fn only_so_many_requests_are_under_way_at_the_caller() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let gate = Arc::new(AtomicBool::new(false));
    let limits = "limits = { concurrent = 2 }";
    let farm = Farm::new(&["n2"], limits, "", |host| keeper(host, &gate)).start();
    std::thread::scope(|scope| {
        let call = || Client::new(farm.address).get("/").expect("an answer");
        let callers: Vec<_> = (0..2).map(|_| scope.spawn(call)).collect();
        wait_until(crate::PATIENCE, "two calls", || farm.apps[0].calls() == 2);
        let refused = call();
        assert_eq!(
            (refused.status, refused.mesh_error()),
            (503, Some("overloaded"))
        );
        gate.store(true, Ordering::Relaxed);
        for caller in callers {
            assert_eq!(caller.join().expect("no panic").status, 200);
        }
        wait_until(crate::PATIENCE, "the places to be free", || {
            call().status == 200
        });
    });
}

#[test]
fn only_so_many_connections_are_open_to_a_tcp_service() {
    need!(Need::Agent);
    use std::io::{Read, Write};
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["app"]), ("n2", &["echo"])]);
    let echo = harness::stream::serve(mesh.node("n2").host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        // Ends with its caller.
        let _ = std::io::copy(&mut stream, &mut back);
    });
    mesh.node("n2").serve("echo", echo, "tcp", &["app"], "");
    let node = mesh.node("n1");
    let address = node.call_as_told("echo", "app", "limits = { connections = 2 }");
    mesh.start();
    mesh.wait_healthy("echo", &["n2"], crate::PATIENCE);
    let says = || {
        let mut stream = harness::stream::connect(node.host(), address);
        let mut back = [0; 2];
        let said = stream
            .write_all(b"hi")
            .and_then(|()| stream.read_exact(&mut back));
        said.map(|()| stream)
    };
    let held = [says().expect("room"), says().expect("room")];
    assert!(says().is_err(), "the third is reset");
    drop(held);
    wait_until(crate::PATIENCE, "room again", || says().is_ok());
}
