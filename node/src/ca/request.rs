//! Certificate signing requests: made where the key is, judged where it is signed.
//!
//! The issuer takes nothing from a request but the public key. That it also must name the right identity, be signed by
//! its key and ask for nothing else is so that two ends that disagree find out.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PublicKey,
    SanType,
};
use starling_transport::SpiffeId;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::{CaError, new_key};

/// A new key with the request for its certificate.
pub struct Asking {
    /// DER.
    pub request: Vec<u8>,
    /// PKCS#8, PEM.
    pub key_pem: String,
}

impl Asking {
    /// Makes a key and asks for a certificate of `id`.
    pub fn new(id: &SpiffeId) -> Result<Self, CaError> {
        let key = new_key()?;
        Ok(Self {
            request: request(id, &key)?,
            key_pem: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

fn request(id: &SpiffeId, key: &KeyPair) -> Result<Vec<u8>, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.as_str().try_into()?)];
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Why a request is not signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    #[error("it is not a certificate signing request of at most {REQUEST_BYTES_MAX} bytes")]
    Encoding,
    #[error("it is not signed by the key that it is about")]
    Signature,
    #[error("its key is not on the curve P-256")]
    Key,
    #[error("it names another identity, or more than one")]
    Identity,
    #[error("it asks for more than an identity")]
    More,
}

/// The public key of a good request for `id`.
pub(super) fn check(der: &[u8], id: &SpiffeId) -> Result<PublicKey, RequestError> {
    if der.len() > REQUEST_BYTES_MAX {
        return Err(RequestError::Encoding);
    }
    let parsed = X509CertificationRequest::from_der(der);
    let (rest, parsed) = parsed.map_err(|_detail| RequestError::Encoding)?;
    if !rest.is_empty() {
        return Err(RequestError::Encoding);
    }
    check_key(&parsed)?;
    check_names(&parsed, id)?;
    let signed = CertificateSigningRequestParams::from_der(&der.into());
    Ok(signed
        .map_err(|_detail| RequestError::Signature)?
        .public_key)
}

/// An uncompressed point, by name of the curve: what rcgen would go by alone is the algorithm of the signature.
fn check_key(request: &X509CertificationRequest<'_>) -> Result<(), RequestError> {
    let key = &request.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|any| any.as_oid().ok());
    let is_p256 = curve.is_some_and(|oid| oid.to_id_string() == PRIME256V1);
    let point = &key.subject_public_key.data;
    if is_p256 && point.len() == POINT_BYTES && point[0] == 4 {
        Ok(())
    } else {
        Err(RequestError::Key)
    }
}

fn check_names(request: &X509CertificationRequest<'_>, id: &SpiffeId) -> Result<(), RequestError> {
    let info = &request.certification_request_info;
    if info.subject.iter().next().is_some() || info.attributes().len() > 1 {
        return Err(RequestError::More);
    }
    let mut extensions = request.requested_extensions().into_iter().flatten();
    let (Some(ParsedExtension::SubjectAlternativeName(names)), None) =
        (extensions.next(), extensions.next())
    else {
        return Err(RequestError::More);
    };
    match names.general_names.as_slice() {
        [GeneralName::URI(uri)] if *uri == id.as_str() => Ok(()),
        _ => Err(RequestError::Identity),
    }
}

/// Reads `data` as a request, for fuzzing: any bytes are judged, never a panic.
#[doc(hidden)]
pub fn fuzz(data: &[u8]) {
    let id = SpiffeId::parse("spiffe://example.org/node/n2").expect("an identity");
    let _judged = check(data, &id);
}

/// Ours are about 250 bytes.
const REQUEST_BYTES_MAX: usize = 2048;
const PRIME256V1: &str = "1.2.840.10045.3.1.7";
const POINT_BYTES: usize = 65;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        DnType, IsCa, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData,
    };

    use super::*;

    fn id() -> SpiffeId {
        SpiffeId::parse("spiffe://example.org/node/n2").unwrap()
    }

    fn made(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id().as_str().try_into().unwrap())];
        change(&mut params);
        params.serialize_request(key).unwrap().der().to_vec()
    }

    #[test]
    fn a_request_gives_its_key_and_nothing_else() {
        let asking = Asking::new(&id()).unwrap();
        let key = KeyPair::from_pem(&asking.key_pem).unwrap();
        let found = check(&asking.request, &id()).unwrap();
        assert_eq!(found.der_bytes(), key.der_bytes());
    }

    #[test]
    fn requests_that_are_wrong_in_one_way_are_refused_for_it() {
        let key = new_key().unwrap();
        let check_made = |key: &KeyPair, change: fn(&mut CertificateParams), error| {
            let judged = check(&made(key, change), &id());
            assert_eq!(judged.map(drop), Err(error));
        };
        let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        check_made(&p384, |_| {}, RequestError::Key);
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        check_made(&ed25519, |_| {}, RequestError::Key);
        let other = |params: &mut CertificateParams| {
            let uri = "spiffe://example.org/node/n3".try_into().unwrap();
            params.subject_alt_names = vec![SanType::URI(uri)];
        };
        check_made(&key, other, RequestError::Identity);
        let two = |params: &mut CertificateParams| {
            let dns = "n2.node.example.org".try_into().unwrap();
            params.subject_alt_names.push(SanType::DnsName(dns));
        };
        check_made(&key, two, RequestError::Identity);
        check_made(
            &key,
            |params| params.subject_alt_names.clear(),
            RequestError::More,
        );
        let named = |params: &mut CertificateParams| {
            params.distinguished_name.push(DnType::CommonName, "n2");
        };
        check_made(&key, named, RequestError::More);
        let usage = |params: &mut CertificateParams| {
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        };
        check_made(&key, usage, RequestError::More);
        let ca = |params: &mut CertificateParams| {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        };
        check_made(&key, ca, RequestError::More);
    }

    #[test]
    fn a_request_with_anything_behind_it_or_a_broken_signature_is_refused() {
        let mut der = Asking::new(&id()).unwrap().request;
        der.push(0);
        assert_eq!(check(&der, &id()).map(drop), Err(RequestError::Encoding));
        der.pop();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert_eq!(check(&der, &id()).map(drop), Err(RequestError::Signature));
        assert_eq!(check(&[], &id()).map(drop), Err(RequestError::Encoding));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_brings_another_key_in(at in 0usize..1000, bit in 0u8..8) {
            let asking = Asking::new(&id()).unwrap();
            let key = KeyPair::from_pem(&asking.key_pem).unwrap();
            let mut der = asking.request;
            let at = at % der.len();
            der[at] ^= 1 << bit;
            // Some bits say how the signature is packed, and nothing of what is signed.
            if let Ok(found) = check(&der, &id()) {
                prop_assert_eq!(found.der_bytes(), key.der_bytes());
            }
        }
    }
}
