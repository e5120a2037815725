//! TLS over TCP, for people and programs that are no agents: whoever connects may show a certificate of this mesh, and need
//! not. What is told to whom is the caller's business.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;

use crate::credential::Credential;
use crate::endpoint::{TLS_13, provider};
use crate::identities::{CallerVerifier, Identities};
use crate::svid::{Svid, SvidError};

/// Makes TLS connections of TCP connections. Cheap to clone.
#[derive(Clone)]
pub struct TlsAcceptor {
    inner: tokio_rustls::TlsAcceptor,
    shown: Arc<Shown>,
}

/// A connection whose handshake is done.
pub type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// Whether visitors are asked for a certificate. Browsers that have one ask their users which to show, so it is not done
/// for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visitors {
    /// Nobody is known by a certificate.
    Unknown,
    /// Who shows a certificate must be one of this mesh; who shows none is let in as nobody.
    MayProve,
}

impl TlsAcceptor {
    /// Shows the node's SVID of the moment, unless told otherwise.
    pub fn new(identities: Arc<Identities>, visitors: Visitors) -> Result<Self, rustls::Error> {
        let shown = Arc::new(Shown {
            identities: identities.clone(),
            own: ArcSwapOption::empty(),
        });
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(TLS_13)?;
        let config = match visitors {
            Visitors::Unknown => config.with_no_client_auth(),
            Visitors::MayProve => config.with_client_cert_verifier(Arc::new(CallerVerifier {
                identities,
                is_mandatory: false,
            })),
        };
        let mut config = config.with_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(Self {
            inner: Arc::new(config).into(),
            shown,
        })
    }

    /// From now on shows this chain (leaf first) instead, both PEM: one that browsers know, from elsewhere.
    pub fn show(&self, chain: &[u8], key: &[u8]) -> Result<(), SvidError> {
        let pem = |what| move |source| SvidError::Pem { what, source };
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(pem("certificate"))?;
        if chain.is_empty() {
            return Err(SvidError::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("private key"))?;
        let own = CertifiedKey::from_der(chain, key, &default_provider());
        self.shown
            .own
            .store(Some(Arc::new(own.map_err(SvidError::Key)?)));
        Ok(())
    }

    /// Shakes hands. The credential is there if the client proved an identity of this mesh; it has to be judged again for as
    /// long as the connection stands. Bound it in time.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(TlsStream, Option<Credential>)> {
        let stream = self.inner.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let chain = connection.peer_certificates();
        let chain = chain.map(|chain| chain.iter().map(|cert| cert.clone().into_owned()));
        // The verifier read it before.
        let credential = chain.and_then(|chain| Credential::new(chain.collect()).ok());
        Ok((stream, credential))
    }
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor").finish_non_exhaustive()
    }
}

/// What visitors are shown.
#[derive(Debug)]
struct Shown {
    identities: Arc<Identities>,
    own: ArcSwapOption<CertifiedKey>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let node = || Svid::certified_key(&self.identities.current().node);
        Some(self.own.load_full().unwrap_or_else(node))
    }
}

#[cfg(test)]
mod tests;
