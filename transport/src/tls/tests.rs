use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{ServerName, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::identities::{CallerSvid, signature_algorithms};
use crate::svid::Leaf;
use crate::testing::Ca;

/// A visitor that takes whatever it is shown and remembers it.
#[derive(Debug, Default)]
struct Trusting(std::sync::Mutex<Option<Leaf>>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Leaf::parse(leaf).ok();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signature_algorithms().supported_schemes()
    }
}

fn identities(ca: &Ca, node: &str, services: &[&str]) -> Arc<Identities> {
    Identities::new(ca.set(node, services))
}

/// Whom the door saw, and whom the visitor saw. None where no connection came about.
async fn visit(door: &TlsAcceptor, svid: Option<Svid>) -> Option<(Option<String>, Option<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<Trusting>::default();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(TLS_13)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone());
    let config = match svid {
        Some(svid) => config.with_client_cert_resolver(Arc::new(CallerSvid(svid.certified_key()))),
        None => config.with_no_client_auth(),
    };
    let client = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = connector.connect(name, stream).await.ok()?;
        stream.write_all(b"x").await.ok()?;
        // In TLS 1.3 only reading tells whether the certificate was accepted.
        stream.read_u8().await.ok()
    };
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, leaf) = door.accept(stream).await.ok()?;
        let byte = stream.read_u8().await.ok()?;
        stream.write_u8(byte).await.ok()?;
        stream.shutdown().await.ok()?;
        Some(leaf)
    };
    let both = async { tokio::join!(client, server) };
    let met = tokio::time::timeout(Duration::from_secs(20), both).await;
    let (answered, leaf) = met.expect("a handshake ends");
    answered?;
    let id = |leaf: Leaf| leaf.id.to_string();
    let shown = seen.0.lock().unwrap().take();
    let proved = leaf?.map(|credential| credential.id().to_string());
    Some((proved, shown.map(id)))
}

#[tokio::test]
async fn a_visitor_may_prove_who_it_is_and_need_not() {
    let ca = Ca::new();
    let held = identities(&ca, "n1", &["web"]);
    let door = TlsAcceptor::new(held.clone(), Visitors::MayProve).unwrap();
    let node = Some("spiffe://test.example/node/n1".to_owned());
    assert_eq!(visit(&door, None).await, Some((None, node.clone())));
    let web = held.current().service("web").unwrap().clone();
    let proved = Some("spiffe://test.example/svc/web".to_owned());
    assert_eq!(
        visit(&door, Some(web.clone())).await,
        Some((proved, node.clone()))
    );
    // Who is not asked is nobody.
    let open = TlsAcceptor::new(held, Visitors::Unknown).unwrap();
    assert_eq!(visit(&open, Some(web)).await, Some((None, node)));
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused() {
    let ca = Ca::new();
    let door = TlsAcceptor::new(identities(&ca, "n1", &[]), Visitors::MayProve).unwrap();
    let other = identities(&Ca::new(), "n1", &["web"]);
    let web = other.current().service("web").unwrap().clone();
    assert_eq!(visit(&door, Some(web)).await, None);
}

#[tokio::test]
async fn a_certificate_from_elsewhere_is_shown_instead() {
    let ca = Ca::new();
    let door = TlsAcceptor::new(identities(&ca, "n1", &[]), Visitors::Unknown).unwrap();
    let (chain, key) = ca.sign(ca.params(&["spiffe://other.example/svc/front"]));
    door.show(chain.as_bytes(), key.as_bytes()).unwrap();
    let front = Some("spiffe://other.example/svc/front".to_owned());
    assert_eq!(visit(&door, None).await, Some((None, front.clone())));
    // What does not fit changes nothing.
    let (_, other) = ca.sign(ca.params(&["spiffe://other.example/svc/other"]));
    assert!(door.show(chain.as_bytes(), other.as_bytes()).is_err());
    assert!(door.show(b"", key.as_bytes()).is_err());
    assert_eq!(visit(&door, None).await, Some((None, front)));
}
