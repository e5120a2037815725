//! The listening sockets for apps, kept equal to the configuration.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Upstream};
use crate::host::Host;
use crate::outbound::Listener;

/// Open listeners by address. An address that stays keeps its socket, so that no connection is refused by a reload.
#[derive(Debug)]
pub(super) struct Listeners {
    host: Arc<Host>,
    open: HashMap<SocketAddr, Open>,
}

#[derive(Debug)]
struct Open {
    upstream: watch::Sender<Upstream>,
    closed: CancellationToken,
}

impl Listeners {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self {
            host,
            open: HashMap::new(),
        }
    }

    /// Opens what is new, then closes what is gone. If anything cannot be opened, nothing changes.
    pub(super) async fn apply(&mut self, config: &Config) -> anyhow::Result<()> {
        let mut opened = Vec::new();
        for upstream in &config.upstreams {
            if !self.open.contains_key(&upstream.listen) {
                let listener = Listener::open(upstream).await;
                let listener = listener.with_context(|| {
                    format!(
                        "{}: cannot listen on {}",
                        upstream.declared, upstream.listen
                    )
                })?;
                opened.push((upstream, listener));
            }
        }
        self.open.retain(|address, open| {
            let kept = config
                .upstreams
                .iter()
                .find(|upstream| upstream.listen == *address);
            match kept {
                Some(upstream) => drop(open.upstream.send_replace(upstream.clone())),
                None => open.closed.cancel(),
            }
            kept.is_some()
        });
        for (upstream, listener) in opened {
            let closed = CancellationToken::new();
            let (send, route) = watch::channel(upstream.clone());
            let serving = listener.serve(self.host.clone(), route, closed.clone());
            self.host.spawn(serving);
            self.open.insert(
                upstream.listen,
                Open {
                    upstream: send,
                    closed,
                },
            );
        }
        Ok(())
    }
}
