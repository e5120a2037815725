//! Live calls, for operators who may look at them and nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use harness::apps::Moody;
use harness::http::Client;
use harness::process::{leashed, run};
use harness::{Mesh, Need, Node, Process, Scratch, need, program, turn, wait_until};
use serde_json::Value;

/// web on n1 calls orders on n2, batch on n1 does so in vain. n3 has nothing to do with it.
struct Shop {
    mesh: Mesh,
    web: SocketAddr,
    batch: SocketAddr,
    _app: Moody,
}

impl Shop {
    fn open() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web", "batch"]), ("n2", &["orders"]), ("n3", &[])]);
        let n2 = mesh.node("n2");
        let app = Moody::well(n2.host());
        n2.serve("orders", app.address(), "http", &["web"], "");
        let web = mesh.node("n1").call("orders", "web");
        let batch = mesh.node("n1").call("orders", "batch");
        mesh.start();
        mesh.wait_healthy("orders", &["n2"], crate::PATIENCE);
        Self {
            mesh,
            web,
            batch,
            _app: app,
        }
    }

    fn node(&self, name: &str) -> &Node {
        self.mesh.node(name)
    }

    /// Starts `starling tap orders` on n1.
    fn tap(&self, key: &str, options: &[&str], log: &str) -> Told {
        let log = self.mesh.scratch().path().join(log);
        let mut command = leashed(program::agent());
        command.args(["tap", "orders", "--json", "--key", key, "--socket"]);
        command.arg(self.node("n1").socket()).args(options);
        Told(Process::spawn("tap", command, &log))
    }

    fn call(&self, address: SocketAddr, path: &str) -> u16 {
        let fields = [("x-tenant", "acme"), ("cookie", "id=s3cret")];
        let answer = Client::new(address).ask("GET", path, &fields, &[]);
        answer.expect("the agent answers").status
    }

    /// What the admin port of a node says to somebody who brings `pass`.
    fn look(&self, node: &str, pass: Option<&str>, query: &str) -> (u16, Value) {
        let fields: Vec<_> = pass
            .map(|pass| ("starling-pass", pass))
            .into_iter()
            .collect();
        let mut client = Client::new(self.node(node).admin_address());
        let answer = client.ask("GET", &format!("/v1/tap?{query}"), &fields, &[]);
        let answer = answer.expect("the agent answers");
        let said = serde_json::from_slice(&answer.body).unwrap_or_default();
        (answer.status, said)
    }

    fn pass(&self, key: &str, options: &[&str]) -> String {
        let arguments = [&["login", "--bare", "--key", key], options].concat();
        self.node("n1").must(&arguments).trim().to_owned()
    }
}

/// What a tap has printed.
struct Told(Process);

impl Told {
    fn all(&self) -> Vec<Value> {
        let log = self.0.log();
        let lines = log.lines().map(serde_json::from_str);
        lines.filter_map(Result::ok).collect()
    }

    #[track_caller]
    fn wait(&mut self, what: &str, found: impl Fn(&[Value]) -> bool) {
        wait_until(crate::PATIENCE, what, || {
            self.0.check();
            found(&self.all())
        });
    }

    /// Waits until the newest word of these nodes is that they answer.
    #[track_caller]
    fn wait_answers(&mut self, nodes: &[&str]) {
        self.wait("all nodes to answer", |said| {
            let state = |node| state(said, node).map(|(state, _)| state);
            nodes
                .iter()
                .all(|node| state(node).as_deref() == Some("answers"))
        });
    }
}

/// Whether a node answers, as was said last, and why not.
fn state(said: &[Value], node: &str) -> Option<(String, String)> {
    let lists = said.iter().rev().filter(|one| one["kind"] == "nodes");
    let list = lists.map(|one| &one["nodes"]).next()?;
    let found = list.as_array()?.iter().find(|one| one["node"] == node)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    Some((text("state"), text("why")))
}

fn calls<'s>(said: &'s [Value], node: &str, path: &str) -> Vec<&'s Value> {
    let calls = said.iter().filter(|one| one["kind"] == "call");
    let fits = |one: &&Value| one["node"] == node && one["path"] == path;
    calls.filter(fits).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "it worked");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn both_ends_of_a_call_are_seen_and_who_looked_is_written_down() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n2, n3) = (shop.node("n1"), shop.node("n2"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "tap"));
    assert_eq!(shop.call(shop.web, "/before"), 200);
    let mut all = shop.tap(&alice, &["--show", "x-tenant"], "all.log");
    let mut errors = shop.tap(&alice, &["--errors", "--side", "callee"], "errors.log");
    all.wait_answers(&["n1", "n2"]);
    errors.wait_answers(&["n1", "n2"]);

    assert_eq!(shop.call(shop.web, "/cart"), 200);
    assert_eq!(shop.call(shop.batch, "/secret"), 403);
    all.wait("both ends of both calls", |said| {
        let seen = |node, path| calls(said, node, path).len() == 1;
        seen("n1", "/cart") && seen("n2", "/cart") && seen("n1", "/secret") && seen("n2", "/secret")
    });
    errors.wait("the denial", |said| {
        !calls(said, "n2", "/secret").is_empty()
    });

    let said = all.all();
    assert!(calls(&said, "n1", "/before").is_empty());
    let (here, there) = (
        calls(&said, "n1", "/cart")[0],
        calls(&said, "n2", "/cart")[0],
    );
    assert_eq!(
        (&here["side"], &there["side"]),
        (&"caller".into(), &"callee".into())
    );
    assert_eq!(here["trace_id"], there["trace_id"]);
    for call in [here, there] {
        assert_eq!(
            (&call["caller"], &call["instance"], &call["status"]),
            (&"web".into(), &"n2".into(), &200.into()),
            "{call}"
        );
        let headers = call["headers"].as_array().expect("header fields");
        let value = |name: &str| {
            let found = headers.iter().find(|field| field["name"] == name);
            found.unwrap_or_else(|| panic!("no {name} in {call}"))["value"].clone()
        };
        assert_eq!(
            (value("x-tenant"), value("cookie")),
            ("acme".into(), Value::Null)
        );
    }
    assert!(!all.0.log().contains("s3cret"));
    let denied = calls(&said, "n2", "/secret")[0];
    assert_eq!(denied["reason"], "denied");
    assert_eq!(denied["caller"], "spiffe://mesh.test/svc/batch");
    assert!(calls(&errors.all(), "n2", "/cart").is_empty());
    assert!(
        calls(&errors.all(), "n1", "/secret").is_empty(),
        "the other end"
    );

    for node in [n1, n2] {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains("live calls are looked at"));
        let line = line.unwrap_or_else(|| panic!("{} wrote nothing down", node.name()));
        assert!(
            line.contains("operator=alice") && line.contains("callee=orders"),
            "{line}"
        );
        let began = node
            .metrics()
            .sum("starling_taps_total", &[("callee", "orders")]);
        assert_eq!(began, 2.0, "{}", node.name());
    }
    assert_eq!(n2.metrics().sum("starling_taps_open", &[]), 2.0);
    assert!(!n3.log().contains("live calls"), "nobody asked n3");

    // Who no longer looks is forgotten.
    drop(errors);
    wait_until(crate::PATIENCE, "the other tap alone", || {
        n2.metrics().sum("starling_taps_open", &[]) == 1.0
    });
    assert!(n2.log().contains("live calls are no longer looked at"));

    // A node that is gone is a gap.
    n2.kill();
    all.wait("n2 to be a gap", |said| {
        state(said, "n2").is_some_and(|(state, why)| state == "silent" && !why.is_empty())
    });
}

#[test]
fn a_tap_shows_no_more_than_asked_for_and_says_what_is_missing() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::open();
    let alice = shown(&shop.mesh.operator("alice", "tap"));
    let options = ["--sample", "1", "--node", "n2", "--path", "/items/{id}"];
    let mut tap = shop.tap(&alice, &options, "sampled.log");
    tap.wait_answers(&["n2"]);
    assert_eq!(state(&tap.all(), "n1"), None, "n1 was not asked for");
    for item in 0..20 {
        assert_eq!(shop.call(shop.web, &format!("/items/{item}")), 200);
        assert_eq!(shop.call(shop.web, "/items"), 200);
    }
    let sum = |said: &[Value]| {
        let shown = said.iter().filter(|one| one["kind"] == "call").count() as u64;
        let missing = said.iter().filter(|one| one["kind"] == "missing");
        let left_out: u64 = missing.filter_map(|one| one["left_out"].as_u64()).sum();
        (shown, left_out)
    };
    tap.wait("all calls to be accounted for", |said| {
        let (shown, left_out) = sum(said);
        shown + left_out == 20
    });
    let (shown, left_out) = sum(&tap.all());
    assert!(
        shown >= 1 && left_out > shown,
        "{shown} shown, {left_out} left out"
    );
    drop(tap);

    // For people, and to an end.
    let mut command = leashed(program::agent());
    command.args(["tap", "orders", "--count", "2", "--key", &alice, "--socket"]);
    command.arg(shop.node("n1").socket());
    let log = shop.mesh.scratch().path().join("people.log");
    let mut people = Process::spawn("tap", command, &log);
    wait_until(crate::PATIENCE, "two ends of a call in two lines", || {
        assert_eq!(shop.call(shop.web, "/cart"), 200);
        people.ended().is_some()
    });
    let text = people.log();
    assert!(people.wait(crate::PATIENCE).success(), "{text}");
    assert!(
        text.contains("web → orders@n2  200") && text.contains("GET /cart"),
        "{text}"
    );
    assert!(text.contains("shown, by "), "{text}");
}

#[test]
fn nobody_looks_without_a_pass_that_holds() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n2) = (shop.node("n1"), shop.node("n2"));
    let (alice, alices_key) = shop.mesh.operator_with_key("alice", "tap,see");
    let alice = shown(&alice);
    let root = shown(&shop.mesh.operator("root", "revocation"));

    let (status, said) = shop.look("n1", None, "callee=orders");
    assert_eq!((status, &said["status"]), (401, &401.into()));
    assert!(
        said["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("starling login"))
    );
    let orders = shop.pass(&alice, &["--tap", "orders"]);
    for (node, pass, query, status, why) in [
        (
            "n1",
            "starling-pass1.no",
            "callee=orders",
            403,
            "this is not a pass",
        ),
        (
            "n1",
            &orders,
            "callee=web",
            403,
            "for calls to other services",
        ),
        (
            "n1",
            &orders,
            "callee=orders&show=x-tenant",
            403,
            "does not show the value",
        ),
        (
            "n1",
            &orders,
            "callee=orders&show=cookie",
            400,
            "never shown",
        ),
        (
            "n1",
            &orders,
            "callee=orders&tenant=acme",
            400,
            "docs/tap.md",
        ),
        (
            "n2",
            &orders,
            "callee=orders",
            403,
            "for another node to carry",
        ),
    ] {
        let (found, said) = shop.look(node, Some(pass), query);
        let text = said["error"].as_str().unwrap_or_default();
        assert!(
            found == status && text.contains(why),
            "{query}: {found} {said}"
        );
    }
    let refused = n1.metrics();
    let refused = |reason| refused.sum("starling_passes_refused_total", &[("reason", reason)]);
    assert_eq!((refused("malformed"), refused("callee")), (1.0, 1.0));

    // An operator who may sign documents is none who may look.
    let tap = |key: &str| error(&n1.operate(&["tap", "orders", "--for", "1s", "--key", key]));
    let lacks = tap(&root);
    assert!(
        lacks.contains("the grant lacks `tap`") && lacks.contains("hint:"),
        "{lacks}"
    );
    // Nor is one of another mesh of the same name.
    let other = Scratch::new();
    let (state, eve) = (
        other.path().join("state"),
        other.path().join("eve.operator"),
    );
    let mut init = Command::new(program::agent());
    init.args([
        "init",
        "--trust-domain",
        harness::mesh::TRUST_DOMAIN,
        "--node",
        "x",
        "--state",
    ]);
    init.arg(&state);
    run(init);
    let mut new = Command::new(program::agent());
    new.args([
        "operator", "new", "--name", "eve", "--kinds", "tap", "--state",
    ]);
    new.arg(&state).arg("--out").arg(&eve);
    run(new);
    let foreign = tap(&shown(&eve));
    assert!(
        foreign.contains("no root of this mesh made the pass's operator"),
        "{foreign}"
    );

    // Who is revoked while looking sees no more.
    let mut looking = shop.tap(&alice, &[], "revoked.log");
    looking.wait_answers(&["n1", "n2"]);
    let signed = ["--operator", "--reason", "leaked", "--key", &root, "--yes"];
    n1.must(&[&["revoke", &alices_key], &signed[..]].concat());
    wait_until(crate::PATIENCE, "the tap to end", || {
        looking.0.ended().is_some()
    });
    assert!(
        looking
            .0
            .log()
            .contains("key of the pass's operator is revoked"),
        "{}",
        looking.0.log()
    );
    let revoked = tap(&alice);
    assert!(revoked.contains("is revoked"), "{revoked}");
    wait_until(crate::PATIENCE, "n2 to show nothing", || {
        n2.metrics().sum("starling_taps_open", &[]) == 0.0
    });
}
