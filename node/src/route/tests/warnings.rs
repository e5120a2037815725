//! What operators are warned of.

use super::notation::route;

fn check(rules: &str, expected: &[&str]) {
    let route = route(rules);
    let shadows: Vec<_> = route
        .shadowed()
        .map(|(rule, earlier)| format!("{} by {}", route.title(rule), route.title(earlier)))
        .collect();
    assert_eq!(shadows, expected, "{rules}");
}

#[test]
fn rules_that_nothing_reaches_are_found() {
    check("cart; /a -> v1; /b -> v2", &[]);
    check("cart; -> v1; /b -> v2", &["rule 2 by rule 1"]);
    check("cart v1; /b -> v2", &[]);
    check("cart; /a/** -> v1; /a/b -> v2", &["rule 2 by rule 1"]);
    check("cart; /a/** -> v1; /a -> v2", &["rule 2 by rule 1"]);
    check("cart; /a/** -> v1; /a/b/** -> v2", &["rule 2 by rule 1"]);
    check("cart; /a/b/** -> v1; /a/** -> v2", &[]);
    check("cart; /a/{id} -> v1; /a/b -> v2", &["rule 2 by rule 1"]);
    check("cart; /a/{id} -> v1; /a/{x} -> v2", &["rule 2 by rule 1"]);
    check("cart; /a/b -> v1; /a/{id} -> v2", &[]);
    check("cart; /a/{id} -> v1; /a/b/c -> v2", &[]);
    check("cart; /a/{id} -> v1; /a/** -> v2", &[]);
    check("cart; /** -> v1; /a -> v2", &["rule 2 by rule 1"]);
    check("cart; /** -> v1; GET -> v2", &[]);
    check("cart; re:/a -> v1; re:/a -> v2", &["rule 2 by rule 1"]);
    check("cart; re:/a -> v1; re:/b -> v2", &[]);
    check("cart; re:/a.* -> v1; /ab -> v2", &[]);
    check("cart; GET -> v1; GET /a -> v2", &["rule 2 by rule 1"]);
    check("cart; GET -> v1; GET|PUT -> v2", &[]);
    check("cart; GET|PUT -> v1; GET -> v2", &["rule 2 by rule 1"]);
    check("cart; x -> v1; x=1 -> v2", &["rule 2 by rule 1"]);
    check("cart; x^a -> v1; x=ab -> v2", &["rule 2 by rule 1"]);
    check("cart; x^a -> v1; x^ab -> v2", &["rule 2 by rule 1"]);
    check("cart; x^ab -> v1; x^a -> v2", &[]);
    check("cart; x=1 -> v1; x -> v2", &[]);
    check("cart; x=1 -> v1; x=2 -> v2", &[]);
    check("cart; x=1 -> v1; x=1 y=2 -> v2", &["rule 2 by rule 1"]);
    check("cart; x=1 y=2 -> v1; x=1 -> v2", &[]);
    check("cart; !x -> v1; !x y -> v2", &["rule 2 by rule 1"]);
    check("cart; x -> v1; !x -> v2", &[]);
    check("cart; x~a -> v1; x=a -> v2", &[]);
    check("cart; x~a -> v1; x~a -> v2", &["rule 2 by rule 1"]);
    check("cart; ?v -> v1; ?v=1 -> v2", &["rule 2 by rule 1"]);
    check("cart; ?v -> v1; v -> v2", &[]);
    check("cart; @web|api -> v1; @api -> v2", &["rule 2 by rule 1"]);
    check("cart; @web -> v1; -> v2", &[]);
    check("cart; %a -> v1; %a @web -> v2", &["rule 2 by rule 1"]);
    check(
        "cart v3; -> v1; x -> v2",
        &["rule 2 by rule 1", "rule 3 by rule 1"],
    );
}

#[test]
fn a_warning_says_which_rule_and_where() {
    let route = route("cart; -> v1; x -> v2");
    let told: Vec<_> = route.shadows().iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["warning: route:4: no call to `cart` reaches rule 2\n  \
          hint: rule 1 at route:1 takes all of them; put the narrower rule first"]
    );
}

#[test]
fn subsets_that_nobody_has_are_told_once() {
    let route = route("cart v1=50 v2=50; x -> v3; y -> v3; z -> any");
    let told = |has: fn(&str) -> Option<bool>| {
        let warnings = route.unknown(|_, subset| has(&subset.to_string()));
        warnings
            .iter()
            .map(|warning| warning.to_string().lines().next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told(|subset| Some(subset != "version=v3")),
        ["warning: route:1: no instance of `cart` has `version=v3`"]
    );
    assert_eq!(told(|_| None), ["warning: route:1: nobody offers `cart`"]);
    assert!(told(|_| Some(true)).is_empty());
}
