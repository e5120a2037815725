//! Cut wires, absent seeds.

use std::time::{Duration, Instant};

use harness::apps::{Nginx, mirror};
use harness::probe::Probe;
use harness::{Mesh, Need, Node, Wire, http, let_pass, need, turn, wait_until};

#[test]
fn a_host_cut_off_is_noticed_and_taken_back_when_the_wire_heals() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let mut wire = Wire::new();
    let mesh = Mesh::on(
        &mut wire,
        &[
            ("c", &["web"]),
            ("s1", &["site"]),
            ("s2", &["site", "late"]),
        ],
    );
    let mut apps = Vec::new();
    for name in ["s1", "s2"] {
        let node = mesh.node(name);
        apps.push(Nginx::start(
            node.host(),
            &mesh.scratch().directory(&format!("nginx-{name}")),
            name,
        ));
        node.serve("site", apps[apps.len() - 1].address(), "http", &["web"], "");
    }
    let client = mesh.node("c");
    let address = client.call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["s1", "s2"], crate::SEEN);
    let get = || {
        client
            .host()
            .run(|| http::get(address, "/"))
            .expect("an answer")
    };

    let cut = mesh.node("s2");
    cut.host().cut();
    for _ in 0..50 {
        let answer = get();
        assert_eq!((answer.status, answer.text().as_str()), (200, "s1\n"));
    }
    wait_until(crate::PATIENCE, "c to miss s2", || {
        client.liveness("s2").as_deref() != Some("alive")
    });
    wait_until(crate::PATIENCE, "s2 to miss c", || {
        cut.liveness("c").as_deref() != Some("alive")
    });

    // What changes meanwhile is known on both sides afterwards.
    cut.serve("late", cut.host().free_tcp(), "tcp", &["web"], "");
    wait_until(crate::PATIENCE, "s2 to know itself", || {
        cut.healthy("late") == ["s2"]
    });
    cut.host().heal();
    let healed = wait_until(crate::PATIENCE, "both to meet again", || {
        client.liveness("s2").as_deref() == Some("alive")
            && cut.liveness("c").as_deref() == Some("alive")
    });
    mesh.wait_healthy("late", &["s2"], crate::PATIENCE);
    wait_until(crate::PATIENCE, "s2 to get calls again", || {
        get().text() == "s2\n"
    });
    println!("a healed partition is whole again after {healed:?}");
}

#[test]
fn documents_are_applied_on_either_side_of_a_cut_and_agree_after() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft")
    );
    let _turn = turn::alone();
    let mut wire = Wire::new();
    let mesh = Mesh::on(&mut wire, &[("n1", &[]), ("n2", &[]), ("n3", &[])]);
    let operators = ["alice", "bob"].map(|name| {
        let file = mesh.operator(name, "policy");
        file.display().to_string()
    });
    let [alice, bob] = &operators;
    let write = |name: &str, mode: &str| {
        let text = format!("kind = \"policy\"\nname = \"{name}\"\nmode = \"{mode}\"\n");
        let file = mesh.scratch().write(&format!("{name}-{mode}.toml"), &text);
        file.display().to_string()
    };
    mesh.start();
    let (n1, n3) = (mesh.node("n1"), mesh.node("n3"));
    let apply = |node: &Node, file: &str, key: &str| {
        node.must(&["apply", "-f", file, "--key", key, "--yes"]);
    };
    n3.host().cut();
    apply(n1, &write("left", "enforce"), alice);
    apply(n3, &write("right", "enforce"), bob);
    // The same document on both sides: one revision more on the side that is cut off.
    apply(n1, &write("both", "enforce"), alice);
    apply(n3, &write("both", "audit"), bob);
    apply(n3, &write("both", "enforce"), bob);
    n3.host().heal();
    for node in mesh.nodes() {
        wait_until(crate::PATIENCE, "both sides to agree", || {
            let at = |key: &str| {
                node.document(key)
                    .map(|(revision, state, _)| (revision, state))
            };
            let in_force = |revision| Some((revision, "in force".to_owned()));
            at("policy/left") == in_force(1)
                && at("policy/right") == in_force(1)
                && at("policy/both") == in_force(2)
                && node
                    .show("status", &[])
                    .is_some_and(|status| status.contains("the same on 3 of 3 nodes"))
        });
        // The fork under the first revision stays to be seen.
        let history = node.must(&["history", "policy/both"]);
        assert!(history.contains("lost a fork"), "{history}");
    }
}

/// What one side says holds there from that moment, and on the other side from the moment when it can be heard.
#[test]
fn a_revocation_that_one_side_of_a_cut_took_in_holds_on_both_after() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft")
    );
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let mesh = Mesh::on(
        &mut wire,
        &[
            ("n1", &["web"]),
            ("n2", &["orders"]),
            ("n3", &["web", "orders"]),
        ],
    );
    let (n1, n2, n3) = (mesh.node("n1"), mesh.node("n2"), mesh.node("n3"));
    for node in [n2, n3] {
        node.serve("orders", mirror(node.host()), "http", &["web"], "");
    }
    // Each side calls its own.
    n1.in_zone("here");
    n2.in_zone("here");
    n3.in_zone("there");
    let (here, there) = (n1.call("orders", "web"), n3.call("orders", "web"));
    mesh.start();
    mesh.wait_healthy("orders", &["n2", "n3"], crate::PATIENCE);
    let alice = mesh.operator("alice", "revocation").display().to_string();
    let sign = |words: &[&str]| n2.must(&[words, &["--key", &alice, "--yes"]].concat());
    let status = |node: &Node, address| {
        let answer = node.host().run(|| http::get(address, "/"));
        answer.map_or(0, |answer| answer.status)
    };
    let passes = || status(n1, here) == 200 && status(n3, there) == 200;
    for age in [Duration::from_millis(100), Duration::from_secs(1)] {
        wait_until(crate::PATIENCE, "both sides to be let in", passes);
        n3.host().cut();
        let on_this_side = n1.host().run(|| Probe::start(here));
        sign(&["revoke", "svc/web", "--reason", "bad build"]);
        let denied = Instant::now();
        let_pass(age);
        // Nothing can have told it.
        assert_eq!(status(n3, there), 200);
        n3.host().heal();
        let healed = wait_until(crate::PATIENCE, "n3 to hear of it", || {
            status(n3, there) != 200
        });
        println!("a cut of {age:?} was over after {healed:?}");
        let on_the_other = n3.host().run(|| Probe::start(there));
        let heard = Instant::now();
        n3.kill();
        n3.start();
        n3.wait_ready();
        let_pass(Duration::from_secs(1));
        for (side, seen) in [
            ("this", on_this_side.since(denied)),
            ("the other", on_the_other.since(heard)),
        ] {
            assert!(seen.len() > 10 && !seen.contains(&200), "{side}: {seen:?}");
        }
        sign(&["delete", "revocation/svc-web"]);
    }
    wait_until(crate::PATIENCE, "both sides to be let in", passes);
}

#[test]
fn a_node_finds_the_mesh_again_though_every_seed_is_gone() {
    need!(Need::Agent, Need::Root, Need::Program("ip"));
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let mesh = Mesh::on(&mut wire, &[("seed", &[]), ("n1", &["a"]), ("n2", &["b"])]);
    let (seed, n1, n2) = (mesh.node("seed"), mesh.node("n1"), mesh.node("n2"));
    seed.write_config(&[], "");
    n1.write_config(&[seed], "");
    n2.write_config(&[seed], "");
    n1.serve("a", n1.host().free_tcp(), "tcp", &["b"], "");
    mesh.start();
    // What it has seen is on disk.
    wait_until(crate::PATIENCE, "n2 to note its peers", || {
        n2.state().join("peers.cache").exists()
    });
    n2.stop();
    seed.kill();
    n2.start();
    n2.wait_ready();
    wait_until(crate::PATIENCE, "n2 to find n1", || {
        n2.liveness("n1").as_deref() == Some("alive") && n2.healthy("a") == ["n1"]
    });
}
