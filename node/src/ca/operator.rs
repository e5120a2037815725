//! What only the root's key may do besides making issuers: making operators.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{KeyPair, SigningKey};
use starling_gossip::documents::{Grant, SignedGrant};
use starling_gossip::{DocumentKind, OperatorName};
use starling_transport::{TrustBundle, TrustDomain};

use super::{CaError, ROOT_CERT, ROOT_KEY, template, text};
use crate::random;
use crate::state::StateDir;

/// The root's key, taken out for a moment.
pub struct RootKey {
    trust_domain: TrustDomain,
    key: KeyPair,
}

impl RootKey {
    /// Takes the key in `state`, after checking that it belongs to the certificate beside it.
    pub fn load(state: &StateDir) -> Result<Self, CaError> {
        if !state.exists(ROOT_KEY) {
            return Err(CaError::NoRootKey {
                path: state.path().join(ROOT_KEY),
            });
        }
        let root_pem = text(state, ROOT_CERT, state.read(ROOT_CERT)?)?;
        let (trust_domain, _) = template::read(&root_pem).ok_or_else(|| CaError::NotARoot {
            path: state.path().join(ROOT_CERT),
        })?;
        let key_pem = text(state, ROOT_KEY, state.read_secret(ROOT_KEY)?)?;
        let root = Self {
            key: KeyPair::from_pem(&key_pem)?,
            trust_domain,
        };
        let trust = TrustBundle::from_pem(root.trust_domain.clone(), root_pem.as_bytes());
        let trust = trust.map_err(|source| CaError::Trust {
            path: state.path().join(ROOT_CERT),
            source,
        })?;
        let probe = b"starling-probe/1\0";
        trust
            .verify_root_signature(probe, &root.sign(probe)?)
            .map_err(CaError::Refused)?;
        Ok(root)
    }

    /// The mesh whose root this is.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Signs `message` with the root's key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CaError> {
        Ok(self.key.sign(message)?)
    }

    /// The rank behind that of the operator made last here: the one made first is the most senior.
    pub fn next_rank(state: &StateDir) -> Result<u32, CaError> {
        if !state.exists(RANK) {
            return Ok(1);
        }
        let text = text(state, RANK, state.read(RANK)?)?;
        let last: Result<u32, _> = text.trim().parse();
        let next = last.ok().and_then(|last| last.checked_add(1));
        next.ok_or_else(|| CaError::Rank {
            path: state.path().join(RANK),
        })
    }

    /// Keeps the rank of the operator made last.
    pub fn keep_rank(state: &StateDir, rank: u32) -> Result<(), CaError> {
        let last = Self::next_rank(state)?.saturating_sub(1).max(rank);
        Ok(state.write(RANK, format!("{last}\n").as_bytes())?)
    }

    /// Grants `operator` the right to sign documents of `kinds`, from now for `lifetime`. Keys of a smaller rank may revoke the key.
    pub fn grant(
        &self,
        operator: OperatorName,
        public_key: [u8; 32],
        kinds: BTreeSet<DocumentKind>,
        rank: u32,
        lifetime: Duration,
    ) -> Result<SignedGrant, CaError> {
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&lifetime) {
            return Err(CaError::OperatorLifetime { lifetime });
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let grant = Grant {
            trust_domain: self.trust_domain.to_string(),
            operator,
            public_key,
            kinds,
            rank,
            not_before: (now.saturating_sub(template::BACKDATED)).as_secs(),
            not_after: (now + lifetime).as_secs(),
            serial: random::bytes().map_err(CaError::Random)?,
        };
        let signature = self.sign(&grant.to_sign())?;
        grant.signed(signature).map_err(CaError::Grant)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKey")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// The rank of the operator made last.
const RANK: &str = "ca/rank";

/// Below this an operator signs nothing.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// About as long as a root lives.
const LIFETIME_MAX: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
