//! The suite of gossip, over QUIC with certificates of the real CA.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use starling_gossip::testing::{Network, Port, suite};
use starling_gossip::{Clock, Signer};
use starling_transport::{
    Courier, Endpoint, Identities, IdentitySet, Options, SpiffeId, Svid, TrustBundle, TrustDomain,
};

use super::{BundleVerifier, QuicCarrier, SvidSigner};
use crate::ca::{Authority, RootKey};
use crate::state::{StateDir, TRUST};

/// Loopback; each node has an endpoint of its own.
struct Loopback {
    authority: Authority,
    trust: TrustBundle,
    trust_domain: TrustDomain,
    state_dir: tempfile::TempDir,
}

impl Loopback {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let state = StateDir::create(&parent.path().join("state")).unwrap();
        let trust_domain = TrustDomain::parse("test.example").unwrap();
        let authority = Authority::init(&state, &trust_domain, &"n1".parse().unwrap()).unwrap();
        let trust =
            TrustBundle::from_pem(trust_domain.clone(), &state.read(TRUST).unwrap()).unwrap();
        Self {
            authority,
            trust,
            trust_domain,
            state_dir: parent,
        }
    }

    fn svid(&self, id: &SpiffeId) -> Svid {
        let issued = self.authority.issue(id, Duration::from_secs(3600)).unwrap();
        Svid::from_pem(issued.chain_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap()
    }

    fn identities(&self, id: &SpiffeId) -> Arc<Identities> {
        let (trust, node) = (self.trust.clone(), self.svid(id));
        Identities::new(IdentitySet {
            trust,
            node,
            services: BTreeMap::new(),
        })
    }
}

#[async_trait::async_trait]
impl Network for Loopback {
    fn trust_domain(&self) -> &str {
        self.trust_domain.as_str()
    }

    async fn port(&self, name: &str) -> Port {
        let id = SpiffeId::node(&self.trust_domain, name).unwrap();
        let identities = self.identities(&id);
        let options = Options {
            listen: ([127, 0, 0, 1], 0).into(),
            reset_key: [1; 64],
            streams_per_peer: 64,
            connections_max: 64,
        };
        let endpoint = Endpoint::bind(&options, identities.clone()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        let courier = Courier::new(endpoint.clone(), id.clone());
        let adopter = courier.clone();
        tokio::spawn(async move {
            while let Some(session) = endpoint.accept().await {
                adopter.adopt(session);
            }
        });
        Port {
            name: name.parse().unwrap(),
            addr,
            carrier: Arc::new(QuicCarrier(courier)),
            signer: SvidSigner::new(identities.clone(), id),
            verifier: Arc::new(BundleVerifier(identities)),
        }
    }

    /// Proved by a set that holds nothing else, as the signer does not care whose set it is.
    fn service(&self, name: &str) -> Arc<dyn Signer> {
        let id = SpiffeId::service(&self.trust_domain, name).unwrap();
        SvidSigner::new(self.identities(&id), id)
    }

    fn sign_as_root(&self, message: &[u8]) -> Vec<u8> {
        let state = StateDir::open(&self.state_dir.path().join("state")).unwrap();
        RootKey::load(&state).unwrap().sign(message).unwrap()
    }

    fn clock(&self) -> Clock {
        Clock::system()
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(200)
    }
}

#[tokio::test]
async fn gossip_over_quic_shows_what_it_shows_in_memory() {
    suite::run(&Loopback::new()).await;
}
