//! The agent's one UDP socket address: it accepts from and dials to other agents, always with certificates on both sides.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::metrics::counter;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionError, Endpoint as QuinnEndpoint, EndpointConfig, TokioRuntime, TransportConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls_pki_types::CertificateDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::Instant;

use crate::credential::{Credential, OwnRevocation};
use crate::ended::Ended;
use crate::h3::StartError;
use crate::heard::Heard;
use crate::identities::{CalleeVerifier, Identities};
use crate::identity::{SpiffeId, TrustDomain};
use crate::links::{Link, Links};
use crate::metrics;
use crate::session::{Protocol as Spoken, Session, SessionRefused};
use crate::svid::{Refusal, Svid, TrustBundle};
use crate::tuning;

pub(crate) mod tls;

pub(crate) use tls::{TLS_13, provider};

/// What [`Endpoint::bind`] needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen, UDP. `[::]` takes IPv4 too.
    pub listen: SocketAddr,
    /// 64 random bytes kept across restarts, so that peers of the process before us get valid stateless resets
    /// (RFC 9000 §10.3) and notice at once that their connections are gone.
    pub reset_key: [u8; 64],
    /// Streams one peer may hold open on one connection.
    pub streams_per_peer: u32,
    /// Accepted connections held open; past it newcomers are refused before any cryptography.
    pub connections_max: usize,
}

/// Accepts and dials sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    quinn: QuinnEndpoint,
    identities: Arc<Identities>,
    accepted: Arc<Mutex<mpsc::Receiver<Session>>>,
    heard: Heard,
    links: Links,
    streams_per_peer: u32,
}

impl Endpoint {
    /// Opens the socket and starts to accept. Must be called inside the tokio runtime that is to drive the packets.
    pub fn bind(options: &Options, identities: Arc<Identities>) -> Result<Self, BindError> {
        let socket = udp_socket(options.listen).map_err(|source| BindError::Socket {
            addr: options.listen,
            source,
        })?;
        let server = server_config(&identities, options.streams_per_peer)?;
        let quinn = QuinnEndpoint::new(
            endpoint_config(&options.reset_key),
            Some(server),
            socket,
            Arc::new(TokioRuntime),
        )
        .map_err(|source| BindError::Socket {
            addr: options.listen,
            source,
        })?;
        let (send, accepted) = mpsc::channel(ACCEPTED_MAX);
        let (heard, links) = (Heard::default(), Links::default());
        // Ends by itself when the endpoint closes or every clone of it is gone.
        tokio::spawn(accept_all(
            quinn.clone(),
            Arc::clone(&identities),
            options.connections_max,
            heard.clone(),
            links.clone(),
            send,
        ));
        let streams_per_peer = options.streams_per_peer;
        Ok(Self {
            quinn,
            identities,
            accepted: Arc::new(Mutex::new(accepted)),
            heard,
            links,
            streams_per_peer,
        })
    }

    /// The next peer that proved an identity. `None` once the endpoint is closed. Cancel-safe.
    pub async fn accept(&self) -> Option<Session> {
        self.accepted.lock().await.recv().await
    }

    /// Opens a connection as `caller` to `callee` at `addr`. The peer has proved `callee` when this returns; whether it
    /// accepted `caller` shows with its first answer (TLS 1.3 lets the client finish first).
    pub async fn dial(
        &self,
        caller: &SpiffeId,
        callee: &Callee,
        addr: SocketAddr,
        protocol: Spoken,
        budget: Duration,
    ) -> Result<Session, DialError> {
        let dialled =
            tokio::time::timeout(budget, self.dial_unbounded(caller, callee, addr, protocol)).await;
        let dialled = dialled.unwrap_or(Err(DialError::TimedOut { addr, budget }));
        if let Err(error) = &dialled {
            counter!(metrics::DIALS_FAILED, "reason" => error.reason()).increment(1);
        }
        dialled
    }

    async fn dial_unbounded(
        &self,
        caller: &SpiffeId,
        callee: &Callee,
        addr: SocketAddr,
        protocol: Spoken,
    ) -> Result<Session, DialError> {
        let began = Instant::now();
        let own = self
            .identities
            .judge_held(caller, protocol.own_revocation());
        own.map_err(|refusal| DialError::not_good(caller, refusal))?;
        let settings = tuning::dialled(protocol, self.streams_per_peer);
        let (conn, svid) = self
            .connect(&self.quinn, caller, callee, addr, protocol, settings)
            .await?;
        metrics::connected("dialled", protocol, began.elapsed());
        let peer = peer_credential(&conn).ok_or(DialError::NoIdentity { addr })?;
        let claimed = peer.id().clone();
        let (local, identities) = ((&svid).into(), Arc::clone(&self.identities));
        let session = Session::new(conn, protocol, local, peer, identities, &self.links);
        session.map_err(|refused| match refused {
            SessionRefused::Own(refusal) => DialError::not_good(caller, refusal),
            SessionRefused::Peer(refusal) => {
                metrics::handshake_refused(refusal, Some(claimed));
                DialError::WrongIdentity { addr }
            }
        })
    }

    /// One handshake over `socket`; returns the connection and what we proved on it.
    pub(crate) async fn connect(
        &self,
        socket: &QuinnEndpoint,
        caller: &SpiffeId,
        callee: &Callee,
        addr: SocketAddr,
        protocol: Spoken,
        settings: TransportConfig,
    ) -> Result<(quinn::Connection, Svid), DialError> {
        let set = self.identities.current();
        let svid = set.svid(caller).ok_or_else(|| DialError::NotOurs {
            caller: caller.clone(),
        })?;
        // A peer would refuse it only after the handshake.
        let own = self
            .identities
            .judge_held(caller, OwnRevocation::LeftToPeer);
        own.map_err(|refusal| DialError::not_good(caller, refusal))?;
        let verifier = CalleeVerifier {
            trust: set.trust.clone(),
            expected: callee.clone(),
        };
        let tls = tls::caller(svid, verifier, protocol);
        let tls = tls.map_err(|source| DialError::Tls { source })?;
        let crypto =
            QuicClientConfig::try_from(tls).expect("the provider has a QUIC initial cipher suite");
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(settings));
        let connecting = socket
            .connect_with(config, addr, &callee.server_name(&set.trust))
            .map_err(|source| DialError::Address { addr, source })?;
        let conn = connecting
            .await
            .map_err(|source| DialError::handshake(addr, source))?;
        Ok((conn, svid.clone()))
    }

    /// The one UDP socket.
    pub(crate) fn quinn(&self) -> &QuinnEndpoint {
        &self.quinn
    }

    /// How long ago somebody at `addr` began a handshake, whatever became of it. Nobody proved anything by that: it only tells
    /// that packets with that source arrive here.
    pub fn heard_from(&self, addr: SocketAddr) -> Option<Duration> {
        self.heard.ago(addr, Instant::now())
    }

    /// Where the socket listens.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.quinn.local_addr()
    }

    /// Grows each time another set of identities is put in force.
    pub fn identities_revision(&self) -> u64 {
        self.identities.revision()
    }

    /// How the connections do: those that are open, and those that ended since this was asked last. For one asker.
    pub fn links(&self) -> Vec<Link> {
        self.links.look()
    }

    /// Connections open now, both ways.
    pub fn open_connections(&self) -> usize {
        self.quinn.open_connections()
    }

    /// Takes no new connections; those open go on.
    pub fn stop_accepting(&self) {
        self.quinn.set_server_config(None);
    }

    /// Closes every connection and waits until the peers were told.
    pub async fn close(&self) {
        self.quinn.close(CLOSE_CODE.into(), b"");
        self.quinn.wait_idle().await;
    }
}

/// Whom a dial expects at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// This identity and no other.
    Exactly(SpiffeId),
    /// Any node of our trust domain: for addresses of which no name is known yet.
    AnyNode,
}

impl Callee {
    pub(crate) fn accepts(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exactly(expected) => expected == id,
            Self::AnyNode => id.node_name().is_some(),
        }
    }

    fn server_name(&self, trust: &TrustBundle) -> String {
        match self {
            Self::Exactly(id) => id.dns_name(),
            Self::AnyNode => any_node_name(trust.trust_domain()),
        }
    }
}

/// The server name (SNI) by which a node is asked for whatever its name is.
pub(crate) fn any_node_name(trust_domain: &TrustDomain) -> String {
    format!("node.{trust_domain}")
}

/// Why an endpoint could not be made. Nothing stays open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr} (udp)")]
    Socket {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up tls")]
    Tls {
        /// What rustls said.
        source: rustls::Error,
    },
}

/// Why there is no session. No state remains.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// We hold no SVID of that identity.
    #[error("this node holds no certificate of {caller}")]
    NotOurs {
        /// Who was to call.
        caller: SpiffeId,
    },
    /// Our own certificate has ended, is revoked or leads to no root of ours; peers would refuse it.
    #[error("this node's certificate of {caller} is not good: {refusal}")]
    OwnCertificate {
        /// Who was to call.
        caller: SpiffeId,
        /// Why a peer would refuse it.
        refusal: Refusal,
    },
    /// No answer in time.
    #[error("no answer from {addr} within {budget:?}")]
    TimedOut {
        /// Who was dialled.
        addr: SocketAddr,
        /// How long we waited.
        budget: Duration,
    },
    /// The address cannot be dialled from this socket.
    #[error("cannot dial {addr}")]
    Address {
        /// Who was dialled.
        addr: SocketAddr,
        /// What quinn said.
        source: quinn::ConnectError,
    },
    /// There is no socket to dial from.
    #[error("no socket to dial from")]
    Socket {
        /// What the system said.
        source: std::io::Error,
    },
    /// The handshake failed, on either side.
    #[error("handshake with {addr} failed")]
    Handshake {
        /// Who was dialled.
        addr: SocketAddr,
        /// What quinn said.
        source: Box<Ended>,
    },
    /// We refused what the peer proved: another identity than the one we call, or none that the mesh vouches for.
    #[error("{addr} did not prove the identity that was called")]
    WrongIdentity {
        /// Who was dialled.
        addr: SocketAddr,
    },
    /// The peer showed no certificate that we can read.
    #[error("{addr} proved no identity")]
    NoIdentity {
        /// Who was dialled.
        addr: SocketAddr,
    },
    /// The node is known, but no address of it.
    #[error("no address is known")]
    NoAddress,
    /// The connection ended before HTTP/3 could begin.
    #[error("http/3 with {addr} did not begin")]
    Start {
        /// Who was dialled.
        addr: SocketAddr,
        /// What went wrong.
        source: StartError,
    },
    /// TLS cannot be set up.
    #[error("cannot set up tls")]
    Tls {
        /// What rustls said.
        source: rustls::Error,
    },
    /// A dial just failed and the next one is not due yet.
    #[error("{addr} failed {failures} times in a row; next try in {wait:?}")]
    BackingOff {
        /// Who would be dialled.
        addr: SocketAddr,
        /// How often it failed in a row.
        failures: u32,
        /// When the next dial is due.
        wait: Duration,
    },
}

impl DialError {
    /// The label in metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotOurs { .. } => "not_ours",
            Self::OwnCertificate { refusal, .. } => refusal.as_str(),
            Self::TimedOut { .. } => "timed_out",
            Self::Address { .. } => "address",
            Self::Socket { .. } => "socket",
            Self::Handshake { .. } => "handshake",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::NoIdentity { .. } => "no_identity",
            Self::NoAddress => "no_address",
            Self::Start { .. } => "start",
            Self::Tls { .. } => "tls",
            Self::BackingOff { .. } => "backing_off",
        }
    }

    fn not_good(caller: &SpiffeId, refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoCertificate => Self::NotOurs {
                caller: caller.clone(),
            },
            refusal => Self::OwnCertificate {
                caller: caller.clone(),
                refusal,
            },
        }
    }

    /// Tells a certificate that we refused from all else. A peer's refusal of ours comes as a closed connection instead.
    pub(crate) fn handshake(addr: SocketAddr, source: ConnectionError) -> Self {
        match &source {
            ConnectionError::TransportError(error)
                if CERTIFICATE_ALERTS.contains(&u64::from(error.code)) =>
            {
                Self::WrongIdentity { addr }
            }
            _ => Self::Handshake {
                addr,
                source: Box::new(Ended(source)),
            },
        }
    }
}

/// TLS alerts 42 (bad certificate) to 49 (access denied), as QUIC error codes (RFC 9001 §4.8).
pub(crate) const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 0x12a..=0x131;

/// Takes connections until the endpoint closes. Handshakes run side by side, at most [`HALF_OPEN_MAX`].
async fn accept_all(
    quinn: QuinnEndpoint,
    identities: Arc<Identities>,
    connections_max: usize,
    heard: Heard,
    links: Links,
    accepted: mpsc::Sender<Session>,
) {
    let half_open = Arc::new(Semaphore::new(HALF_OPEN_MAX));
    while let Some(incoming) = quinn.accept().await {
        heard.note(incoming.remote_address(), Instant::now());
        if quinn.open_connections() >= connections_max {
            incoming.refuse();
            continue;
        }
        let busy = half_open.available_permits() < HALF_OPEN_MAX / 2;
        if busy && !incoming.remote_address_validated() {
            // A spoofed source never sees the token, so it costs us one small packet and no state (RFC 9000 §8.1.2).
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&half_open).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let (identities, accepted) = (Arc::clone(&identities), accepted.clone());
        let links = links.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(
                HANDSHAKE_BUDGET,
                finish_handshake(incoming, identities, &links),
            )
            .await;
            drop(permit);
            if let Ok(Some(session)) = shaken {
                let _ = accepted.send(session).await;
            }
        });
    }
}

async fn finish_handshake(
    incoming: quinn::Incoming,
    identities: Arc<Identities>,
    links: &Links,
) -> Option<Session> {
    let began = Instant::now();
    let addr = incoming.remote_address();
    let conn = match incoming.await {
        Ok(conn) => conn,
        Err(error) => {
            if let Some(refusal) = refusal_in_alert(&error) {
                metrics::handshake_refused(refusal, None);
            }
            tracing::debug!(peer.addr = %addr, %error, "handshake failed");
            return None;
        }
    };
    let data = conn.handshake_data()?.downcast::<HandshakeData>().ok()?;

    let protocol = Spoken::from_alpn(data.protocol.as_deref()?)?;
    let peer = peer_credential(&conn)?;
    let set = identities.current();
    let name = data.server_name?;
    let local = set.by_server_name(&name)?.into();
    metrics::connected("accepted", protocol, began.elapsed());
    let claimed = peer.id().clone();
    let session = Session::new(conn, protocol, local, peer, identities, links);
    session
        .inspect_err(|refused| match refused {
            SessionRefused::Own(refusal) => metrics::handshake_refused(*refusal, None),
            SessionRefused::Peer(refusal) => {
                metrics::handshake_refused(*refusal, Some(claimed));
            }
        })
        .ok()
}

/// What our own TLS refused without asking the verifier: the alerts of RFC 8446 §6.2 `certificate_required` and
/// `no_application_protocol` (RFC 7301 §3.2), which QUIC carries as 0x100 + alert (RFC 9001 §4.8).
fn refusal_in_alert(error: &ConnectionError) -> Option<Refusal> {
    let ConnectionError::TransportError(error) = error else {
        return None;
    };
    match u64::from(error.code) {
        0x174 => Some(Refusal::NoCertificate),
        0x178 => Some(Refusal::UnknownProtocol),
        _ => None,
    }
}

pub(crate) fn peer_credential(conn: &quinn::Connection) -> Option<Credential> {
    Credential::new(peer_chain(conn)?).ok()
}

pub(crate) fn peer_chain(conn: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    conn.peer_identity()?.downcast().ok().map(|chain| *chain)
}

fn server_config(
    identities: &Arc<Identities>,
    streams: u32,
) -> Result<quinn::ServerConfig, BindError> {
    let tls = tls::callee(identities).map_err(|source| BindError::Tls { source })?;
    let crypto =
        QuicServerConfig::try_from(tls).expect("the provider has a QUIC initial cipher suite");
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(tuning::accepted(streams)));
    config.max_incoming(HALF_OPEN_MAX);
    Ok(config)
}

/// With one key for resets and one for connection IDs, both the same after a restart: quinn resets only connections whose ID
/// it could have made itself, and drops the packets of others.
fn endpoint_config(reset_key: &[u8; 64]) -> EndpointConfig {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let tag = ring::hmac::sign(&reset_key, b"starling connection ids");
    let (first, _) = tag
        .as_ref()
        .split_first_chunk()
        .expect("a tag has 32 bytes");
    let id_key = u64::from_le_bytes(*first);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

pub(crate) fn udp_socket(addr: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel caps these at net.core.{r,w}mem_max, without an error; deploy/sysctl.d raises the caps.
    socket.set_recv_buffer_size(tuning::SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(tuning::SOCKET_BUFFER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// Time for now; kept apart so that what needs a wall clock is easy to find.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// Handshakes under way at once. One costs about 2 ms of CPU, so this is half a second of work for one core; above half
/// of it a newcomer must first prove its address.
const HALF_OPEN_MAX: usize = 256;

/// A handshake takes two round trips; past this the peer is gone or stalling.
const HANDSHAKE_BUDGET: Duration = Duration::from_secs(5);

/// Sessions shaken but not yet taken by the agent.
const ACCEPTED_MAX: usize = 64;

/// H3_NO_ERROR: we close because we stop.
const CLOSE_CODE: u32 = 0x100;
