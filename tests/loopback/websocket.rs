//! WebSocket, and other things that HTTP/1.1 connections become, end to end over the mesh.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use harness::process::Process;
use harness::{Mesh, Need, need, peers, turn, wait_until};
use serde_json::json;

/// `web` on n1 calls `chat` on n2.
struct Chat {
    mesh: Mesh,
    upstream: SocketAddr,
    _server: Process,
}

impl Chat {
    fn start(hosts: &[(&str, &[&str])], more: &str) -> Self {
        let mesh = Mesh::loopback(hosts);
        let (first, last) = (&mesh.nodes()[0], &mesh.nodes()[hosts.len() - 1]);
        let log = mesh.scratch().path().join("ws_server.log");
        let (server, app) = peers::serve(last.host(), "ws_server.py", &log);
        last.serve("chat", app, "http", &["web"], more);
        let upstream = first.call("chat", "web");
        mesh.start();
        mesh.wait_healthy("chat", &[last.name()], crate::SEEN);
        Self {
            mesh,
            upstream,
            _server: server,
        }
    }

    /// Has the `websockets` client do all it can, with so many connections at a time.
    fn talk(&self, connections: usize) {
        let mut client = peers::script(self.mesh.nodes()[0].host(), "ws_client.py");
        client
            .arg(self.upstream.to_string())
            .arg(connections.to_string());
        let said = peers::answer(client);
        assert_eq!(said["talk"], json!([4321, "enough"]), "{said}");
        let codes = json!([
            [1000, "as asked"],
            [1001, "as asked"],
            [3000, "as asked"],
            [4999, "as asked"]
        ]);
        assert_eq!(said["closed"], codes, "{said}");
        assert_eq!(said["denied"], json!([401, "no token\n", ""]), "{said}");
        assert_eq!(said["plain"], json!([200, "just a page\n", ""]), "{said}");
        assert_eq!(said["push"], "first", "{said}");
        assert_eq!(said["caller"], "spiffe://mesh.test/svc/web", "{said}");
        assert_eq!(said["crowd"], connections, "{said}");
    }
}

#[test]
fn a_thousand_websockets_say_what_they_have_to_say() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::alone();
    // One connection between two agents carries them all.
    let hosts: [(&str, &[&str]); 2] = [("n1", &["web"]), ("n2", &["chat"])];
    let limits = "[limits]\nstreams_per_peer = 1200\n";
    let chat = Chat::start(&hosts, "");
    for node in chat.mesh.nodes() {
        node.stop();
        let others: Vec<_> = chat
            .mesh
            .nodes()
            .iter()
            .filter(|other| other.name() != node.name())
            .collect();
        node.write_config(&others, limits);
    }
    chat.mesh.start();
    chat.mesh.wait_healthy("chat", &["n2"], crate::PATIENCE);
    chat.talk(1000);
    for (node, side) in [("n1", "caller"), ("n2", "callee")] {
        let node = chat.mesh.node(node);
        let open = || {
            node.metrics()
                .sum("starling_calls_open", &[("side", side), ("callee", "chat")])
        };
        wait_until(crate::SEEN, "all to be closed", || open() == 0.0);
        let log = node.log();
        let lines = log.lines().filter(|line| line.contains("status_code=101"));
        assert!(lines.count() >= 1000);
        assert!(log.contains("url.path=/echo") && log.contains("request.method=GET"));
    }
}

#[test]
fn websockets_on_one_node_skip_the_network_only() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    Chat::start(&[("n1", &["web", "chat"])], "").talk(20);
}

/// An app that reads the head of one request, says `answer` and does with its connection what the test says.
fn app(
    answer: &'static str,
    then: impl Fn(BufReader<TcpStream>) + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let served = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("the agent connects");
        stream
            .set_read_timeout(Some(crate::PATIENCE))
            .expect("it is open");
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).expect("a head") > 2 {
            line.clear();
        }
        let mut writer = reader.get_ref();
        writer.write_all(answer.as_bytes()).expect("it is open");
        then(reader);
    });
    (address, served)
}

/// A mesh where `web` on n1 calls `shell` on n2, and the upstream's address.
fn shell(app: SocketAddr, more: &str) -> (Mesh, SocketAddr) {
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shell"])]);
    mesh.node("n2").serve("shell", app, "http", &["web"], more);
    let upstream = mesh.node("n1").call("shell", "web");
    mesh.start();
    mesh.wait_healthy("shell", &["n2"], crate::SEEN);
    (mesh, upstream)
}

/// Asks for the upgrade, with `early` right behind the request, and reads the head of the answer.
fn ask(upstream: SocketAddr, early: &[u8]) -> (BufReader<TcpStream>, String) {
    let mut stream = TcpStream::connect(upstream).expect("the agent listens");
    stream
        .set_read_timeout(Some(crate::PATIENCE))
        .expect("it is open");
    let request =
        b"GET /attach HTTP/1.1\r\nHost: shell\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";
    stream
        .write_all(&[request, early].concat())
        .expect("it is open");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).expect("a head") > 2 {}
    (reader, head)
}

#[test]
fn any_protocol_passes_with_early_bytes_and_half_close() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let agreed =
        "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: RAW/1\r\nX-Shell: yes\r\n\r\nearly ";
    let (app, served) = app(agreed, |mut reader| {
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("a clean end");
        let answer = format!("heard {all}");
        reader
            .get_ref()
            .write_all(answer.as_bytes())
            .expect("it is open");
    });
    let (_mesh, upstream) = shell(app, "");
    let (mut reader, head) = ask(upstream, b"one ");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_ascii_lowercase();
    for field in ["connection: upgrade", "upgrade: raw/1", "x-shell: yes"] {
        assert!(head.contains(field), "no {field} in {head}");
    }
    let mut stream = reader.get_ref();
    stream.write_all(b"two").expect("it is open");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut all = String::new();
    reader.read_to_string(&mut all).expect("a clean end");
    assert_eq!(all, "early heard one two");
    served.join().expect("the app is content");
}

#[test]
fn a_broken_upgrade_never_looks_like_one_that_ended() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let agreed = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";
    let (app, served) = app(agreed, |reader| {
        // Unread bytes make the close a reset.
        wait_until(crate::PATIENCE, "bytes that stay unread", || {
            reader.get_ref().peek(&mut [0]).is_ok_and(|bytes| bytes > 0)
        });
    });
    let (_mesh, upstream) = shell(app, "");
    let (mut reader, head) = ask(upstream, b"unread");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let error = reader.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    served.join().expect("the app is content");
}

/// SECURITY.md, bytes before an agreement: they are the caller's next request, or nothing.
#[test]
fn what_follows_a_refused_upgrade_is_judged_as_a_request() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let refused = "HTTP/1.1 403 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    let (app, served) = app(refused, |mut reader| {
        let mut rest = Vec::new();
        let _ended = reader.read_to_end(&mut rest);
        assert_eq!(rest, b"", "not a byte after the request may come here");
    });
    let (mesh, upstream) = shell(app, "");
    let (mut reader, head) = ask(upstream, b"\x81\x05smuggled");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let mut rest = String::new();
    let _closed = reader.read_to_string(&mut rest);
    // The refusal, and then what hyper says to bytes that are no request.
    assert!(rest.starts_with("no\n") && rest.contains(" 400 "), "{rest}");
    served.join().expect("the app is content");
    let log = mesh.node("n2").log();
    assert_eq!(log.matches("side=callee").count(), 1, "{log}");
}

#[test]
fn an_idle_upgrade_is_closed() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let agreed = "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n";
    let (app, served) = app(agreed, |mut reader| {
        let _reset = reader.read_to_end(&mut Vec::new());
    });
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shell"])]);
    mesh.node("n2").serve("shell", app, "http", &["web"], "");
    let upstream = mesh.node("n1").call("shell", "web");
    mesh.node("n1")
        .write_config(&[mesh.node("n2")], "[limits]\nidle = \"1s\"\n");
    mesh.start();
    mesh.wait_healthy("shell", &["n2"], crate::SEEN);
    let (mut reader, _head) = ask(upstream, b"");
    reader
        .read_to_end(&mut Vec::new())
        .expect_err("cut off, not ended");
    served.join().expect("the app is content");
    let is_told = || mesh.node("n1").log().contains("reason=idle");
    wait_until(Duration::from_secs(5), "the reason in the line", is_told);
}
