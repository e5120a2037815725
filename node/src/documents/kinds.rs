//! The kinds of documents that this version knows: one line each in `PARSERS` and in `consumers`.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use starling_gossip::{DocumentKey, DocumentName, Revision, ServiceName};

use crate::config;
use crate::config::{Problem, Problems};
use crate::host::Host;
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
        revocation(name, file, body).map(drop)
    }),
    ("route", |name, file, body| {
        route(name, file, body).map(drop)
    }),
];

/// What each kind does on this node.
pub fn consumers(host: &Arc<Host>) -> Vec<Box<dyn Consumer>> {
    let judge = host.policy.clone();
    let router = host.clone();
    let revoking = host.clone();
    vec![
        // First: whom another document allows may be thrown out already.
        Kind::new("revocation", revocation, move |set| {
            let entries = set.documents.iter().flat_map(|held| held.document.iter());
            revocation::enforce(&revoking, entries);
            let stand_ins = set.missing.iter().map(deny_all);
            revoking.policy.stand_in(stand_ins.collect());
        }),
        Kind::new("policy", policy, move |set| {
            judge.take_documents(policies(set));
        }),
        Kind::new("route", route, move |set| {
            router.take_document_routes(&routes(set));
        }),
    ]
}

fn policy(
    _name: &DocumentName,
    file: &Path,
    body: &str,
) -> Result<crate::policy::Document, Problems> {
    crate::policy::Document::parse_as(file, body)
}

fn revocation(_name: &DocumentName, file: &Path, body: &str) -> Result<Vec<Entry>, Problems> {
    config::revocation::parse(file, body)
}

/// The route's service is the document's name.
fn route(name: &DocumentName, file: &Path, body: &str) -> Result<Route, Problems> {
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

/// A route that is missing denied nobody anything: calls go where they go without it.
fn routes(set: Set<InForce<Route>>) -> Vec<Arc<Route>> {
    let held = set.documents.into_iter();
    held.map(|held| held.document).collect()
}

/// A policy that is missing may have denied anything, so until it is back nothing is allowed.
fn policies(set: Set<InForce<crate::policy::Document>>) -> Vec<crate::policy::InForce> {
    let present = set
        .documents
        .into_iter()
        .map(|held| crate::policy::InForce::single(held.name, held.revision, held.document));
    present.chain(set.missing.iter().map(deny_all)).collect()
}

/// Somebody whom a missing document denied or revoked may be any caller.
fn deny_all(missing: &Missing) -> crate::policy::InForce {
    let all = crate::policy::ServiceSet::All;
    let document = crate::policy::Document::deny_all_calls_to(&all);
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

/// What becomes of the documents of one kind.
pub trait Consumer: Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> &'static str;

    /// Whether a body can be read; otherwise why not.
    fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String>;

    /// Whether a revision can be read; otherwise why not. Remembered until the revision is gone.
    fn read(&self, revision: &Revision) -> Result<(), String>;

    /// Puts these revisions, all of which were read, in force, and none besides. `missing` are names of documents that are
    /// known to be in force in the mesh but not here: what they deny must not become possible.
    fn take(&self, set: Set<Arc<Revision>>);
}

/// All documents of one kind that are in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<T> {
    pub documents: Vec<T>,
    pub missing: Vec<Missing>,
}

/// A document that counts in the mesh and cannot be put in force here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub name: Arc<str>,
    pub revision: u64,
}

/// A document in force.
#[derive(Debug)]
pub struct InForce<T> {
    pub name: Arc<str>,
    pub revision: u64,
    pub document: Arc<T>,
}

/// What became of reading a revision.
type Read<T> = Result<Arc<T>, String>;

/// A [`Consumer`] made of a parser and of what takes what it read.
pub struct Kind<T> {
    kind: &'static str,
    parse: Parse<T>,
    take: Box<dyn Fn(Set<InForce<T>>) + Send + Sync>,
    read: Mutex<BTreeMap<[u8; 32], Read<T>>>,
    taken: Mutex<Option<Set<Arc<Revision>>>>,
}

impl<T: Send + Sync + 'static> Kind<T> {
    /// One kind.
    #[expect(clippy::new_ret_no_self, reason = "kinds live in one list")]
    pub fn new(
        kind: &'static str,
        parse: Parse<T>,
        take: impl Fn(Set<InForce<T>>) + Send + Sync + 'static,
    ) -> Box<dyn Consumer> {
        Box::new(Self {
            kind,
            parse,
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
            self.parse(&revision.key, &file, &revision.body)
                .map(Arc::new)
        };
        read.entry(revision.hash).or_insert_with(parse).clone()
    }
}

impl<T: Send + Sync + 'static> Consumer for Kind<T> {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String> {
        self.parse(key, &key.to_string(), body).map(drop)
    }

    fn read(&self, revision: &Revision) -> Result<(), String> {
        self.document(revision).map(drop)
    }

    fn take(&self, set: Set<Arc<Revision>>) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.as_ref() == Some(&set) {
            return;
        }
        let documents = set.documents.iter().filter_map(|revision| {
            Some(InForce {
                name: revision.key.name.as_str().into(),
                revision: revision.revision,
                document: self.document(revision).ok()?,
            })
        });
        (self.take)(Set {
            documents: documents.collect(),
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
