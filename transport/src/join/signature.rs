//! What only an issuer can say: signatures with the key of its intermediate.
//!
//! The certificate of a node proves a node, and any node can open a join port. So an answer counts only with a signature
//! by the key that signs certificates, over the exporter value of the one connection that it is for.

use std::time::SystemTime;

use ring::digest::{SHA256, digest};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::chain::{ALGORITHMS, check_authority};
use crate::svid::{CERT_BYTES_MAX, Refusal, TrustBundle};

/// A signature by the key of an intermediate, with the certificate of that intermediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSignature {
    /// The certificate, in DER.
    pub intermediate: Vec<u8>,
    /// The signature, by the algorithm that fits the certificate's key.
    pub signature: Vec<u8>,
}

/// An issuer's answer to one request on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAnswer {
    /// What the issuer answers.
    pub answer: Vec<u8>,
    /// Over [`SignedAnswer::message`].
    pub signature: IssuerSignature,
}

impl IssuerSignature {
    /// Checks that the intermediate may sign certificates, that a root of `trust` signed it, that both are within their
    /// validity at `now`, that it is not revoked, and that its key made the signature over `message`.
    pub fn verify(
        &self,
        message: &[u8],
        trust: &TrustBundle,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        if self.intermediate.len() > CERT_BYTES_MAX {
            return Err(Refusal::ChainTooLong);
        }
        let cert = parse(&self.intermediate)?;
        check_authority(&cert)?;
        // A root that was renewed with its key stands beside the one that has ended.
        let mut judged = Err(Refusal::UnknownIssuer);
        for root in trust
            .roots()
            .iter()
            .filter(|root| is_signed_by(&cert, root))
        {
            judged = judged.or(check_dates(&parse(root)?, now));
        }
        judged?;
        check_dates(&cert, now)?;
        if trust.revocations().has_intermediate(&self.intermediate)? {
            return Err(Refusal::RevokedIssuer);
        }
        verify_with(&self.intermediate, message, &self.signature)
    }
}

impl SignedAnswer {
    /// What is signed: for this purpose, this connection and this request. It begins with a text and never with the tag of
    /// a DER sequence, so that it cannot be the contents of a certificate.
    pub fn message(binding: &[u8; 32], request: &[u8], answer: &[u8]) -> Vec<u8> {
        let request = digest(&SHA256, request);
        [PURPOSE, binding, request.as_ref(), answer].concat()
    }

    /// Checks that an issuer under `trust` gave this answer to `request` on the connection with this binding.
    pub fn verify(
        &self,
        binding: &[u8; 32],
        request: &[u8],
        trust: &TrustBundle,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let message = Self::message(binding, request, &self.answer);
        self.signature.verify(&message, trust, now)
    }

    /// As it travels: certificate and signature, each behind its length in two bytes, then the answer.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.answer.len() + 2048);
        for part in [&self.signature.intermediate, &self.signature.signature] {
            bytes.extend(u16::try_from(part.len()).ok()?.to_be_bytes());
            bytes.extend(part);
        }
        bytes.extend(&self.answer);
        Some(bytes)
    }

    /// Reads what [`SignedAnswer::encode`] wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let part = |bytes| -> Option<(Vec<u8>, &[u8])> {
            let (length, rest) = <[u8]>::split_first_chunk::<2>(bytes)?;
            let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
            Some((part.to_vec(), rest))
        };
        let (intermediate, rest) = part(bytes)?;
        let (signature, answer) = part(rest)?;
        Some(Self {
            answer: answer.to_vec(),
            signature: IssuerSignature {
                intermediate,
                signature,
            },
        })
    }
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        _ => Err(Refusal::BadEncoding),
    }
}

/// Intermediates of a mesh are signed by a root itself, so the path has one step.
fn is_signed_by(cert: &X509Certificate<'_>, root: &CertificateDer<'_>) -> bool {
    let Ok(root_cert) = parse(root) else {
        return false;
    };
    let signature = &cert.signature_value.data;
    cert.issuer().as_raw() == root_cert.subject().as_raw()
        && cert.signature_algorithm == cert.tbs_certificate.signature
        && verify_with(root, cert.tbs_certificate.as_ref(), signature).is_ok()
}

fn check_dates(cert: &X509Certificate<'_>, now: SystemTime) -> Result<(), Refusal> {
    let unix_s = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let unix_s = i64::try_from(unix_s.as_secs()).unwrap_or(i64::MAX);
    let validity = cert.validity();
    if unix_s < validity.not_before.timestamp() {
        Err(Refusal::NotYetValid)
    } else if unix_s > validity.not_after.timestamp() {
        Err(Refusal::Expired)
    } else {
        Ok(())
    }
}

/// Verifies with the key of a certificate. Reading it as an end entity checks its form, and refuses critical extensions that
/// webpki does not know; it judges no path. A key fits one algorithm at most.
fn verify_with(der: &[u8], message: &[u8], signature: &[u8]) -> Result<(), Refusal> {
    let der = CertificateDer::from(der);
    let cert = EndEntityCert::try_from(&der).map_err(|_detail| Refusal::BadEncoding)?;
    let mut algorithms = ALGORITHMS.iter();
    let is_by_key = algorithms.any(|algorithm| {
        cert.verify_signature(*algorithm, message, signature)
            .is_ok()
    });
    if is_by_key {
        Ok(())
    } else {
        Err(Refusal::BadSignature)
    }
}

const PURPOSE: &[u8] = b"starling-join-answer/1\0";
