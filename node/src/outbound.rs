//! Calls of local apps: each upstream has a listener; whoever connects there speaks as the upstream's caller.

mod attempts;
mod direct;
mod exchange;
mod http;
mod manner;
mod mirror;
mod origin;
mod send;
mod tcp;
mod verdict;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use starling_gossip::ServiceName;
use starling_transport::SpiffeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::manner::{Manner, Manners};
use crate::balance::Balancer;
use crate::config::{AUTO, CallSettings, Hosts, Protocol, Upstream};
use crate::detect;
use crate::host::Host;
use crate::telemetry::series::{Series, Side};

/// Everything that the calls through one upstream share.
#[derive(Debug)]
struct Route {
    host: Arc<Host>,
    service: ServiceName,
    caller: SpiffeId,
    callee: SpiffeId,
    caller_name: ServiceName,
    balancer: Arc<Balancer>,
    manners: Arc<Manners>,
    declared: Option<Protocol>,
    /// Of requests on open connections too.
    hosts: Arc<ArcSwap<Hosts>>,
}

/// An upstream's listening socket, open but not yet served.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Opens the socket.
    pub async fn open(upstream: &Upstream) -> io::Result<Self> {
        TcpListener::bind(upstream.listen).await.map(Self)
    }

    /// Takes connections until `closed` or until the host drains, each by what `upstream` says then.
    pub async fn serve(
        self,
        host: Arc<Host>,
        mut upstream: watch::Receiver<Upstream>,
        closed: CancellationToken,
    ) {
        let mut route = Route::new(&host, &upstream.borrow_and_update());
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&host) => accepted,
                Ok(()) = upstream.changed() => {
                    route = route.with(&upstream.borrow_and_update());
                    continue;
                }
                () = closed.cancelled() => return,
                () = host.drain.cancelled() => return,
            };
            match accepted {
                Ok((socket, permit)) => {
                    host.peak.note(host.connections_open());
                    let route = route.clone();
                    host.spawn(async move {
                        route.connection(socket).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, or the peer left already: neither may end the loop or spin it.
                    tracing::warn!(service = %route.service, %error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits in the kernel's queue while there are as many connections as allowed.
    async fn accept(&self, host: &Host) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let permit = host
            .connections
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        Ok((self.0.accept().await?.0, permit))
    }
}

impl Route {
    fn new(host: &Arc<Host>, upstream: &Upstream) -> Arc<Self> {
        Arc::new(Self {
            host: host.clone(),
            service: upstream.service.clone(),
            caller: host.service_id(&upstream.caller),
            callee: host.service_id(&upstream.service),
            caller_name: upstream.caller.clone(),
            balancer: host.balancer(&upstream.service),
            manners: Manners::new(base(host, upstream)),
            declared: upstream.protocol,
            hosts: Arc::new(ArcSwap::from_pointee(upstream.hosts.clone())),
        })
    }

    /// What `upstream` says now. Connections that are open follow it as well, but for who calls whom.
    fn with(&self, upstream: &Upstream) -> Arc<Self> {
        let mut route = Self::new(&self.host, upstream);
        if (&self.service, &self.caller_name) == (&upstream.service, &upstream.caller)
            && let Some(route) = Arc::get_mut(&mut route)
        {
            self.manners.set(base(&self.host, upstream));
            route.manners = self.manners.clone();
            self.hosts.store(Arc::new(upstream.hosts.clone()));
            route.hosts = self.hosts.clone();
        }
        route
    }

    /// The same caller's way to another service.
    fn to(&self, service: &ServiceName) -> Arc<Self> {
        Arc::new(Self {
            host: self.host.clone(),
            service: service.clone(),
            caller: self.caller.clone(),
            callee: self.host.service_id(service),
            caller_name: self.caller_name.clone(),
            balancer: self.host.balancer(service),
            manners: Manners::new(Manner::new(
                &self.host,
                &self.caller_name,
                service,
                "",
                &Arc::<CallSettings>::default(),
            )),
            declared: None,
            hosts: Arc::default(),
        })
    }

    async fn connection(self: Arc<Self>, socket: TcpStream) {
        let _best_effort = socket.set_nodelay(true);
        let (protocol, waiting) = match self.declared {
            Some(protocol) => (protocol, None),
            None => {
                let (announced, waiting) = while_heard(&socket, self.announced()).await;
                let protocol = match announced {
                    Some(protocol) => protocol,
                    // It speaks both; or nobody offers it, and then all there is to say is an error in the app's language.
                    None => detect::spoken(&socket).await,
                };
                (protocol, waiting)
            }
        };
        match protocol {
            // Boxed, so that an idle connection of one kind does not hold room for the other.
            Protocol::Http => Box::pin(http::serve(self, socket, waiting)).await,
            Protocol::Tcp => Box::pin(tcp::serve(self, socket, waiting)).await,
        }
    }

    /// What the instances say that they speak; none if they speak either, or if there is no instance in a bounded time.
    async fn announced(&self) -> Option<Protocol> {
        let wait = self.host.config.load().limits.wait;
        let mut changes = self.host.membership.changes();
        let found = tokio::time::timeout(wait, async {
            loop {
                let catalogue = self.host.membership.catalogue();
                if let Some(instance) = catalogue.instances(self.service.as_str()).first() {
                    return match &*instance.protocol {
                        "http" | "grpc" => Some(Protocol::Http),
                        AUTO => None,
                        _ => Some(Protocol::Tcp),
                    };
                }
                changes.changed().await.ok()?;
            }
        });
        found.await.ok().flatten()
    }

    fn series(&self, protocol: Protocol) -> Arc<Series> {
        self.host.series(
            Side::Caller,
            self.caller_name.as_str(),
            self.service.as_str(),
            protocol,
        )
    }
}

/// What `work` gives, and since when the app has waited for it, if the app has sent something before.
async fn while_heard<T>(socket: &TcpStream, work: impl Future<Output = T>) -> (T, Option<Instant>) {
    let (mut work, mut byte) = (std::pin::pin!(work), [0]);
    tokio::select! {
        biased;
        done = &mut work => (done, None),
        _ = socket.peek(&mut byte) => {
            let heard = Instant::now();
            (work.await, Some(heard))
        }
    }
}

/// How calls through `upstream` are made, unless a rule says otherwise.
fn base(host: &Host, upstream: &Upstream) -> Manner {
    let (caller, callee) = (&upstream.caller, &upstream.service);
    Manner::new(host, caller, callee, "", &upstream.calls)
}

/// How long the accept loop rests after an error.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
