//! What is done with a text to see whether it does harm: all that the agent would do with it, and a fixed set of requests.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use http::{HeaderMap, Method, Uri};
use starling_gossip::ServiceName;
use starling_transport::{SpiffeId, TrustDomain};

use super::Text;
use crate::config::Config;
use crate::documents::kinds;
use crate::path::Normal;
use crate::policy::ServiceSet;
use crate::policy::{Document, InForce, Snapshot, Subject};
use crate::revocation::{self, Entry};
use crate::route::{Facts, Http, Route, Table};

/// Reads `text` as the agent would, and tries it. `covers` hears what a policy is about before it is tried. An error says why it
/// cannot be read.
pub(in crate::documents) fn rehearse(
    text: &Text,
    covers: impl FnOnce(ServiceSet),
) -> Result<(), String> {
    let file = text.key.to_string();
    let (name, file, body) = (&text.key.name, Path::new(&file), &*text.body);
    let unread = |problems: crate::config::Problems| problems.to_string();
    match text.key.kind.as_str() {
        "policy" => {
            let document = kinds::policy(name, file, body).map_err(unread)?;
            let coverage = document.services_named();
            covers(coverage.clone());
            try_policy(document, &coverage);
        }
        "revocation" => try_revocation(&kinds::revocation(name, file, body).map_err(unread)?),
        "route" => try_route(kinds::route(name, file, body).map_err(unread)?),
        _ => return Err(super::super::unknown_kind(&text.key.kind)),
    }
    Ok(())
}

fn try_policy(document: Document, coverage: &ServiceSet) {
    let Ok(mesh) = TrustDomain::parse("rehearsal.example") else {
        return;
    };
    let callees: Vec<String> = match coverage {
        ServiceSet::All => Vec::new(),
        ServiceSet::Only(names) => names.iter().map(ToString::to_string).collect(),
    };
    let rules = document.grants.iter().chain(&document.denies);
    let callers = rules.flat_map(|rule| &rule.rule.from);
    let callers = callers.map(|caller| caller.who.to_string());
    let callers: Vec<_> = callers
        .take(NAMES_MAX)
        .chain([STRANGER.to_owned()])
        .collect();
    let callees = callees.into_iter().take(NAMES_MAX);
    let callees: Vec<_> = callees.chain([STRANGER.to_owned()]).collect();
    let Some(config) = config(&callees) else {
        return;
    };
    let document = InForce::single("rehearsal".into(), 1, Arc::new(document));
    let snapshot = Snapshot::compile(&mesh, &config, &[document]);
    let callers: Vec<_> = callers
        .iter()
        .filter_map(|name| SpiffeId::service(&mesh, name).ok())
        .collect();
    for entry in snapshot.entries() {
        for caller in &callers {
            entry.judge(caller, Subject::Connection);
            for (method, uri) in requests() {
                let subject = Subject::Request {
                    method: &method,
                    uri: &uri,
                };
                let verdict = entry.judge(caller, subject);
                let (mut head, ()) = http::Request::new(()).into_parts();
                // Whether it can be done is not asked, only whether it ends.
                let _ = entry.conform(&verdict, &mut head);
            }
        }
    }
}

/// A host that runs `services`.
fn config(services: &[String]) -> Option<Config> {
    let mut services: Vec<_> = services.to_vec();
    services.sort_unstable();
    services.dedup();
    let service =
        |name: &String| format!("[[service]]\nname = \"{name}\"\naddress = \"127.0.0.1:1\"\n");
    let text: String = services.iter().map(service).collect();
    Config::from_bytes(Path::new("rehearsal"), text.as_bytes()).ok()
}

fn try_revocation(entries: &[Entry]) {
    let now = SystemTime::now();
    let revocations = revocation::union(entries.iter(), now);
    let Ok(mesh) = TrustDomain::parse("rehearsal.example") else {
        return;
    };
    for id in [
        SpiffeId::node(&mesh, STRANGER),
        SpiffeId::service(&mesh, STRANGER),
    ] {
        let Ok(id) = id else { continue };
        revocations.good_from(&id, None);
        revocations.good_from(&id, Some(STRANGER));
    }
}

fn try_route(route: Route) {
    let table = Table::default().with_documents(&[Arc::new(route)]);
    let Ok(stranger) = ServiceName::parse(STRANGER) else {
        return;
    };
    for entry in table.iter() {
        let callers = entry
            .route
            .rules
            .iter()
            .flat_map(|rule| &rule.matches.callers);
        let callers: Vec<_> = callers.take(NAMES_MAX).chain([&stranger]).collect();
        for caller in callers {
            let zone = "";
            entry.route.decide(&Facts {
                caller,
                zone,
                http: None,
            });
            for (method, uri) in requests() {
                let path = uri.path_and_query().map_or("/", |path| path.as_str());
                let path = Normal::of(path).ok();
                let http = Some(Http {
                    method: &method,
                    path: path.as_ref(),
                    query: uri.query().unwrap_or_default(),
                    headers: &HeaderMap::new(),
                });
                entry.route.decide(&Facts { caller, zone, http });
            }
        }
    }
}

/// The same for every text: plain ones, and each kind of path that has to be rewritten or refused.
fn requests() -> impl Iterator<Item = (Method, Uri)> {
    let long = format!("/{}", "a/".repeat(500));
    let uris = PATHS.iter().map(|path| (*path).to_owned()).chain([long]);
    let uris: Vec<Uri> = uris.filter_map(|path| path.parse().ok()).collect();
    let methods = [Method::GET, Method::POST];
    methods.into_iter().flat_map(move |method| {
        let uris = uris.clone().into_iter();
        uris.map(move |uri| (method.clone(), uri))
    })
}

const PATHS: [&str; 8] = [
    "/",
    "/a",
    "/a/b/c?x=1&y=%20&x=2",
    "/a%2fb",
    "/a/../b",
    "//a",
    "/%7Ea/%c3%a9",
    "/a;b=1",
];

/// A name that no text has to mention.
const STRANGER: &str = "stranger";

/// Callers and callees that are tried of each text: the largest takes some 100 ms with as many.
const NAMES_MAX: usize = 8;
