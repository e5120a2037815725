//! A configuration is never half in force: its rules are taken at once and whole, and what it needs entry by entry.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use harness::apps::Nginx;
use harness::{Mesh, Need, http, let_pass, need, turn, wait_until};

/// `web` on n1 may call `orders`, nginx on n2, at the address.
fn shop() -> (Mesh, Nginx, SocketAddr) {
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["orders"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
    n2.serve("orders", nginx.address(), "http", &["web"], "");
    let orders = n1.host().free_tcp();
    n1.write("call.toml", &upstream(orders, "web", ""));
    mesh.start();
    mesh.wait_healthy("orders", &["n2"], crate::PATIENCE);
    wait_status(orders, 200);
    (mesh, nginx, orders)
}

fn upstream(listen: SocketAddr, caller: &str, more: &str) -> String {
    format!(
        "[[upstream]]\nservice = \"orders\"\nlisten = \"{listen}\"\nas = \"{caller}\"\n{more}\n"
    )
}

fn status(address: SocketAddr) -> u16 {
    http::get(address, "/").map_or(0, |answer| answer.status)
}

#[track_caller]
fn wait_status(address: SocketAddr, expected: u16) {
    let what = format!("a call to get {expected}");
    wait_until(crate::PATIENCE, &what, || status(address) == expected);
}

#[test]
fn one_bad_entry_kept_a_removal_of_allow_out() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let (mesh, nginx, orders) = shop();
    let n2 = mesh.node("n2");

    // A service without a certificate, an upstream on a port that is taken, and nobody is allowed any more.
    let taken = TcpListener::bind((n2.host().ip(), 0)).expect("a port is free");
    let port = taken.local_addr().expect("it is bound");
    let unproven =
        "[[service]]\nname = \"unproven\"\nport = 1\nprotocol = \"http\"\nallow = [\"web\"]\n";
    let second = upstream(port, "orders", "");
    n2.write("more.toml", &format!("{unproven}\n{second}"));
    n2.serve("orders", nginx.address(), "http", &[], "");
    wait_status(orders, 403);
    let shows = |words: &str| {
        let shown = n2.show("status", &[]).unwrap_or_default();
        shown.contains(words)
    };
    for words in [
        "The configuration is in force, but for:",
        "no certificate of service `unproven`",
        "cannot listen on",
    ] {
        wait_until(crate::PATIENCE, words, || shows(words));
    }
    let found = n2.operate(&["check"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        found.contains("2 entries of the configuration go without"),
        "{found}"
    );

    // It starts in that state, with the rules in force, and what was missing is taken up by itself.
    n2.kill();
    n2.start();
    n2.wait_ready();
    mesh.wait_healthy("orders", &["n2"], crate::PATIENCE);
    wait_status(orders, 403);
    assert!(shows("cannot listen on"));
    drop(taken);
    wait_until(crate::PATIENCE, "the port to be taken up", || {
        !shows("cannot listen on")
    });
    n2.serve("orders", nginx.address(), "http", &["web"], "");
    wait_status(orders, 200);
}

#[test]
fn an_upstream_that_cannot_have_its_new_address_keeps_the_old_one_under_its_new_rules() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let (mesh, _nginx, before) = shop();
    let n1 = mesh.node("n1");
    let taken = TcpListener::bind((n1.host().ip(), 0)).expect("a port is free");
    let after = taken.local_addr().expect("it is bound");
    let limited = "limits = { rate = { requests = 1, per = \"60s\" } }";
    n1.write("call.toml", &upstream(after, "web", limited));
    wait_status(before, 429);
    let shown = n1.show("status", &[]).expect("it answers");
    let stays = format!("it stays at {before}, under its new rules");
    assert!(shown.contains(&stays), "{shown}");
    drop(taken);
    n1.write("call.toml", &upstream(after, "web", ""));
    wait_status(after, 200);
    wait_status(before, 0);
}

#[test]
fn a_start_on_broken_files_runs_on_the_last_ones_and_says_so() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let (mesh, _nginx, orders) = shop();
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let file = n2.directory().join("services.d/orders.toml");
    let good = fs::read_to_string(&file).expect("it was written");
    let closed = good.replace("[\"web\"]", "[]");
    assert_ne!(closed, good);
    n2.write("orders.toml", &closed.replace("port", "prot"));
    let_pass(Duration::from_secs(2));
    n2.kill();
    n2.start();
    n2.wait_ready();
    mesh.wait_healthy("orders", &["n2"], crate::PATIENCE);
    wait_status(orders, 200);
    let shown = n2.show("status", &[]).expect("it answers");
    assert!(
        shown.contains("changed since, but are not in force"),
        "{shown}"
    );
    let explained = n1.operate(&["explain", "web", "orders"]);
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(
        explained.contains("the files there changed since"),
        "{explained}"
    );
    n2.write("orders.toml", &closed);
    wait_status(orders, 403);
}
