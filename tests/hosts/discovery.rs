//! A change of one host's services is known on all hosts in less than two seconds.

use harness::apps::Nginx;
use harness::{Mesh, Need, Wire, need, turn};

#[test]
fn a_service_added_removed_or_sick_is_seen_by_all_in_two_seconds() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nginx")
    );
    let _turn = turn::alone();
    let mut wire = Wire::new();
    let names: Vec<_> = (1..=5).map(|number| format!("n{number}")).collect();
    let hosts: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), &["site"][..]))
        .collect();
    let mesh = Mesh::on(&mut wire, &hosts);
    mesh.start();
    let node = mesh.node("n3");
    let nginx = Nginx::start(node.host(), &mesh.scratch().directory("nginx"), "n3");
    let health = "health = { kind = \"http\", path = \"/healthz\", interval = \"200ms\", timeout = \"200ms\", up = 1, down = 1 }";

    node.serve("site", nginx.address(), "http", &["site"], health);
    let added = mesh.wait_healthy("site", &["n3"], crate::SEEN);
    nginx.set_sick(true);
    let sick = mesh.wait_healthy("site", &[], crate::SEEN);
    nginx.set_sick(false);
    let well = mesh.wait_healthy("site", &["n3"], crate::SEEN);
    node.remove("site.toml");
    let removed = harness::wait_until(crate::SEEN, "all to forget it", || {
        mesh.nodes()
            .iter()
            .all(|node| node.instances("site").is_empty())
    });
    println!("seen by 5 hosts: added {added:?}, sick {sick:?}, well {well:?}, removed {removed:?}");
}

#[test]
fn a_host_that_joins_late_learns_everything_from_one_seed() {
    need!(Need::Agent, Need::Root, Need::Program("ip"));
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let mesh = Mesh::on(
        &mut wire,
        &[("n1", &["a"]), ("n2", &["b"]), ("n3", &["c"]), ("n4", &[])],
    );
    for (number, service) in ["a", "b", "c"].into_iter().enumerate() {
        let node = &mesh.nodes()[number];
        node.serve(service, node.host().free_tcp(), "tcp", &["a"], "");
        node.start();
    }
    mesh.wait_ready();
    let late = mesh.node("n4");
    late.write_config(&[mesh.node("n2")], "");
    late.start();
    late.wait_ready();
    harness::wait_until(crate::PATIENCE, "n4 to know all services", || {
        [("a", "n1"), ("b", "n2"), ("c", "n3")]
            .iter()
            .all(|(service, node)| late.healthy(service) == [*node])
    });
}
