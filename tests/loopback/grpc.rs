//! grpcio → agent → agent → grpcio.

use std::net::SocketAddr;

use harness::process::Process;
use harness::{Mesh, Need, need, peers, turn, wait_until};
use serde_json::{Value, json};

/// `web` on n1 calls `talk` on the last of the hosts.
struct Talk {
    mesh: Mesh,
    upstream: SocketAddr,
    _server: Process,
}

impl Talk {
    fn start(hosts: &[(&str, &[&str])], allow: &[&str], more: &str) -> Self {
        let mesh = Mesh::loopback(hosts);
        let (first, last) = (&mesh.nodes()[0], &mesh.nodes()[hosts.len() - 1]);
        let log = mesh.scratch().path().join("grpc_server.log");
        let (server, app) = peers::serve(last.host(), "grpc_server.py", &log);
        last.serve("talk", app, "grpc", allow, more);
        let upstream = first.call("talk", "web");
        mesh.start();
        mesh.wait_healthy("talk", &[last.name()], crate::PATIENCE);
        Self {
            mesh,
            upstream,
            _server: server,
        }
    }

    /// Has the client do these things.
    fn ask(&self, what: &[&str]) -> Value {
        let mut client = peers::script(self.mesh.nodes()[0].host(), "grpc_client.py");
        client.arg(self.upstream.to_string()).args(what);
        peers::answer(client)
    }

    /// Has the client do all that it can; where bytes need not be many, without those.
    fn ask_all(&self, streams: &[&str]) {
        let what = [
            "unary",
            "caller",
            "both",
            "fail",
            "big",
            "compressed",
            "deadline",
            "cancelled",
        ];
        let said = self.ask(&[&what, streams].concat());
        let fail = json!({
            "code": "FAILED_PRECONDITION", "details": "naïve 100%", "reason": "", "why": "because"
        });
        let mut expected = json!({
            "unary": "cba",
            "caller": "spiffe://mesh.test/svc/web",
            "both": ["ONE", "TWO", "THREE"],
            "fail": fail,
            "big": [true, true],
            "compressed": 1 << 20,
            "deadline": [true, "DEADLINE_EXCEEDED", true],
            "cancelled": ["begun", true],
        });
        for stream in streams {
            expected[stream] = json!(100 << 20);
        }
        assert_eq!(said, expected);
    }
}

const TWO: [(&str, &[&str]); 2] = [("n1", &["web"]), ("n2", &["talk"])];

#[test]
fn grpc_of_all_kinds_passes() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::alone();
    let talk = Talk::start(&TWO, &["web"], "");
    talk.ask_all(&["down", "up", "whole"]);
    let log = talk.mesh.node("n2").log();
    let squeezed = log.lines().find(|line| line.contains("/test.Talk/Squeeze"));
    let squeezed = squeezed.expect("it has a line").split(' ');
    let bytes = squeezed.filter_map(|word| word.strip_prefix("bytes.")?.split_once('='));
    for (way, bytes) in bytes {
        assert!(
            bytes.parse::<u32>().is_ok_and(|bytes| bytes < 10_000),
            "{way}={bytes}: not compressed"
        );
    }
    let shown = talk.mesh.node("n1").instances("talk");
    assert_eq!(shown.len(), 1);
    let services = talk
        .mesh
        .node("n1")
        .show("services", &[])
        .unwrap_or_default();
    assert!(services.contains("grpc"), "{services}");
    for (node, side) in [("n1", "caller"), ("n2", "callee")] {
        let node = talk.mesh.node(node);
        let open = || {
            node.metrics()
                .sum("starling_calls_open", &[("side", side), ("callee", "talk")])
        };
        wait_until(crate::PATIENCE, "all calls to have ended", || open() == 0.0);
    }
}

#[test]
fn grpc_on_one_node_passes_as_well() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    Talk::start(&[("n1", &["web", "talk"])], &["web"], "").ask_all(&[]);
}

#[test]
fn the_mesh_fails_grpc_calls_in_words_of_grpc() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let talk = Talk::start(&TWO, &["batch"], "");
    let refused = |code: &str, reason: &str| {
        let said = &talk.ask(&["refused"])["refused"];
        assert_eq!(
            (&said["code"], &said["reason"]),
            (&json!(code), &json!(reason)),
            "{said}"
        );
        let details = said["details"].as_str().unwrap_or_default();
        assert!(
            details.starts_with("starling: call to talk failed: "),
            "{said}"
        );
    };
    // By the callee's agent, then by the caller's.
    refused("PERMISSION_DENIED", "denied");
    for node in talk.mesh.nodes() {
        wait_until(crate::SEEN, "the line of the refusal", || {
            node.log().contains("status_code=403") && !node.log().contains("status_code=200")
        });
    }
    talk.mesh.node("n2").remove("talk.toml");
    talk.mesh.wait_healthy("talk", &[], crate::PATIENCE);
    refused("UNAVAILABLE", "unknown-service");
}

#[test]
fn a_grpc_call_that_breaks_in_the_middle_ends_with_a_status() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let talk = Talk::start(&TWO, &["web"], "");
    let log = talk.mesh.scratch().path().join("client.log");
    let mut client = peers::script(talk.mesh.node("n1").host(), "grpc_client.py");
    client.arg(talk.upstream.to_string()).arg("broken");
    let mut client = Process::spawn("grpc_client.py", client, &log);
    wait_until(crate::PATIENCE, "the call to begin", || {
        client.log().contains("begun")
    });
    talk.mesh.node("n2").kill();
    assert!(client.wait(crate::PATIENCE).success(), "{}", client.log());
    let log = client.log();
    let said = log
        .lines()
        .find(|line| line.starts_with('{'))
        .expect("it says what it found");
    let said: Value = serde_json::from_str(said).expect("it is JSON");
    let said = &said["broken"];
    assert_eq!(
        (&said["code"], &said["reason"]),
        (&json!("UNAVAILABLE"), &json!("upstream-reset")),
        "{said}"
    );
}

#[test]
fn health_is_what_grpc_servers_and_programs_say_it_is() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let grpc = "health = { kind = \"grpc\", service = \"test.Talk\", interval = \"100ms\", timeout = \"5s\" }";
    let talk = Talk::start(&TWO, &["web"], grpc);
    let (n1, n2) = (talk.mesh.node("n1"), talk.mesh.node("n2"));
    talk.ask(&["sick"]);
    talk.mesh.wait_healthy("talk", &[], crate::PATIENCE);
    let is_told = || n2.log().contains("it says that it is NOT_SERVING");
    wait_until(crate::SEEN, "the log to say why", is_told);

    // A program that looks whether a file is there.
    let file = talk.mesh.scratch().path().join("well");
    let script = format!(
        "test -e {} || {{ echo not yet >&2; exit 1; }}",
        file.display()
    );
    let exec = format!(
        "health = {{ kind = \"exec\", command = [\"/bin/sh\", \"-c\", \"{script}\"], interval = \"100ms\", timeout = \"5s\" }}"
    );
    n2.serve("talk", ([127, 0, 0, 1], 9).into(), "tcp", &["web"], &exec);
    wait_until(crate::PATIENCE, "the log to say why", || {
        n2.log()
            .contains("/bin/sh ended with exit status: 1: not yet")
    });
    std::fs::write(&file, "").expect("it is ours");
    wait_until(crate::PATIENCE, "the program to be believed", || {
        n1.healthy("talk") == ["n2"]
    });
}
