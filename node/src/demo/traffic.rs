//! Callers that never rest, so that there is something to see. They know nothing of the mesh either.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::cli::client;

/// Whom to call, one call at a time for each, and how often.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) http: Vec<(SocketAddr, String)>,
    pub(crate) echo: Vec<SocketAddr>,
    pub(crate) every: Duration,
}

impl Traffic {
    /// Runs until it is dropped. What becomes of a call is for others to see.
    pub(crate) async fn run(self) {
        let mut callers = JoinSet::new();
        for (address, path) in self.http {
            callers.spawn(repeat(self.every, move || {
                let path = path.clone();
                async move {
                    let _answer = client::get_tcp(address, &path).await;
                }
            }));
        }
        for address in self.echo {
            callers.spawn(repeat(self.every, move || async move {
                let _answer = timeout(PATIENCE, echo(address)).await;
            }));
        }
        callers.join_all().await;
    }
}

/// At this pace, or slower if a call takes longer.
async fn repeat<F: Future<Output = ()>>(every: Duration, call: impl Fn() -> F) {
    let mut every = interval(every);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        call().await;
    }
}

async fn echo(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"anybody there?\n").await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    stream.take(1024).read_to_end(&mut heard).await?;
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(5);
