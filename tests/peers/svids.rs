//! What the mesh issues, as programs see it that share no code with it.

use std::process::Command;

use harness::process::run;
use harness::{Mesh, Need, need, peers, program, turn};

#[test]
fn openssl_and_cryptography_accept_what_a_host_gets_when_it_joins() {
    need!(Need::Agent, Need::Python, Need::Program("openssl"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    mesh.start();
    let issuer = mesh.node("n1");
    let state = mesh.scratch().path().join("n2");
    let mut invite = Command::new(program::agent());
    invite.args(["invite", "--node", "n2", "--service", "orders", "--state"]);
    invite
        .arg(issuer.state())
        .arg("--config")
        .arg(issuer.directory());
    let mut join = Command::new(program::agent());
    join.args(["join", run(invite).trim(), "--state"])
        .arg(&state);
    run(join);
    let trust = state.join("trust.pem");
    for (chain, identity, name) in [
        (
            "node.pem",
            "spiffe://mesh.test/node/n2",
            "n2.node.mesh.test",
        ),
        (
            "svc/orders.pem",
            "spiffe://mesh.test/svc/orders",
            "orders.svc.mesh.test",
        ),
    ] {
        let chain = state.join(chain);
        let mut verify = Command::new(peers::python());
        verify
            .arg(peers::file("verify.py"))
            .arg(&trust)
            .arg(&chain)
            .args([identity, name]);
        assert_eq!(run(verify).trim(), "accepted");
        for purpose in ["sslserver", "sslclient"] {
            let mut openssl = Command::new(program::path("openssl"));
            openssl.args([
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-verify_hostname",
                name,
                "-CAfile",
            ]);
            openssl
                .arg(&trust)
                .arg("-untrusted")
                .arg(&chain)
                .arg(&chain);
            run(openssl);
        }
    }
}
