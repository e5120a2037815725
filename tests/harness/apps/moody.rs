//! An HTTP app that does on demand what real ones do at the worst moment: errs, dawdles, falls silent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::host::Host;
use crate::stream;

/// Answers each request as it is told to, and counts them.
#[derive(Debug, Clone)]
pub struct Moody {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: AtomicU64,
    inside: AtomicU64,
    inside_most: AtomicU64,
    head: Mutex<String>,
}

/// What the app does with one request.
#[derive(Debug, Clone)]
pub struct Reply {
    status: u16,
    fields: String,
    delay: Duration,
    is_silent: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            fields: String::new(),
            delay: Duration::ZERO,
            is_silent: false,
        }
    }

    /// No answer until the caller leaves.
    pub fn silence() -> Self {
        Self {
            is_silent: true,
            ..Self::status(200)
        }
    }

    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields += &format!("{name}: {value}\r\n");
        self
    }
}

impl Moody {
    /// Starts it on `host`, whose name is the body of its answers. `reply` gets the number of the request, from 1, and its
    /// head; requests to `/healthz` are neither counted nor told apart from others otherwise.
    pub fn start(host: &Host, reply: impl Fn(u64, &str) -> Reply + Clone + Send + 'static) -> Self {
        let state = Arc::<State>::default();
        let (name, shared) = (host.name().to_owned(), state.clone());
        let address = stream::serve(host, move |mut stream| {
            while let Some(head) = read_head(&mut stream) {
                let call = shared.begin(&head);
                let reply = reply(call, &head);
                if reply.is_silent {
                    // Ends with the caller, or with the socket's patience.
                    let _ = stream.read(&mut [0]);
                }
                pause(reply.delay);
                shared.inside.fetch_sub(1, Ordering::Relaxed);
                let answer = format!(
                    "HTTP/1.1 {} X\r\n{}content-length: {}\r\n\r\n{name}",
                    reply.status,
                    reply.fields,
                    name.len()
                );
                if reply.is_silent || stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { address, state }
    }

    /// One that is well and quick.
    pub fn well(host: &Host) -> Self {
        Self::start(host, |_, _| Reply::status(200))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far.
    pub fn calls(&self) -> u64 {
        self.state.calls.load(Ordering::Relaxed)
    }

    /// The most requests that it had at a time.
    pub fn most_at_a_time(&self) -> u64 {
        self.state.inside_most.load(Ordering::Relaxed)
    }

    /// The head of the last request.
    pub fn last(&self) -> String {
        lock(&self.state.head).clone()
    }
}

impl State {
    fn begin(&self, head: &str) -> u64 {
        let inside = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        self.inside_most.fetch_max(inside, Ordering::Relaxed);
        let is_check = head.starts_with("GET /healthz ");
        if !is_check {
            *lock(&self.head) = head.to_owned();
        }
        self.calls
            .fetch_add(u64::from(!is_check), Ordering::Relaxed)
            + 1
    }
}

/// A head; requests to this app have no body.
fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn lock(head: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    head.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(
    clippy::disallowed_methods,
    reason = "taking its time is what this app is for; nothing waits for the time to pass"
)]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
