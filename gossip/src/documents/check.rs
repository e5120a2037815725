//! Whether a document proves itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::draft::{content_message, grant_message};
use super::{Draft, Grant, RIGHTS, Revision};
use crate::metrics::Refusal;
use crate::proof::{ProofError, Verifier};
use crate::settings::{Clock, Settings};
use crate::vetted::SKEW_S;
use crate::wire::credentials::hash;
use crate::wire::document::Envelope;

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
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<Revision, Refusal> {
        let now_s = self.clock.now_s();
        let revision = self.check_proof(bytes, now_s)?;
        if revision.issued > now_s + SKEW_S {
            return Err(Refusal::Future);
        }
        Ok(revision)
    }

    /// The same, and that the operator may sign today.
    pub(crate) fn check_new(&self, bytes: &[u8]) -> Result<Revision, Refusal> {
        let revision = self.check(bytes)?;
        let (_, grant, _) = Envelope::decode(bytes)?;
        let now_s = self.clock.now_s();
        if now_s + SKEW_S < grant.not_before || now_s > grant.not_after.saturating_add(SKEW_S) {
            return Err(Refusal::GrantDates);
        }
        Ok(revision)
    }

    /// Everything but today's date, which may be the one that is wrong. Costs a check of an Ed25519 signature, and of a root's
    /// once per grant; what can be refused without is refused first.
    pub(crate) fn check_proof(&self, bytes: &[u8], heard_at: u64) -> Result<Revision, Refusal> {
        let (envelope, grant, draft) = Envelope::decode(bytes)?;
        check_rights(&self.trust_domain, &grant, &draft)?;
        self.check_grant(&envelope)?;
        let message = content_message(&self.trust_domain, &envelope.content.0);
        self.verifier
            .operator(&grant.public_key, &message, &envelope.signature.0)
            .map_err(|error| match error {
                ProofError::Revoked => Refusal::Revoked,
                _ => Refusal::Signature,
            })?;
        Ok(Revision {
            key: draft.key,
            revision: draft.revision,
            issued: draft.issued,
            operator: grant.operator,
            public_key: grant.public_key,
            deleted: draft.deleted,
            body: draft.body.into(),
            hash: hash(&envelope.content.0),
            heard_at,
            bytes: Bytes::copy_from_slice(bytes),
        })
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

/// Whether a grant, if it is genuine, covers a document.
fn check_rights(trust_domain: &str, grant: &Grant, draft: &Draft) -> Result<(), Refusal> {
    if grant.trust_domain != trust_domain {
        return Err(Refusal::OtherMesh);
    }
    let kind = &draft.key.kind;
    if !grant.kinds.contains(kind) || RIGHTS.contains(&kind.as_str()) {
        return Err(Refusal::Kind);
    }
    if !(grant.not_before..=grant.not_after).contains(&draft.issued) {
        return Err(Refusal::GrantDates);
    }
    Ok(())
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
