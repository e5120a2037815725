//! The identities that this agent holds, swapped whole at run time, and how TLS uses them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::sync::watch;

use crate::endpoint::{Callee, any_node_name};
use crate::identity::SpiffeId;
use crate::metrics;
use crate::svid::{Refusal, Svid, TrustBundle};

/// One consistent set: whom we trust, who this node is, which services it may speak for.
#[derive(Debug, Clone)]
pub struct IdentitySet {
    /// The roots of the mesh.
    pub trust: TrustBundle,
    /// The node's own SVID: used for gossip.
    pub node: Svid,
    /// SVIDs of services, by identity.
    pub services: BTreeMap<SpiffeId, Svid>,
}

impl IdentitySet {
    /// The SVID that proves `id`, if this node holds it.
    pub fn svid(&self, id: &SpiffeId) -> Option<&Svid> {
        if self.node.id() == id {
            Some(&self.node)
        } else {
            self.services.get(id)
        }
    }

    /// The service's SVID by its short name.
    pub fn service(&self, name: &str) -> Option<&Svid> {
        self.services
            .values()
            .find(|svid| svid.id().service_name() == Some(name))
    }

    /// The SVID that answers to a server name (SNI): a service's, the node's, or the node's by [`any_node_name`].
    pub(crate) fn by_server_name(&self, name: &str) -> Option<&Svid> {
        if name == any_node_name(self.trust.trust_domain()) {
            return Some(&self.node);
        }
        std::iter::once(&self.node)
            .chain(self.services.values())
            .find(|svid| svid.id().dns_name() == name)
    }
}

/// The set in force. Readers take a snapshot without a lock; [`Identities::replace`] swaps it for new handshakes, and
/// every live connection looks again whether it still may stand.
#[derive(Debug)]
pub struct Identities {
    current: ArcSwap<IdentitySet>,
    revision: watch::Sender<u64>,
}

impl Identities {
    /// Starts with `set`.
    pub fn new(set: IdentitySet) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(set),
            revision: watch::Sender::new(0),
        })
    }

    /// The set in force now.
    pub fn current(&self) -> Arc<IdentitySet> {
        self.current.load_full()
    }

    /// Puts another set in force.
    pub fn replace(&self, set: IdentitySet) {
        self.current.store(Arc::new(set));
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// How often the set was replaced.
    pub fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Tells of replacements.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

/// SNI picks the callee's SVID; a name that we hold no SVID for gets no certificate.
#[derive(Debug)]
pub(crate) struct ServerSvids(pub(crate) Arc<Identities>);

impl ResolvesServerCert for ServerSvids {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let set = self.0.current.load();
        let svid = hello
            .server_name()
            .and_then(|name| set.by_server_name(name));
        if svid.is_none() {
            metrics::handshake_refused(Refusal::UnknownName);
        }
        svid.map(Svid::certified_key)
    }
}

/// The SVID that a caller shows: taken once per dial, so that a connection has one identity for life.
#[derive(Debug)]
pub(crate) struct CallerSvid(pub(crate) Arc<CertifiedKey>);

impl ResolvesClientCert for CallerSvid {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges a caller's chain at the callee. Any identity of our trust domain may connect; what it may do is policy.
#[derive(Debug)]
pub(crate) struct CallerVerifier(pub(crate) Arc<Identities>);

impl ClientCertVerifier for CallerVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trust = self.0.current.load().trust.clone();
        judge(&trust, leaf, intermediates, now, None).map(|()| ClientCertVerified::assertion())
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

/// Judges a callee's chain at the caller: it must prove exactly the identity that was dialled.
#[derive(Debug)]
pub(crate) struct CalleeVerifier {
    pub(crate) trust: TrustBundle,
    pub(crate) expected: Callee,
}

impl ServerCertVerifier for CalleeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        judge(&self.trust, leaf, intermediates, now, Some(&self.expected))
            .map(|()| ServerCertVerified::assertion())
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

/// The one judgement of a handshake: counts what it refuses and tells the peer no more than an alert.
fn judge(
    trust: &TrustBundle,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    expected: Option<&Callee>,
) -> Result<(), rustls::Error> {
    let chain: Vec<_> = std::iter::once(leaf)
        .chain(intermediates)
        .cloned()
        .collect();
    let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(now.as_secs());
    let refusal = match trust.verify(&chain, now) {
        Ok(leaf) if expected.is_none_or(|callee| callee.accepts(&leaf.id)) => return Ok(()),
        Ok(_) => Refusal::WrongIdentity,
        Err(refusal) => refusal,
    };
    metrics::handshake_refused(refusal);
    Err(refusal.to_tls())
}

pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}
