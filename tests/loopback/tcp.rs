//! What TCP can do besides carrying bytes: half a close, a reset, a wait without an end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc;

use harness::{Mesh, Need, need, stream, turn};

/// `app` on n1 calls `peer`, which is `work` on n2.
fn start(work: impl Fn(TcpStream) + Clone + Send + 'static) -> (Mesh, SocketAddr) {
    let mesh = Mesh::loopback(&[("n1", &["app"]), ("n2", &["peer"])]);
    let peer = stream::serve(mesh.node("n2").host(), work);
    mesh.node("n2").serve("peer", peer, "tcp", &["app"], "");
    let address = mesh.node("n1").call("peer", "app");
    mesh.start();
    mesh.wait_healthy("peer", &["n2"], crate::SEEN);
    (mesh, address)
}

fn connect(mesh: &Mesh, address: SocketAddr) -> TcpStream {
    stream::connect(mesh.node("n1").host(), address)
}

#[test]
fn a_caller_that_has_said_all_still_hears_the_answer() {
    need!(Need::Agent);
    let _turn = turn::shared();
    // Answers only once it has heard the end.
    let (mesh, address) = start(|mut stream| {
        let mut heard = Vec::new();
        if stream.read_to_end(&mut heard).is_ok() {
            heard.reverse();
            // A caller that is gone is not this app's matter.
            let _ = stream.write_all(&heard);
        }
    });
    let mut stream = connect(&mesh, address);
    stream.write_all(b"abc").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "cba");
}

#[test]
fn a_callee_that_has_said_all_still_listens() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (heard, hears) = mpsc::channel();
    let (mesh, address) = start(move |mut stream| {
        let mut text = String::new();
        let done = stream
            .write_all(b"bye")
            .and_then(|()| stream.shutdown(Shutdown::Write))
            .and_then(|()| stream.read_to_string(&mut text));
        // The test has ended if nobody waits.
        let _ = heard.send(done.map(|_length| text));
    });
    let mut stream = connect(&mesh, address);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "bye");
    stream.write_all(b"wait, one more").unwrap();
    drop(stream);
    assert_eq!(
        hears.recv_timeout(crate::PATIENCE).unwrap().unwrap(),
        "wait, one more"
    );
}

#[test]
fn a_reset_by_the_caller_reaches_the_callee_as_one() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (heard, hears) = mpsc::channel();
    let (mesh, address) = start(move |mut stream| {
        let mut first = [0];
        // The caller resets once it knows that we are there.
        let end = stream
            .read_exact(&mut first)
            .and_then(|()| stream.write_all(b"!"))
            .and_then(|()| stream.read(&mut first));
        let _ = heard.send(end.map_err(|error| error.kind()));
    });
    let mut stream = connect(&mesh, address);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream::reset(stream);
    assert_eq!(
        hears.recv_timeout(crate::PATIENCE).unwrap(),
        Err(ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_reset_by_the_callee_reaches_the_caller_as_one() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, address) = start(|mut stream| {
        if stream.read_exact(&mut [0]).is_ok() {
            stream::reset(stream);
        }
    });
    let mut stream = connect(&mesh, address);
    stream.write_all(b"x").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_callee_that_is_not_there_ends_the_call_at_once() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["app"]), ("n2", &["peer"])]);
    let nobody = mesh.node("n2").host().free_tcp();
    mesh.node("n2").serve("peer", nobody, "tcp", &["app"], "");
    let address = mesh.node("n1").call("peer", "app");
    mesh.start();
    mesh.wait_healthy("peer", &["n2"], crate::SEEN);
    let mut stream = connect(&mesh, address);
    let began = std::time::Instant::now();
    // A close or a reset: either way no byte, and soon.
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let counted = || {
        mesh.node("n1").metrics().sum(
            "starling_connections_total",
            &[("reason", "app-unreachable")],
        )
    };
    harness::wait_until(crate::PATIENCE, "the failure to be counted", || {
        counted() == 1.0
    });
}

#[test]
fn bytes_flow_both_ways_at_once() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, address) = start(|mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        // Ends with its caller.
        let _ = std::io::copy(&mut stream, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    let stream = connect(&mesh, address);
    let sent: Vec<u8> = (0..20_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut received = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = &stream;
            stream
                .write_all(&sent)
                .and_then(|()| stream.shutdown(Shutdown::Write))
                .unwrap();
        });
        (&stream).read_to_end(&mut received).unwrap();
    });
    assert!(
        received == sent,
        "{} of {} bytes came back",
        received.len(),
        sent.len()
    );
}
