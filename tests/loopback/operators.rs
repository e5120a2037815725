//! Operators who are revoked: what they denied stays denied, through everything.

use harness::{Need, let_pass, need, turn, wait_until};

use crate::documents::{Shop, error, shown};

impl Shop {
    /// A policy that denies web the service orders.
    fn denial(&self, name: &str) -> String {
        let text = format!(
            "kind = \"policy\"\nname = \"{name}\"\n\n[[deny]]\nservices = [\"orders\"]\nfrom = [\"web\"]\n"
        );
        let file = self.mesh.scratch().write(&format!("{name}.toml"), &text);
        shown(&file)
    }

    /// Calls for a while, while something else may happen; none may pass.
    fn never_passes(&self, what: &str) {
        for _ in 0..20 {
            assert_ne!(self.status(), 200, "{what}");
            let_pass(std::time::Duration::from_millis(25));
        }
    }

    fn restart(&self, name: &str, is_killed: bool) {
        let node = self.node(name);
        if is_killed {
            node.kill();
        } else {
            node.stop();
        }
        node.start();
        node.wait_ready();
    }
}

#[test]
fn revoking_an_operators_key_opened_what_that_operator_had_closed() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::allowing("web");
    let (n1, n2) = (shop.node("n1"), shop.node("n2"));
    let kinds = "policy,revocation";
    let (alice, alices_key) = shop.mesh.operator_with_key("alice", kinds);
    let (bob, bobs_key) = shop.mesh.operator_with_key("bob", kinds);
    let (alice, bob) = (shown(&alice), shown(&bob));
    let by = |who: &str, rest: &[&str]| n1.must(&[rest, &["--key", who, "--yes"]].concat());
    shop.wait_status(200);
    by(&alice, &["apply", "-f", &shop.denial("unrelated")]);
    by(&alice, &["delete", "policy/unrelated"]);
    by(&bob, &["apply", "-f", &shop.denial("stop")]);
    by(&bob, &["revoke", "node/n9", "--reason", "stolen"]);
    shop.wait_status(403);

    // A junior does not revoke, and hears who can.
    let refused = n1.operate(&[
        "revoke",
        &alices_key,
        "--reason",
        "x",
        "--key",
        &bob,
        "--yes",
    ]);
    let refused = error(&refused);
    assert!(refused.contains("the root alone can"), "{refused}");

    // What he revoked is for a person to judge.
    let revoke = [
        "revoke",
        &bobs_key,
        "--reason",
        "laptop stolen",
        "--key",
        &alice,
        "--yes",
    ];
    let undecided = error(&n1.operate(&revoke));
    assert!(undecided.contains("--keep KIND/NAME"), "{undecided}");
    let said = n1.must(&[&revoke[..], &["--keep", "revocation/node-n9"]].concat());
    assert!(said.contains("its denials stay, its grants go"), "{said}");
    shop.never_passes("after the revocation of bob's key");
    for (name, is_killed) in [("n3", true), ("n3", false), ("n1", true)] {
        shop.restart(name, is_killed);
        shop.never_passes("after a restart");
    }
    for (node, key, state) in [
        (n2, "policy/stop", "narrowing"),
        (n2, "revocation/node-n9", "narrowing"),
    ] {
        wait_until(crate::PATIENCE, key, || {
            node.document(key)
                .is_some_and(|(_, found, _)| found == state)
        });
    }
    let nothing =
        error(&n1.operate(&["apply", "-f", &shop.denial("more"), "--key", &bob, "--yes"]));
    assert!(nothing.contains("revoked"), "{nothing}");

    // Carried by hand it is the same document, and known already.
    let signed = n2.must(&["get", "policy/stop", "--signed"]);
    assert!(
        signed.starts_with("-----BEGIN STARLING DOCUMENT-----"),
        "{signed}"
    );
    let file = shown(&shop.mesh.scratch().write("stop.signed", &signed));
    n1.must(&["apply", "-f", &file]);

    // Dropped, it opens that and nothing else.
    let dropped = ["--keep", "revocation/node-n9", "--drop", "policy/stop"];
    n1.must(&[&revoke[..], &dropped].concat());
    shop.wait_status(200);

    // The root's word stands above all.
    let state = shown(&shop.mesh.issuer());
    let key = alices_key.trim_start_matches("key/");
    let digits = |key: &str| key.trim_start_matches("key/sha256:")[..16].to_owned();
    let hers = format!(
        "operator-revocation/{}-{}",
        digits(&bobs_key),
        digits(&alices_key)
    );
    by(&alice, &["apply", "-f", &shop.denial("again")]);
    shop.wait_status(403);
    let root = [
        "operator",
        "revoke",
        key,
        "--reason",
        "stolen too",
        "--state",
        &state,
        "--yes",
    ];
    n1.must(&[&root[..], &["--keep", &hers]].concat());
    shop.never_passes("after the root's revocation");
    n1.must(&["operator", "restore", key, "--state", &state, "--yes"]);
    by(&alice, &["delete", "policy/again"]);
    shop.wait_status(200);
}

#[test]
fn what_a_revoked_operator_signed_above_a_document_was_being_checked_for_ever() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::allowing("nobody");
    let n1 = shop.node("n1");
    let kinds = "policy,revocation";
    let (alice, alices_key) = shop.mesh.operator_with_key("alice", kinds);
    let (bob, bobs_key) = shop.mesh.operator_with_key("bob", kinds);
    let (alice, bob) = (shown(&alice), shown(&bob));
    let by = |who: &str, rest: &[&str]| n1.must(&[rest, &["--key", who, "--yes"]].concat());
    let granted = |name: &str, from: &str| {
        let text = format!(
            "kind = \"policy\"\nname = \"{name}\"\n\n[[grant]]\nservices = [\"orders\"]\nfrom = [{from}]\n"
        );
        let file = shop.mesh.scratch().write(&format!("{name}.toml"), &text);
        shown(&file)
    };
    by(
        &alice,
        &["apply", "-f", &granted("x", "\"web\", \"batch\"")],
    );
    by(&bob, &["apply", "-f", &granted("x", "\"web\"")]);
    by(&bob, &["apply", "-f", &granted("taken", "\"batch\"")]);
    shop.wait_status(200);
    let revoke = [
        "revoke",
        &bobs_key,
        "--reason",
        "left",
        "--adopt",
        "policy/taken",
    ];
    by(&alice, &revoke);

    // Hers counts, and what his takes away stays away.
    let (shown_as, state, in_force) = n1.document("policy/x").expect("it is held");
    assert_eq!(
        (shown_as, state.as_str(), in_force),
        (1, "in force", Some(1))
    );
    let table = n1.must(&["get"]);
    assert!(
        table.contains("revision 1 counts; of what revoked operators signed above it (revision 2 of bob), denials count too"),
        "{table}"
    );
    let history = n1.must(&["history", "policy/x"]);
    assert!(history.contains("key revoked, denials stay"), "{history}");
    assert!(n1.must(&["get", "policy/x"]).contains("batch"));
    // The number behind his is the next one, and nobody waits.
    let again = by(&alice, &["apply", "-f", &granted("x", "\"web\"")]);
    assert!(again.contains("policy/x@3 is in force here"), "{again}");

    // She took the other one over whole, under her own key.
    let taken = n1.must(&["history", "policy/taken", "--json"]);
    let taken: serde_json::Value = serde_json::from_str(&taken).expect("it is JSON");
    let newest = &taken["revisions"][0];
    assert_eq!(
        (newest["operator"].as_str(), newest["revision"].as_u64()),
        (Some("alice"), Some(2)),
        "{taken}"
    );
    assert_eq!(
        newest["public_key"].as_str(),
        alices_key.strip_prefix("key/")
    );
    // Twice is once.
    let twice = by(&alice, &revoke);
    assert!(twice.contains("policy/taken is so already"), "{twice}");
}
