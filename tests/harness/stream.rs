//! Small TCP apps that do one thing each, for what real programs do not do on demand.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::host::Host;

/// Listens on `host` and gives each connection to `work` on a thread of its own. It listens until the test process ends.
pub fn serve(host: &Host, work: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = host.run(|| TcpListener::bind((host.local(), 0)).expect("some port is free"));
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let work = work.clone();
            thread::spawn(move || work(patient(stream)));
        }
    });
    address
}

/// Connects from `host`. Reads and writes give up after a while.
#[track_caller]
pub fn connect(host: &Host, address: SocketAddr) -> TcpStream {
    patient(
        host.run(|| TcpStream::connect(address))
            .unwrap_or_else(|error| panic!("{address}: {error}")),
    )
}

/// Makes the next close of `stream` a reset.
pub fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))
        .expect("a TCP socket lingers");
}

fn patient(stream: TcpStream) -> TcpStream {
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("it is not zero");
    stream
        .set_write_timeout(Some(PATIENCE))
        .expect("it is not zero");
    stream.set_nodelay(true).expect("TCP has it");
    stream
}

/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(20);
