//! For fuzzing: any document is rules or problems, and what is let through is judged the same once more.

use std::path::Path;
use std::sync::Arc;

use http::{Method, Uri};
use starling_transport::{SpiffeId, TrustDomain};

use super::{Document, InForce, Snapshot, Subject};
use crate::config::Config;
use crate::path::Normal;

/// Reads `data` up to the first NUL as a document, and judges the path behind it.
pub fn fuzz(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let mut next = || String::from_utf8_lossy(parts.next().unwrap_or_default());
    let (text, path) = (next(), next());
    match Document::parse_as(Path::new("document"), &text) {
        Ok(document) => judge(document, &path),
        Err(problems) => assert!(!problems.is_empty(), "refused without a problem"),
    }
}

fn judge(document: Document, path: &str) {
    let mesh = TrustDomain::parse("example.org").expect("a name");
    let config = Config::from_bytes(Path::new("starling.toml"), CALLEES).expect("two services");
    let documents = [InForce::single("fuzz".into(), 1, Arc::new(document))];
    let policy = Snapshot::compile(&mesh, &config, &documents);
    let caller = SpiffeId::service(&mesh, "web").expect("a name");
    for entry in policy.entries() {
        entry.judge(&caller, Subject::Connection);
        for method in [Method::GET, Method::POST] {
            let Ok(came) = Uri::builder().path_and_query(path).build() else {
                continue;
            };
            let subject = |uri| Subject::Request {
                method: &method,
                uri,
            };
            let verdict = entry.judge(&caller, subject(&came));
            let Some(forward) = &verdict.forward else {
                continue;
            };
            assert!(!Normal::of(forward.as_str()).expect("normal").is_changed());
            let again = Uri::from(forward.clone());
            let again = entry.judge(&caller, subject(&again));
            assert_eq!((again.why, again.rule), (verdict.why, verdict.rule));
        }
    }
}

const CALLEES: &[u8] =
    b"[[service]]\nname = 'orders'\nport = 1\nprotocol = 'http'\nallow = ['web']\n\
    [[service]]\nname = 'db'\nport = 2\nallow = ['web']\n";
