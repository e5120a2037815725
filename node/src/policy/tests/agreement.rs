//! Explain says what enforcement does, on random policies and calls.

use proptest::prelude::*;

use super::texts::texts;
use super::*;
use crate::config::Protocol;
use crate::inbound;
use crate::reason::Reason;

pub(super) fn of<T: Clone + std::fmt::Debug + 'static>(
    all: &[T],
) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(all.to_vec())
}

pub(super) fn list(words: &'static [&'static str], least: usize) -> impl Strategy<Value = String> {
    let words = prop::collection::vec(of(words), least..4);
    words.prop_map(|words| format!("{words:?}"))
}

pub(super) const CALLERS: &[&str] = &["web", "pay", "job", "group:batch", "*"];
const METHODS: &[&str] = &["GET", "POST", "DELETE"];
const PATTERNS: &[&str] = &["/a", "/a/**", "/a/{id}", "/", "/b/{x}/c", "/%61:b", "/**"];

/// The lines of a rule behind its header.
fn rule(for_requests: bool) -> impl Strategy<Value = String> {
    let parts = (list(CALLERS, 1), list(METHODS, 1), list(PATTERNS, 1));
    (parts, any::<(bool, bool)>()).prop_map(
        move |((from, methods, paths), (has_methods, has_paths))| {
            let mut text = format!("from = {from}\n");
            if for_requests && has_methods {
                text += &format!("methods = {methods}\n");
            }
            if for_requests && has_paths {
                text += &format!("paths = {paths}\n");
            }
            text
        },
    )
}

pub(super) fn rules(for_requests: bool, begin: &'static str) -> impl Strategy<Value = String> {
    let one = (of(&["grant", "deny"]), rule(for_requests));
    let all = prop::collection::vec(one, 0..4);
    all.prop_map(move |rules| {
        let rules = rules.into_iter();
        rules
            .map(|(kind, rule)| begin.replace("KIND", kind) + &rule)
            .collect()
    })
}

/// The text of a host's file and of a document.
fn policies() -> impl Strategy<Value = (String, String)> {
    let modes = &[
        "",
        "mode = \"enforce\"\n",
        "mode = \"audit\"\n",
        "mode = \"permissive\"\n",
    ];
    let file = (
        of(modes),
        list(CALLERS, 0),
        rules(true, "[[service.KIND]]\n"),
        rules(false, "[[service.KIND]]\n"),
    );
    let document = (of(modes), rules(true, "[[KIND]]\nservices = [\"*\"]\n"));
    (file, document).prop_map(|((mode, allow, http, tcp), (meshwide, rules))| {
        let groups = "[groups]\nbatch = [\"job\", \"pay\"]\n";
        let head = format!("{mode}allow = {allow}\n");
        let text = orders(groups, &format!("{head}{http}")) + &db(&format!("{head}{tcp}"));
        (text, format!("{meshwide}{groups}{rules}"))
    })
}

pub(super) fn questions() -> impl Strategy<Value = Question> {
    let callers = &[
        "web",
        "pay",
        "job",
        "x",
        "spiffe://example.org/svc/web",
        "spiffe://example.org/node/n1",
        "spiffe://other.org/svc/web",
    ];
    let pieces = of(&[
        "/", "a", "b", "/a", "/b/", "%61", ":", "%3A", "..", ";", "%2f", "?a", "é", "%",
    ]);
    let path =
        prop::collection::vec(pieces, 0..6).prop_map(|pieces| format!("/{}", pieces.concat()));
    let parts = (
        of(callers),
        of(&["orders", "db"]),
        of(&["GET", "HEAD", "POST", "get", "DELETE", "X"]),
        path,
    );
    parts.prop_map(|(caller, callee, method, path)| Question {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        method: Some(method.to_owned()),
        path: Some(path),
        ..Question::default()
    })
}

/// What enforcement does with the call that `question` is about: the refusal, or the path that the app gets, and the rule.
pub(super) fn enforced(
    policy: &Arc<Policy>,
    question: &Question,
) -> (Option<Reason>, Option<String>, Option<String>) {
    let caller = id(&question.caller);
    let callee = id(&question.callee);
    let path = question.path.as_deref().unwrap();
    let method = question.method.as_deref().unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let uri = uri(path).unwrap();
    let snapshot = policy.current();
    let entry = snapshot.entry(&question.callee).map(|entry| &**entry);
    let (live, protocol) = match question.callee.as_str() {
        "db" => (Live::connection(policy, &caller, &callee), Protocol::Tcp),
        _ => (
            Live::request(policy, &caller, &callee, &method, &uri),
            Protocol::Http,
        ),
    };
    match inbound::decide(&live, entry, protocol) {
        Err(refused) => {
            let rule = refused.rule.map(ToString::to_string);
            (Some(refused.reason), None, rule)
        }
        Ok((entry, verdict)) => {
            let request = Request::builder().method(method).uri(uri);
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            inbound::prepare(entry, &verdict, &caller, &mut head).unwrap();
            let path = head.uri.path_and_query().unwrap().to_string();
            (None, Some(path), verdict.rule.map(ToString::to_string))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// By the way that a question takes between agents, and the way that a call takes.
    #[test]
    fn explain_says_what_enforcement_does((file, document) in policies(), newer in prop::option::of(policies()), questions in prop::collection::vec(questions(), 8)) {
        let policy = Policy::new(mesh(), &config(&file));
        // With a second text above it, or alone.
        let newer = newer.map(|(_, newer)| newer);
        let bodies: Vec<_> = newer.into_iter().chain([document]).collect();
        policy.take_documents(vec![texts("base", &bodies)]);
        for question in questions {
            let (asked, _) = Question::from_query(&question.to_query(None)).unwrap();
            prop_assert_eq!(&asked, &question);
            let answer = match explained(&policy.current(), &asked) {
                Ok(answer) => answer,
                Err(error) => {
                    // No request could have such a path.
                    prop_assert!(matches!(error, Unanswerable::Path(_)), "{}", error);
                    prop_assert!(uri(question.path.as_deref().unwrap()).is_none());
                    continue;
                }
            };
            let (refused, path, rule) = enforced(&policy, &question);
            prop_assert_eq!(answer.allowed, refused.is_none(), "{:?}", answer);
            prop_assert_eq!(answer.why == "ambiguous-path" && !answer.allowed, refused == Some(Reason::AmbiguousPath));
            prop_assert_eq!(&answer.rule, &rule);
            if let Some(path) = path && question.callee == "orders" {
                let uri = uri(question.path.as_deref().unwrap()).unwrap();
                let came = uri.path_and_query().unwrap().to_string();
                prop_assert_eq!(answer.path.unwrap_or(came), path);
            }
        }
    }
}
