//! The TLS of connections between agents: TLS 1.3, certificates of both ends, nothing that outlives a connection.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;

use crate::identities::{CalleeVerifier, CallerSvid, CallerVerifier, Identities, ServerSvids};
use crate::session::Protocol as Spoken;
use crate::svid::Svid;

/// Of the end that is dialled.
pub(crate) fn callee(identities: &Arc<Identities>) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(TLS_13)?
        .with_client_cert_verifier(Arc::new(CallerVerifier {
            identities: Arc::clone(identities),
            is_mandatory: true,
        }))
        .with_cert_resolver(Arc::new(ServerSvids(Arc::clone(identities))));
    tls.alpn_protocols = Spoken::ALL
        .iter()
        .map(|protocol| protocol.alpn().to_vec())
        .collect();
    // No tickets, no store: a resumed session would skip the verifier, and with it expiry and revocation.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    Ok(tls)
}

/// Of the end that dials.
pub(crate) fn caller(
    svid: &Svid,
    verifier: CalleeVerifier,
    protocol: Spoken,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(TLS_13)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(CallerSvid(svid.certified_key())));
    tls.alpn_protocols = vec![protocol.alpn().to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}

/// ring with AES-128-GCM first: the cheapest AEAD per byte where it was measured (docs/performance.md).
pub(crate) fn provider() -> rustls::crypto::CryptoProvider {
    let mut provider = default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

pub(crate) const TLS_13: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];
