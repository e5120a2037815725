use super::*;

#[test]
fn callers_are_services_groups_or_all() {
    let none = read("[[service]]\nname = \"a\"\nport = 1\n");
    assert!(none.services[0].grants.is_empty() && none.services[0].mode.is_none());
    service(
        "allow = [\"group:Batch\"]",
        "`Batch` is not the name of a group: a name holds only a-z, 0-9 and -, and neither begins nor ends with -",
        "",
    );
    service(
        "allow = [\"w*\"]",
        "`w*` is not the name of a service: a name holds only a-z, 0-9 and -, and neither begins nor ends with -",
        "",
    );
    service(
        "allow = [\"group:batch\"]",
        "there is no group `batch`",
        "declare it: `[groups]` and `batch = [\"…\"]`",
    );
    check(
        "[groups]\nbatch = [\"a\"]\n[[service]]\nname = \"b\"\nport = 1\nallow = [\"group:bacth\"]",
        "6: there is no group `bacth`",
        "did you mean `group:batch`?",
    );
    check(
        "[groups]\nbatch = []",
        "2: `a group` is empty",
        "name something, or leave the key out",
    );
}

const HTTP: &str = "[[service]]\nname = \"b\"\nport = 1\nprotocol = \"http\"\n[[service.grant]]\n";

#[track_caller]
fn rule(lines: &str, line_and_what: &str, hint: &str) {
    check(&format!("{HTTP}{lines}"), line_and_what, hint);
}

#[test]
fn rules_say_from_whom_and_nothing_that_matches_nothing() {
    rule(
        "paths = [\"/a\"]",
        "5: `from` is missing",
        "who calls: `from = [\"web\"]`, or [\"*\"] for every service of the mesh",
    );
    let hint = "name something, or leave the key out";
    rule("from = []", "6: `from` is empty", hint);
    rule(
        "from = [\"a\"]\nmethods = []",
        "7: `methods` is empty",
        hint,
    );
    rule(
        "from = [\"a\"]\nmethods = [\"get\"]",
        "7: `get` is not a method of HTTP",
        "methods are in capitals: \"GET\"",
    );
    rule(
        "from = [\"a\"]\npaths = [\"/a/*\"]",
        "7: `/a/*` matches nothing: a `*` stands for nothing on its own",
        "`/orders/**` is all below `/orders`, `{id}` is one segment, `%2A` is a star itself",
    );
    rule(
        "from = [\"a\"]\npaths = [\"/a//b\"]",
        "7: `/a//b` matches nothing: no request has such a path: it holds an empty segment",
        "such requests are refused before any rule is asked; see docs/policy.md",
    );
    rule(
        "from = [\"a\"]\npath = [\"/a\"]",
        "7: unknown key `path` in [[service.grant]]",
        "did you mean `paths`?",
    );
}

#[test]
fn a_rule_for_requests_on_a_tcp_service_is_an_error() {
    for key in ["methods = [\"GET\"]", "paths = [\"/a\"]"] {
        for kind in ["grant", "deny"] {
            check(
                &format!(
                    "[[service]]\nname = \"b\"\nport = 1\n[[service.{kind}]]\nfrom = [\"a\"]\n{key}"
                ),
                "4: `methods` and `paths` say nothing about a service that speaks tcp",
                "add `protocol = \"http\"` to the service, or leave them out",
            );
        }
    }
}

#[test]
fn modes_and_plaintext() {
    check(
        "[policy]\nmode = \"audti\"",
        "2: `mode` cannot be `audti`",
        "did you mean \"audit\"?",
    );
    check(
        "[[service]]\nname = \"orders\"\nport = 8080\nplaintext = \"127.0.0.1:8080\"",
        "1: `plaintext = \"127.0.0.1:8080\"` is taken",
        "choose another port or address; this is the app of service `orders` at starling.toml:1",
    );
}

/// What an operator is told about a document with this body.
fn told_of(body: &str) -> String {
    match policy::Document::parse(body) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn a_document_is_read() {
    let document = policy::Document::parse(
        "[groups]\nbatch = [\"billing\"]\n[[mode]]\nmode = \"audit\"\n[[mode]]\nservices = [\"a\", \"b\"]\nmode = \"enforce\"\n\
         [[grant]]\nservices = [\"*\"]\nfrom = [\"group:batch\"]\npaths = [\"/x\"]\n\
         [[deny]]\nservices = [\"group:batch\"]\nfrom = [\"*\"]\n",
    )
    .unwrap();
    let name = |text| starling_gossip::ServiceName::parse(text).unwrap();
    assert_eq!(document.mode.as_ref().unwrap().mode, Mode::Audit);
    assert_eq!(document.mode_of(&name("a")).unwrap().mode, Mode::Enforce);
    assert!(document.mode_of(&name("c")).is_none());
    assert_eq!(document.grants[0].rule.declared.line, 8);
    assert!(document.is_about(&document.denies[0].services, &name("billing")));
    assert!(!document.is_about(&document.denies[0].services, &name("web")));
    let mesh = policy::Document::parse("mode = \"permissive\"").unwrap();
    assert_eq!(mesh.mode.unwrap().mode, Mode::Permissive);
    assert_eq!(
        policy::Document::parse("").unwrap(),
        policy::Document::default()
    );
}

#[test]
fn all_problems_of_a_document_are_told_at_once() {
    assert_eq!(
        told_of(
            "[[grant]]\nfrom = [\"group:x\"]\n[[mode]]\nmode = \"off\"\n[[deny]]\nservices = [\"a\"]\nfrom = [\"*\"]\nallow = 1\n"
        ),
        "error: policy:1: `services` is missing\n  hint: who is called: `services = [\"orders\"]`, or [\"*\"] for all\n\
         error: policy:2: there is no group `x`\n  hint: declare it: `[groups]` and `x = [\"…\"]`\n\
         error: policy:4: `mode` cannot be `off`\n  hint: one of \"enforce\", \"audit\", \"permissive\"\n\
         error: policy:8: unknown key `allow` in [[deny]]\n  hint: `allow` belongs in [[service]]"
    );
    assert!(
        told_of("mode = 1").starts_with("error: policy:1: "),
        "{}",
        told_of("mode = 1")
    );
    assert!(told_of("[[grant").starts_with("error: policy:1: "));
}

proptest! {
    #[test]
    fn any_document_is_rules_or_problems(text in "[\\[\\]{}=,.\"'#a-z0-9\\n *:/]{0,300}", word in "\\PC{0,30}") {
        crate::policy::fuzz(text.as_bytes());
        let quoted = toml_quoted(&word);
        crate::policy::fuzz(format!("mode = {quoted}\n[groups]\n{quoted} = [{quoted}]\n[[grant]]\nservices = [{quoted}]\nfrom = [{quoted}]\n\
            methods = [{quoted}]\npaths = [{quoted}]").as_bytes());
        crate::policy::fuzz(format!("[[deny]]\nservices = ['*']\nfrom = ['*']\npaths = ['/a/{{x}}']\n\0/{word}").as_bytes());
    }
}

fn services_of(body: &str) -> String {
    match policy::Document::parse(body).unwrap().services_named() {
        policy::ServiceSet::All => "*".into(),
        policy::ServiceSet::Only(names) => {
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            names.join(" ")
        }
    }
}

#[test]
fn a_document_is_about_the_services_of_its_grants_denials_and_modes() {
    assert_eq!(services_of(""), "");
    // Callers are not what it is about.
    let rules = "[[grant]]\nservices = [\"orders\"]\nfrom = [\"web\"]\n[[deny]]\nservices = [\"pay\"]\nfrom = [\"*\"]\n";
    assert_eq!(services_of(rules), "orders pay");
    let mode = "[[mode]]\nservices = [\"db\", \"group:shop\"]\nmode = \"enforce\"\n";
    let groups = "[groups]\nshop = [\"cart\", \"pay\"]\nidle = [\"job\"]\n";
    assert_eq!(
        services_of(&format!("{groups}{mode}{rules}")),
        "cart db orders pay"
    );
    let any = "[[deny]]\nservices = [\"db\", \"*\"]\nfrom = [\"web\"]\n";
    assert_eq!(services_of(&format!("{rules}{any}")), "*");
    assert_eq!(services_of(&format!("mode = \"audit\"\n{rules}")), "*");
    assert_eq!(
        services_of(&format!("{rules}[[mode]]\nmode = \"audit\"")),
        "*"
    );
}

#[test]
fn services_of_two_texts_add_up() {
    let set = |names: &[&str]| {
        let names = names
            .iter()
            .map(|name| starling_gossip::ServiceName::parse(name).unwrap());
        policy::ServiceSet::Only(names.collect())
    };
    assert_eq!(
        set(&["a", "b"]).union(set(&["b", "c"])),
        set(&["a", "b", "c"])
    );
    assert_eq!(
        set(&["a"]).union(policy::ServiceSet::default()),
        set(&["a"])
    );
    assert_eq!(
        set(&["a"]).union(policy::ServiceSet::All),
        policy::ServiceSet::All
    );
    assert_eq!(
        policy::ServiceSet::All.union(set(&["a"])),
        policy::ServiceSet::All
    );
}
