//! X.509-SVIDs and the trust bundle: what proves an identity and what a proof is checked against.
//!
//! One function, [`TrustBundle::verify`], judges every chain: of clients, of servers and of those that sign records.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::chain::{self, Root};
use crate::identity::{SpiffeId, TrustDomain};
use crate::line::{Line, Signers};
use crate::revocation::{KeyHash, Revocations};

/// A certificate chain with its private key: what this agent shows to prove one identity. Cheap to clone.
#[derive(Clone)]
pub struct Svid {
    leaf: Leaf,
    key: Arc<CertifiedKey>,
}

impl Svid {
    /// Reads a chain (leaf first, intermediates after) and a PKCS#8 key, both PEM, and checks that the key belongs to the
    /// leaf and that the leaf has the form of an SVID. Whether anyone trusts it is not checked here.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SvidError> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| SvidError::Pem {
                what: "certificate",
                source,
            })?;
        if chain.is_empty() {
            return Err(SvidError::Empty);
        }
        let leaf = Leaf::of_chain(&chain).map_err(SvidError::Leaf)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| SvidError::Pem {
            what: "private key",
            source,
        })?;
        let key =
            CertifiedKey::from_der(chain, key, &default_provider()).map_err(SvidError::Key)?;
        Ok(Self {
            leaf,
            key: Arc::new(key),
        })
    }

    /// Whom it proves.
    pub fn id(&self) -> &SpiffeId {
        &self.leaf.id
    }

    /// What the leaf says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// The chain in DER, leaf first.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        self.key.cert.iter().map(|cert| cert.to_vec()).collect()
    }

    /// Signs `message` with the leaf's key: ECDSA over P-256 with SHA-256, as [`Leaf::verify_signature`] expects.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SvidError> {
        let scheme = [SignatureScheme::ECDSA_NISTP256_SHA256];
        let signer = self
            .key
            .key
            .choose_scheme(&scheme)
            .ok_or(SvidError::NotP256)?;
        signer.sign(message).map_err(SvidError::Key)
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("id", self.id())
            .field("not_after", &self.leaf.not_after)
            .finish_non_exhaustive()
    }
}

/// What counts in a leaf certificate that has the form of an X.509-SVID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The one URI SAN.
    pub id: SpiffeId,
    /// The host that it was issued to: the name of a node, or the common name of a service's certificate. Never proof of
    /// anything, only for revoking all that a host holds; certificates that another CA makes may say nothing.
    pub host: Option<String>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Serial number as big-endian bytes.
    pub serial: Vec<u8>,
    /// The subject public key as an uncompressed point (or whatever the key type's bit string holds).
    pub public_key: Vec<u8>,
    /// By which it can be revoked.
    pub key_hash: KeyHash,
    /// The line that it belongs to, if it names one.
    pub line: Option<Line>,
    /// By which a revocation of its host or identity judges: the beginning of the line. A leaf without a line began at the
    /// epoch if an issuer of ours signed it, and otherwise when it became valid.
    pub begins: SystemTime,
    /// The issuers of ours that signed leaves of its line, those of the chain that it was read from included.
    pub signers: Signers,
}

impl Leaf {
    /// Reads the leaf of a chain, the first of it. Checks its form, and that the intermediates can be read; neither signatures
    /// nor dates.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Self, Refusal> {
        let (first, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let mut leaf = Self::parse(first)?;
        let mut is_ours = false;
        for der in intermediates {
            is_ours |= leaf.signers.add_intermediate(der)?;
        }
        if is_ours && leaf.line.is_none() {
            leaf.begins = UNIX_EPOCH;
        }
        Ok(leaf)
    }

    /// As [`Leaf::of_chain`], for a chain of plain DER.
    pub fn of_der(chain: &[Vec<u8>]) -> Result<Self, Refusal> {
        Self::of_chain(&borrow(chain))
    }

    /// Checks the form of a leaf: X.509-SVID specification §3 to §4.4 and SPIFFE ID §2. Not its signature or dates. A line that
    /// begins later than the leaf, give or take what clocks are apart, is refused: it would outrun revocations.
    pub fn parse(der: &[u8]) -> Result<Self, Refusal> {
        let (rest, cert) =
            X509Certificate::from_der(der).map_err(|_detail| Refusal::BadEncoding)?;
        if !rest.is_empty() {
            return Err(Refusal::BadEncoding);
        }
        check_usage(&cert)?;
        let id = SpiffeId::parse(single_uri(&cert)?).map_err(|_detail| Refusal::NotSpiffe)?;
        let not_before = system_time(cert.validity().not_before.timestamp());
        let line = Line::of(&cert)?;
        let begins = line.as_ref().map_or(not_before, |line| line.begins);
        if begins > not_before + DATED_BACK {
            return Err(Refusal::LineAhead);
        }
        let host = id
            .node_name()
            .map(str::to_owned)
            .or_else(|| common_name(&cert));
        Ok(Self {
            id,
            host,
            not_before,
            not_after: system_time(cert.validity().not_after.timestamp()),
            serial: cert.raw_serial().to_vec(),
            public_key: cert.public_key().subject_public_key.data.to_vec(),
            key_hash: KeyHash::of(cert.public_key().raw),
            signers: line
                .as_ref()
                .map_or_else(Signers::default, |line| line.signers.clone()),
            line,
            begins,
        })
    }

    /// Whether `signature` over `message` was made by this leaf's key with [`Svid::sign`].
    pub fn verify_signature(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        Self::verify_with(&self.public_key, message, signature)
    }

    /// The same with nothing but the leaf's `public_key`.
    pub fn verify_with(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key)
            .verify(message, signature)
            .map_err(|_detail| Refusal::BadSignature)
    }

    /// When it was signed, as far as its dates tell: issuers of ours date it back.
    pub fn issued(&self) -> SystemTime {
        match self.line {
            Some(_) => self.not_before + DATED_BACK,
            None => self.not_before,
        }
    }

    /// Time until it ends; zero once it has.
    pub fn time_left(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }
}

/// The root certificates of one trust domain. Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    roots: Arc<[Root]>,
    certs: Arc<[CertificateDer<'static>]>,
    revocations: Arc<Revocations>,
}

impl TrustBundle {
    /// Reads PEM root certificates. An empty or unreadable bundle is an error: nobody is trusted by accident.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, SvidError> {
        let certs = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certs = certs.map_err(|source| SvidError::Pem {
            what: "trust bundle",
            source,
        })?;
        Self::of(trust_domain, certs)
    }

    /// A bundle of one root in DER.
    pub(crate) fn of_root(
        trust_domain: TrustDomain,
        root: CertificateDer<'static>,
    ) -> Result<Self, SvidError> {
        Self::of(trust_domain, vec![root])
    }

    fn of(
        trust_domain: TrustDomain,
        certs: Vec<CertificateDer<'static>>,
    ) -> Result<Self, SvidError> {
        let roots = certs
            .iter()
            .map(Root::read)
            .collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() {
            return Err(SvidError::Empty);
        }
        Ok(Self {
            trust_domain,
            roots: roots.into(),
            certs: certs.into(),
            revocations: Arc::default(),
        })
    }

    /// Its certificates, in their order.
    pub(crate) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.certs
    }

    /// Whether a root with this SHA-256 of its DER is among them.
    pub fn has_root(&self, sha256: &[u8; 32]) -> bool {
        let mut certs = self.certs.iter();
        certs.any(|cert| digest(&SHA256, cert).as_ref() == sha256)
    }

    /// The root that a chain (leaf first) leads to, in DER: what a token pins.
    pub fn root_of(&self, chain: &[Vec<u8>], now: SystemTime) -> Option<Vec<u8>> {
        let mut certs = self.certs.iter();
        let root = certs.find(|root| {
            Self::of_root(self.trust_domain.clone(), (*root).clone())
                .is_ok_and(|bundle| bundle.verify_der(chain, now).is_ok())
        });
        root.map(|root| root.to_vec())
    }

    /// The same roots, without those who are revoked.
    #[must_use]
    pub fn without(&self, revocations: Arc<Revocations>) -> Self {
        Self {
            revocations,
            ..self.clone()
        }
    }

    /// Who is revoked.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Whose identities it vouches for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Checks a chain (leaf first): form of the leaf, trust domain, path to one of our roots, validity at `now` and key usage
    /// of all that is shown, revocation.
    /// Costs about 0.2 ms for a chain of two.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Leaf, Refusal> {
        self.verify_until(chain, now).map(|(leaf, _)| leaf)
    }

    /// The same, with the moment from which on the chain is no longer good: the first end of leaf, intermediates and root.
    pub fn verify_until(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<(Leaf, SystemTime), Refusal> {
        let (_, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        if chain.len() > CHAIN_CERTS_MAX || chain.iter().any(|cert| cert.len() > CERT_BYTES_MAX) {
            return Err(Refusal::ChainTooLong);
        }
        let leaf = Leaf::of_chain(chain)?;
        if leaf.id.trust_domain() != &self.trust_domain {
            return Err(Refusal::OtherTrustDomain);
        }
        let ends = chain::check(&self.roots, chain, now)?;
        // Last, so that a revoked node is told so only if it once was one of us.
        self.revocations.check(&leaf, intermediates)?;
        Ok((leaf, ends))
    }

    /// Whether `signature` over `message` was made with the key of a root itself (ECDSA over P-256 with SHA-256), not of anything
    /// that a root signed.
    pub fn verify_root_signature(&self, message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
        let is_by = |root: &Root| Leaf::verify_with(&root.public_key, message, signature).is_ok();
        if self.roots.iter().any(is_by) {
            Ok(())
        } else {
            Err(Refusal::BadSignature)
        }
    }

    /// As [`TrustBundle::verify`], for a chain of plain DER.
    pub fn verify_der(&self, chain: &[Vec<u8>], now: SystemTime) -> Result<Leaf, Refusal> {
        self.verify_der_until(chain, now).map(|(leaf, _)| leaf)
    }

    /// As [`TrustBundle::verify_until`], for a chain of plain DER, as records carry it.
    pub fn verify_der_until(
        &self,
        chain: &[Vec<u8>],
        now: SystemTime,
    ) -> Result<(Leaf, SystemTime), Refusal> {
        self.verify_until(&borrow(chain), now)
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TrustBundle({}, {} roots)",
            self.trust_domain,
            self.roots.len()
        )
    }
}

/// Why a certificate chain, or what it signed, was not accepted. A closed set: it is a metric label, and the only thing
/// that is said of it to the peer is a TLS alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The peer showed none.
    #[error("no certificate was shown")]
    NoCertificate,
    /// Not X.509 in DER, or with bytes behind it.
    #[error("the certificate is not valid DER")]
    BadEncoding,
    /// More certificates or bytes than we look at.
    #[error(
        "the chain has more than {CHAIN_CERTS_MAX} certificates or one of over {CERT_BYTES_MAX} bytes"
    )]
    ChainTooLong,
    /// No URI SAN; a common name does not count.
    #[error("the leaf has no URI name")]
    NoUriName,
    /// An X.509-SVID has exactly one.
    #[error("the leaf has more than one URI name")]
    SeveralUriNames,
    /// The URI is not an identity of a node or service.
    #[error("the leaf's URI name is no identity of a node or service")]
    NotSpiffe,
    /// A CA certificate was shown as a leaf.
    #[error("a CA certificate was shown as a leaf")]
    CaAsLeaf,
    /// Key usage or extended key usage of the leaf or of an intermediate does not fit.
    #[error("the key usage of the leaf or of an intermediate does not fit")]
    KeyUsage,
    /// A line that begins after its leaf.
    #[error("the line of the certificate begins after the certificate")]
    LineAhead,
    /// Another mesh's identity.
    #[error("the identity belongs to another trust domain")]
    OtherTrustDomain,
    /// No path to one of our roots.
    #[error("no path to a trusted root")]
    UnknownIssuer,
    /// Past its end.
    #[error("the certificate has expired")]
    Expired,
    /// Before its start, which often means a wrong clock.
    #[error("the certificate is not valid yet (is a clock wrong?)")]
    NotYetValid,
    /// A good certificate, but an operator revoked its identity or key.
    #[error("the certificate is revoked")]
    Revoked,
    /// A good certificate, but an operator revoked the issuer that vouches for it.
    #[error("the issuer of the certificate is revoked")]
    RevokedIssuer,
    /// A good certificate of somebody else.
    #[error("the peer proved another identity than expected")]
    WrongIdentity,
    /// A signature that does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// No SVID of ours fits the name the peer asked for.
    #[error("no identity here for the name that was asked for")]
    UnknownName,
    /// No protocol in common.
    #[error("no protocol in common")]
    UnknownProtocol,
}

impl Refusal {
    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::BadEncoding => "bad_encoding",
            Self::ChainTooLong => "chain_too_long",
            Self::NoUriName => "no_uri_name",
            Self::SeveralUriNames => "several_uri_names",
            Self::NotSpiffe => "not_spiffe",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::KeyUsage => "key_usage",
            Self::LineAhead => "line_ahead",
            Self::OtherTrustDomain => "other_trust_domain",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::RevokedIssuer => "revoked_issuer",
            Self::WrongIdentity => "wrong_identity",
            Self::BadSignature => "bad_signature",
            Self::UnknownName => "unknown_name",
            Self::UnknownProtocol => "unknown_protocol",
        }
    }

    /// What TLS tells the peer: an alert, and a text that says no more than the alert. Nothing of dates or names of ours, nor on
    /// which side of our clock a certificate lies.
    pub(crate) fn to_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::Expired | Self::NotYetValid => CertificateError::Expired,
            Self::UnknownIssuer | Self::OtherTrustDomain => CertificateError::UnknownIssuer,
            Self::BadEncoding => CertificateError::BadEncoding,
            Self::Revoked | Self::RevokedIssuer => CertificateError::Revoked,
            _ => CertificateError::ApplicationVerificationFailure,
        })
    }
}

/// Why files do not make an SVID or a trust bundle. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// Broken PEM.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Which file's content.
        what: &'static str,
        /// What the reader said.
        source: rustls_pki_types::pem::Error,
    },
    /// No certificate inside.
    #[error("it holds no certificate")]
    Empty,
    /// The leaf is no SVID.
    #[error("the certificate is no SVID")]
    Leaf(#[source] Refusal),
    /// The key cannot be used, or is another certificate's.
    #[error("the key or certificate cannot be used")]
    Key(#[source] rustls::Error),
    /// Records are signed with P-256 only.
    #[error("the key is not ECDSA P-256")]
    NotP256,
    /// A root that may not sign certificates.
    #[error("a root is no CA certificate with the key usage keyCertSign")]
    NotAnAuthority,
}

/// X.509-SVID §4: a leaf is no CA, may sign, may not sign certificates, and serves both ends of a connection.
fn check_usage(cert: &X509Certificate<'_>) -> Result<(), Refusal> {
    if cert.is_ca() {
        return Err(Refusal::CaAsLeaf);
    }
    let usage = cert
        .key_usage()
        .map_err(|_detail| Refusal::BadEncoding)?
        .ok_or(Refusal::KeyUsage)?
        .value;
    if !usage.digital_signature() || usage.key_cert_sign() || usage.crl_sign() {
        return Err(Refusal::KeyUsage);
    }
    match cert
        .extended_key_usage()
        .map_err(|_detail| Refusal::BadEncoding)?
    {
        Some(extended) if !(extended.value.server_auth && extended.value.client_auth) => {
            Err(Refusal::KeyUsage)
        }
        _ => Ok(()),
    }
}

fn single_uri<'a>(cert: &'a X509Certificate<'_>) -> Result<&'a str, Refusal> {
    let names =
        cert.extensions()
            .iter()
            .filter_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            });
    let mut uris = names.flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next().ok_or(Refusal::NoUriName)?;
    if uris.next().is_some() {
        Err(Refusal::SeveralUriNames)
    } else {
        Ok(uri)
    }
}

fn borrow(chain: &[Vec<u8>]) -> Vec<CertificateDer<'_>> {
    let ders = chain.iter();
    ders.map(|der| CertificateDer::from(der.as_slice()))
        .collect()
}

/// The common name in the subject, if there is just one.
pub(crate) fn common_name(cert: &X509Certificate<'_>) -> Option<String> {
    let mut names = cert.subject().iter_common_name();
    let (name, None) = (names.next()?, names.next()) else {
        return None;
    };
    name.as_str().ok().map(str::to_owned)
}

pub(crate) fn system_time(unix_s: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(unix_s).unwrap_or(0))
}

/// Leaf, intermediate and two to spare; every further one costs a signature check before anyone is known.
const CHAIN_CERTS_MAX: usize = 4;

/// By how much issuers date certificates back, for hosts whose clocks are behind. A line begins at most so much later than the
/// validity of its leaf.
pub const DATED_BACK: Duration = Duration::from_secs(5 * 60);

/// Ours are under 1.5 KiB.
pub(crate) const CERT_BYTES_MAX: usize = 8 * 1024;
