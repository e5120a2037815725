//! The certificate authority of a mesh, as files in an issuer's state directory.
//!
//! A root that may be moved offline at once, an intermediate that signs, and leaves: one X.509-SVID for each node and
//! each service. What is issued is checked by the same code that peers will check it with before it is handed out.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{Certificate, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use ring::digest::{SHA256, digest};
use starling_gossip::documents::system::hex;
use starling_gossip::{NodeName, ServiceName};
use starling_transport::join::IssuerSignature;
use starling_transport::{
    Line, LineName, Refusal, Revocations, Signers, SpiffeId, Svid, TrustBundle, TrustDomain,
};

use crate::random;
use crate::state::{NODE_CHAIN, NODE_KEY, StateDir, StateError, TRUST, service_files};

#[cfg(test)]
mod aged;
mod book;
mod error;
mod life;
mod operator;
mod request;
mod template;

pub use book::{BOOK, Book, Signed};
pub use error::CaError;
pub(crate) use life::Life;
pub use operator::RootKey;
#[doc(hidden)]
pub use request::fuzz as fuzz_request;
pub use request::{Asking, RequestError};
pub(crate) use template::BACKDATED;

/// A CA that can issue: the intermediate with its key, and the roots to check against.
pub struct Authority {
    trust_domain: TrustDomain,
    trust_pem: String,
    trust: TrustBundle,
    intermediate_pem: String,
    intermediate_der: Vec<u8>,
    not_after: SystemTime,
    issuer: Issuer<'static, KeyPair>,
    book: Arc<Book>,
}

/// A new identity: chain (leaf first) and PKCS#8 key, both PEM.
pub struct Issued {
    pub chain_pem: String,
    pub key_pem: String,
    pub not_after: SystemTime,
}

/// What a certificate is to say besides the identity and its key.
#[derive(Debug, Clone)]
pub struct Terms<'t> {
    /// The host that a service's certificate is for, by which it can be revoked. Nodes name themselves.
    pub host: Option<&'t str>,
    /// How long it lives.
    pub lifetime: Duration,
    /// The line that it begins or goes on with. The issuer adds itself to its signers.
    pub line: Line,
}

/// A line that begins at `begins`, with its first leaf now.
pub fn new_line(begins: SystemTime) -> Result<Line, CaError> {
    Ok(Line {
        name: line_name()?,
        begins,
        first: SystemTime::now(),
        signers: Signers::default(),
    })
}

/// A name that no other line has.
pub fn line_name() -> Result<LineName, CaError> {
    random::bytes().map(LineName).map_err(CaError::Random)
}

impl Authority {
    /// Makes a root and an intermediate in `state`. Refuses when there is a CA or the identity of an existing mesh, as
    /// replacing either would cut this host off from the others.
    pub fn init(
        state: &StateDir,
        trust_domain: &TrustDomain,
        node: &NodeName,
    ) -> Result<Self, CaError> {
        for name in [
            ROOT_CERT,
            ROOT_KEY,
            INTERMEDIATE_CERT,
            INTERMEDIATE_KEY,
            TRUST,
            NODE_CHAIN,
        ] {
            if state.exists(name) {
                return Err(CaError::Exists {
                    path: state.path().join(name),
                });
            }
        }
        let now = SystemTime::now();
        let root_key = new_key()?;
        let root = template::root(trust_domain, now)?;
        let root_pem = root.self_signed(&root_key)?.pem();
        let root_key_pem = root_key.serialize_pem();
        let key = new_key()?;
        let intermediate = template::intermediate(trust_domain, node, now)?;
        let intermediate_pem = intermediate
            .signed_by(&key, &Issuer::new(root, root_key))?
            .pem();

        // The keys go first: a certificate without its key is no use, and a second `init` finds either.
        state.write(ROOT_KEY, root_key_pem.as_bytes())?;
        state.write(ROOT_CERT, root_pem.as_bytes())?;
        state.write(INTERMEDIATE_KEY, key.serialize_pem().as_bytes())?;
        state.write(INTERMEDIATE_CERT, intermediate_pem.as_bytes())?;
        state.write(TRUST, root_pem.as_bytes())?;
        Self::load(state)
    }

    /// Whether the root key is here; for asking before anything is written.
    pub fn check_root_key(state: &StateDir) -> Result<(), CaError> {
        if state.exists(ROOT_KEY) {
            return Ok(());
        }
        Err(CaError::NoRootKey {
            path: state.path().join(ROOT_KEY),
        })
    }

    /// Makes an intermediate for the issuer that `node` is to be, with the root key in `state`, and writes it to `out`
    /// beside what it is checked against. An intermediate that is there is replaced.
    pub fn add_issuer(state: &StateDir, out: &StateDir, node: &NodeName) -> Result<Self, CaError> {
        Self::check_root_key(state)?;
        let root_pem = text(state, ROOT_CERT, state.read(ROOT_CERT)?)?;
        let root_key = KeyPair::from_pem(&text(state, ROOT_KEY, state.read_secret(ROOT_KEY)?)?)?;
        let (trust_domain, _) =
            template::read(&root_pem).ok_or_else(|| CaError::NotAnIntermediate {
                path: state.path().join(ROOT_CERT),
            })?;
        // Where the root is kept there may be nothing else.
        let trust_pem = match state.exists(TRUST) {
            true => state.read(TRUST)?,
            false => root_pem.clone().into_bytes(),
        };
        let key = new_key()?;
        let pem = template::intermediate(&trust_domain, node, SystemTime::now())?
            .signed_by(&key, &Issuer::from_ca_cert_pem(&root_pem, root_key)?)?
            .pem();
        // The agent of that host may look while they are copied: a key without its certificate is not taken up.
        out.write(INTERMEDIATE_KEY, key.serialize_pem().as_bytes())?;
        out.write(INTERMEDIATE_CERT, pem.as_bytes())?;
        out.write(ROOT_CERT, root_pem.as_bytes())?;
        out.write(TRUST, &trust_pem)?;
        let authority = Self::load(out)?;
        let probe = SpiffeId::node(&trust_domain, node.as_str()).map_err(CaError::Name)?;
        authority.probe(&probe)?;
        Ok(authority)
    }

    /// Takes up the CA in `state`, unless the agent of this host knows that its intermediate is revoked. The root's key is not
    /// needed.
    pub fn load(state: &StateDir) -> Result<Self, CaError> {
        let authority = Self::read(state)?;
        if authority.is_marked(state) {
            return Err(CaError::Revoked);
        }
        Ok(authority)
    }

    /// The same, revoked or not.
    pub fn read(state: &StateDir) -> Result<Self, CaError> {
        if !state.exists(INTERMEDIATE_CERT) {
            return Err(CaError::NoAuthority {
                state: state.path().to_owned(),
            });
        }
        let intermediate_pem = text(state, INTERMEDIATE_CERT, state.read(INTERMEDIATE_CERT)?)?;
        let key_pem = text(
            state,
            INTERMEDIATE_KEY,
            state.read_secret(INTERMEDIATE_KEY)?,
        )?;
        let trust_pem = text(state, TRUST, state.read(TRUST)?)?;
        let (trust_domain, not_after) =
            template::read(&intermediate_pem).ok_or_else(|| CaError::NotAnIntermediate {
                path: state.path().join(INTERMEDIATE_CERT),
            })?;
        let trust = TrustBundle::from_pem(trust_domain.clone(), trust_pem.as_bytes()).map_err(
            |source| CaError::Trust {
                path: state.path().join(TRUST),
                source,
            },
        )?;
        let (_, parsed) =
            x509_parser::pem::parse_x509_pem(intermediate_pem.as_bytes()).map_err(|_detail| {
                CaError::NotAnIntermediate {
                    path: state.path().join(INTERMEDIATE_CERT),
                }
            })?;
        let key = KeyPair::from_pem(&key_pem)?;
        let issuer = Issuer::from_ca_cert_pem(&intermediate_pem, key)?;
        Ok(Self {
            trust_domain,
            trust_pem,
            trust,
            intermediate_der: parsed.contents,
            intermediate_pem,
            not_after,
            issuer,
            book: Arc::new(Book::new(state)),
        })
    }

    /// Whether its intermediate is revoked, so that nothing that it signs is accepted.
    pub fn is_revoked(&self, revocations: &Revocations) -> bool {
        let revoked = revocations.has_intermediate(&self.intermediate_der);
        revoked.unwrap_or(true)
    }

    /// Notes for commands, which do not see the documents, whether the intermediate is revoked. A note about an intermediate counts
    /// for no other.
    pub fn mark(&self, state: &StateDir, is_revoked: bool) -> Result<(), StateError> {
        match is_revoked {
            true if self.is_marked(state) => Ok(()),
            true => state.write(REVOKED, self.fingerprint().as_bytes()),
            false => state.remove(REVOKED),
        }
    }

    fn is_marked(&self, state: &StateDir) -> bool {
        let marked = state.read(REVOKED);
        marked.is_ok_and(|marked| marked == self.fingerprint().as_bytes())
    }

    fn fingerprint(&self) -> String {
        let hash = digest(&SHA256, &self.intermediate_der);
        hex(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The certificates that were signed here and are still good.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Why certificates are not in the book, if any are not.
    pub fn unbooked(&self) -> Option<String> {
        self.book.trouble()
    }

    /// Goes on with the book of `before`, in the same state directory: certificates may still wait to be written.
    pub fn with_book_of(self, before: &Self) -> Self {
        Self {
            book: before.book.clone(),
            ..self
        }
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Makes a key and an SVID for `id`, of a line that begins now. It ends with the intermediate at the latest.
    pub fn issue(&self, id: &SpiffeId, lifetime: Duration) -> Result<Issued, CaError> {
        let terms = Terms {
            host: None,
            lifetime,
            line: new_line(SystemTime::now())?,
        };
        self.issue_on(id, &terms)
    }

    /// The same on any terms.
    pub fn issue_on(&self, id: &SpiffeId, terms: &Terms<'_>) -> Result<Issued, CaError> {
        let asking = Asking::new(id)?;
        let chain_pem = self.sign(id, &asking.request, terms)? + &self.intermediate_pem;
        let svid = Svid::from_pem(chain_pem.as_bytes(), asking.key_pem.as_bytes());
        let svid = svid.map_err(CaError::Unusable)?;
        Ok(Issued {
            chain_pem,
            key_pem: asking.key_pem,
            not_after: svid.leaf().not_after,
        })
    }

    /// Signs a request for a certificate of `id`; returns the leaf. What peers would refuse is not handed out.
    pub fn sign(
        &self,
        id: &SpiffeId,
        request: &[u8],
        terms: &Terms<'_>,
    ) -> Result<String, CaError> {
        let now = SystemTime::now();
        let leaf = self.make(id, request, terms, now)?;
        self.note(leaf.der(), now);
        Ok(leaf.pem())
    }

    /// A chain that is handed to nobody, to see whether this CA can sign.
    fn probe(&self, id: &SpiffeId) -> Result<Vec<Vec<u8>>, CaError> {
        let now = SystemTime::now();
        let terms = Terms {
            host: None,
            lifetime: LIFETIME,
            line: new_line(now)?,
        };
        let leaf = self.make(id, &Asking::new(id)?.request, &terms, now)?;
        Ok(vec![leaf.der().to_vec(), self.intermediate_der.clone()])
    }

    fn make(
        &self,
        id: &SpiffeId,
        request: &[u8],
        terms: &Terms<'_>,
        now: SystemTime,
    ) -> Result<Certificate, CaError> {
        check_lifetime(terms.lifetime)?;
        let not_after = (now + terms.lifetime).min(self.not_after);
        let key = request::check(request, id).map_err(CaError::Request)?;
        let mut line = terms.line.clone();
        let added = line.signers.add_intermediate(&self.intermediate_der);
        added.map_err(CaError::Refused)?;
        let leaf = template::leaf(id, terms.host, &line, now, not_after)?;
        let leaf = leaf.signed_by(&key, &self.issuer)?;
        let chain = [leaf.der().to_vec(), self.intermediate_der.clone()];
        self.trust
            .verify_der(&chain, now)
            .map_err(CaError::Refused)?;
        Ok(leaf)
    }

    /// Writes a certificate into the book. A host must not go without one because a disk is full.
    fn note(&self, leaf: &[u8], now: SystemTime) {
        let noted = self.book.add(leaf, &self.intermediate_der, now);
        if let Err(error) = &noted {
            tracing::warn!(%error, "failed to write a certificate into the book of this issuer");
        }
    }

    /// Signs `message` with the key of the intermediate. It must begin with the text of its purpose, so that it cannot be
    /// taken for the contents of a certificate.
    pub fn sign_message(&self, message: &[u8]) -> Result<IssuerSignature, CaError> {
        Ok(IssuerSignature {
            intermediate: self.intermediate_der.clone(),
            signature: self.issuer.key().sign(message)?,
        })
    }

    /// Whether a leaf with the certificate of its issuer behind it, both PEM, is trusted by nodes that know these revocations.
    pub fn check(
        &self,
        leaf_pem: &str,
        intermediate_pem: &str,
        revocations: &Arc<Revocations>,
    ) -> Result<(), Refusal> {
        let mut chain = Vec::new();
        for pem in [leaf_pem, intermediate_pem] {
            let parsed = x509_parser::pem::parse_x509_pem(pem.as_bytes());
            let (_, parsed) = parsed.map_err(|_detail| Refusal::BadEncoding)?;
            chain.push(parsed.contents);
        }
        let trust = self.trust.without(revocations.clone());
        trust.verify_der(&chain, SystemTime::now()).map(drop)
    }

    /// The certificate that belongs behind each leaf.
    pub fn intermediate_pem(&self) -> &str {
        &self.intermediate_pem
    }

    /// The root that this issuer's certificates lead to, in DER: what a token pins.
    pub fn root(&self, node: &NodeName) -> Result<Vec<u8>, CaError> {
        let id = SpiffeId::node(&self.trust_domain, node.as_str()).map_err(CaError::Name)?;
        let root = self.trust.root_of(&self.probe(&id)?, SystemTime::now());
        root.ok_or(CaError::Refused(Refusal::UnknownIssuer))
    }

    /// When the intermediate ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Writes what a host needs into `out`: roots, its node's SVID and those of `services`. What is there is replaced
    /// file by file, unless it is another node's. Their lines begin now.
    pub fn write_bundle(
        &self,
        out: &StateDir,
        node: &NodeName,
        services: &[ServiceName],
        lifetime: Duration,
    ) -> Result<(), CaError> {
        self.write_bundle_from(out, node, services, lifetime, SystemTime::now())
    }

    /// The same with lines that begin at `begins`, at most five minutes from now.
    pub fn write_bundle_from(
        &self,
        out: &StateDir,
        node: &NodeName,
        services: &[ServiceName],
        lifetime: Duration,
        begins: SystemTime,
    ) -> Result<(), CaError> {
        if begins > SystemTime::now() + BACKDATED {
            return Err(CaError::LineAhead);
        }
        let node = SpiffeId::node(&self.trust_domain, node.as_str()).map_err(CaError::Name)?;
        check_same_node(out, &node)?;
        out.write(TRUST, self.trust_pem.as_bytes())?;
        let issue = |id: &SpiffeId| {
            let terms = Terms {
                host: node.node_name(),
                lifetime,
                line: new_line(begins)?,
            };
            self.issue_on(id, &terms)
        };
        let issued = issue(&node)?;
        out.write_svid(NODE_CHAIN, NODE_KEY, &issued.chain_pem, &issued.key_pem)?;
        for service in services {
            let id =
                SpiffeId::service(&self.trust_domain, service.as_str()).map_err(CaError::Name)?;
            let (chain, key) = service_files(service.as_str());
            let issued = issue(&id)?;
            out.write_svid(&chain, &key, &issued.chain_pem, &issued.key_pem)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Whether certificates may live this long; for asking before anything is written.
pub fn check_lifetime(lifetime: Duration) -> Result<(), CaError> {
    if LIFETIMES.contains(&lifetime) {
        return Ok(());
    }
    Err(CaError::Lifetime { lifetime })
}

/// A bundle for one host written over another's would make two hosts one node.
fn check_same_node(out: &StateDir, node: &SpiffeId) -> Result<(), CaError> {
    if !out.exists(NODE_CHAIN) || !out.exists(NODE_KEY) {
        return Ok(());
    }
    let svid = Svid::from_pem(&out.read(NODE_CHAIN)?, &out.read_secret(NODE_KEY)?);
    match svid {
        Ok(svid) if svid.id() != node => Err(CaError::OtherNode {
            out: out.path().to_owned(),
            found: svid.id().clone(),
            asked: node.clone(),
        }),
        // A pair that does not fit is what a crash between the two writes leaves, and what we are asked to replace.
        _ => Ok(()),
    }
}

fn new_key() -> Result<KeyPair, CaError> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}

fn text(state: &StateDir, name: &str, bytes: Vec<u8>) -> Result<String, CaError> {
    String::from_utf8(bytes).map_err(|source| CaError::NotText {
        path: state.path().join(name),
        source,
    })
}

pub const ROOT_CERT: &str = "ca/root.pem";
pub const ROOT_KEY: &str = "ca/root.key";
pub const INTERMEDIATE_CERT: &str = "ca/intermediate.pem";
pub const INTERMEDIATE_KEY: &str = "ca/intermediate.key";
/// The SHA-256 of the intermediate, if the agent knows that it is revoked.
pub const REVOKED: &str = "ca/revoked";

/// Lifetime of a leaf unless asked for another.
pub const LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// From what is of use at all to what an intermediate lives; longer would be cut anyway.
pub const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests;
