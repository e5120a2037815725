//! A small CA and endpoints on loopback for this crate's tests.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::endpoint::{Endpoint, Options};
use crate::identities::{Identities, IdentitySet};
use crate::identity::{SpiffeId, TrustDomain};
use crate::svid::{Svid, SvidError, TrustBundle};

/// A root that signs leaves directly.
pub(crate) struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
    domain: TrustDomain,
}

impl Ca {
    pub(crate) fn new() -> Self {
        Self::with(|_| ())
    }

    /// A root whose certificate `change` makes another.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = authority("test root");
        change(&mut params);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            issuer,
            domain: TrustDomain::parse("test.example").unwrap(),
        }
    }

    /// The root with its key.
    pub(crate) fn issuer(&self) -> &CertifiedIssuer<'static, KeyPair> {
        &self.issuer
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        self.try_bundle().unwrap()
    }

    pub(crate) fn try_bundle(&self) -> Result<TrustBundle, SvidError> {
        TrustBundle::from_pem(self.domain.clone(), self.issuer.as_ref().pem().as_bytes())
    }

    /// A leaf's parameters, good as they are.
    pub(crate) fn params(&self, uris: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        params
    }

    /// An intermediate below the root, good unless `change` makes it another.
    pub(crate) fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Intermediate {
        let key = KeyPair::generate().unwrap();
        let mut params = authority("test intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        change(&mut params);
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Intermediate {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Signs; returns chain and key in PEM.
    pub(crate) fn sign(&self, params: CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    /// Signs a certificate for a key that the caller keeps; returns it in PEM.
    pub(crate) fn sign_with(&self, params: CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    /// What an intermediate's certificate says, good as it is.
    pub(crate) fn intermediate_params() -> CertificateParams {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
            .distinguished_name
            .push(DnType::CommonName, crate::issuer_name("n1", 7));
        params.not_before = OffsetDateTime::now_utc() - Duration::minutes(5);
        params.not_after = OffsetDateTime::now_utc() + Duration::hours(1);
        params
    }

    pub(crate) fn svid(&self, id: &SpiffeId) -> Svid {
        let (chain, key) = self.sign(self.params(&[id.as_str()]));
        Svid::from_pem(chain.as_bytes(), key.as_bytes()).unwrap()
    }

    pub(crate) fn node(&self, name: &str) -> SpiffeId {
        SpiffeId::node(&self.domain, name).unwrap()
    }

    pub(crate) fn service(&self, name: &str) -> SpiffeId {
        SpiffeId::service(&self.domain, name).unwrap()
    }

    pub(crate) fn set(&self, node: &str, services: &[&str]) -> IdentitySet {
        let svids = services
            .iter()
            .map(|name| self.service(name))
            .map(|id| (id.clone(), self.svid(&id)));
        IdentitySet {
            trust: self.bundle(),
            node: self.svid(&self.node(node)),
            services: svids.collect(),
        }
    }

    /// An endpoint on loopback that holds these identities.
    pub(crate) fn endpoint(&self, node: &str, services: &[&str]) -> Host {
        self.endpoint_at(([127, 0, 0, 1], 0).into(), node, services)
    }

    pub(crate) fn endpoint_at(&self, listen: SocketAddr, node: &str, services: &[&str]) -> Host {
        let identities = Identities::new(self.set(node, services));
        let options = Options {
            listen,
            reset_key: [7; 64],
            streams_per_peer: 64,
            connections_max: 100,
        };
        let endpoint = Endpoint::bind(&options, Arc::clone(&identities)).unwrap();
        let addr = endpoint.local_addr().unwrap();
        Host {
            endpoint,
            identities,
            addr,
        }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// A certificate of a CA between the root and the leaves.
pub(crate) struct Intermediate {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Intermediate {
    /// An SVID whose chain is its leaf and this intermediate.
    pub(crate) fn svid(&self, params: CertificateParams) -> Svid {
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let chain = format!("{leaf}{}", self.pem);
        Svid::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}

pub(crate) struct Host {
    pub(crate) endpoint: Endpoint,
    pub(crate) identities: Arc<Identities>,
    pub(crate) addr: SocketAddr,
}
