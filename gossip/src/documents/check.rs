//! Whether a document proves itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::draft::{content_message, grant_message};
use super::revision::{Packet, ROOT, ROOT_KEY};
use super::system::{self, Right};
use super::{Draft, DraftRow, Grant, RIGHTS, Revision, Signer, key_hash};
use crate::metrics::Refusal;
use crate::names::OperatorName;
use crate::proof::{Verifier, verify_operator};
use crate::settings::{Clock, Settings};
use crate::vetted::SKEW_S;
use crate::wire::credentials::hash;
use crate::wire::document::{Envelope, row_hash};

/// Checks documents against the roots of today.
pub(crate) struct Checker {
    trust_domain: String,
    verifier: Arc<dyn Verifier>,
    clock: Clock,
    /// Grants, by hash with their signature, that a root was seen to have signed.
    grants: Mutex<BTreeSet<[u8; 32]>>,
}

impl Checker {
    pub(crate) fn new(settings: &Settings, verifier: Arc<dyn Verifier>) -> Self {
        Self {
            trust_domain: settings.trust_domain.clone(),
            verifier,
            clock: settings.clock.clone(),
            grants: Mutex::default(),
        }
    }

    /// Checks what a peer or an operator brought.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<Vec<Arc<Revision>>, Refusal> {
        let now_s = self.clock.now_s();
        let revisions = self.check_proof(bytes, now_s)?;
        if revisions
            .iter()
            .any(|revision| revision.issued > now_s + SKEW_S)
        {
            return Err(Refusal::Future);
        }
        Ok(revisions)
    }

    /// The same, and that the operator may sign today.
    pub(crate) fn check_new(&self, bytes: &[u8]) -> Result<Vec<Arc<Revision>>, Refusal> {
        let revisions = self.check(bytes)?;
        let (_, grant, _) = Envelope::decode(bytes)?;
        let now_s = self.clock.now_s();
        let is_valid = grant.is_none_or(|grant| {
            now_s + SKEW_S >= grant.not_before && now_s <= grant.not_after.saturating_add(SKEW_S)
        });
        if is_valid {
            Ok(revisions)
        } else {
            Err(Refusal::GrantDates)
        }
    }

    /// Everything but today's date, which may be the one that is wrong. Costs a check of an Ed25519 signature, and of a root's
    /// once per grant; what can be refused without is refused first.
    pub(crate) fn check_proof(
        &self,
        bytes: &[u8],
        heard_at: u64,
    ) -> Result<Vec<Arc<Revision>>, Refusal> {
        let (envelope, grant, draft) = Envelope::decode(bytes)?;
        check_rights(&self.trust_domain, grant.as_ref(), &draft)?;
        let message = content_message(&self.trust_domain, &envelope.content.0);
        let (signer, grant_hash) = match grant {
            Some(grant) => {
                self.check_grant(&envelope)?;
                verify_operator(&grant.public_key, &message, &envelope.signature.0)
                    .map_err(|_wrong| Refusal::Signature)?;
                (signer(grant), hash(&envelope.grant.0))
            }
            None => {
                self.verifier
                    .root(&message, &envelope.signature.0)
                    .map_err(|_wrong| Refusal::Signature)?;
                (root(), [0; 32])
            }
        };
        let packet = Arc::new(Packet {
            bytes: Bytes::copy_from_slice(bytes),
            hash: hash(bytes),
            rows: draft.rows.len(),
        });
        let revision = |row: &DraftRow| {
            let key = row.key(&draft.kind);
            let statement = system::read(&key, &row.body, row.deleted, &signer.key_hash)?;
            Ok(Arc::new(Revision {
                hash: row_hash(&draft, row, grant_hash),
                key,
                revision: row.revision,
                issued: draft.issued,
                signer: signer.clone(),
                deleted: row.deleted,
                body: row.body.as_str().into(),
                replaces: row.replaces,
                heard_at,
                statement,
                packet: packet.clone(),
            }))
        };
        draft.rows.iter().map(revision).collect()
    }

    /// Has every grant checked again, after the roots changed.
    pub(super) fn forget_grants(&self) {
        self.grants().clear();
    }

    fn check_grant(&self, envelope: &Envelope) -> Result<(), Refusal> {
        let id = hash(&[&envelope.grant.0[..], &envelope.grant_signature.0].concat());
        if self.grants().contains(&id) {
            return Ok(());
        }
        let message = grant_message(&self.trust_domain, &envelope.grant.0);
        self.verifier
            .root(&message, &envelope.grant_signature.0)
            .map_err(|_wrong| Refusal::Grant)?;
        let mut grants = self.grants();
        if grants.len() >= GRANTS_MAX {
            grants.clear();
        }
        grants.insert(id);
        Ok(())
    }

    fn grants(&self) -> std::sync::MutexGuard<'_, BTreeSet<[u8; 32]>> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a grant, if it is genuine, covers a draft; without one the root signed.
fn check_rights(trust_domain: &str, grant: Option<&Grant>, draft: &Draft) -> Result<(), Refusal> {
    let right = system::right(&draft.kind);
    let Some(grant) = grant else {
        return match right {
            Right::Root => Ok(()),
            _ => Err(Refusal::Kind),
        };
    };
    if grant.trust_domain != trust_domain {
        return Err(Refusal::OtherMesh);
    }
    let may = match right {
        Right::Own => grant.kinds.contains(&draft.kind) && !RIGHTS.contains(&draft.kind.as_str()),
        Right::Kind(kind) => grant.kinds.iter().any(|granted| granted.as_str() == kind),
        Right::Any => true,
        Right::Root => false,
    };
    if !may {
        return Err(Refusal::Kind);
    }
    if !(grant.not_before..=grant.not_after).contains(&draft.issued) {
        return Err(Refusal::GrantDates);
    }
    Ok(())
}

fn signer(grant: Grant) -> Signer {
    Signer {
        key_hash: key_hash(&grant.public_key),
        operator: grant.operator,
        public_key: grant.public_key,
        rank: grant.rank,
        granted_until: grant.not_after,
        kinds: Arc::new(grant.kinds),
    }
}

fn root() -> Signer {
    Signer {
        operator: OperatorName::parse(ROOT).expect("a plain word"),
        public_key: [0; 32],
        key_hash: ROOT_KEY,
        rank: 0,
        granted_until: u64::MAX,
        kinds: Arc::default(),
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

/// Grants remembered as genuine; a mesh has a few. At the limit all are checked again.
const GRANTS_MAX: usize = 1024;
