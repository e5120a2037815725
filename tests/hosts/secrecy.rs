//! Nothing that an app says, and nothing that agents say of it, can be read on the wire.

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::capture::{Capture, holds};
use harness::{Mesh, Need, Wire, need, stream, turn, wait_until};

/// Stands in what apps send.
const SAID: &str = "a-word-that-only-apps-say-7391";
/// Stands in what agents gossip: a label.
const GOSSIPED: &str = "a-word-that-only-agents-say-5527";

#[test]
fn no_marked_byte_crosses_the_wire_in_the_clear() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("tcpdump")
    );
    let _turn = turn::alone();
    let mut wire = Wire::new();
    let mesh = Mesh::on(&mut wire, &[("n1", &["app"]), ("n2", &["echo"])]);
    let n2 = mesh.node("n2");
    let echo = stream::serve(n2.host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        // Ends with its caller.
        let _ = std::io::copy(&mut stream, &mut back);
    });
    n2.serve(
        "echo",
        echo,
        "tcp",
        &["app"],
        &format!("labels = {{ note = \"{GOSSIPED}\" }}"),
    );
    let address = mesh.node("n1").call("echo", "app");

    let capture = Capture::start(&wire, mesh.scratch().path());
    mesh.start();
    mesh.wait_healthy("echo", &["n2"], crate::SEEN);
    let shown = mesh.node("n1").show("services", &[]).expect("it answers");
    assert!(
        shown.contains(GOSSIPED),
        "gossip carried the label: {shown}"
    );
    let client = mesh.node("n1").host();
    for _ in 0..50 {
        say(&mut stream::connect(client, address), SAID);
    }
    let seen = capture.stop();
    assert!(
        seen.len() > 20_000,
        "the capture saw only {} bytes",
        seen.len()
    );
    for marker in [SAID, GOSSIPED, "starling-caller"] {
        assert!(
            !holds(&seen, marker),
            "{marker} crossed the wire in the clear"
        );
    }

    // The same capture does see what is not encrypted.
    let host = n2.host();
    let listener =
        host.run(|| std::net::TcpListener::bind((host.ip(), 0)).expect("some port is free"));
    let address = listener.local_addr().expect("it is bound");
    let capture = Capture::start(&wire, &mesh.scratch().directory("control"));
    let mut stream = stream::connect(client, address);
    stream.write_all(SAID.as_bytes()).expect("it is connected");
    let (mut other, _) = listener.accept().expect("it is connected");
    other
        .read_exact(&mut [0; SAID.len()])
        .expect("all of it arrives");
    wait_until(crate::PATIENCE, "the capture to see plain text", || {
        holds(&capture.so_far(), SAID)
    });
    capture.stop();
}

fn say(stream: &mut TcpStream, text: &str) {
    let mut back = vec![0; text.len()];
    stream
        .write_all(text.as_bytes())
        .and_then(|()| stream.read_exact(&mut back))
        .expect("it echoes");
    assert_eq!(back, text.as_bytes());
}
