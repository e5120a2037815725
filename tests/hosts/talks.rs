//! The examples about protocols, as their pages tell them: the same TOML, programs and addresses, on two hosts.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use harness::process::{Process, run};
use harness::{Need, Scratch, Wire, need, peers, program, turn, wait_until};

/// Runs `examples/NAME` until its client prints what its page shows.
fn tell(name: &str, service: &str, port: u16) {
    let example = program::repository("examples").join(name);
    let page = fs::read_to_string(example.join("README.md")).expect("it has a page");
    let shown = page.split("```text\n").nth(1).expect("it shows what comes");
    let shown = shown.split("```").next().unwrap_or_default();
    let scratch = Scratch::new();
    let mut wire = Wire::new();
    let [n1, n2] =
        [1, 2].map(|number| wire.host_at(&format!("n{number}"), Ipv4Addr::new(10, 0, 0, number)));
    let [state1, state2] =
        ["n1-state", "n2-state"].map(|name| scratch.path().join(name).display().to_string());
    let domain = ["--trust-domain", "example.org"];
    starling(
        "init",
        &domain,
        &["--node", "n1", "--service", "web", "--state", &state1],
    );
    let issue = ["issue", "--out", &state2];
    starling(
        "ca",
        &issue,
        &["--node", "n2", "--service", service, "--state", &state1],
    );
    let mut server = n2.command(peers::python());
    server.arg(example.join("server.py"));
    let mut server = Process::spawn("server", server, &scratch.path().join("server.log"));
    wait_until(crate::PATIENCE, "the server", || {
        server.check();
        n2.run(|| TcpStream::connect(("127.0.0.1", port)).is_ok())
    });
    let mut agents = [(&n1, &state1), (&n2, &state2)]
        .map(|(host, state)| crate::agent(host, &example, state, scratch.path()));
    let said = || {
        let mut client = n1.command(peers::python());
        client.arg(example.join("client.py"));
        let output = client.output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wait_until(crate::PATIENCE, "what the page shows", || {
        agents.iter_mut().for_each(Process::check);
        said() == shown
    });
}

#[test]
fn grpc_goes_as_its_page_says() {
    need!(Need::Agent, Need::Root, Need::Python, Need::Program("ip"));
    let _turn = turn::shared();
    tell("grpc", "greeter", 50051);
}

#[test]
fn websocket_goes_as_its_page_says() {
    need!(Need::Agent, Need::Root, Need::Python, Need::Program("ip"));
    let _turn = turn::shared();
    tell("websocket", "chat", 8765);
}

fn starling(command: &str, first: &[&str], rest: &[&str]) {
    let mut starling = Command::new(program::agent());
    starling.arg(command).args(first).args(rest);
    run(starling);
}
