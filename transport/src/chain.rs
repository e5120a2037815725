//! Paths from a leaf to a root, by RFC 5280 §6.1: webpki builds the path and checks signatures, names and dates on it;
//! what it leaves out is checked here.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::svid::{Refusal, SvidError, system_time};

/// A root of the mesh. A trust anchor of webpki is a name and a key alone, so its dates and its limit stand beside it.
#[derive(Debug)]
pub(crate) struct Root {
    anchor: TrustAnchor<'static>,
    /// The subject public key, as the certificate holds it.
    pub(crate) public_key: Vec<u8>,
    validity: Validity,
    /// CAs that may stand between it and a leaf (RFC 5937 §3 asks for it), if it says how many.
    cas_below_max: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Root {
    /// Reads a root. One that may not sign certificates (X.509-SVID §4.1 and §4.3) is an error: a leaf among the roots would
    /// vouch for whatever its key signs.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        // For its own error: what webpki cannot read is no anchor.
        let mut anchors = RootCertStore::empty();
        anchors.add(der.clone()).map_err(SvidError::Key)?;
        let anchor = anchors.roots.pop().ok_or(SvidError::Empty)?;
        let not_a_ca = || SvidError::NotAnAuthority;
        let (_, cert) = X509Certificate::from_der(der).map_err(|_detail| not_a_ca())?;
        check_authority(&cert).map_err(|_refusal| not_a_ca())?;
        let limits = cert.basic_constraints().map_err(|_detail| not_a_ca())?;
        Ok(Self {
            anchor,
            public_key: cert.public_key().subject_public_key.data.to_vec(),
            validity: Validity::of(&cert),
            cas_below_max: limits.and_then(|limits| limits.value.path_len_constraint),
        })
    }
}

impl Validity {
    fn of(cert: &X509Certificate<'_>) -> Self {
        let validity = cert.validity();
        Self {
            not_before: system_time(validity.not_before.timestamp()),
            not_after: system_time(validity.not_after.timestamp()),
        }
    }

    /// A certificate is over at `not_after`. RFC 5280 §4.1.2.5 counts that second in; without it a connection that waits for this
    /// moment would find the certificate still good.
    fn check(self, now: SystemTime) -> Result<SystemTime, Refusal> {
        if self.not_after <= now {
            Err(Refusal::Expired)
        } else if now < self.not_before {
            Err(Refusal::NotYetValid)
        } else {
            Ok(self.not_after)
        }
    }
}

/// Looks for a path from the leaf, the first of `chain`, to one of `roots`, and judges every certificate that is shown, also
/// those that no path needs. Returns when the first of them ends, the root included.
pub(crate) fn check(
    roots: &[Root],
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<SystemTime, Refusal> {
    let (first, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
    let leaf = EndEntityCert::try_from(first).map_err(|_detail| Refusal::BadEncoding)?;
    let root_ends = longest_root(roots, &leaf, intermediates, now)?;
    let (_, leaf) = X509Certificate::from_der(first).map_err(|_detail| Refusal::BadEncoding)?;
    let mut ends = Validity::of(&leaf).check(now)?.min(root_ends);
    for der in intermediates {
        let (_, cert) = X509Certificate::from_der(der).map_err(|_detail| Refusal::BadEncoding)?;
        check_authority(&cert)?;
        ends = ends.min(Validity::of(&cert).check(now)?);
    }
    Ok(ends)
}

/// The end of the root that vouches; of several that do, as while a root is replaced, of the one that ends last.
fn longest_root(
    roots: &[Root],
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<SystemTime, Refusal> {
    let mut longest: Result<SystemTime, _> = Err(Refusal::UnknownIssuer);
    for root in roots {
        let found = path(root, leaf, intermediates, now).and_then(|()| root.validity.check(now));
        longest = match (longest, found) {
            (Ok(one), Ok(other)) => Ok(one.max(other)),
            (Ok(one), Err(_)) => Ok(one),
            // A root that knows nothing of the chain says less than one that does.
            (Err(refusal), Err(Refusal::UnknownIssuer)) => Err(refusal),
            (Err(_), found) => found,
        };
    }
    longest
}

fn path(
    root: &Root,
    leaf: &EndEntityCert<'_>,
    intermediates: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), Refusal> {
    let unix = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let keeps_limit = |path: &VerifiedPath<'_>| {
        let cas = path.intermediate_certificates().count();
        match root.cas_below_max {
            Some(most) if cas > most as usize => Err(Error::PathLenConstraintViolated),
            _ => Ok(()),
        }
    };
    let found = leaf.verify_for_usage(
        ALGORITHMS,
        std::slice::from_ref(&root.anchor),
        intermediates,
        UnixTime::since_unix_epoch(unix),
        KeyUsage::server_auth(),
        None,
        Some(&keeps_limit),
    );
    found.map(drop).map_err(|error| refusal(&error))
}

/// RFC 5280 §6.1.4 (k) and (n), and X.509-SVID §4.3, which demands the key usage: a CA that may sign certificates. Where it
/// names what they are for, that is both ends of a connection, as leaves have to; webpki asks for the server's alone.
pub(crate) fn check_authority(cert: &X509Certificate<'_>) -> Result<(), Refusal> {
    let usage = cert.key_usage().map_err(|_detail| Refusal::BadEncoding)?;
    let may_sign = usage.is_some_and(|usage| usage.value.key_cert_sign());
    let extended = cert
        .extended_key_usage()
        .map_err(|_detail| Refusal::BadEncoding)?;
    let is_for_both = extended.is_none_or(|usage| {
        let usage = usage.value;
        usage.any || (usage.server_auth && usage.client_auth)
    });
    if cert.is_ca() && may_sign && is_for_both {
        Ok(())
    } else {
        Err(Refusal::KeyUsage)
    }
}

fn refusal(error: &Error) -> Refusal {
    match error {
        Error::CertExpired { .. } | Error::InvalidCertValidity => Refusal::Expired,
        Error::CertNotValidYet { .. } => Refusal::NotYetValid,
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => Refusal::KeyUsage,
        Error::BadDer | Error::BadDerTime | Error::TrailingData(_) => Refusal::BadEncoding,
        _ => Refusal::UnknownIssuer,
    }
}

/// What a chain may be signed with. RSA is left out: nothing of ours makes it, and small RSA keys need not be weighed.
pub(crate) const ALGORITHMS: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = &[
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
];
