//! What HTTP and TCP can do besides plain requests and bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;

use harness::apps::Nginx;
use harness::{Mesh, Need, need, process, program, stream, turn};

/// `web` on n1 calls `app`, which is `work` on n2.
fn start(
    protocol: &str,
    more: &str,
    work: impl Fn(TcpStream) + Clone + Send + 'static,
) -> (Mesh, SocketAddr) {
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["app"])]);
    let n2 = mesh.node("n2");
    let app = stream::serve(n2.host(), work);
    n2.serve("app", app, protocol, &["web"], more);
    let upstream = mesh.node("n1").call("app", "web");
    mesh.start();
    mesh.wait_healthy("app", &["n2"], crate::SEEN);
    (mesh, upstream)
}

fn connect(mesh: &Mesh, address: SocketAddr) -> BufReader<TcpStream> {
    BufReader::new(stream::connect(mesh.node("n1").host(), address))
}

/// Lines up to an empty one, in lower case.
fn head(reader: &mut impl BufRead) -> String {
    let mut head = String::new();
    while reader.read_line(&mut head).expect("a head") > 2 {}
    head.to_ascii_lowercase()
}

#[test]
fn each_server_sent_event_arrives_before_the_next_is_made() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (heard, hears) = mpsc::channel::<()>();
    let hears = std::sync::Arc::new(std::sync::Mutex::new(hears));
    let (mesh, upstream) = start("http", "", move |stream| {
        let mut reader = BufReader::new(stream);
        head(&mut reader);
        let mut stream = reader.into_inner();
        let begin =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\r\n";
        let _sent = stream.write_all(begin.as_bytes());
        for number in 0..20 {
            let _sent = stream.write_all(format!("data: {number}\n\n").as_bytes());
            // The test has failed if nobody heard.
            if hears.lock().unwrap().recv_timeout(crate::PATIENCE).is_err() {
                return;
            }
        }
    });
    let mut reader = connect(&mesh, upstream);
    let request = "GET /events HTTP/1.1\r\nHost: app\r\nAccept: text/event-stream\r\n\r\n";
    reader.get_mut().write_all(request.as_bytes()).unwrap();
    let answer = head(&mut reader);
    assert!(
        answer.contains("content-type: text/event-stream"),
        "{answer}"
    );
    for number in 0..20 {
        let wanted = format!("data: {number}\n");
        let mut line = String::new();
        // Chunks of HTTP/1.1 stand around the event.
        while line != wanted {
            line.clear();
            assert!(reader.read_line(&mut line).expect("the event comes") > 0);
        }
        heard.send(()).unwrap();
    }
}

#[test]
fn curl_is_told_to_go_on_and_refused_before_it_sends() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web", "guest"]), ("n2", &["site"])]);
    let n2 = mesh.node("n2");
    let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
    n2.serve("site", nginx.address(), "http", &["web"], "");
    let (allowed, denied) = (
        mesh.node("n1").call("site", "web"),
        mesh.node("n1").call("site", "guest"),
    );
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    let original = mesh.scratch().write("original", "x".repeat(2 << 20));
    let upload = |upstream: SocketAddr, name: &str| {
        let mut curl = std::process::Command::new(program::path("curl"));
        // It would wait ten minutes for the word to go on.
        curl.args(["--silent", "--max-time", "60", "--expect100-timeout", "600"]);
        curl.args(["--header", "Expect: 100-continue", "--output", "/dev/null"]);
        curl.args(["--write-out", "%{http_code} %header{starling-error}"]);
        curl.arg("--upload-file").arg(&original);
        curl.arg(format!("http://{upstream}/uploads/{name}"));
        process::run(curl)
    };
    assert_eq!(upload(allowed, "whole"), "201 ");
    let stored = std::fs::metadata(nginx.uploads().join("whole")).expect("it was stored");
    assert_eq!(stored.len(), 2 << 20);
    assert_eq!(upload(denied, "none"), "403 denied");
}

#[test]
fn connect_is_refused_and_nothing_behind_it_passes() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (called, calls) = mpsc::channel();
    let (mesh, upstream) = start("http", "", move |_stream| {
        let _ = called.send(());
    });
    for target in ["app:80", "127.0.0.1:22", "elsewhere.example.org:443"] {
        let mut reader = connect(&mesh, upstream);
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nSSH-2.0-x\r\n");
        reader.get_mut().write_all(request.as_bytes()).unwrap();
        let answer = head(&mut reader);
        assert!(answer.starts_with("http/1.1 501 "), "{target}: {answer}");
        assert!(answer.contains("starling-error: not-supported"), "{answer}");
    }
    assert!(calls.try_recv().is_err(), "the app was called");
}

/// An app that answers HTTP, sends back anything else, and speaks first to who says nothing.
fn either(stream: TcpStream) {
    let silent = stream.set_read_timeout(Some(std::time::Duration::from_secs(2)));
    silent.expect("it is not zero");
    let mut reader = BufReader::new(stream);
    let begins_http = reader
        .fill_buf()
        .is_ok_and(|bytes| bytes.starts_with(b"GET "));
    let mut writer = reader
        .get_ref()
        .try_clone()
        .expect("a socket can be shared");
    if begins_http {
        let caller = head(&mut reader).contains("starling-caller: spiffe://mesh.test/svc/web");
        let body = format!("http {caller}");
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let _ = writer.write_all(answer.as_bytes());
    } else if reader.buffer().is_empty() {
        let _ = writer.write_all(b"220 ready\r\n");
    } else {
        let _ = std::io::copy(&mut reader, &mut writer);
    }
}

#[test]
fn what_an_app_speaks_is_seen_from_its_first_bytes() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, upstream) = start("auto", "", either);
    let answer = harness::http::get(upstream, "/").expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (200, "http true"));
    // In capitals, and yet no HTTP.
    let mut bytes = connect(&mesh, upstream);
    bytes.get_mut().write_all(b"SET key value\r\n").unwrap();
    let mut line = String::new();
    bytes.read_line(&mut line).expect("it comes back");
    assert_eq!(line, "SET key value\r\n");
    // Who waits for the server is not made to wait for ever.
    let mut silent = connect(&mesh, upstream);
    let mut line = String::new();
    silent.read_line(&mut line).expect("a greeting");
    assert_eq!(line, "220 ready\r\n");
    drop((bytes, silent));
    for protocol in ["protocol=http", "protocol=tcp"] {
        harness::wait_until(crate::PATIENCE, protocol, || {
            mesh.node("n2").log().contains(protocol)
        });
    }
}

#[test]
fn a_tcp_app_that_wants_to_know_is_told_who_calls() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let id = b"spiffe://mesh.test/svc/web";
    let tells = |mut stream: TcpStream| {
        let mut head = [0; 16];
        let read = stream.read_exact(&mut head);
        let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
        if read.and_then(|()| stream.read_exact(&mut rest)).is_ok() {
            // All of it, and then what the caller says.
            let _ = stream.write_all(&[&head[..], &rest].concat());
            let _ = std::io::copy(
                &mut stream.try_clone().expect("a socket can be shared"),
                &mut stream,
            );
        }
    };
    let (mesh, upstream) = start("tcp", "proxy_protocol = \"2\"", tells);
    let mut caller = connect(&mesh, upstream);
    caller.get_mut().write_all(b"hello").unwrap();
    let mut head = [0; 28];
    caller.read_exact(&mut head).expect("the header");
    assert_eq!(&head[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    let from = mesh.node("n1").mesh_address();
    let std::net::IpAddr::V4(ip) = from.ip() else {
        panic!("the tests use IPv4");
    };
    assert_eq!(head[16..20], ip.octets());
    assert_eq!(head[24..26], from.port().to_be_bytes());
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]])) - 12];
    caller.read_exact(&mut rest).expect("the identity");
    assert!(rest.ends_with(id), "{rest:?}");
    let mut hello = [0; 5];
    caller.read_exact(&mut hello).expect("it comes back");
    assert_eq!(&hello, b"hello");
}
