//! The listening sockets for apps, kept equal to the configuration as far as they can be had.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::view::Absent;
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

    /// Gives every upstream its socket, and closes those that none has any more. An upstream that cannot have its address keeps the one that
    /// it had, under its new rules, unless another one has that now. Without a certificate of its caller none is opened. Returns
    /// the upstreams that have no socket, or not the one that they are declared with.
    pub(super) async fn apply(
        &mut self,
        config: &Config,
        has_certificate: impl Fn(&str) -> bool,
    ) -> Vec<Absent> {
        let mut wanted: HashMap<SocketAddr, Upstream> = HashMap::new();
        let mut without = Vec::new();
        for upstream in &config.upstreams {
            if self.open.contains_key(&upstream.listen) {
                wanted.insert(upstream.listen, upstream.clone());
                continue;
            }
            if !has_certificate(upstream.caller.as_str()) {
                // Said where certificates are looked at.
                without.push((upstream, None));
                continue;
            }
            match Listener::open(upstream).await {
                Ok(listener) => {
                    self.serve(upstream, listener);
                    wanted.insert(upstream.listen, upstream.clone());
                }
                Err(error) => without.push((upstream, Some(error))),
            }
        }
        let mut absent = Vec::new();
        for (upstream, error) in without {
            let is_free = |address: &SocketAddr| {
                !wanted.contains_key(address)
                    && !config
                        .upstreams
                        .iter()
                        .any(|other| other.listen == *address)
            };
            let before = self.open.iter().filter(|(address, open)| {
                let had = open.upstream.borrow();
                let is_same = had.service == upstream.service && had.caller == upstream.caller;
                is_same && is_free(address)
            });
            let before = before.map(|(address, _)| *address).min();
            if let Some(listen) = before {
                wanted.insert(
                    listen,
                    Upstream {
                        listen,
                        ..upstream.clone()
                    },
                );
            }
            absent.extend(error.map(|error| unheard(upstream, &error, before)));
        }
        self.open
            .retain(|address, open| match wanted.remove(address) {
                Some(upstream) => {
                    open.upstream.send_replace(upstream);
                    true
                }
                None => {
                    open.closed.cancel();
                    false
                }
            });
        absent
    }

    fn serve(&mut self, upstream: &Upstream, listener: Listener) {
        let closed = CancellationToken::new();
        let (send, route) = watch::channel(upstream.clone());
        let serving = listener.serve(self.host.clone(), route, closed.clone());
        self.host.spawn(serving);
        let open = Open {
            upstream: send,
            closed,
        };
        self.open.insert(upstream.listen, open);
    }
}

fn unheard(upstream: &Upstream, error: &io::Error, before: Option<SocketAddr>) -> Absent {
    let listen = upstream.listen;
    let instead = match before {
        Some(before) => format!("it stays at {before}, under its new rules"),
        None => "apps cannot reach it here".to_owned(),
    };
    Absent {
        entry: format!("upstream `{}`", upstream.service),
        declared: upstream.declared.to_string(),
        why: format!("cannot listen on {listen}: {error}; {instead}"),
    }
}
