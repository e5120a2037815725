//! What the operator reads.

use std::process::{Command, Output};

use harness::apps::{Moody, Reply};
use harness::{Mesh, Need, Scratch, need, program, turn, wait_until};

fn starling(arguments: &[&str]) -> Output {
    Command::new(program::agent())
        .args(arguments)
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn validate_tells_all_problems_of_all_files_at_once() {
    need!(Need::Agent);
    let scratch = Scratch::new();
    scratch.directory("services.d");
    scratch.write(
        "starling.toml",
        "listen = \"somewhere\"\n\n[limits]\nidle = \"-5m\"\n",
    );
    scratch.write(
        "services.d/orders.toml",
        "[[service]]\nname = \"Orders!\"\nport = 8080\nprotocol = \"http\"\nallow = [\"web\"]\n",
    );
    scratch.write(
        "services.d/web.toml",
        "[[upstream]]\nservice = \"orders\"\nlisten = \"127.0.0.1:9001\"\n",
    );
    let output = starling(&["validate", &scratch.path().display().to_string()]);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for expected in [
        "starling.toml:1: ",
        "starling.toml:4: ",
        "orders.toml:2: ",
        "web.toml:1: ",
        "hint: ",
    ] {
        assert!(printed.contains(expected), "no {expected} in\n{printed}");
    }
}

#[test]
fn what_is_watched_is_printed_again() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &[])]);
    mesh.start();
    let node = mesh.node("n1");
    let out = mesh.scratch().path().join("watched");
    let mut watching = node.watch("nodes", &out);
    let printed = || std::fs::read_to_string(&out).unwrap_or_default();
    wait_until(crate::PATIENCE, "the table to come twice", || {
        watching.check();
        printed().matches("NODE").count() >= 2
    });
    node.kill();
    wait_until(crate::PATIENCE, "it to say that nobody answers", || {
        watching.check();
        printed().contains("admin.sock")
    });
}

#[test]
fn validate_says_that_good_files_are_good() {
    need!(Need::Agent);
    let scratch = Scratch::new();
    let file = scratch.write(
        "a.toml",
        "[[service]]\nname = \"a\"\nport = 1\nprotocol = \"tcp\"\nallow = [\"b\"]\n",
    );
    let output = starling(&["validate", &file.display().to_string()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("good (1 service, 0 upstreams)"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn an_agent_that_is_not_there_is_told_with_a_hint() {
    need!(Need::Agent);
    let output = starling(&["status", "--socket", "/nonexistent/admin.sock"]);
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("no agent answers at /nonexistent/admin.sock"),
        "{printed}"
    );
    assert!(printed.contains("hint: "), "{printed}");
}

#[test]
fn a_command_that_is_not_understood_is_an_error_of_its_own() {
    need!(Need::Agent);
    assert_eq!(starling(&["agnet"]).status.code(), Some(2));
    assert_eq!(starling(&["--help"]).status.code(), Some(0));
    assert_eq!(starling(&["--version"]).status.code(), Some(0));
}

#[test]
fn status_nodes_and_services_show_the_mesh_from_any_node() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["orders"])]);
    let app = harness::stream::serve(mesh.node("n2").host(), drop);
    mesh.node("n2").serve(
        "orders",
        app,
        "tcp",
        &["web"],
        "labels = { version = \"v2\" }",
    );
    mesh.node("n1").call("orders", "web");
    mesh.start();
    mesh.wait_healthy("orders", &["n2"], crate::SEEN);
    for node in mesh.nodes() {
        let check = |command: &str, expected: &[&str]| {
            let shown = node.show(command, &[]).expect("it answers");
            for word in expected {
                assert!(
                    shown.contains(word),
                    "no {word} in {} {command}:\n{shown}",
                    node.name()
                );
            }
        };
        check("status", &[node.name(), "mesh.test"]);
        check("nodes", &["n1", "n2", "alive"]);
        check("services", &["orders", "n2", "v2"]);
    }
    let status = mesh.node("n1").ask("status").expect("JSON");
    assert_eq!(
        (&status["node"], &status["trust_domain"]),
        (&"n1".into(), &"mesh.test".into()),
        "{status}"
    );
}

#[test]
fn the_agent_answers_on_loopback_whether_it_lives_and_is_ready() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    mesh.start();
    let node = mesh.node("n1");
    assert_eq!(node.admin("/healthz").expect("an answer").status, 200);
    assert_eq!(node.admin("/readyz").expect("an answer").status, 200);
    assert_eq!(node.admin("/nothing").expect("an answer").status, 404);
    assert!(node.metrics().sum("starling_build_info", &[]) == 1.0);
    use std::os::unix::fs::PermissionsExt;
    let socket = std::fs::metadata(node.directory().join("admin.sock")).expect("it is there");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[test]
fn one_access_line_per_call_at_either_end() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    let nginx = harness::apps::Nginx::start(
        mesh.node("n2").host(),
        &mesh.scratch().directory("nginx"),
        "n2",
    );
    mesh.node("n2")
        .serve("site", nginx.address(), "http", &["web"], "");
    let address = mesh.node("n1").call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    let answer = harness::http::get(address, "/status/503?secret=1").expect("an answer");
    assert_eq!(answer.status, 503);
    for (node, side) in [("n1", "caller"), ("n2", "callee")] {
        let lines = || -> Vec<String> {
            let log = mesh.node(node).log();
            log.lines()
                .filter(|line| line.contains("url.path=/status/503"))
                .map(str::to_owned)
                .collect()
        };
        wait_until(crate::PATIENCE, "an access line", || !lines().is_empty());
        let lines = lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        for word in [
            &format!("side={side}"),
            "caller=web",
            "callee=site",
            "http.response.status_code=503",
            "trace_id=",
        ] {
            assert!(lines[0].contains(word), "no {word} in {}", lines[0]);
        }
        assert!(!lines[0].contains("secret"), "{}", lines[0]);
    }
}

#[test]
fn access_lines_say_what_was_asked_for() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let app = Moody::start(n2.host(), |_, head| {
        Reply::status(if head.starts_with("GET /bad ") {
            500
        } else {
            200
        })
    });
    n2.serve("site", app.address(), "http", &["web"], "");
    let chosen = "[log.access]\nfields = [\"url.path\", \"trace_id\"]\nsample = 0";
    n2.write_config(&[n1], chosen);
    let address = n1.call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::PATIENCE);
    for path in ["/good", "/bad"] {
        harness::http::get(address, path).expect("an answer");
    }
    let line = |node: &harness::Node, path: &str| {
        let word = format!("url.path={path} ");
        let log = node.log();
        log.lines()
            .find(|line| line.contains(&word))
            .map(str::to_owned)
    };
    for (node, path) in [(n1, "/good"), (n1, "/bad"), (n2, "/bad")] {
        wait_until(crate::PATIENCE, path, || line(node, path).is_some());
    }
    assert_eq!(
        line(n2, "/good"),
        None,
        "of calls that were well there are none"
    );
    let bad = line(n2, "/bad").expect("it was waited for");
    assert!(
        bad.contains("trace_id=") && !bad.contains("callee="),
        "{bad}"
    );
}
