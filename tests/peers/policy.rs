//! The agent's policy against another implementation of its page: `oracle.py`.

use std::process::Command;

use harness::apps::mirror;
use harness::peers::{self, answer, script};
use harness::{Mesh, Need, need, process, program, turn};

#[test]
fn the_agent_judges_as_the_page_says() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let scratch = harness::Scratch::new();
    let mut command = Command::new(peers::python());
    command
        .arg(peers::file("truth_table.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("judge")
        .arg(program::agent())
        .arg(scratch.path());
    let compared = answer(command);
    let cases = |part: &str| compared[part]["cases"].as_u64().expect("a number");
    assert!(cases("table") >= 10_000, "{compared}");
    assert!(cases("random") >= 1_000, "{compared}");
}

#[test]
fn what_is_forwarded_is_what_was_judged() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let callers = ["web", "job", "billing", "guest"];
    let mesh = Mesh::loopback(&[("n1", &callers), ("n2", &["orders", "web"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let app = mirror(n2.host());
    let mut rules = script(n2.host(), "truth_table.py");
    rules.arg("rules").arg(app.to_string());
    n2.write("orders.toml", &process::run(rules));
    n2.write_config(&[n1], "[groups]\nbatch = [\"billing\", \"reports\"]");
    let mut asked = script(n1.host(), "truth_table.py");
    asked.arg("agents").arg(program::agent()).arg(n1.socket());
    for caller in callers {
        asked.arg(format!("{caller}={}", n1.call("orders", caller)));
    }
    // The callee's own agent judges callers on its node by the same rules.
    asked.arg(format!("web={}", n2.call("orders", "web")));
    mesh.start();
    mesh.wait_healthy("orders", &["n2"], crate::SEEN);
    let compared = answer(asked);
    let count = |what: &str| compared[what].as_u64().expect("a number");
    assert!(
        count("cases") >= 1_000 && count("allowed") >= 100 && count("explained") >= 20,
        "{compared}"
    );
}
