//! The identities that this agent holds, swapped whole at run time, and how TLS uses them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use ::metrics::counter;
use arc_swap::{ArcSwap, ArcSwapOption};
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
use crate::refused;
use crate::revocation::Revocations;
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
    current: ArcSwap<InForce>,
    revision: watch::Sender<u64>,
    pub(crate) refused: ArcSwapOption<RefusedByPeer>,
}

/// A set, with what is known of its SVIDs by its own trust.
#[derive(Debug)]
pub(crate) struct InForce {
    pub(crate) set: Arc<IdentitySet>,
    /// When each of them was found good, and until when it is.
    good: RwLock<BTreeMap<SpiffeId, Range<SystemTime>>>,
}

impl InForce {
    fn new(set: IdentitySet) -> Self {
        Self {
            set: Arc::new(set),
            good: RwLock::default(),
        }
    }

    pub(crate) fn good(&self, id: &SpiffeId) -> Option<Range<SystemTime>> {
        let good = self.good.read().unwrap_or_else(PoisonError::into_inner);
        good.get(id).cloned()
    }

    /// Only of SVIDs of the set, which bounds the table.
    pub(crate) fn note_good(&self, id: &SpiffeId, when: Range<SystemTime>) {
        let mut good = self.good.write().unwrap_or_else(PoisonError::into_inner);
        good.insert(id.clone(), when);
    }
}

/// A peer did not accept a certificate of ours.
#[derive(Debug, Clone)]
pub struct RefusedByPeer {
    /// What we proved, or tried to.
    pub id: SpiffeId,
    /// Who refused it.
    pub by: SocketAddr,
    /// What it said, which an alert of TLS tells coarsely.
    pub why: WhyRefused,
    /// When.
    pub at: SystemTime,
}

/// What an alert of TLS says of a certificate (RFC 8446 §6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyRefused {
    /// An operator revoked it, or its issuer.
    Revoked,
    /// It ended; or one of the two clocks is wrong.
    Expired,
    /// The peer belongs to another mesh, or its trust bundle is another.
    UnknownIssuer,
    /// Anything else.
    Unacceptable,
}

impl WhyRefused {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Unacceptable => "unacceptable",
        }
    }

    /// Reads the alert that a peer closed with; alerts are error codes of QUIC from 0x100 on (RFC 9001 §4.8).
    pub(crate) fn of_close(code: u64) -> Option<Self> {
        match code.checked_sub(0x100)? {
            44 => Some(Self::Revoked),
            45 => Some(Self::Expired),
            48 => Some(Self::UnknownIssuer),
            42 | 43 | 46 | 49 => Some(Self::Unacceptable),
            _ => None,
        }
    }
}

impl Identities {
    /// Starts with `set`.
    pub fn new(set: IdentitySet) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(InForce::new(set)),
            revision: watch::Sender::new(0),
            refused: ArcSwapOption::empty(),
        })
    }

    /// The set in force now.
    pub fn current(&self) -> Arc<IdentitySet> {
        Arc::clone(&self.current.load().set)
    }

    pub(crate) fn in_force(&self) -> Arc<InForce> {
        self.current.load_full()
    }

    /// Puts another set in force. Who was revoked stays so.
    pub fn replace(&self, set: IdentitySet) {
        self.swap(|old| IdentitySet {
            trust: set.trust.without(old.trust.revocations().clone()),
            ..set.clone()
        });
    }

    /// Puts another set of revocations in force. Connections of the revoked are closed at once.
    pub fn revoke(&self, revocations: Revocations) {
        let revocations = Arc::new(revocations);
        self.swap(|old| IdentitySet {
            trust: old.trust.without(revocations.clone()),
            ..old.clone()
        });
    }

    fn swap(&self, next: impl FnMut(&IdentitySet) -> IdentitySet) {
        let mut next = next;
        self.current.rcu(|old| InForce::new(next(&old.set)));
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// A peer closed our connection because of our certificate.
    pub(crate) fn refused(&self, refused: RefusedByPeer) {
        counter!(metrics::REFUSED_BY_PEERS, "reason" => refused.why.as_str()).increment(1);
        let before = self.refused.swap(Some(Arc::new(refused.clone())));
        let is_news =
            before.is_none_or(|before| (&before.id, before.why) != (&refused.id, refused.why));
        if is_news {
            tracing::error!(
                identity = %refused.id, peer.addr = %refused.by, reason = refused.why.as_str(),
                "a peer refuses this node's certificate"
            );
        }
    }

    /// A connection on which we proved `id` to the peer at `addr` has stood since `since`: an earlier refusal there is past.
    pub(crate) fn accepted(&self, id: &SpiffeId, addr: SocketAddr, since: SystemTime) {
        self.refused.rcu(|refused| {
            let is_past = |refused: &Arc<RefusedByPeer>| {
                (&refused.id, refused.by) == (id, addr) && refused.at <= since
            };
            refused.clone().filter(|refused| !is_past(refused))
        });
    }

    /// The last time that a peer refused a certificate of ours. Kept until that peer accepts it, or one that was issued later is
    /// in force.
    pub fn refused_by_peer(&self) -> Option<Arc<RefusedByPeer>> {
        let refused = self.refused.load_full()?;
        let in_force = self.current();
        // Dates are whole seconds, cut off.
        let issued = in_force.svid(&refused.id)?.leaf().issued() + Duration::from_secs(1);
        (issued <= refused.at).then_some(refused)
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
        let set = self.0.current();
        let svid = hello
            .server_name()
            .and_then(|name| set.by_server_name(name));
        if svid.is_none() {
            metrics::handshake_refused(Refusal::UnknownName, None);
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
pub(crate) struct CallerVerifier {
    pub(crate) identities: Arc<Identities>,
    /// Whether one without a certificate is turned away.
    pub(crate) is_mandatory: bool,
}

impl ClientCertVerifier for CallerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let trust = self.identities.current().trust.clone();
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
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
    let refusal = match trust.verify(&chain, now) {
        Ok(leaf) if expected.is_none_or(|callee| callee.accepts(&leaf.id)) => return Ok(()),
        Ok(_) => Refusal::WrongIdentity,
        Err(refusal) => refusal,
    };
    metrics::handshake_refused(refusal, refused::claimed(leaf));
    Err(refusal.to_tls())
}

pub(crate) fn signature_algorithms() -> WebPkiSupportedAlgorithms {
    default_provider().signature_verification_algorithms
}
