//! Which revision of each document is in force. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use starling_gossip::{Document, DocumentKey, DocumentKind, Documents, Revision};

use super::kinds::{Consumer, Missing, Set};
use super::unknown_kind;

/// What became of one document here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Its newest revision.
    InForce(Arc<Revision>),
    /// Its newest revision deletes it.
    Deleted(Arc<Revision>),
    /// Not its newest revision.
    Behind {
        /// What is in force instead, if anything is.
        instead: Option<Arc<Revision>>,
        newest: Arc<Revision>,
        why: Why,
    },
    /// It is known to exist, but its file here is gone or broken and no peer gave it back yet.
    Lost { revision: u64 },
}

/// Why a newest revision is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The agent crashed with it.
    Held,
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
pub(super) type Sets = BTreeMap<DocumentKind, Set<Arc<Revision>>>;

/// Chooses for all documents.
pub(super) fn choose(
    documents: &Documents,
    consumers: &BTreeMap<DocumentKind, Box<dyn Consumer>>,
    is_held: impl Fn(&[u8; 32]) -> bool,
) -> (Standings, Sets) {
    let empty = || Set {
        documents: vec![],
        missing: vec![],
    };
    let mut sets: Sets = consumers
        .keys()
        .map(|kind| (kind.clone(), empty()))
        .collect();
    let mut standings = BTreeMap::new();
    for (key, document) in &documents.entries {
        let consumer = consumers.get(&key.kind);
        let standing = stand(document, consumer.map(|consumer| &**consumer), &is_held);
        if let Some(set) = sets.get_mut(&key.kind) {
            set.documents.extend(standing.in_force().cloned());
            if let Some(revision) = standing.missing() {
                set.missing.push(missing(key, revision));
            }
        }
        standings.insert(key.clone(), standing);
    }
    for (key, revision) in &documents.lost {
        if let Some(set) = sets.get_mut(&key.kind) {
            set.missing.push(missing(key, *revision));
        }
        standings.insert(
            key.clone(),
            Standing::Lost {
                revision: *revision,
            },
        );
    }
    (Standings(standings), sets)
}

fn missing(key: &DocumentKey, revision: u64) -> Missing {
    Missing {
        name: key.name.as_str().into(),
        revision,
    }
}

/// The newest revision that is not held back and can be read.
fn stand(
    document: &Document,
    consumer: Option<&dyn Consumer>,
    is_held: &impl Fn(&[u8; 32]) -> bool,
) -> Standing {
    let newest = document.newest();
    let mut why = None;
    let mut instead = None;
    for revision in document.winners() {
        let problem = if is_held(&revision.hash) {
            Some(Why::Held)
        } else if revision.deleted {
            None
        } else {
            match consumer {
                Some(consumer) => consumer.read(revision).err().map(Why::Unread),
                None => Some(Why::Unread(unknown_kind(&document.newest().key.kind))),
            }
        };
        match problem {
            None => {
                instead = Some(revision.clone());
                break;
            }
            Some(problem) => why = why.or(Some(problem)),
        }
    }
    match (why, instead) {
        (None, Some(revision)) if revision.deleted => Standing::Deleted(revision),
        (None, Some(revision)) => Standing::InForce(revision),
        (why, instead) => Standing::Behind {
            instead,
            newest: newest.clone(),
            why: why.unwrap_or(Why::Held),
        },
    }
}

impl Standing {
    /// The revision in force, if one is.
    pub fn in_force(&self) -> Option<&Arc<Revision>> {
        match self {
            Self::InForce(revision) => Some(revision),
            Self::Behind { instead, .. } => instead.as_ref().filter(|revision| !revision.deleted),
            Self::Deleted(_) | Self::Lost { .. } => None,
        }
    }

    /// What is in effect here, a deletion included.
    fn effective(&self) -> Option<&Arc<Revision>> {
        match self {
            Self::InForce(revision) | Self::Deleted(revision) => Some(revision),
            Self::Behind { instead, .. } => instead.as_ref(),
            Self::Lost { .. } => None,
        }
    }

    /// The revision that counts in the mesh though nothing of the document can be in force here. One that is held back is not
    /// missing: that the node does without it is what holding back means.
    fn missing(&self) -> Option<u64> {
        match self {
            Self::Behind {
                instead: None,
                newest,
                why: Why::Unread(_),
            } => Some(newest.revision),
            Self::Lost { revision } => Some(*revision),
            _ => None,
        }
    }

    /// One word for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::InForce(_) => "in force",
            Self::Deleted(_) => "deleted",
            Self::Behind { why: Why::Held, .. } => "held back",
            Self::Behind { .. } => "not in force",
            Self::Lost { .. } => "lost",
        }
    }

    /// Why it is not in force, and what is instead.
    pub fn why(&self) -> Option<String> {
        let (why, instead) = match self {
            Self::InForce(_) | Self::Deleted(_) => return None,
            Self::Lost { revision } => {
                return Some(format!(
                    "the file of revision {revision} is gone or broken here; peers are asked for it"
                ));
            }
            Self::Behind { why, instead, .. } => (why, instead),
        };
        let instead = match instead {
            Some(revision) if revision.deleted => "it counts as deleted".to_owned(),
            Some(revision) => format!("revision {} is in force", revision.revision),
            None => "nothing of it is in force".to_owned(),
        };
        let why = match why {
            Why::Held => "the agent crashed within a minute of taking it",
            Why::Unread(why) => why,
        };
        Some(format!("{why}; {instead}"))
    }

    pub(super) fn log(&self, key: &DocumentKey) {
        match self {
            Self::InForce(revision) => tracing::info!(
                document = %key, revision = revision.revision, operator = %revision.operator(), "document in force"
            ),
            Self::Deleted(revision) => tracing::info!(
                document = %key, revision = revision.revision, operator = %revision.operator(), "document deleted"
            ),
            Self::Behind { .. } | Self::Lost { .. } => tracing::error!(
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

    /// Everything that has an effect here, deletions included.
    pub(super) fn in_force(&self) -> impl Iterator<Item = &Arc<Revision>> {
        self.0.values().filter_map(Standing::effective)
    }

    pub fn count(&self) -> Count {
        let mut count = Count::default();
        for standing in self.0.values() {
            match standing {
                Standing::InForce(_) => count.in_force += 1,
                Standing::Deleted(_) => {}
                Standing::Behind { why: Why::Held, .. } => count.held += 1,
                Standing::Behind { .. } => count.not_in_force += 1,
                Standing::Lost { .. } => count.lost += 1,
            }
        }
        count
    }
}
