//! The joiner's end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ConnectionError, Endpoint as QuinnEndpoint};
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::timeout;

use super::{ALPN, ANSWER_BYTES_MAX, SignedAnswer, binding};
use crate::ended::Ended;
use crate::endpoint::{CERTIFICATE_ALERTS, TLS_13, any_node_name, provider};
use crate::identities::signature_algorithms;
use crate::identity::{SpiffeId, TrustDomain};
use crate::svid::{Refusal, TrustBundle};
use crate::tuning;

/// Whom a joiner believes: nodes of one mesh, by one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The mesh.
    pub trust_domain: TrustDomain,
    /// SHA-256 of the root certificate in DER.
    pub root_sha256: [u8; 32],
}

/// What an issuer answered, proved by its signature.
#[derive(Debug, Clone)]
pub struct Said {
    /// Which node gave the answer. It may pass on that of another issuer.
    pub issuer: SpiffeId,
    /// Its answer.
    pub answer: Vec<u8>,
    /// The root with the pinned fingerprint, in DER.
    pub root: Vec<u8>,
}

/// Sends one request to `addr` and reads the answer. `request` gets the binding of the connection and makes what is sent.
/// Takes at most `budget`.
pub async fn ask(
    addr: SocketAddr,
    pinned: &Pinned,
    request: impl FnOnce(&[u8; 32]) -> Vec<u8>,
    budget: Duration,
) -> Result<Said, JoinError> {
    let asked = timeout(budget, ask_unbounded(addr, pinned, request)).await;
    asked.unwrap_or(Err(JoinError::TimedOut { addr, budget }))
}

async fn ask_unbounded(
    addr: SocketAddr,
    pinned: &Pinned,
    request: impl FnOnce(&[u8; 32]) -> Vec<u8>,
) -> Result<Said, JoinError> {
    let from: IpAddr = if addr.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let endpoint = QuinnEndpoint::client((from, 0).into())
        .map_err(|source| JoinError::Socket { addr, source })?;
    let name = any_node_name(&pinned.trust_domain);
    let connecting = endpoint
        .connect_with(client_config(pinned)?, addr, &name)
        .map_err(|source| JoinError::Address { addr, source })?;
    let conn = connecting
        .await
        .map_err(|source| JoinError::handshake(addr, source))?;
    let lost = |source: Box<dyn std::error::Error + Send + Sync>| JoinError::Lost { addr, source };
    let (issuer, root) = peer(&conn, pinned).ok_or(JoinError::OtherMesh { addr })?;
    let binding = binding(&conn).ok_or(JoinError::OtherMesh { addr })?;
    let (mut send, mut recv) = conn
        .open_bi()
        .await
        .map_err(|error| lost(Ended::or_other(error)))?;
    let request = request(&binding);
    send.write_all(&request)
        .await
        .map_err(|error| lost(Ended::or_other(error)))?;
    send.finish()
        .map_err(|error| lost(Ended::or_other(error)))?;
    let answer = recv.read_to_end(ANSWER_BYTES_MAX).await;
    let answer = answer.map_err(|error| lost(Ended::or_other(error)))?;
    conn.close(0u32.into(), b"");
    endpoint.wait_idle().await;
    let unproved = |source| JoinError::NotAnIssuer { addr, source };
    let answer = SignedAnswer::decode(&answer).ok_or_else(|| unproved(Refusal::BadEncoding))?;
    let now = crate::endpoint::now();
    let verified = answer.verify(
        &binding,
        &request,
        &pinned.trust(&root).map_err(unproved)?,
        now,
    );
    verified.map_err(unproved)?;
    Ok(Said {
        issuer,
        answer: answer.answer,
        root,
    })
}

/// Why an issuer was not asked or did not answer. Whether it acted on the request is unknown after [`JoinError::Lost`] and
/// [`JoinError::TimedOut`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// No socket to ask from.
    #[error("cannot open a socket to reach {addr}")]
    Socket {
        /// Who was to be asked.
        addr: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The address cannot be dialled.
    #[error("cannot dial {addr}")]
    Address {
        /// Who was to be asked.
        addr: SocketAddr,
        /// What quinn said.
        source: quinn::ConnectError,
    },
    /// No answer in time.
    #[error("no answer from {addr} (udp) within {budget:?}")]
    TimedOut {
        /// Who was asked.
        addr: SocketAddr,
        /// How long we waited.
        budget: Duration,
    },
    /// Whoever is there is no node of the mesh whose root is pinned.
    #[error("{addr} is not of the mesh that the token is for")]
    OtherMesh {
        /// Who was asked.
        addr: SocketAddr,
    },
    /// The answer lacks the signature of an issuer for this connection, so it counts as none.
    #[error("{addr} is a node of the mesh, but does not prove to be an issuer")]
    NotAnIssuer {
        /// Who was asked.
        addr: SocketAddr,
        /// What is wrong with the signature.
        source: Refusal,
    },
    /// The handshake failed otherwise.
    #[error("handshake with {addr} failed")]
    Handshake {
        /// Who was asked.
        addr: SocketAddr,
        /// What quinn said.
        source: Box<Ended>,
    },
    /// The connection ended before the answer.
    #[error("{addr} did not answer in full")]
    Lost {
        /// Who was asked.
        addr: SocketAddr,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS cannot be set up.
    #[error("cannot set up tls")]
    Tls {
        /// What rustls said.
        source: rustls::Error,
    },
}

impl JoinError {
    fn handshake(addr: SocketAddr, source: ConnectionError) -> Self {
        let code = match &source {
            ConnectionError::TransportError(error) => Some(u64::from(error.code)),
            ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
            _ => None,
        };
        match code {
            // Either we refused the chain, or the issuer has no name like the one we asked for.
            Some(code) if CERTIFICATE_ALERTS.contains(&code) || code == UNRECOGNISED_NAME => {
                Self::OtherMesh { addr }
            }
            _ => Self::Handshake {
                addr,
                source: Box::new(Ended(source)),
            },
        }
    }
}

/// TLS alert 112, as rustls says it when it has no certificate for a name.
const UNRECOGNISED_NAME: u64 = 0x170;

fn client_config(pinned: &Pinned) -> Result<quinn::ClientConfig, JoinError> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(TLS_13)
        .map_err(|source| JoinError::Tls { source })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot(pinned.clone())))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let crypto =
        QuicClientConfig::try_from(tls).expect("the provider has a QUIC initial cipher suite");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(tuning::join()));
    Ok(config)
}

/// Which node the issuer proved to be, and the root that vouched for it. The verifier has judged the same chain.
fn peer(conn: &quinn::Connection, pinned: &Pinned) -> Option<(SpiffeId, Vec<u8>)> {
    let chain = crate::endpoint::peer_chain(conn)?;
    let (first, rest) = chain.split_first()?;
    let (id, root) = pinned.judge(first, rest, crate::endpoint::now()).ok()?;
    Some((id, root.to_vec()))
}

impl Pinned {
    fn trust(&self, root: &[u8]) -> Result<TrustBundle, Refusal> {
        let root = CertificateDer::from(root.to_vec());
        TrustBundle::of_root(self.trust_domain.clone(), root)
            .map_err(|_unusable| Refusal::UnknownIssuer)
    }

    /// The node that a chain proves, if it leads to the pinned root, which must be among `rest`.
    fn judge<'a>(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &'a [CertificateDer<'a>],
        now: SystemTime,
    ) -> Result<(SpiffeId, &'a CertificateDer<'a>), Refusal> {
        if rest.len() > CERTS_MAX {
            return Err(Refusal::ChainTooLong);
        }
        let is_pinned = |cert: &CertificateDer<'_>| {
            digest(&SHA256, cert).as_ref() == self.root_sha256.as_slice()
        };
        let root = rest.iter().find(|cert| is_pinned(cert));
        let root = root.ok_or(Refusal::UnknownIssuer)?;
        let trust = self.trust(root)?;
        // What else is shown of roots is of no use to the path and would only count against its length.
        let chain: Vec<_> = std::iter::once(leaf)
            .chain(rest.iter().filter(|cert| !is_pinned(cert)))
            .take(CHAIN_CERTS)
            .cloned()
            .collect();
        let leaf = trust.verify(&chain, now)?;
        match leaf.id.node_name() {
            Some(_) => Ok((leaf.id, root)),
            None => Err(Refusal::WrongIdentity),
        }
    }
}

/// Accepts any node that the pinned root vouches for.
#[derive(Debug)]
struct PinnedRoot(Pinned);

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let judged = self.0.judge(leaf, rest, now);
        judged.map_err(Refusal::to_tls)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(Refusal::UnknownProtocol.to_tls())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &signature_algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}

/// Intermediates and roots that an issuer may show: its chain, and old and new roots while they are exchanged.
const CERTS_MAX: usize = 8;

/// A leaf and the longest chain that [`TrustBundle::verify`] looks at.
const CHAIN_CERTS: usize = 4;
