//! Documents of which several texts count: what they grant, deny and set, against trying every way of choosing.

use proptest::prelude::*;

use super::agreement::{CALLERS, list, of, questions, rules};
use super::*;

/// One document, with its texts from the newest to the base. Revisions count down to 1.
pub(super) fn texts(name: &str, bodies: &[impl AsRef<str>]) -> InForce {
    let revisions = (1..=bodies.len() as u64).rev();
    let texts = bodies.iter().zip(revisions).map(|(body, revision)| Text {
        revision,
        document: parsed(body.as_ref()),
    });
    InForce {
        name: name.into(),
        texts: texts.collect(),
    }
}

/// `orders` and `db`, where the host itself allows nothing, and one document of these texts.
fn with_texts(bodies: &[&str]) -> Snapshot {
    let text = orders("", "") + &db("");
    Snapshot::compile(&mesh(), &config(&text), &[texts("base", bodies)])
}

const WEB: &str = "[[grant]]\nservices = [\"*\"]\nfrom = [\"web\"]\n";

#[test]
fn the_text_below_opened_what_a_listed_text_had_closed() {
    let none = "";
    let policy = with_texts(&[none, WEB]);
    let narrowed = "no narrowed policy/base@2";
    check(&policy, "orders", &[("web GET /", narrowed)]);
    check(&policy, "db", &[("web", narrowed), ("pay", "no no-grant")]);
}

#[test]
fn a_listed_text_opened_what_the_text_below_keeps_closed() {
    let widened = format!("mode = \"permissive\"\n{WEB}");
    let policy = with_texts(&[&widened, "[[grant]]\nservices = [\"*\"]\nfrom = [\"pay\"]"]);
    let cases = [
        ("web GET /", "no narrowed policy/base@1"),
        ("pay GET /", "no narrowed policy/base@2"),
        ("job GET /", "no no-grant"),
    ];
    check(&policy, "orders", &cases);
    // A base that is deleted or never was is an empty text.
    let policy = with_texts(&[&widened, ""]);
    check(
        &policy,
        "orders",
        &[("web GET /", "no narrowed policy/base@1")],
    );
    assert_eq!(policy.entry("orders").unwrap().mode, Mode::Enforce);
}

#[test]
fn what_all_texts_grant_is_granted_by_the_base() {
    let reads =
        "[[grant]]\nservices = [\"orders\"]\nfrom = [\"web\", \"pay\"]\nmethods = [\"GET\"]";
    let path = "[[grant]]\nservices = [\"*\"]\nfrom = [\"*\"]\npaths = [\"/a/**\"]";
    let policy = with_texts(&[path, reads, WEB]);
    check(
        &policy,
        "orders",
        &[
            ("web GET /a", "yes granted policy/base@1#1"),
            ("web GET /%61", "yes granted policy/base@1#1 as /a"),
            ("web GET /b", "no narrowed policy/base@3"),
            ("web POST /a", "no narrowed policy/base@2"),
            ("pay GET /a", "no narrowed policy/base@1"),
            // Each text has a grant for `web`, so it may know that paths are looked at. `pay` may not.
            ("web GET /a//b", "no ambiguous-path"),
            ("pay GET /a//b", "no narrowed policy/base@1"),
        ],
    );
    // In one way of choosing, its grant looks at paths, and a connection has none.
    check(&policy, "db", &[("web", "no narrowed policy/base@3")]);
}

#[test]
fn a_denial_of_the_text_below_was_lost_under_a_newer_one() {
    let deny = |who: &str| format!("{WEB}[[deny]]\nservices = [\"*\"]\nfrom = [\"{who}\"]");
    let newest_denies = [deny("web"), WEB.into(), WEB.into()];
    let base_denies = [WEB.into(), WEB.into(), deny("web")];
    for (bodies, denied) in [
        (newest_denies, "no denied policy/base@3#4"),
        (base_denies, "no denied policy/base@1#4"),
    ] {
        let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
        check(&with_texts(&bodies), "orders", &[("web GET /", denied)]);
    }
}

#[test]
fn other_documents_and_the_host_grant_beside_a_narrowed_document() {
    let own = config(&orders("", "allow = [\"pay\"]"));
    let narrowed = texts("base", &["", WEB]);
    let beside = texts("beside", &[WEB]);
    let policy = Snapshot::compile(&mesh(), &own, &[narrowed, beside]);
    check(
        &policy,
        "orders",
        &[
            ("web GET /", "yes granted policy/beside@1#1"),
            ("pay GET /", "yes granted starling.toml:6"),
        ],
    );
}

#[test]
fn a_group_of_one_text_lent_its_members_to_another() {
    let group = |members: &str| {
        format!(
            "[groups]\nshop = [{members}]\n[[grant]]\nservices = [\"*\"]\nfrom = [\"group:shop\"]"
        )
    };
    let (narrow, wide) = (group("\"web\""), group("\"web\", \"pay\""));
    check(
        &with_texts(&[&narrow, &wide]),
        "orders",
        &[
            ("web GET /", "yes granted policy/base@1#3"),
            ("pay GET /", "no narrowed policy/base@2"),
        ],
    );
}

#[test]
fn a_listed_text_enforced_and_the_text_below_let_everything_through() {
    let mode = |host: &str, node: &str, bodies: &[&str]| {
        let text = orders(node, host);
        let policy = Snapshot::compile(&mesh(), &config(&text), &[texts("base", bodies)]);
        let entry = policy.entry("orders").unwrap();
        let declared = entry.mode_declared.as_ref().map(ToString::to_string);
        format!("{} {}", entry.mode, declared.unwrap_or_default())
    };
    let named = |mode: &str| format!("[[mode]]\nservices = [\"orders\"]\nmode = \"{mode}\"");
    let (enforce, audit, lax) = (named("enforce"), named("audit"), named("permissive"));
    let (mesh_audit, mesh_lax) = ("mode = \"audit\"", "mode = \"permissive\"");
    let node = "[policy]\nmode = \"permissive\"";
    let service = "mode = \"audit\"";
    assert_eq!(mode("", "", &[&enforce, &lax]), "enforce policy/base@2#3");
    assert_eq!(mode("", "", &[&lax, &audit]), "audit policy/base@1#3");
    assert_eq!(mode("", "", &[&lax, &lax]), "permissive policy/base@2#3");
    // A text that says nothing leaves it to what lies below.
    assert_eq!(mode("", "", &["", &lax]), "enforce ");
    assert_eq!(mode("", node, &["", &audit]), "audit policy/base@1#3");
    assert_eq!(mode(service, node, &["", &lax]), "audit starling.toml:7");
    assert_eq!(
        mode("", "", &[mesh_lax, &lax]),
        "permissive policy/base@1#3"
    );
    assert_eq!(
        mode("", "", &[mesh_lax, mesh_audit]),
        "audit policy/base@1#1"
    );
    assert_eq!(mode("", "", &[mesh_lax, ""]), "enforce ");
    // The mesh's mode of a text that names the service is never asked for.
    let both =
        "[[mode]]\nmode = \"enforce\"\n[[mode]]\nservices = [\"orders\"]\nmode = \"permissive\"";
    assert_eq!(
        mode("", node, &[both, mesh_lax]),
        "permissive policy/base@2#5"
    );
    assert_eq!(mode("", node, &[both, ""]), "permissive policy/base@2#5");
}

#[test]
fn a_document_without_texts_says_nothing() {
    let empty = InForce {
        name: "base".into(),
        texts: Vec::new(),
    };
    let own = config(&orders("[policy]\nmode = \"audit\"", "allow = [\"web\"]"));
    let policy = Snapshot::compile(&mesh(), &own, &[empty]);
    check(
        &policy,
        "orders",
        &[
            ("web GET /", "yes granted starling.toml:7"),
            ("pay GET /", "yes no-grant"),
        ],
    );
}

#[test]
fn a_narrowed_call_is_explained_audited_and_shown_with_its_revision() {
    let own = config(&orders("", "mode = \"audit\""));
    let policy = Snapshot::compile(&mesh(), &own, &[texts("base", &["", WEB])]);
    let question = Question {
        caller: "web".into(),
        callee: "orders".into(),
        ..Question::default()
    };
    let answer = explained(&policy, &question).unwrap();
    assert_eq!(answer.rule.as_deref(), Some("policy/base@2"));
    assert_eq!(
        answer.text,
        "a revision of this document allows it, and this one, which also counts, does not; mode audit lets it through"
    );
    let entry = policy.entry("orders").unwrap();
    let audit = Audit::default();
    let caller = id("web");
    audit.let_through(entry, &caller, &entry.judge(&caller, Subject::Connection));
    let shown = entry.show(&audit);
    let [through] = &shown.let_through[..] else {
        panic!("{shown:?}");
    };
    assert_eq!(
        (through.why.as_str(), through.rule.as_deref()),
        ("narrowed", Some("policy/base@2"))
    );
    let [rule] = &shown.rules[..] else {
        panic!("{shown:?}");
    };
    assert_eq!(rule.declared, "policy/base@1#1");
    assert_eq!(rule.only_with, ["policy/base@2"]);
    assert!(entry.names("web") && !entry.names("pay"));
}

#[test]
fn a_call_under_way_outlived_the_revision_that_narrowed_its_grant() {
    let policy = Policy::new(mesh(), &config(&orders("", "")));
    policy.take_documents(vec![texts("base", &[WEB])]);
    let mut live = Live::connection(&policy, &id("web"), &id("orders"));
    policy.take_documents(vec![texts("base", &[WEB, WEB])]);
    assert_eq!(live.is_cut(), None);
    policy.take_documents(vec![texts("base", &["", WEB])]);
    assert!(live.is_cut().is_some());
}

/// Bodies of documents, empty ones among them: what one way of choosing takes.
fn body() -> impl Strategy<Value = String> {
    let modes = &["", "enforce", "audit", "permissive"];
    let services = of(&["\"orders\"", "\"db\"", "\"*\"", "\"group:batch\""]);
    let rules = rules(true, "[[KIND]]\nservices = [SERVICES]\n");
    let members = of(&["\"job\", \"pay\"", "\"web\", \"orders\"", "\"pay\", \"db\""]);
    let parts = (of(modes), of(modes), services, rules, members);
    parts.prop_map(|(meshwide, named, services, rules, members)| {
        let mode = |mode: &str, services: &str| match mode {
            "" => String::new(),
            mode => format!("[[mode]]\nmode = \"{mode}\"\n{services}"),
        };
        let named = mode(named, &format!("services = [{services}]\n"));
        let rules = rules.replace("SERVICES", services);
        let groups = format!("[groups]\nbatch = [{members}]\n");
        format!("{groups}{}{named}{rules}", mode(meshwide, ""))
    })
}

fn in_force() -> impl Strategy<Value = Vec<Vec<String>>> {
    let bodies = prop_oneof![1 => Just(String::new()), 5 => body()];
    let document = prop::collection::vec(bodies, 1..4);
    prop::collection::vec(document, 1..4)
}

/// A host's own file.
fn host() -> impl Strategy<Value = String> {
    let modes = &[
        "",
        "mode = \"enforce\"",
        "mode = \"audit\"",
        "mode = \"permissive\"",
    ];
    let own = (of(modes), of(modes), of(modes), list(CALLERS, 0));
    let rules = rules(true, "[[service.KIND]]\n");
    (own, rules).prop_map(|((node, http, tcp, allow), rules)| {
        let before = format!("[policy]\n{node}\n[groups]\nbatch = [\"job\"]\n");
        // Without `allow` at one of them, what documents narrow is not hidden by it.
        orders(&before, &format!("{http}\n{rules}")) + &db(&format!("{tcp}\nallow = {allow}"))
    })
}

/// Every way to take one text of each document, as documents with that text alone.
fn ways(documents: &[InForce]) -> Vec<Vec<InForce>> {
    let mut ways = vec![Vec::new()];
    for document in documents {
        let longer = ways.iter().flat_map(|way: &Vec<InForce>| {
            document.texts.iter().map(move |text| {
                let only = InForce {
                    name: document.name.clone(),
                    texts: vec![text.clone()],
                };
                way.iter().cloned().chain([only]).collect()
            })
        });
        ways = longer.collect();
    }
    ways
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn layers_judge_as_every_way_of_choosing_one_text_does(host in host(), bodies in in_force(), questions in prop::collection::vec(questions(), 8)) {
        let own = config(&host);
        let documents: Vec<_> = bodies.iter().enumerate().map(|(at, bodies)| texts(&format!("d{at}"), bodies)).collect();
        let compile = |documents: &[InForce]| Snapshot::compile(&mesh(), &own, documents);
        let layered = compile(&documents);
        let ways: Vec<_> = ways(&documents).iter().map(|way| compile(way)).collect();
        for question in questions {
            let Some(uri) = uri(question.path.as_deref().unwrap()) else { continue };
            let caller = id(&question.caller);
            let method = Method::from_bytes(question.method.as_deref().unwrap().as_bytes()).unwrap();
            let subject = match question.callee.as_str() {
                "db" => Subject::Connection,
                _ => Subject::Request { method: &method, uri: &uri },
            };
            let entry = layered.entry(&question.callee).unwrap();
            let verdict = entry.judge(&caller, subject);
            let each: Vec<_> = ways.iter().map(|way| way.entry(&question.callee).unwrap().judge(&caller, subject)).collect();
            prop_assert_eq!(verdict.is_granted(), each.iter().all(Verdict::is_granted), "{:?} of {:?}", verdict, each);
            let strictest = each.iter().map(|one| one.mode).min().unwrap();
            prop_assert_eq!(verdict.mode, strictest, "{:?} of {:?}", verdict, each);
            let all_pass = each.iter().all(|one| one.allowed);
            prop_assert!(!verdict.allowed || all_pass, "{:?} of {:?}", verdict, each);
            if each.iter().all(|one| one.mode == strictest) {
                prop_assert_eq!(verdict.allowed, all_pass, "{:?} of {:?}", verdict, each);
            }
            let denied = |one: &Verdict<'_>| matches!(one.why, Why::Denied | Why::NotEvaluable);
            if each.iter().any(denied) {
                prop_assert!(denied(&verdict) || matches!(verdict.why, Why::AmbiguousPath(_) | Why::NoGrant | Why::Narrowed), "{:?}", verdict);
            }
            if each.len() == 1 {
                prop_assert_eq!(&verdict, &each[0]);
            }
            // What the app gets is granted in every way too.
            if let Some(path) = verdict.forward.clone().filter(|_| verdict.is_granted()) {
                let uri = Uri::from(path);
                let subject = Subject::Request { method: &method, uri: &uri };
                prop_assert!(ways.iter().all(|way| way.entry("orders").unwrap().judge(&caller, subject).is_granted()));
            }
        }
    }
}

#[test]
fn a_stand_in_denies_all_calls_to_its_services_in_every_mode_and_no_others() {
    let text = orders("[policy]\nmode = \"permissive\"", "allow = [\"*\"]")
        + &db("allow = [\"*\"]\nmode = \"permissive\"");
    let own = config(&text);
    let stand_in = |services: &ServiceSet| {
        let document = Arc::new(Document::deny_all_calls_to(services));
        let lax = parsed("[[mode]]\nservices = [\"*\"]\nmode = \"permissive\"");
        let texts = vec![
            Text {
                revision: 2,
                document,
            },
            Text {
                revision: 1,
                document: lax,
            },
        ];
        let held_back = InForce {
            name: "base".into(),
            texts,
        };
        Snapshot::compile(&mesh(), &own, &[held_back])
    };
    let denied = "no denied policy/base@2";
    let only_db = ServiceSet::Only([starling_gossip::ServiceName::parse("db").unwrap()].into());
    let policy = stand_in(&only_db);
    check(&policy, "db", &[("web", denied)]);
    check(
        &policy,
        "orders",
        &[("web GET /", "yes granted starling.toml:7")],
    );
    let policy = stand_in(&ServiceSet::All);
    check(&policy, "db", &[("web", denied)]);
    check(
        &policy,
        "orders",
        &[("web GET /", denied), ("web GET /a//b", denied)],
    );
    // The plaintext address is closed too.
    assert_eq!(policy.entry("orders").unwrap().mode, Mode::Enforce);
    let policy = stand_in(&ServiceSet::default());
    check(&policy, "db", &[("web", "yes granted starling.toml:11")]);
}
