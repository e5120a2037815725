//! The issuer's end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{ConnectionError, Endpoint as QuinnEndpoint, EndpointConfig, TokioRuntime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::rate::Rates;
use super::{ALPN, REQUEST_BYTES_MAX, SignedAnswer, binding};
use crate::endpoint::{BindError, CERTIFICATE_ALERTS, TLS_13, any_node_name, provider, udp_socket};
use crate::identities::Identities;
use crate::metrics;
use crate::tuning;

/// Takes requests of hosts that are not in the mesh yet. Dropping it closes the port.
#[derive(Debug)]
pub struct JoinListener {
    quinn: QuinnEndpoint,
    visitors: Mutex<mpsc::Receiver<Visitor>>,
}

/// A stranger with a request. Nothing is known of it but its address.
#[derive(Debug)]
pub struct Visitor {
    /// Where its packets come from.
    pub from: SocketAddr,
    /// What it asks, at most [`REQUEST_BYTES_MAX`].
    pub request: Vec<u8>,
    /// What a signature must cover to be made for this connection.
    pub binding: [u8; 32],
    send: quinn::SendStream,
    // Closes when dropped.
    _conn: quinn::Connection,
}

impl JoinListener {
    /// Opens the port. It shows whatever SVID of the node is in force.
    pub fn bind(listen: SocketAddr, identities: Arc<Identities>) -> Result<Self, BindError> {
        let socket_error = |source| BindError::Socket {
            addr: listen,
            source,
        };
        let socket = udp_socket(listen).map_err(socket_error)?;
        let quinn = QuinnEndpoint::new(
            EndpointConfig::default(),
            Some(server_config(identities)?),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(socket_error)?;
        let (send, visitors) = mpsc::channel(VISITORS_MAX);
        // Ends by itself when the endpoint closes.
        tokio::spawn(accept_all(quinn.clone(), send));
        Ok(Self {
            quinn,
            visitors: Mutex::new(visitors),
        })
    }

    /// The next request. `None` once the port is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Visitor> {
        self.visitors.lock().await.recv().await
    }

    /// Where it listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quinn.local_addr()
    }
}

impl Drop for JoinListener {
    fn drop(&mut self) {
        self.quinn.close(0u32.into(), b"");
    }
}

impl Visitor {
    /// Sends the answer and waits, not for long, until it has arrived.
    pub async fn answer(mut self, answer: &SignedAnswer) {
        let Some(answer) = answer.encode() else {
            tracing::error!("the certificate of this issuer is too long to be shown to a joiner");
            return;
        };
        let sent = async {
            self.send.write_all(&answer).await.ok()?;
            self.send.finish().ok()?;
            self.send.stopped().await.ok()
        };
        if timeout(STEP_BUDGET, sent).await.is_err() {
            tracing::debug!(peer.addr = %self.from, "the joiner did not take its answer");
        }
    }
}

async fn accept_all(quinn: QuinnEndpoint, visitors: mpsc::Sender<Visitor>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut rates = Rates::default();
    while let Some(incoming) = quinn.accept().await {
        // Always, not only under load: joins are rare, and an address that is not its own can neither make us send much
        // (RFC 9000 §8.1.2) nor use up another's tries.
        if !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        if !rates.admit(incoming.remote_address().ip(), Instant::now()) {
            turned_away("rate_limited");
            incoming.refuse();
            continue;
        }
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            turned_away("full");
            incoming.refuse();
            continue;
        };
        let visitors = visitors.clone();
        tokio::spawn(async move {
            match timeout(STEP_BUDGET, receive(incoming)).await {
                Ok(Some(visitor)) => drop(visitors.send(visitor).await),
                Ok(None) => {}
                Err(_elapsed) => turned_away("stalled"),
            }
            drop(permit);
        });
    }
}

async fn receive(incoming: quinn::Incoming) -> Option<Visitor> {
    let from = incoming.remote_address();
    let conn = match incoming.await {
        Ok(conn) => conn,
        Err(error) => {
            turned_away(handshake_failure(&error));
            tracing::debug!(peer.addr = %from, %error, "join handshake failed");
            return None;
        }
    };
    let (send, mut recv) = match conn.accept_bi().await {
        Ok(stream) => stream,
        Err(error) => {
            // TLS 1.3 lets the client judge us after we have finished.
            turned_away(handshake_failure(&error));
            return None;
        }
    };
    let Ok(request) = recv.read_to_end(REQUEST_BYTES_MAX).await else {
        turned_away("bad_request");
        return None;
    };
    Some(Visitor {
        from,
        request,
        binding: binding(&conn)?,
        send,
        _conn: conn,
    })
}

/// A joiner whose token names another root says so with a certificate alert.
fn handshake_failure(error: &ConnectionError) -> &'static str {
    match error {
        ConnectionError::ConnectionClosed(close)
            if CERTIFICATE_ALERTS.contains(&u64::from(close.error_code)) =>
        {
            "other_mesh"
        }
        _ => "handshake",
    }
}

fn turned_away(reason: &'static str) {
    counter!(metrics::JOINS_TURNED_AWAY, "reason" => reason).increment(1);
}

fn server_config(identities: Arc<Identities>) -> Result<quinn::ServerConfig, BindError> {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(TLS_13)
        .map_err(|source| BindError::Tls { source })?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NodeWithRoots(identities)));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    let crypto =
        QuicServerConfig::try_from(tls).expect("the provider has a QUIC initial cipher suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(tuning::join()));
    config.max_incoming(CONNECTIONS_MAX);
    Ok(config)
}

/// The node's chain with the roots behind it: the joiner has only a fingerprint of one.
#[derive(Debug)]
struct NodeWithRoots(Arc<Identities>);

impl ResolvesServerCert for NodeWithRoots {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.0.current();
        let name = any_node_name(set.trust.trust_domain());
        if hello.server_name() != Some(name.as_str()) {
            turned_away("other_mesh");
            return None;
        }
        let node = set.node.certified_key();
        let chain = node.cert.iter().chain(set.trust.roots()).cloned().collect();
        Some(Arc::new(CertifiedKey::new(chain, Arc::clone(&node.key))))
    }
}

/// Joiners looked after at a time; each holds at most [`REQUEST_BYTES_MAX`], so 8 MiB.
const CONNECTIONS_MAX: usize = 128;

/// Requests read and not yet taken; past it joiners wait.
const VISITORS_MAX: usize = 16;

/// For handshake and request together, and for the answer: a joiner that takes longer is gone or stalling.
const STEP_BUDGET: Duration = Duration::from_secs(10);
