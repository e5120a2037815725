//! A revoked host that renews where nobody has heard of its revocation.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use harness::mesh::TRUST_DOMAIN;
use harness::process::{leashed, run};
use harness::{Mesh, Need, Node, Wire, let_pass, need, program, stream, turn, wait_until};

/// A program that believes that it is so many seconds earlier.
fn earlier(seconds: u32) -> Command {
    let mut command = leashed(program::path("faketime"));
    command.args(["--exclude-monotonic", "-f", &format!("-{seconds}s")]);
    command.arg(program::agent());
    command
}

fn at(seconds: u32, node: &Node, arguments: &[&str]) -> Output {
    let mut command = earlier(seconds);
    command.args(arguments).arg("--socket").arg(node.socket());
    command.output().expect("faketime runs")
}

fn chain(node: &Node) -> Vec<u8> {
    fs::read(node.state().join("node.pem")).unwrap_or_default()
}

/// Whether a call comes through.
fn calls(node: &Node, address: std::net::SocketAddr) -> bool {
    use std::io::{Read, Write};
    let mut stream = stream::connect(node.host(), address);
    let second = Some(Duration::from_secs(1));
    stream.set_read_timeout(second).expect("it is a socket");
    let mut back = [0; 5];
    let said = stream.write_all(b"hello");
    said.and_then(|()| stream.read_exact(&mut back)).is_ok() && back == *b"hello"
}

/// n3 was set up 330 s ago and revoked 320 s ago, which n1, the issuer on its side of the cut, does not know. What n3 renews
/// there now is dated after its revocation, though dated back by 300 s.
#[test]
fn a_revoked_host_that_renews_on_its_side_of_a_cut_is_out_when_it_heals() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("faketime")
    );
    let _turn = turn::alone();
    let mut wire = Wire::new();
    let mesh = Mesh::on(
        &mut wire,
        &[("n1", &["app"]), ("n2", &["peer"]), ("n3", &["app"])],
    );
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
    // The mesh is older than all that.
    for (node, service, life) in [(n1, "app", "24h"), (n2, "peer", "24h"), (n3, "app", "345s")] {
        fs::remove_dir_all(node.state()).expect("the harness made it");
        let mut make = earlier(330);
        match node.name() {
            "n1" => make.args(["init", "--trust-domain", TRUST_DOMAIN]),
            _ => make.args(["ca", "issue", "--out"]).arg(node.state()),
        };
        make.args(["--node", node.name(), "--service", service]);
        make.args(["--lifetime", life, "--state"])
            .arg(mesh.issuer());
        run(make);
    }
    let alice = mesh.scratch().path().join("alice.operator");
    let alice = alice.display().to_string();
    let mut operator = earlier(330);
    operator.args([
        "operator",
        "new",
        "--name",
        "alice",
        "--kinds",
        "revocation",
    ]);
    operator
        .args(["--out", &alice])
        .arg("--state")
        .arg(mesh.issuer());
    run(operator);
    n1.write_config(&[n2, n3], "[issuer]\nlifetime = \"16s\"");
    let echo = stream::serve(n2.host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        let _ended = std::io::copy(&mut stream, &mut back);
    });
    n2.serve("peer", echo, "tcp", &["app"], "");
    let (good, thief) = (n1.call("peer", "app"), n3.call("peer", "app"));
    mesh.start();
    mesh.wait_healthy("peer", &["n2"], crate::PATIENCE);
    wait_until(crate::PATIENCE, "n3 to be let in", || calls(n3, thief));

    n2.host().cut();
    let signed = ["--key", &alice, "--yes"];
    let revoke = ["revoke", "node/n3", "--reason", "stolen"];
    let output = at(320, n2, &[&revoke[..], &signed[..]].concat());
    assert!(
        n2.document("revocation/node-n3")
            .is_some_and(|(_, state, _)| state == "in force"),
        "{output:?}"
    );
    let before = chain(n3);
    wait_until(crate::PATIENCE, "n3 to renew at n1", || chain(n3) != before);
    let renewed = |node: &Node| {
        let outcome = [("outcome", "renewed")];
        node.metrics().sum("starling_renewals_total", &outcome)
    };

    n2.host().heal();
    wait_until(crate::PATIENCE, "n1 to hear of it", || {
        n1.document("revocation/node-n3")
            .is_some_and(|(_, state, _)| state == "in force")
    });
    let_pass(Duration::from_secs(2));
    let (at_first, renewals) = (chain(n3), renewed(n3));
    // Over a renewal, which is due each 8 s to 10 s.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(11) {
        assert!(!calls(n3, thief), "a call of the revoked host came through");
        for node in [n1, n2] {
            assert_ne!(
                node.liveness("n3").as_deref(),
                Some("alive"),
                "gossip of the revoked host counts"
            );
        }
        let_pass(Duration::from_millis(200));
    }
    assert_eq!(
        (chain(n3), renewed(n3)),
        (at_first, renewals),
        "the revoked host renewed"
    );
    wait_until(crate::PATIENCE, "n1 to be let in", || calls(n1, good));
}

/// All hosts have certificates of the issuer on n1, so the revocation ends the connections by which it travels.
#[test]
fn a_revocation_of_the_issuer_of_all_hosts_reaches_them_all() {
    need!(Need::Agent, Need::Root, Need::Program("ip"));
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let mesh = Mesh::on(
        &mut wire,
        &[("n1", &["app"]), ("n2", &["peer"]), ("n3", &["app"])],
    );
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
    let echo = stream::serve(n2.host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        let _ended = std::io::copy(&mut stream, &mut back);
    });
    n2.serve("peer", echo, "tcp", &["app"], "");
    let address = n1.call("peer", "app");
    mesh.start();
    mesh.wait_healthy("peer", &["n2"], crate::PATIENCE);
    wait_until(crate::PATIENCE, "n1 to be let in", || calls(n1, address));
    let alice = mesh.operator("alice", "revocation").display().to_string();
    let said = n3.must(&[
        "revoke", "node/n1", "--reason", "stolen", "--key", &alice, "--yes",
    ]);
    assert!(said.contains("must be invited anew"), "{said}");
    for node in [n2, n3] {
        wait_until(crate::PATIENCE, "the document to arrive", || {
            node.document("revocation/node-n1").is_some()
        });
    }
    wait_until(crate::PATIENCE, "n1 to be refused", || !calls(n1, address));
    // A new issuer whose certificate was made after the revocation lets all in again.
    let mut add = Command::new(program::agent());
    add.args(["ca", "add-issuer", "--node", "n1", "--state"]);
    add.arg(mesh.issuer()).arg("--out").arg(mesh.issuer());
    run(add);
    for (node, service) in [(n1, "app"), (n2, "peer"), (n3, "app")] {
        mesh.issue(node, &[service], &[]);
    }
    wait_until(crate::PATIENCE, "all to be let in again", || {
        calls(n1, address)
    });
}
