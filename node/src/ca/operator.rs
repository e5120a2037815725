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

    /// Grants `operator` the right to sign documents of `kinds`, from now for `lifetime`.
    pub fn grant(
        &self,
        operator: OperatorName,
        public_key: [u8; 32],
        kinds: BTreeSet<DocumentKind>,
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

/// Below this an operator signs nothing.
const LIFETIME_MIN: Duration = Duration::from_secs(1);
/// About as long as a root lives.
const LIFETIME_MAX: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
