//! HTTP/3 programs that are not ours, with certificates good and bad.

mod clients;
mod policy;
mod refused;
mod servers;
mod svids;
mod traces;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::{Mesh, Node, peers, process, stream};

/// Within this, every agent knows of a change: the promise of the mesh.
const SEEN: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);

/// A tcp app that sends back what it gets.
fn echo(node: &Node) -> SocketAddr {
    stream::serve(node.host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        // Ends with its caller.
        let _ = std::io::copy(&mut stream, &mut back);
        let _ = back.shutdown(std::net::Shutdown::Write);
    })
}

/// Makes the certificates of `forge.py`, and returns the directory that holds them.
fn forge(mesh: &Mesh) -> PathBuf {
    let out = mesh.scratch().directory("forged");
    let mut command = Command::new(peers::python());
    command
        .arg(peers::file("forge.py"))
        .arg(mesh.issuer())
        .arg(&out);
    process::run(command);
    out
}
