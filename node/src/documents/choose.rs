//! Which revision of each document is in force, and what acts in its place where that cannot be. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_gossip::documents::system::{OPERATOR_REVOCATION, ROOT_REVOCATION, is_system};
use starling_gossip::{Document, DocumentKey, DocumentKind, Documents, Revision};

use super::clearance::{Clearance, Hash};
use super::kinds::{Consumer, Fallback, Layers, Missing, Set};
use super::preflight::Evidence;
use super::unknown_kind;
use crate::policy::ServiceSet;
use crate::said;

/// What became of one document here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its newest revision.
    InForce(Arc<Revision>),
    /// Its newest revision deletes it.
    Deleted(Arc<Revision>),
    /// Nothing of it counts in full; what a revoked operator signed counts where it allows less.
    Narrowing(Arc<Revision>),
    /// Not its newest revision, which acts as held back.
    HeldBack {
        newest: Arc<Revision>,
        why: Why,
        /// The revision before, where it stays in force for now.
        kept: Option<Arc<Revision>>,
        /// The services to which all calls are denied.
        denied: ServiceSet,
    },
    /// It is known to exist, but its file here is gone or broken and no peer gave it back yet.
    Lost {
        revision: u64,
        /// An earlier revision that stays in force for now.
        kept: Option<Arc<Revision>>,
    },
}

/// Why a newest revision is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A process of this build that read or tried it ended.
    Crashed(Evidence),
    /// The check has not ended yet.
    Pending,
    /// It cannot be read.
    Unread(String),
}

/// The standing of each document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standings(BTreeMap<DocumentKey, Standing>);

/// How many there are of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    pub in_force: usize,
    pub not_in_force: usize,
    pub held: usize,
    pub lost: usize,
}

/// Sets for the consumers, by kind.
pub(super) type Sets = BTreeMap<DocumentKind, Set<Layers>>;

/// What it takes to choose.
pub(super) struct Chooser<'c> {
    pub(super) consumers: &'c BTreeMap<DocumentKind, Box<dyn Consumer>>,
    pub(super) clearance: &'c dyn Fn(&Hash) -> Clearance,
    /// Whether a document whose newest revision is not decided yet stays as it was for a moment.
    pub(super) is_patient: &'c dyn Fn(&DocumentKey) -> bool,
    pub(super) before: &'c Standings,
}

impl Chooser<'_> {
    /// Chooses for all documents.
    pub(super) fn choose(&self, documents: &Documents) -> (Standings, Sets) {
        let empty = || Set {
            documents: vec![],
            missing: vec![],
        };
        let kinds = self.consumers.keys();
        let mut sets: Sets = kinds.map(|kind| (kind.clone(), empty())).collect();
        let mut standings = BTreeMap::new();
        let lost = documents.lost.iter();
        let lost = lost.map(|(key, revision)| (key, self.lost(documents, key, *revision)));
        // Of one whose newest revision is lost an earlier one may be held.
        let held = documents.entries.iter();
        let held = held.filter(|(key, _)| !documents.lost.contains_key(*key));
        let held = held.filter_map(|(key, document)| Some((key, self.stand(key, document)?)));
        for (key, standing) in held.chain(lost) {
            if let Some(set) = sets.get_mut(&key.kind) {
                let consumer = &*self.consumers[&key.kind];
                let narrowings = documents.get(key).map(|document| document.narrowings());
                let narrowings = self.narrowings(set, narrowings.unwrap_or_default(), consumer);
                standing.add_to(set, key, narrowings, consumer.fallback());
            } else if let Standing::Lost { revision, .. } = &standing
                && opens_if_lost(documents, key)
                && let Some(set) = sets.get_mut(REVOCATION)
            {
                set.missing.push(Missing {
                    name: key.to_string().into(),
                    revision: *revision,
                    denied: ServiceSet::All,
                });
            }
            standings.insert(key.clone(), standing);
        }
        (Standings(standings), sets)
    }

    /// Those that can be in force. What cannot acts as held back, also while its check has not ended.
    fn narrowings(
        &self,
        set: &mut Set<Layers>,
        narrowings: &[Arc<Revision>],
        consumer: &dyn Consumer,
    ) -> Vec<Arc<Revision>> {
        if consumer.fallback() == Fallback::Keep {
            return Vec::new();
        }
        let mut good = Vec::new();
        for revision in narrowings {
            let is_cleared = (self.clearance)(&revision.hash) == Clearance::Cleared;
            if revision.deleted || (is_cleared && consumer.read(revision).is_ok()) {
                good.push(revision.clone());
                continue;
            }
            let denied = match consumer.fallback() {
                Fallback::Deny => self.coverage(revision, consumer),
                Fallback::KeepAndDeny | Fallback::Keep => ServiceSet::All,
            };
            set.missing.push(Missing {
                name: revision.key.name.as_str().into(),
                revision: revision.revision,
                denied,
            });
        }
        good
    }

    /// The revisions that have to be checked for [`Chooser::choose`] to decide: the newest of each document, and if that is not
    /// in force, those before it.
    pub(super) fn unchecked<'d>(&self, documents: &'d Documents) -> Vec<&'d Arc<Revision>> {
        let mut unchecked = Vec::new();
        for (key, document) in &documents.entries {
            let Some(consumer) = self.consumers.get(&key.kind) else {
                continue;
            };
            let narrowings = document.narrowings().iter();
            unchecked.extend(narrowings.filter(|revision| {
                let clearance = (self.clearance)(&revision.hash);
                !revision.deleted && matches!(clearance, Clearance::Pending { .. })
            }));
            for revision in document.winners() {
                let is_settled = match (self.clearance)(&revision.hash) {
                    _ if revision.deleted => true,
                    Clearance::Cleared => consumer.read(revision).is_ok(),
                    Clearance::Held { .. } => false,
                    Clearance::Pending { .. } => {
                        unchecked.push(revision);
                        (self.is_patient)(key)
                    }
                };
                if is_settled {
                    break;
                }
            }
        }
        unchecked
    }

    /// Whether the newest revision is in force, and if not, what is done. `None` while a new document waits for its check.
    fn stand(&self, key: &DocumentKey, document: &Document) -> Option<Standing> {
        if !document.is_live() && document.base().is_none() {
            // All that is held of it was signed by a revoked operator, and is dropped.
            return None;
        }
        let Some(newest) = document.base() else {
            return Some(Standing::Narrowing(document.newest().clone()));
        };
        if newest.deleted && !document.narrowings().is_empty() {
            return Some(Standing::Narrowing(document.narrowings()[0].clone()));
        }
        if newest.deleted {
            return Some(Standing::Deleted(newest.clone()));
        }
        if is_system(&key.kind) {
            return Some(Standing::InForce(newest.clone()));
        }
        let Some(consumer) = self.consumers.get(&key.kind) else {
            return Some(Standing::HeldBack {
                newest: newest.clone(),
                why: Why::Unread(unknown_kind(&key.kind)),
                kept: None,
                denied: ServiceSet::NONE,
            });
        };
        let why = match (self.clearance)(&newest.hash) {
            Clearance::Cleared => match consumer.read(newest) {
                Ok(()) => return Some(Standing::InForce(newest.clone())),
                Err(problem) => Why::Unread(problem),
            },
            Clearance::Held { evidence, .. } => Why::Crashed(evidence),
            Clearance::Pending { .. } if (self.is_patient)(key) => {
                return self.before.get(key).cloned();
            }
            Clearance::Pending { .. } => Why::Pending,
        };
        Some(self.held_back(document, &**consumer, why))
    }

    fn lost(&self, documents: &Documents, key: &DocumentKey, revision: u64) -> Standing {
        let earlier = documents.get(key).zip(self.consumers.get(&key.kind));
        let kept = earlier.and_then(|(document, consumer)| {
            let earlier: Vec<_> = document.winners().collect();
            self.kept(&earlier, &**consumer)
        });
        Standing::Lost { revision, kept }
    }

    /// The one of `earlier`, newest first, that stays in force while what came after it is not.
    fn kept(&self, earlier: &[&Arc<Revision>], consumer: &dyn Consumer) -> Option<Arc<Revision>> {
        match consumer.fallback() {
            Fallback::Deny => None,
            Fallback::KeepAndDeny | Fallback::Keep => self.last_good(earlier, consumer),
        }
    }

    fn held_back(&self, document: &Document, consumer: &dyn Consumer, why: Why) -> Standing {
        let earlier: Vec<_> = document.winners().skip(1).collect();
        let kept = self.kept(&earlier, consumer);
        let newest = document.newest();
        let denied = match consumer.fallback() {
            Fallback::Deny => {
                let before = match earlier.first() {
                    Some(before) => self.coverage(before, consumer),
                    None if newest.revision == 1 => ServiceSet::NONE,
                    // There was one, and what it was about is not known here.
                    None => ServiceSet::All,
                };
                self.coverage(newest, consumer).union(before)
            }
            Fallback::KeepAndDeny => ServiceSet::All,
            Fallback::Keep => ServiceSet::NONE,
        };
        Standing::HeldBack {
            newest: newest.clone(),
            why,
            kept,
            denied,
        }
    }

    /// The newest of `earlier` that can be in force; none if that is a deletion.
    fn last_good(
        &self,
        earlier: &[&Arc<Revision>],
        consumer: &dyn Consumer,
    ) -> Option<Arc<Revision>> {
        let is_good = |revision: &&&Arc<Revision>| {
            let is_cleared = (self.clearance)(&revision.hash) == Clearance::Cleared;
            revision.deleted || (is_cleared && consumer.read(revision).is_ok())
        };
        let good = earlier.iter().find(is_good)?;
        (!good.deleted).then(|| (*good).clone())
    }

    /// What a revision of a policy is about, as far as that is known without reading what may not be read.
    fn coverage(&self, revision: &Arc<Revision>, consumer: &dyn Consumer) -> ServiceSet {
        if revision.deleted {
            return ServiceSet::NONE;
        }
        match (self.clearance)(&revision.hash) {
            Clearance::Cleared => consumer.coverage(revision),
            Clearance::Held { coverage, .. } | Clearance::Pending { coverage } => coverage,
        }
    }
}

/// Whether grants of a revoked operator could count without this document: it may revoke a key, and nothing else that is held does.
/// So an operator who may, or the root, ends it by revoking the key again.
fn opens_if_lost(documents: &Documents, key: &DocumentKey) -> bool {
    let is_revocation = matches!(key.kind.as_str(), OPERATOR_REVOCATION | ROOT_REVOCATION);
    let about = key.name.as_str().split('-').next().unwrap_or_default();
    is_revocation && !documents.operators.is_revoked_named(about)
}

/// The kind whose texts, when one is missing, deny all calls.
const REVOCATION: &str = "revocation";

impl Standing {
    /// The revision in force, if one is.
    pub fn in_force(&self) -> Option<&Arc<Revision>> {
        match self {
            Self::InForce(revision) => Some(revision),
            Self::HeldBack { kept, .. } | Self::Lost { kept, .. } => kept.as_ref(),
            Self::Deleted(_) | Self::Narrowing(_) => None,
        }
    }

    /// The revision that it is about. A newer one is being checked.
    pub fn revision(&self) -> u64 {
        match self {
            Self::InForce(newest)
            | Self::Deleted(newest)
            | Self::Narrowing(newest)
            | Self::HeldBack { newest, .. } => newest.revision,
            Self::Lost { revision, .. } => *revision,
        }
    }

    /// Whether the mesh's newest word has no effect here.
    pub fn is_out_of_force(&self) -> bool {
        matches!(self, Self::HeldBack { .. } | Self::Lost { .. })
    }

    fn add_to(
        &self,
        set: &mut Set<Layers>,
        key: &DocumentKey,
        narrowings: Vec<Arc<Revision>>,
        fallback: Fallback,
    ) {
        let base = self.in_force().cloned();
        if base.is_some() || !narrowings.is_empty() {
            set.documents.push(Layers {
                name: key.name.as_str().into(),
                narrowings,
                base,
            });
        }
        let (revision, denied) = match self {
            Self::InForce(_) | Self::Deleted(_) | Self::Narrowing(_) => return,
            Self::HeldBack { newest, denied, .. } => (newest.revision, denied.clone()),
            Self::Lost { revision, .. } => (*revision, ServiceSet::All),
        };
        if fallback != Fallback::Keep && !denied.is_none() {
            set.missing.push(Missing {
                name: key.name.as_str().into(),
                revision,
                denied,
            });
        }
    }

    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::InForce(_) => "in force",
            Self::Deleted(_) => "deleted",
            Self::Narrowing(_) => "narrowing",
            Self::HeldBack {
                why: Why::Unread(_),
                ..
            } => "not in force",
            Self::HeldBack { .. } => "held back",
            Self::Lost { .. } => "lost",
        }
    }

    /// Why it is not in force, and what that means.
    pub fn why(&self) -> Option<String> {
        let (why, kept, denied) = match self {
            Self::InForce(_) | Self::Deleted(_) => return None,
            Self::Narrowing(newest) if newest.key.kind.as_str() == REVOCATION => {
                return Some(format!(
                    "the key of {} is revoked: this revocation stays in force",
                    newest.operator()
                ));
            }
            Self::Narrowing(newest) => {
                return Some(format!(
                    "the key of {} is revoked: what it denies stays denied, its grants do not count",
                    newest.operator()
                ));
            }
            Self::Lost { revision, .. } => {
                return Some(format!(
                    "the file of revision {revision} is gone or broken here; peers are asked for it"
                ));
            }
            Self::HeldBack {
                why, kept, denied, ..
            } => (why, kept, denied),
        };
        let why = match why {
            Why::Crashed(evidence) => {
                format!(
                    "the process that checks it before the agent reads it ended twice ({evidence})"
                )
            }
            Why::Pending => "its check has not ended yet".to_owned(),
            // It may cite the document.
            Why::Unread(why) => said::line(why),
        };
        let kept = kept
            .as_ref()
            .map(|kept| format!("revision {} is in force", kept.revision));
        let denied =
            (!denied.is_none()).then(|| format!("calls to {} are denied", denied.describe()));
        let effects: Vec<_> = kept.into_iter().chain(denied).collect();
        Some(match effects.is_empty() {
            true => format!("{why}; nothing of it is in force"),
            false => format!("{why}; {}", effects.join(", ")),
        })
    }

    pub(super) fn log(&self, key: &DocumentKey) {
        match self {
            Self::InForce(revision) => tracing::info!(
                document = %key, revision = revision.revision, operator = %revision.operator(), "document in force"
            ),
            Self::Deleted(revision) => tracing::info!(
                document = %key, revision = revision.revision, operator = %revision.operator(), "document deleted"
            ),
            Self::Narrowing(revision) => tracing::warn!(
                document = %key, revision = revision.revision, operator = %revision.operator(), problem = self.why(),
                "document of a revoked operator in force where it denies"
            ),
            Self::HeldBack { .. } | Self::Lost { .. } => tracing::error!(
                document = %key, problem = self.why(), "document not in force"
            ),
        }
    }
}

impl Standings {
    pub fn iter(&self) -> impl Iterator<Item = (&DocumentKey, &Standing)> {
        self.0.iter()
    }

    pub fn get(&self, key: &DocumentKey) -> Option<&Standing> {
        self.0.get(key)
    }

    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for standing in self.0.values() {
            match standing {
                Standing::InForce(_) | Standing::Narrowing(_) => count.in_force += 1,
                Standing::Deleted(_) => {}
                Standing::HeldBack {
                    why: Why::Unread(_),
                    ..
                } => count.not_in_force += 1,
                Standing::HeldBack { .. } => count.held += 1,
                Standing::Lost { .. } => count.lost += 1,
            }
        }
        count
    }
}

impl Count {
    /// All whose newest revision has no effect.
    pub fn out_of_force(&self) -> usize {
        self.not_in_force + self.held + self.lost
    }
}
