//! Calls between two apps of one host: the certificates that a handshake would show are judged as if there was one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use harness::http::Client;
use harness::{Mesh, Need, Node, need, stream, turn, wait_until};

/// `a` calls `hello` (HTTP) and `echo` (TCP); all three are on n2, whose certificates come from n1.
struct Local {
    mesh: Mesh,
    hello: SocketAddr,
    echo: SocketAddr,
    alice: String,
}

impl Local {
    fn start(lifetime: &str) -> Self {
        let mesh = Mesh::loopback(&[("n1", &[]), ("n2", &["a", "hello", "echo"])]);
        let n2 = mesh.node("n2");
        mesh.issue(n2, &["a", "hello", "echo"], &["--lifetime", lifetime]);
        let app = stream::serve(n2.host(), |stream| answer(stream).unwrap_or_default());
        n2.serve("hello", app, "http", &["a"], "");
        let app = stream::serve(n2.host(), |mut stream| {
            let mut back = stream.try_clone().expect("a socket can be shared");
            // The end of the caller is what is tested.
            let _ = std::io::copy(&mut stream, &mut back);
        });
        n2.serve("echo", app, "tcp", &["a"], "");
        let (hello, echo) = (n2.call("hello", "a"), n2.call("echo", "a"));
        let alice = mesh.operator("alice", "revocation").display().to_string();
        Self {
            mesh,
            hello,
            echo,
            alice,
        }
    }

    fn n2(&self) -> &Node {
        self.mesh.node("n2")
    }

    fn sign(&self, arguments: &[&str]) {
        let signed = ["--key", &self.alice, "--yes"];
        self.n2().must(&[arguments, &signed[..]].concat());
    }

    fn get(&self, client: &mut Client) -> (u16, Option<String>) {
        let answer = client.get("/").expect("the agent answers");
        (answer.status, answer.mesh_error().map(str::to_owned))
    }

    fn echoes(&self) -> bool {
        echoes(&mut stream::connect(self.n2().host(), self.echo))
    }

    /// An event stream of `hello` whose first event has come.
    fn events(&self) -> TcpStream {
        let mut events = stream::connect(self.n2().host(), self.hello);
        let request = b"GET /events HTTP/1.1\r\nhost: hello\r\n\r\n";
        events.write_all(request).expect("a request is taken");
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("data: 1") {
            let mut part = [0; 1024];
            let bytes = events.read(&mut part).expect("the event comes");
            assert!(bytes > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&part[..bytes]);
        }
        events
    }

    fn tunnel(&self) -> TcpStream {
        let mut tunnel = stream::connect(self.n2().host(), self.echo);
        assert!(echoes(&mut tunnel));
        tunnel
    }
}

/// One request after the other; `/events` is answered by an event and then silence.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    loop {
        let mut part = [0; 1024];
        let bytes = stream.read(&mut part)?;
        if bytes == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..bytes]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        if head.starts_with(b"GET /events") {
            let begin = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
            stream.write_all(begin)?;
            // The agent is to end it, not this app's patience.
            stream.set_read_timeout(None)?;
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
        }
        head.clear();
    }
}

fn echoes(stream: &mut TcpStream) -> bool {
    let mut back = [0; 5];
    let said = stream.write_all(b"hello");
    said.and_then(|()| stream.read_exact(&mut back)).is_ok() && back == *b"hello"
}

/// Waits on a thread of its own for the other side to end the stream, which carries nothing more.
fn end(mut stream: TcpStream) -> JoinHandle<Instant> {
    thread::spawn(move || {
        let mut rest = Vec::new();
        // A stream that is still open after its time-out is an error of its own kind.
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "still open");
        }
        Instant::now()
    })
}

/// When that was.
#[track_caller]
fn ended(end: JoinHandle<Instant>) -> Instant {
    end.join().expect("the stream ends")
}

fn error(status: u16, reason: &str) -> (u16, Option<String>) {
    (status, Some(reason.to_owned()))
}

#[test]
fn a_revocation_ends_calls_within_a_host_and_taking_it_back_allows_them() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let local = Local::start("24h");
    local.mesh.start();
    local.mesh.wait_healthy("hello", &["n2"], crate::PATIENCE);
    let mut kept = Client::new(local.hello);
    assert_eq!(local.get(&mut kept), (200, None));
    for (revoked, document, refused) in [
        ("svc/a", "revocation/svc-a", error(503, "no-identity")),
        (
            "node/n2",
            "revocation/node-n2",
            error(502, "wrong-identity"),
        ),
        (
            "svc/hello",
            "revocation/svc-hello",
            error(502, "wrong-identity"),
        ),
    ] {
        let (events, mut tunnel) = (end(local.events()), local.tunnel());
        let begun = Instant::now();
        if revoked == "svc/hello" {
            local.sign(&["revoke", revoked, "--reason", "stolen"]);
            assert!(
                echoes(&mut tunnel) && local.echoes(),
                "another service stays"
            );
        } else {
            let tunnel = end(tunnel);
            local.sign(&["revoke", revoked, "--reason", "stolen"]);
            let after = ended(tunnel) - begun;
            assert!(
                after < crate::SEEN,
                "{revoked}: tunnel ended after {after:?}"
            );
            eprintln!("measured: {revoked}: TCP tunnel ended after {after:?}, command included");
            assert!(!local.echoes(), "{revoked}");
        }
        let after = ended(events) - begun;
        assert!(
            after < crate::SEEN,
            "{revoked}: events ended after {after:?}"
        );
        eprintln!("measured: {revoked}: HTTP stream ended after {after:?}, command included");
        assert_eq!(local.get(&mut kept), refused, "{revoked}");
        local.sign(&["delete", document]);
        wait_until(crate::PATIENCE, "calls to work again", || {
            local.get(&mut kept) == (200, None) && local.echoes()
        });
    }
}

#[test]
fn calls_within_a_host_end_with_their_certificates() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let local = Local::start("30s");
    let began = Instant::now();
    // Only n2 runs, so nothing renews its certificates.
    local.n2().start();
    local.n2().wait_ready();
    let mut kept = Client::new(local.hello);
    wait_until(crate::PATIENCE, "the first call", || {
        local.get(&mut kept) == (200, None)
    });
    let streams = [local.events(), local.tunnel()].map(|stream| {
        let longer = Some(Duration::from_secs(40));
        stream.set_read_timeout(longer).expect("it is not zero");
        end(stream)
    });
    for stream in streams {
        let after = ended(stream) - began;
        let life = Duration::from_secs(20)..Duration::from_secs(33);
        assert!(life.contains(&after), "ended after {after:?}");
    }
    let (status, reason) = local.get(&mut kept);
    assert!(status >= 500 && reason.is_some(), "{status} {reason:?}");
    assert!(!local.echoes());
    local
        .mesh
        .issue(local.n2(), &["a", "hello", "echo"], &["--lifetime", "24h"]);
    // An instance that failed is first left alone for a while.
    wait_until(2 * crate::PATIENCE, "calls to work again", || {
        local.get(&mut kept) == (200, None) && local.echoes()
    });
}
