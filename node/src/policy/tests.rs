use http::{Method, Request, Uri};
use starling_transport::SpiffeId;

use super::explain::{Answer, Question, Unanswerable};
use super::*;
use crate::reason::Reason;

mod agreement;
mod texts;

fn mesh() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

fn config(text: &str) -> Config {
    Config::from_bytes(std::path::Path::new("starling.toml"), text.as_bytes())
        .unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// Documents in force, each with its name and body.
fn documents(bodies: &[(&str, &str)]) -> Vec<InForce> {
    let document = |(name, body): &(&str, &str)| InForce::single((*name).into(), 7, parsed(body));
    bodies.iter().map(document).collect()
}

fn parsed(body: &str) -> Arc<Document> {
    let document = Document::parse(body);
    Arc::new(document.unwrap_or_else(|problems| panic!("{body}\n{problems}")))
}

/// `orders`, which speaks HTTP, with `more` in its table; and what is there before it.
fn orders(before: &str, more: &str) -> String {
    format!("{before}\n[[service]]\nname = \"orders\"\nport = 1\nprotocol = \"http\"\n{more}\n")
}

fn db(more: &str) -> String {
    format!("[[service]]\nname = \"db\"\nport = 2\n{more}\n")
}

fn id(caller: &str) -> SpiffeId {
    match caller.contains(':') {
        true => SpiffeId::parse(caller).unwrap(),
        false => SpiffeId::service(&mesh(), caller).unwrap(),
    }
}

fn uri(path: &str) -> Option<Uri> {
    let parts = Uri::builder().scheme("https").authority("callee");
    parts.path_and_query(path).build().ok()
}

/// What becomes of `call`, as `CALLER METHOD PATH` or `CALLER`, in one line.
fn outcome(policy: &Snapshot, callee: &str, call: &str) -> String {
    let words: Vec<_> = call.split(' ').collect();
    let entry = policy.entry(callee).unwrap();
    let (method, uri);
    let subject = match words[..] {
        [_] => Subject::Connection,
        [_, verb, path] => {
            method = Method::from_bytes(verb.as_bytes()).unwrap();
            uri = self::uri(path).unwrap();
            Subject::Request {
                method: &method,
                uri: &uri,
            }
        }
        _ => panic!("{call}"),
    };
    let verdict = entry.judge(&id(words[0]), subject);
    let word = if verdict.allowed { "yes" } else { "no" };
    let rule = verdict.rule.map(|rule| format!(" {rule}"));
    let path = verdict.forward.as_ref().map(|path| format!(" as {path}"));
    format!(
        "{word} {}{}{}",
        verdict.why.as_str(),
        rule.unwrap_or_default(),
        path.unwrap_or_default()
    )
}

#[track_caller]
fn check(policy: &Snapshot, callee: &str, cases: &[(&str, &str)]) {
    for (call, expected) in cases {
        assert_eq!(outcome(policy, callee, call), *expected, "{call}");
    }
}

#[track_caller]
fn of_orders(more: &str, cases: &[(&str, &str)]) {
    let policy = Snapshot::compile(&mesh(), &config(&orders("", more)), &[]);
    check(&policy, "orders", cases);
}

#[test]
fn nobody_may_call_until_someone_says_so() {
    of_orders("", &[("web GET /", "no no-grant"), ("web", "no no-grant")]);
    of_orders(
        "allow = [\"web\"]",
        &[
            ("web GET /a//b", "yes granted starling.toml:6"),
            ("web", "yes granted starling.toml:6"),
            ("pay GET /", "no no-grant"),
        ],
    );
}

#[test]
fn only_services_of_this_mesh_are_callers() {
    for mode in ["enforce", "permissive"] {
        of_orders(
            &format!("allow = [\"*\"]\nmode = \"{mode}\""),
            &[
                ("anyone GET /", "yes granted starling.toml:6"),
                ("spiffe://example.org/node/n1 GET /", "no not-a-caller"),
                ("spiffe://other.org/svc/web GET /", "no not-a-caller"),
                ("spiffe://other.org/svc/web", "no not-a-caller"),
            ],
        );
    }
}

#[test]
fn grants_look_at_methods_and_paths() {
    of_orders(
        "[[service.grant]]\nfrom = [\"web\"]\nmethods = [\"GET\"]\npaths = [\"/orders/{id}\", \"/pub/**\"]",
        &[
            ("web GET /orders/1", "yes granted starling.toml:6"),
            ("web GET /orders/1?x=..//", "yes granted starling.toml:6"),
            (
                "web GET /%6frders/1",
                "yes granted starling.toml:6 as /orders/1",
            ),
            (
                "web GET /%70ub?a=%61",
                "yes granted starling.toml:6 as /pub?a=%61",
            ),
            ("web GET /orders/", "no no-grant"),
            ("web GET /orders/1/items", "no no-grant"),
            // What is granted is read narrowly.
            ("web HEAD /orders/1", "no no-grant"),
            ("web get /orders/1", "no no-grant"),
            ("web GET /pub/../orders/1", "no ambiguous-path"),
            ("web GET /pub/%2e%2e/orders/1", "no ambiguous-path"),
            ("web GET /pub%2f1", "no ambiguous-path"),
            // A stranger is not told that paths are looked at.
            ("pay GET /pub/../orders/1", "no no-grant"),
        ],
    );
}

#[test]
fn a_path_that_cannot_go_on_in_its_one_form_does_not_go_on() {
    let rules = "[[service.grant]]\nfrom = [\"web\"]\npaths = [\"/**\"]";
    let call = |bars: usize| format!("web GET /{}?{}", "|".repeat(bars), "q".repeat(50_000));
    of_orders(rules, &[(&call(8_000), "no ambiguous-path")]);
    let passed = format!("/{}?{}", "%7C".repeat(3), "q".repeat(50_000));
    let passed = format!("yes granted starling.toml:6 as {passed}");
    of_orders(rules, &[(&call(3), &passed)]);
}

#[test]
fn a_denial_beats_every_grant_and_is_read_widely() {
    of_orders(
        "allow = [\"web\"]\n[[service.grant]]\nfrom = [\"*\"]\npaths = [\"/admin\"]\n\
         [[service.deny]]\nfrom = [\"*\"]\npaths = [\"/admin\"]\n\
         [[service.deny]]\nfrom = [\"web\"]\nmethods = [\"GET\"]\npaths = [\"/log/{day}\"]",
        &[
            ("web GET /admin", "no denied starling.toml:10"),
            ("web GET /admin/", "no denied starling.toml:10"),
            ("web GET /admin?", "no denied starling.toml:10"),
            ("web GET /%61dmin", "no denied starling.toml:10 as /admin"),
            ("web GET /adm%69n/", "no denied starling.toml:10 as /admin/"),
            ("web GET /admin//", "no ambiguous-path"),
            ("web GET //admin", "no ambiguous-path"),
            ("web GET /./admin", "no ambiguous-path"),
            ("web GET /x/../admin", "no ambiguous-path"),
            ("web GET /admin;x", "no ambiguous-path"),
            ("web GET /%2561dmin", "no ambiguous-path"),
            ("web GET /admin%00", "no ambiguous-path"),
            ("web GET /admin%2f", "no ambiguous-path"),
            ("web GET /adminx", "yes granted starling.toml:6"),
            ("web GET /log/1", "no denied starling.toml:13"),
            ("web HEAD /log/1/", "no denied starling.toml:13"),
            ("web get /log/1", "no denied starling.toml:13"),
            ("web POST /log/1", "yes granted starling.toml:6"),
            ("pay GET /admin", "no denied starling.toml:10"),
        ],
    );
}

#[test]
fn what_cannot_be_evaluated_denies() {
    let text = db("allow = [\"web\", \"job\"]");
    let rules = "[[deny]]\nservices = [\"*\"]\nfrom = [\"web\"]\npaths = [\"/x\"]\n\
                 [[grant]]\nservices = [\"db\"]\nfrom = [\"pay\"]\nmethods = [\"GET\"]\n\
                 [[grant]]\nservices = [\"db\"]\nfrom = [\"bot\"]";
    let policy = Snapshot::compile(&mesh(), &config(&text), &documents(&[("base", rules)]));
    check(
        &policy,
        "db",
        &[
            ("web", "no not-evaluable policy/base@7#1"),
            ("job", "yes granted starling.toml:4"),
            // Its grant looks at requests, and there are none.
            ("pay", "no no-grant"),
            ("bot", "yes granted policy/base@7#9"),
        ],
    );
}

#[test]
fn files_and_documents_add_up_and_groups_stay_at_home() {
    let text = orders(
        "[groups]\nbatch = [\"billing\"]",
        "allow = [\"group:batch\"]",
    );
    let rules = "[groups]\nbatch = [\"reports\"]\nshop = [\"orders\"]\n\
                 [[grant]]\nservices = [\"group:shop\"]\nfrom = [\"group:batch\"]\n\
                 [[deny]]\nservices = [\"orders\"]\nfrom = [\"billing\"]\nmethods = [\"POST\"]\n\
                 [[deny]]\nservices = [\"db\"]\nfrom = [\"*\"]";
    let policy = Snapshot::compile(&mesh(), &config(&text), &documents(&[("base", rules)]));
    check(
        &policy,
        "orders",
        &[
            ("billing GET /", "yes granted starling.toml:7"),
            ("billing POST /", "no denied policy/base@7#7"),
            ("reports POST /", "yes granted policy/base@7#4"),
        ],
    );
}

#[test]
fn the_nearest_mode_counts_and_of_several_documents_the_strictest() {
    let mode = |node: &str, service: &str, bodies: &[(&str, &str)]| {
        let text = orders(node, service);
        let policy = Snapshot::compile(&mesh(), &config(&text), &documents(bodies));
        let entry = policy.entry("orders").unwrap();
        let declared = entry.mode_declared.as_ref().map(ToString::to_string);
        format!("{} {}", entry.mode, declared.unwrap_or_default())
    };
    let node = "[policy]\nmode = \"permissive\"";
    assert_eq!(mode("", "", &[]), "enforce ");
    assert_eq!(mode(node, "", &[]), "permissive starling.toml:2");
    let lax = ("lax", "mode = \"permissive\"");
    let strict = ("strict", "mode = \"audit\"");
    assert_eq!(mode(node, "", &[lax, strict]), "audit policy/strict@7#1");
    let service = "mode = \"enforce\"";
    assert_eq!(mode(node, service, &[lax]), "enforce starling.toml:7");
    let named = (
        "named",
        "[[mode]]\nservices = [\"orders\"]\nmode = \"permissive\"\n[[mode]]\nservices = [\"*\"]\nmode = \"audit\"",
    );
    assert_eq!(mode(node, service, &[lax, named]), "audit policy/named@7#6");
}

#[test]
fn other_modes_let_through_and_still_say_what_they_would_have_denied() {
    of_orders(
        "mode = \"audit\"\n[[service.deny]]\nfrom = [\"web\"]\npaths = [\"/x\"]",
        &[
            ("web GET /x", "yes denied starling.toml:7"),
            ("web GET /%78", "yes denied starling.toml:7 as /x"),
            ("web GET /y", "yes no-grant"),
            ("web GET /y//", "yes no-grant"),
        ],
    );
}

/// The fields by which some apps take another path or method than the request's own.
#[test]
fn what_the_app_gets_is_what_was_judged() {
    let heads = |more: &str| {
        let policy = Snapshot::compile(&mesh(), &config(&orders("", more)), &[]);
        let entry = policy.entry("orders").unwrap();
        let request = Request::get("https://orders/%61?%61")
            .header("x-original-url", "/admin")
            .header("x_original_url", "/admin")
            .header("x-rewrite-url", "/admin")
            .header("x-http-method-override", "DELETE")
            .header("x-kept", "1");
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        let (method, uri) = (head.method.clone(), head.uri.clone());
        let subject = Subject::Request {
            method: &method,
            uri: &uri,
        };
        let verdict = entry.judge(&id("web"), subject);
        assert!(verdict.allowed);
        entry.conform(&verdict, &mut head).unwrap();
        let mut names: Vec<_> = head.headers.keys().map(ToString::to_string).collect();
        names.sort();
        format!("{} {}", head.uri, names.join(" "))
    };
    let grant = "[[service.grant]]\nfrom = [\"web\"]\n";
    assert_eq!(
        heads("allow = [\"web\"]"),
        "https://orders/%61?%61 x-http-method-override x-kept x-original-url x-rewrite-url x_original_url"
    );
    assert_eq!(
        heads(&format!("{grant}paths = [\"/a\"]")),
        "https://orders/a?%61 x-http-method-override x-kept"
    );
    assert_eq!(
        heads(&format!("{grant}methods = [\"GET\"]")),
        "https://orders/%61?%61 x-kept x-original-url x-rewrite-url x_original_url"
    );
}

#[test]
fn a_call_under_way_hears_of_the_change_that_denies_it() {
    let allowed = config(&orders("", "allow = [\"web\"]"));
    let policy = Policy::new(mesh(), &allowed);
    let callee = id("orders");
    let mut live = Live::connection(&policy, &id("web"), &callee);
    assert_eq!(live.is_cut(), None);
    policy.configure(&config(&orders("", "allow = [\"web\", \"pay\"]")));
    assert_eq!(live.is_cut(), None);
    policy.take_documents(documents(&[(
        "base",
        "[[deny]]\nservices = [\"*\"]\nfrom = [\"web\"]",
    )]));
    assert_eq!(live.is_cut(), Some(Reason::Denied));
    // What is not declared any more is open to nobody.
    let mut live = Live::connection(&policy, &id("pay"), &callee);
    policy.configure(&config(""));
    assert_eq!(live.is_cut(), Some(Reason::Denied));
}

#[test]
fn a_change_of_nothing_is_none() {
    let policy = Policy::new(mesh(), &config(&orders("", "")));
    let changes = policy.changes();
    policy.configure(&config(&orders("", "")));
    policy.take_documents(Vec::new());
    assert!(!changes.has_changed().unwrap());
}

/// What explain answers to `question`.
fn explained(policy: &Snapshot, question: &Question) -> Result<Answer, Unanswerable> {
    question.ask(policy, &mesh())
}

#[test]
fn a_question_without_a_request_is_answered_only_where_that_is_enough() {
    let rules = "[[service.grant]]\nfrom = [\"web\"]\npaths = [\"/a\"]";
    let text = orders("", rules) + &db("allow = [\"web\"]");
    let policy = Snapshot::compile(&mesh(), &config(&text), &[]);
    let question = |caller: &str, callee: &str| Question {
        caller: caller.to_owned(),
        callee: callee.to_owned(),
        ..Question::default()
    };
    let ask = |caller, callee| explained(&policy, &question(caller, callee));
    assert!(ask("web", "db").unwrap().allowed);
    assert_eq!(
        ask("web", "orders"),
        Err(Unanswerable::NeedsRequest("orders".into()))
    );
    assert_eq!(ask("web", "x"), Err(Unanswerable::NotHere("x".into())));
    assert_eq!(ask("W b", "db"), Err(Unanswerable::Caller("W b".into())));
    let named = ask("spiffe://example.org/svc/web", "db").unwrap();
    assert_eq!(named.caller, "spiffe://example.org/svc/web");
    let odd = Question {
        method: Some("GE T".into()),
        path: Some("/".into()),
        ..question("web", "orders")
    };
    assert_eq!(
        explained(&policy, &odd),
        Err(Unanswerable::Method("GE T".into()))
    );
}

#[test]
fn rules_are_shown_denials_first_with_what_the_mode_let_through() {
    let own = config(&orders(
        "[policy]\nmode = \"audit\"",
        "allow = [\"web\", \"shop\"]",
    ));
    let lists = documents(&[(
        "lists",
        "[[deny]]\nservices = [\"orders\"]\nfrom = [\"*\"]\nmethods = [\"DELETE\"]\npaths = [\"/lists/**\"]",
    )]);
    let policy = Snapshot::compile(&mesh(), &own, &lists);
    let entry = policy.entry("orders").unwrap();
    let audit = Audit::default();
    for _ in 0..3 {
        let caller = id("batch");
        audit.let_through(entry, &caller, &entry.judge(&caller, Subject::Connection));
    }
    let shown = entry.show(&audit);
    let rules: Vec<_> = shown
        .rules
        .iter()
        .map(|rule| {
            (
                rule.effect.as_str(),
                rule.from.join(" "),
                rule.methods.join(" "),
                rule.paths.join(" "),
            )
        })
        .collect();
    let rule = |effect, from: &str, methods: &str, paths: &str| {
        (
            effect,
            from.to_owned(),
            methods.to_owned(),
            paths.to_owned(),
        )
    };
    assert_eq!(
        rules,
        [
            rule("deny", "*", "DELETE", "/lists/**"),
            rule("allow", "web", "", ""),
            rule("allow", "shop", "", ""),
        ]
    );
    assert_eq!(
        (shown.mode.as_str(), shown.mode_declared.as_deref()),
        ("audit", Some("starling.toml:2"))
    );
    let [batch] = &shown.let_through[..] else {
        panic!("{shown:?}");
    };
    assert_eq!(
        (batch.caller.as_str(), batch.why.as_str(), batch.calls),
        ("batch", "not-evaluable", 3)
    );
    assert_eq!(batch.rule.as_deref(), Some("policy/lists@7#1"));
}
