//! Who is thrown out is cut off, stays out, and knows why.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use harness::process::run;
use harness::{Mesh, Need, Node, let_pass, need, program, stream, turn, wait_until};

/// `app` on n1, and on n3, calls `peer`, an echo on n2.
struct Calls {
    mesh: Mesh,
    good: SocketAddr,
    lost: SocketAddr,
    alice: String,
}

impl Calls {
    fn start() -> Self {
        Self::start_with("", &[])
    }

    /// With this in the configuration of n1, the issuer, and certificates of n3 that are made with these options.
    fn start_with(issuer: &str, options: &[&str]) -> Self {
        let mesh = Mesh::loopback(&[("n1", &["app"]), ("n2", &["peer"]), ("n3", &["app"])]);
        let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
        n1.write_config(&[n2, n3], issuer);
        if !options.is_empty() {
            mesh.issue(n3, &["app"], options);
        }
        let peer = stream::serve(mesh.node("n2").host(), |mut stream| {
            let mut back = stream.try_clone().expect("a socket can be shared");
            // A caller that is gone is not this app's matter.
            let _ = std::io::copy(&mut stream, &mut back);
        });
        mesh.node("n2").serve("peer", peer, "tcp", &["app"], "");
        let good = mesh.node("n1").call("peer", "app");
        let lost = mesh.node("n3").call("peer", "app");
        mesh.start();
        mesh.wait_healthy("peer", &["n2"], crate::PATIENCE);
        let alice = mesh.operator("alice", "revocation").display().to_string();
        Self {
            mesh,
            good,
            lost,
            alice,
        }
    }

    fn connect(&self, node: &str, address: SocketAddr) -> TcpStream {
        stream::connect(self.mesh.node(node).host(), address)
    }

    fn sign(&self, arguments: &[&str]) -> String {
        let signed = ["--key", &self.alice, "--yes"];
        self.mesh
            .node("n1")
            .must(&[arguments, &signed[..]].concat())
    }
}

/// Whether a word comes back.
fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    let said = stream.write_all(b"hello");
    said.and_then(|()| stream.read_exact(&mut back)).is_ok() && back == *b"hello"
}

fn works(calls: &Calls, node: &str, address: SocketAddr) -> bool {
    echoes(&mut calls.connect(node, address))
}

#[test]
fn a_stolen_host_is_cut_off_and_what_it_is_given_later_is_good() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let calls = Calls::start();
    let (n1, n2, n3) = (
        calls.mesh.node("n1"),
        calls.mesh.node("n2"),
        calls.mesh.node("n3"),
    );
    let mut kept = calls.connect("n1", calls.good);
    let mut cut = calls.connect("n3", calls.lost);
    assert!(echoes(&mut kept) && echoes(&mut cut));

    let said = calls.sign(&["revoke", "node/n3", "--reason", "stolen"]);
    assert!(said.contains("revocation/node-n3@1 is in force"), "{said}");
    // The read ends when the connection does: nobody sends anything.
    let mut rest = Vec::new();
    let _reset_or_end = cut.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert!(echoes(&mut kept), "the same service on another host stays");

    wait_until(crate::PATIENCE, "n3 to hear why it is alone", || {
        let status = n3.ask("status").unwrap_or_default();
        status["refused_by_peer"]["why"] == "revoked"
    });
    let status = n3.show("status", &[]).expect("n3 answers");
    assert!(status.contains("IS REVOKED"), "{status}");
    assert!(!works(&calls, "n3", calls.lost));
    let refused = n2.metrics();
    let refused = refused.sum(
        "starling_handshakes_refused_total",
        &[("reason", "revoked")],
    );
    assert!(refused >= 1.0);
    wait_until(crate::PATIENCE, "n1 to forget n3", || {
        n1.liveness("n3").as_deref() != Some("alive")
    });

    // Set up anew it is let in, and has nothing to say of before.
    calls.mesh.issue(n3, &["app"], &[]);
    wait_until(crate::PATIENCE, "n3 to be let in again", || {
        works(&calls, "n3", calls.lost)
    });
    let status = n3.ask("status").unwrap_or_default();
    assert!(status["refused_by_peer"].is_null(), "{status}");

    // What was said can be taken back.
    calls.sign(&["delete", "revocation/node-n3"]);
    assert!(works(&calls, "n3", calls.lost));
    assert!(works(&calls, "n1", calls.good));
}

#[test]
fn a_kill_within_a_minute_of_a_revocation_does_not_open_the_door() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let calls = Calls::start();
    let n2 = calls.mesh.node("n2");
    for after_ms in [100, 1_000] {
        wait_until(crate::PATIENCE, "n3 to be let in", || {
            works(&calls, "n3", calls.lost)
        });
        calls.sign(&["revoke", "node/n3", "--reason", "stolen"]);
        wait_until(crate::PATIENCE, "n2 to have the document", || {
            n2.document("revocation/node-n3")
                .is_some_and(|(_, state, _)| state == "in force")
        });
        let_pass(std::time::Duration::from_millis(after_ms));
        n2.kill();
        n2.start();
        n2.wait_ready();
        let (_, state, in_force) = n2.document("revocation/node-n3").expect("it is kept");
        assert_eq!((state.as_str(), in_force.is_some()), ("in force", true));
        wait_until(crate::PATIENCE, "n1 to be let in", || {
            works(&calls, "n1", calls.good)
        });
        assert!((0..4).all(|_| !works(&calls, "n3", calls.lost)));
        calls.sign(&["delete", "revocation/node-n3"]);
    }
}

#[test]
fn one_service_on_one_host_is_thrown_out_alone() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let calls = Calls::start();
    assert!(works(&calls, "n1", calls.good) && works(&calls, "n3", calls.lost));
    calls.sign(&["revoke", "svc/app@n3", "--reason", "core dump"]);
    wait_until(crate::PATIENCE, "app on n3 to be refused", || {
        !works(&calls, "n3", calls.lost)
    });
    assert!(works(&calls, "n1", calls.good));
    // Its node is still one of us.
    let n1 = calls.mesh.node("n1");
    assert_eq!(n1.liveness("n3").as_deref(), Some("alive"));

    calls.sign(&["revoke", "svc/app", "--reason", "bad build"]);
    wait_until(crate::PATIENCE, "app to be refused everywhere", || {
        !works(&calls, "n1", calls.good)
    });
}

#[test]
fn a_revocation_is_remembered_and_only_the_dead_are_decommissioned() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let calls = Calls::start();
    let (n1, n2, n3) = (
        calls.mesh.node("n1"),
        calls.mesh.node("n2"),
        calls.mesh.node("n3"),
    );
    let signed = ["--key", &calls.alice, "--yes"];
    let refused = n1.operate(&[&["decommission", "n3"], &signed[..]].concat());
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && error.contains("is alive"),
        "{error}"
    );
    n3.stop();
    wait_until(crate::PATIENCE, "n3 to have left", || {
        n1.liveness("n3").as_deref() != Some("alive")
            || n1
                .ask("nodes")
                .unwrap_or_default()
                .as_array()
                .is_some_and(|nodes| {
                    nodes
                        .iter()
                        .any(|node| node["node"] == "n3" && node["state"] == "left")
                })
    });
    calls.sign(&["decommission", "n3"]);
    wait_until(crate::PATIENCE, "n2 to have the document", || {
        n2.document("revocation/node-n3")
            .is_some_and(|(_, state, _)| state == "in force")
    });
    // Both forget all but their disks.
    for node in [n1, n2] {
        node.stop();
        node.start();
        node.wait_ready();
    }
    n3.start();
    wait_until(crate::PATIENCE, "n3 to hear why it is alone", || {
        let status = n3.ask("status").unwrap_or_default();
        status["refused_by_peer"]["why"] == "revoked"
    });
    assert!(!works(&calls, "n3", calls.lost));
}

/// The hash of the public key of a certificate file, by openssl.
fn key_of(chain: &Path) -> String {
    let script =
        "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(chain);
    let said = run(command);
    format!(
        "key/sha256:{}",
        said.split_whitespace().next().unwrap_or_default()
    )
}

#[test]
fn a_leaked_key_takes_along_what_was_renewed_from_its_certificate() {
    need!(Need::Agent, Need::Program("openssl"));
    let _turn = turn::shared();
    let calls = Calls::start_with("[issuer]\nlifetime = \"20s\"", &["--lifetime", "20s"]);
    let n3 = calls.mesh.node("n3");
    wait_until(crate::PATIENCE, "n3 to be let in", || {
        works(&calls, "n3", calls.lost)
    });
    let chain = n3.state().join("svc/app.pem");
    let leaked = key_of(&chain);
    wait_until(crate::PATIENCE, "n3 to renew", || key_of(&chain) != leaked);
    let said = calls.sign(&["revoke", &leaked, "--reason", "in a core dump"]);
    assert!(said.contains("svc/app on n3"), "{said}");
    wait_until(crate::PATIENCE, "n3 to be refused", || {
        !works(&calls, "n3", calls.lost)
    });
    assert!(
        works(&calls, "n1", calls.good),
        "another line of the service"
    );

    // What nobody knows is revoked all the same, and the command says what that leaves.
    let unknown = format!("key/sha256:{}", "5".repeat(64));
    let arguments = [
        "revoke",
        &unknown,
        "--reason",
        "?",
        "--key",
        &calls.alice,
        "--yes",
    ];
    let output = calls.mesh.node("n1").operate(&arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("not what was renewed from its certificate"),
        "{error}"
    );
    let document = format!("revocation/key-{}", "5".repeat(16));
    assert!(calls.mesh.node("n1").document(&document).is_some());
}

/// A certificate of the issuer on n1, which is gone, is renewed by the one on n2. What n1 signed goes with it all the same.
#[test]
fn what_a_stolen_issuer_signed_goes_with_it_though_an_honest_one_renewed_it() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &[]), ("n2", &["app", "peer"]), ("n3", &["app"])]);
    let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
    mesh.issue(n3, &["app"], &["--lifetime", "20s"]);
    let starling = |arguments: &[&str]| {
        let mut command = Command::new(program::agent());
        command.args(arguments);
        command
    };
    let mut add = starling(&["ca", "add-issuer", "--node", "n2", "--state"]);
    add.arg(n1.state()).arg("--out").arg(n2.state());
    run(add);
    let mut issue = starling(&["ca", "issue", "--node", "n2"]);
    issue.args(["--service", "app", "--service", "peer", "--state"]);
    issue.arg(n2.state()).arg("--out").arg(n2.state());
    run(issue);
    n2.write_config(&[n3], "[issuer]\nlifetime = \"20s\"");
    let peer = stream::serve(n2.host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        let _ended = std::io::copy(&mut stream, &mut back);
    });
    n2.serve("peer", peer, "tcp", &["app"], "");
    let (good, lost) = (n2.call("peer", "app"), n3.call("peer", "app"));
    let first = key_of(&n3.state().join("svc/app.pem"));
    for node in [n2, n3] {
        node.start();
        node.wait_ready();
    }
    let works = |node: &Node, address| echoes(&mut stream::connect(node.host(), address));
    wait_until(crate::PATIENCE, "n3 to be let in", || works(n3, lost));
    wait_until(crate::PATIENCE, "n2 to renew for n3", || {
        key_of(&n3.state().join("svc/app.pem")) != first
    });
    wait_until(crate::PATIENCE, "n3 to be let in still", || works(n3, lost));
    let alice = mesh.operator("alice", "revocation").display().to_string();
    let revoke = ["revoke", "issuer/n1", "--reason", "disk was sold"];
    let said = n2.must(&[&revoke[..], &["--key", &alice, "--yes"]].concat());
    assert!(
        said.contains("invited anew by another issuer: n3."),
        "{said}"
    );
    wait_until(crate::PATIENCE, "n3 to be refused", || !works(n3, lost));
    assert!(works(n2, good), "what n2 signed from the start");
}

#[test]
fn a_revocation_by_a_clock_that_is_behind_reaches_a_host_that_was_set_up_just_now() {
    need!(Need::Agent, Need::Program("faketime"));
    let _turn = turn::shared();
    let calls = Calls::start();
    let n1 = calls.mesh.node("n1");
    wait_until(crate::PATIENCE, "n3 to be let in", || {
        works(&calls, "n3", calls.lost)
    });
    let revoke = |seconds: u32| {
        let mut command = Command::new(program::path("faketime"));
        command.args(["--exclude-monotonic", "-f", &format!("-{seconds}s")]);
        command.arg(program::agent());
        command.args(["revoke", "node/n3", "--reason", "stolen", "--yes"]);
        command
            .args(["--key", &calls.alice, "--socket"])
            .arg(n1.socket());
        command.output().expect("faketime runs")
    };
    // So far behind that no document could say it: the command says so instead.
    let output = revoke(400);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    assert!(error.contains("put the clock right"), "{error}");
    assert!(works(&calls, "n3", calls.lost));
    let output = revoke(200);
    assert!(output.status.success(), "{output:?}");
    wait_until(crate::PATIENCE, "n3 to be refused", || {
        !works(&calls, "n3", calls.lost)
    });
    assert!(works(&calls, "n1", calls.good));
}
