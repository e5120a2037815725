//! For fuzzing: any document is rules or problems, what is let through is judged the same once more, and as one of two
//! texts a document grants only what the other grants too.

use std::path::Path;
use std::sync::Arc;

use http::{Method, Uri};
use starling_transport::{SpiffeId, TrustDomain};

use super::{Document, InForce, Snapshot, Subject, Text};
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
    let text = |revision, document: &Arc<Document>| Text {
        revision,
        document: document.clone(),
    };
    let (document, base) = (Arc::new(document), Document::parse(BASE).expect("a text"));
    let (newest, base) = (text(2, &document), text(1, &Arc::new(base)));
    let compile = |texts: &[&Text]| {
        let texts = texts.iter().map(|text| (*text).clone()).collect();
        let name = "fuzz".into();
        Snapshot::compile(&mesh, &config, &[InForce { name, texts }])
    };
    let (policy, below) = (compile(&[&newest]), compile(&[&base]));
    let both = compile(&[&newest, &base]);
    let caller = SpiffeId::service(&mesh, "web").expect("a name");
    // Allowed by documents only.
    let other = SpiffeId::service(&mesh, "pay").expect("a name");
    let agree = |callee: &str, subject: Subject<'_>| {
        let of = |policy: &Snapshot| {
            let entry = policy.entry(callee).expect("one of the two services");
            entry.judge(&other, subject).is_granted()
        };
        let granted = of(&policy) && of(&below);
        assert_eq!(of(&both), granted, "two texts grant what both grant");
    };
    for entry in policy.entries() {
        let callee = entry.service.name.as_str();
        agree(callee, Subject::Connection);
        for method in [Method::GET, Method::POST] {
            let Ok(came) = Uri::builder().path_and_query(path).build() else {
                continue;
            };
            let subject = |uri| Subject::Request {
                method: &method,
                uri,
            };
            agree(callee, subject(&came));
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

/// The text below: grants that some documents narrow and others do not, and a denial.
const BASE: &str = "[[grant]]\nservices = ['*']\nfrom = ['pay']\npaths = ['/a/**']\n\
    [[grant]]\nservices = ['db']\nfrom = ['*']\n\
    [[deny]]\nservices = ['orders']\nfrom = ['pay']\npaths = ['/a/b']\n";
