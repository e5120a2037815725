//! The kinds of documents that this version knows: one line each in `PARSERS` and in `consumers`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use starling_gossip::{DocumentKey, DocumentName, Revision, ServiceName};

use crate::config;
use crate::config::{Problem, Problems};
use crate::host::Host;
use crate::mesh::unix_s;
use crate::policy::ServiceSet;
use crate::revocation::{self, Entry};
use crate::route::Route;

/// Reads a body. The document's name may mean something; the path only serves messages.
type Parse<T> = fn(&DocumentName, &Path, &str) -> Result<T, Problems>;

/// How each kind is read. `starling apply` checks with it before anything is signed.
const PARSERS: &[(&str, Parse<()>)] = &[
    ("policy", |name, file, body| {
        policy(name, file, body).map(drop)
    }),
    ("revocation", |name, file, body| {
        let entries = revocation(name, file, body)?;
        // It is signed after it was checked.
        revocation::check_dates(&entries, unix_s(SystemTime::now())).map_err(|what| {
            Problems::from(Problem {
                file: file.into(),
                line: None,
                what,
                hint: Some("use the time of now; what is issued later is good".to_owned()),
            })
        })
    }),
    ("route", |name, file, body| {
        route(name, file, body).map(drop)
    }),
];

/// What each kind does on this node.
pub fn consumers(host: &Arc<Host>) -> Vec<Box<dyn Consumer>> {
    let judge = host.policy.clone();
    let router = host.clone();
    let enforcer = revocation::Enforcer::new(host.clone());
    vec![
        // In force first: a caller that another document allows may be revoked.
        Kind::revocation(revocation, move |set| {
            let texts = set.documents.iter().flat_map(|held| &held.texts);
            let entries = texts.filter_map(|text| text.document.as_deref()).flatten();
            let revocations = revocation::union(entries, SystemTime::now());
            let stand_ins = set.missing.iter().map(stand_in);
            enforcer.enforce(revocations, stand_ins.collect());
        }),
        Kind::policy(policy, move |set| {
            judge.take_documents(policies(set));
        }),
        Kind::new("route", Fallback::Keep, route, move |set| {
            router.take_document_routes(&routes(set));
        }),
    ]
}

pub(super) fn policy(
    _name: &DocumentName,
    file: &Path,
    body: &str,
) -> Result<crate::policy::Document, Problems> {
    crate::policy::Document::parse_as(file, body)
}

pub(super) fn revocation(
    _name: &DocumentName,
    file: &Path,
    body: &str,
) -> Result<Vec<Entry>, Problems> {
    config::revocation::parse(file, body)
}

/// The route's service is the document's name.
pub(super) fn route(name: &DocumentName, file: &Path, body: &str) -> Result<Route, Problems> {
    let service = ServiceName::parse(name.as_str()).map_err(|error| {
        Problems::from(Problem {
            file: file.into(),
            line: None,
            what: format!("`{name}` cannot be the name of a service: {error}"),
            hint: None,
        })
    })?;
    let document = crate::route::Document::parse_as(file, body)?;
    Ok(document.of(service))
}

/// The route that a document is, if it is one that can be read.
pub fn as_route(key: &DocumentKey, file: &Path, body: &str) -> Option<Route> {
    (key.kind.as_str() == "route").then(|| route(&key.name, file, body).ok())?
}

/// A route denies nobody anything: while it is held back or lost, calls go where they went before it, or where they go without it.
fn routes(set: Set<InForce<Route>>) -> Vec<Arc<Route>> {
    let bases = set
        .documents
        .into_iter()
        .filter_map(|mut held| held.texts.pop());
    bases.filter_map(|base| base.document).collect()
}

/// Each text is decided on its own, and so is what stands in for one that is missing.
fn policies(set: Set<InForce<crate::policy::Document>>) -> Vec<crate::policy::InForce> {
    let present = set.documents.into_iter().map(|held| {
        let texts = held.texts.into_iter().map(|text| crate::policy::Text {
            revision: text.revision,
            document: text
                .document
                .unwrap_or_else(|| Arc::new(crate::policy::Document::empty())),
        });
        crate::policy::InForce {
            name: held.name,
            texts: texts.collect(),
        }
    });
    present.chain(set.missing.iter().map(stand_in)).collect()
}

/// Any caller may be one that a missing document denied or revoked.
fn stand_in(missing: &Missing) -> crate::policy::InForce {
    let document = crate::policy::Document::deny_all_calls_to(&missing.denied);
    crate::policy::InForce::single(missing.name.clone(), missing.revision, Arc::new(document))
}

/// The kinds there are.
pub fn known() -> impl Iterator<Item = &'static str> {
    PARSERS.iter().map(|(kind, _)| *kind)
}

/// Checks a body as the agent would. `None` if there is no such kind.
pub fn check(key: &DocumentKey, file: &Path, body: &str) -> Option<Result<(), Problems>> {
    let (_, check) = PARSERS
        .iter()
        .find(|(known, _)| *known == key.kind.as_str())?;
    Some(check(&key.name, file, body))
}

/// What acts in place of a text that is not in force here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// All calls to the services that it is about are denied.
    Deny,
    /// The one before stays in force, and all calls are denied.
    KeepAndDeny,
    /// The one before stays in force.
    Keep,
}

/// What becomes of the documents of one kind.
pub trait Consumer: Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> &'static str;

    /// What acts in place of one that is not in force.
    fn fallback(&self) -> Fallback;

    /// Whether a body can be read; otherwise why not.
    fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String>;

    /// Whether a revision can be read; otherwise why not. Remembered until the revision is gone.
    fn read(&self, revision: &Revision) -> Result<(), String>;

    /// Which services a revision can deny; all if that is not known.
    fn coverage(&self, revision: &Revision) -> ServiceSet;

    /// Puts these revisions, all of which were read, in force, and none besides. `missing` are texts that count in the mesh and
    /// cannot be in force here: what they deny must not become possible.
    fn take(&self, set: Set<Layers>);
}

/// All documents of one kind that are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T> {
    pub documents: Vec<T>,
    pub missing: Vec<Missing>,
}

/// A text that counts in the mesh and cannot be put in force here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub name: Arc<str>,
    pub revision: u64,
    /// The services to which all calls are denied meanwhile.
    pub denied: ServiceSet,
}

/// The revisions of one document that are in force together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    pub name: Arc<str>,
    /// What revoked operators signed, newest first: it counts only where it allows less. A deletion is an empty text.
    pub narrowings: Vec<Arc<Revision>>,
    /// What counts in full; nothing if that is deleted, was never there or cannot be in force.
    pub base: Option<Arc<Revision>>,
}

/// A document in force.
#[derive(Debug)]
pub struct InForce<T> {
    pub name: Arc<str>,
    /// Newest first; at least one. The last counts in full, those before it only where they allow less.
    pub texts: Vec<Text<T>>,
}

/// One text of a document in force.
#[derive(Debug)]
pub struct Text<T> {
    pub revision: u64,
    /// None is an empty text: a deletion, or a base that is not there.
    pub document: Option<Arc<T>>,
}

/// What became of reading a revision.
type Read<T> = Result<Arc<T>, String>;

/// Whether a text that was signed at a time, in seconds since 1970, may say what it says; otherwise why not.
type FitsDate<T> = fn(&T, u64) -> Result<(), String>;

/// A [`Consumer`] made of a parser and of what takes what it read.
pub struct Kind<T> {
    kind: &'static str,
    fallback: Fallback,
    parse: Parse<T>,
    covers: fn(&T) -> ServiceSet,
    fits_date: FitsDate<T>,
    take: Box<dyn Fn(Set<InForce<T>>) + Send + Sync>,
    read: Mutex<BTreeMap<[u8; 32], Read<T>>>,
    taken: Mutex<Option<Set<Layers>>>,
}

impl Kind<crate::policy::Document> {
    /// The kind whose texts deny calls to some services and not to others.
    pub fn policy(
        parse: Parse<crate::policy::Document>,
        take: impl Fn(Set<InForce<crate::policy::Document>>) + Send + Sync + 'static,
    ) -> Box<dyn Consumer> {
        Self::covering(
            "policy",
            Fallback::Deny,
            parse,
            crate::policy::Document::services_named,
            |_, _| Ok(()),
            take,
        )
    }
}

impl Kind<Vec<Entry>> {
    /// The kind whose texts must not reach ahead of the moment when they were signed.
    pub fn revocation(
        parse: Parse<Vec<Entry>>,
        take: impl Fn(Set<InForce<Vec<Entry>>>) + Send + Sync + 'static,
    ) -> Box<dyn Consumer> {
        Self::covering(
            "revocation",
            Fallback::KeepAndDeny,
            parse,
            |_| ServiceSet::All,
            |entries, issued| revocation::check_dates(entries, issued),
            take,
        )
    }
}

impl<T: Send + Sync + 'static> Kind<T> {
    /// One kind.
    #[expect(clippy::new_ret_no_self, reason = "kinds live in one list")]
    pub fn new(
        kind: &'static str,
        fallback: Fallback,
        parse: Parse<T>,
        take: impl Fn(Set<InForce<T>>) + Send + Sync + 'static,
    ) -> Box<dyn Consumer> {
        Self::covering(
            kind,
            fallback,
            parse,
            |_| ServiceSet::All,
            |_, _| Ok(()),
            take,
        )
    }

    fn covering(
        kind: &'static str,
        fallback: Fallback,
        parse: Parse<T>,
        covers: fn(&T) -> ServiceSet,
        fits_date: FitsDate<T>,
        take: impl Fn(Set<InForce<T>>) + Send + Sync + 'static,
    ) -> Box<dyn Consumer> {
        Box::new(Self {
            kind,
            fallback,
            parse,
            covers,
            fits_date,
            take: Box::new(take),
            read: Mutex::default(),
            taken: Mutex::default(),
        })
    }

    /// A parser that panics has a bug, but must not take all nodes with it.
    fn parse(&self, key: &DocumentKey, file: &str, body: &str) -> Result<T, String> {
        let parse = || (self.parse)(&key.name, Path::new(file), body);
        match catch_unwind(AssertUnwindSafe(parse)) {
            Ok(parsed) => parsed.map_err(|problems| problems.to_string()),
            Err(_panic) => Err(format!("error: {file}: reading it failed, which is a bug")),
        }
    }

    fn document(&self, revision: &Revision) -> Result<Arc<T>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let parse = || {
            let file = format!("{}@{}", revision.key, revision.revision);
            let document = self.parse(&revision.key, &file, &revision.body)?;
            (self.fits_date)(&document, revision.issued)?;
            Ok(Arc::new(document))
        };
        read.entry(revision.hash).or_insert_with(parse).clone()
    }
}

impl<T: Send + Sync + 'static> Consumer for Kind<T> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn fallback(&self) -> Fallback {
        self.fallback
    }

    fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String> {
        let document = self.parse(key, &key.to_string(), body)?;
        (self.fits_date)(&document, unix_s(SystemTime::now()))
    }

    fn read(&self, revision: &Revision) -> Result<(), String> {
        self.document(revision).map(drop)
    }

    fn coverage(&self, revision: &Revision) -> ServiceSet {
        let read = self.document(revision);
        read.map_or(ServiceSet::All, |document| (self.covers)(&document))
    }

    fn take(&self, set: Set<Layers>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.as_ref() == Some(&set) {
            return;
        }
        let text = |revision: &Arc<Revision>| {
            let document = match revision.deleted {
                true => None,
                // What was read once is remembered, so this one was.
                false => Some(self.document(revision).ok()?),
            };
            Some(Text {
                revision: revision.revision,
                document,
            })
        };
        let documents = set.documents.iter().map(|layers| {
            let base = layers.base.as_ref().and_then(text).unwrap_or(Text {
                revision: 0,
                document: None,
            });
            let narrowings = layers.narrowings.iter().filter_map(text);
            InForce {
                name: layers.name.clone(),
                texts: narrowings.chain([base]).collect(),
            }
        });
        let documents = documents.collect();
        (self.take)(Set {
            documents,
            missing: set.missing.clone(),
        });
        *taken = Some(set);
        self.forget_unused();
    }
}

impl<T> std::fmt::Debug for Kind<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl<T> Kind<T> {
    /// Bounds what is remembered: twice what the mesh may hold, or all of it is read again when it is next needed.
    fn forget_unused(&self) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() > READ_MAX {
            read.clear();
        }
    }
}

/// Revisions remembered as read: 512 documents with five revisions each, and as many again.
const READ_MAX: usize = 5_000;
