//! `starling check`: one fault at a time, and it alone is found; on a healthy mesh nothing is.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use harness::process::{leashed, run};
use harness::{Host, Mesh, Need, Node, Wire, let_pass, need, program, turn, wait_until};
use serde_json::Value;

/// A mesh on which faults are made.
struct Bench {
    mesh: Mesh,
    /// What the kernel is made to say of its buffers.
    roomy: PathBuf,
    tight: PathBuf,
}

/// What one run of the command said.
#[derive(Debug)]
struct Told {
    code: Option<i32>,
    findings: Vec<Value>,
    error: String,
}

impl Bench {
    fn new(wire: &mut Wire) -> Self {
        let mesh = Mesh::on(wire, &[("n1", &["site"]), ("n2", &[]), ("n3", &[])]);
        let (roomy, tight) = (
            mesh.scratch().write("roomy", "4194304\n"),
            mesh.scratch().write("tight", "212992\n"),
        );
        Self { mesh, roomy, tight }
    }

    fn node(&self, name: &str) -> &Node {
        self.mesh.node(name)
    }

    /// As an operator on that host would, whose kernel is as it should be or not.
    fn check(&self, node: &Node, buffers: &PathBuf) -> Told {
        let mut command = node.host().command("unshare");
        let script = "mount --bind \"$0\" /proc/sys/net/core/rmem_max && mount --bind \"$0\" /proc/sys/net/core/wmem_max \
                      && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(buffers);
        command
            .arg(program::agent())
            .args(["check", "--json", "--config"]);
        command
            .arg(node.directory())
            .arg("--socket")
            .arg(node.socket());
        let output = command.output().expect("the program runs");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let findings = report["findings"].as_array().cloned();
        Told {
            code: output.status.code(),
            findings: findings.unwrap_or_default(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Waits until exactly these are found on that host; a fault takes a moment to show, and what was healed to be gone.
    #[track_caller]
    fn expect(&self, node: &str, expected: &[&str]) -> Told {
        self.expect_with(node, expected, &self.roomy)
    }

    #[track_caller]
    fn expect_with(&self, node: &str, expected: &[&str], buffers: &PathBuf) -> Told {
        let mut last = None;
        let found = wait_within(|| {
            let told = self.check(self.node(node), buffers);
            let is_it = told.error.is_empty() && told.checks() == expected;
            last = Some(told);
            is_it
        });
        let told = last.expect("it was looked at");
        assert!(found, "on {node}, not {expected:?}: {told:#?}");
        let expected = match told.severities() {
            worst if worst.contains(&"error") => 3,
            worst if worst.contains(&"warn") => 4,
            _ => 0,
        };
        assert_eq!(told.code, Some(expected), "{told:#?}");
        told
    }
}

impl Told {
    fn checks(&self) -> Vec<&str> {
        let checks = self.findings.iter().filter_map(|one| one["check"].as_str());
        checks.collect()
    }

    fn severities(&self) -> Vec<&str> {
        let found = self
            .findings
            .iter()
            .filter_map(|one| one["severity"].as_str());
        found.collect()
    }

    /// Whether the finding says that, in any of its parts.
    #[track_caller]
    fn says(&self, words: &str) {
        let text = serde_json::to_string(&self.findings).expect("it is JSON");
        assert!(text.contains(words), "not {words:?}: {self:#?}");
    }
}

/// Whether it comes true.
fn wait_within(mut is_true: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + crate::PATIENCE;
    while std::time::Instant::now() < deadline {
        if is_true() {
            return true;
        }
        let_pass(Duration::from_millis(200));
    }
    false
}

/// Lets the agent open so many files.
fn limit_files(node: &Node, most: u32) {
    let mut command = Command::new("prlimit");
    command.arg("--pid").arg(node.pid().to_string());
    command.arg(format!("--nofile={most}:"));
    run(command);
}

/// Puts a rule in force while the work lasts.
fn with_rule<T>(host: &Host, rules: &str, work: impl FnOnce() -> T) -> T {
    host.nft(&format!("table inet fault {{\n{rules}\n}}"));
    let done = work();
    host.nft("delete table inet fault");
    done
}

#[test]
fn each_fault_is_found_and_nothing_else() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("nft"),
        Need::Program("faketime")
    );
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let bench = Bench::new(&mut wire);
    bench.mesh.start();
    for node in bench.mesh.nodes() {
        limit_files(node, 16_384);
    }
    for node in ["n1", "n2", "n3"] {
        bench.expect(node, &[]);
    }
    in_the_metrics(&bench);
    on_the_host(&bench);
    on_the_network(&bench);
    of_other_nodes(&bench);
}

/// What a check sees once, the metrics show all the time.
fn in_the_metrics(bench: &Bench) {
    let n1 = bench.node("n1");
    wait_until(crate::PATIENCE, "n1 to measure its paths", || {
        let metrics = n1.metrics();
        let of =
            |name: &str, node| metrics.sum(&format!("starling_quic_{name}"), &[("node", node)]);
        let is_whole = |node| {
            of("connections", node) >= 1.0
                && of("rtt_seconds", node) > 0.0
                && of("mtu_bytes", node) == 1452.0
                && of("packets_sent_total", node) > 0.0
        };
        let side = [("side", "dialled")];
        is_whole("n2")
            && is_whole("n3")
            && metrics.sum("starling_handshake_duration_seconds_count", &side) > 0.0
            && metrics.sum("starling_gossip_convergence_seconds", &[]) > 0.0
            && metrics.sum("starling_gossip_members_behind", &[]) == 0.0
    });
}

fn on_the_host(bench: &Bench) {
    let n1 = bench.node("n1");
    let key = n1.state().join("node.key");
    let open = |mode| fs::set_permissions(&key, Permissions::from_mode(mode)).expect("it is ours");
    open(0o644);
    bench
        .expect("n1", &["files"])
        .says("node.key has mode 0644");
    // The agent has noticed too, and has to forget it when all is well again.
    wait_until(crate::PATIENCE, "n1 to refuse its key", || {
        n1.log().contains("certificates kept as they were")
    });
    open(0o600);

    let told = bench.expect_with("n1", &["kernel"], &bench.tight);
    told.says("net.core.rmem_max is 212992");

    limit_files(n1, 1_024);
    bench.expect("n1", &["open-files"]).says("of 1024 are open");
    limit_files(n1, 16_384);

    n1.serve("site", n1.host().free_tcp(), "http", &[], "");
    bench.expect("n1", &["app"]).says("`site`");
    n1.write("site.toml", "[[service]]\nname = \"site\"\nprot = 1\n");
    bench.expect("n1", &["config"]).says("site.toml:3");
    n1.remove("site.toml");
    bench.expect("n1", &[]);
}

fn on_the_network(bench: &Bench) {
    let (n1, n3) = (bench.node("n1"), bench.node("n3"));
    let ip = n1.host().ip();
    let hook = |name, rule| {
        format!("chain {name} {{ type filter hook {name} priority 0; policy accept; {rule}; }}")
    };
    let deaf = hook("input", format!("ip saddr {ip} udp dport != 0 drop"));
    with_rule(n3.host(), &deaf, || {
        let told = bench.expect("n1", &["reach"]);
        told.says("n2 reaches it, and n3 says that no handshake of this node came to it");
    });
    let mute = hook("output", format!("ip daddr {ip} udp dport != 0 drop"));
    with_rule(n3.host(), &mute, || {
        let told = bench.expect("n1", &["reach"]);
        told.says("n2 reaches it, and n3 says that this node's handshake began there");
    });
    bench.expect("n1", &[]);

    let narrow = ["input", "output"].map(|name| hook(name, "udp length > 1250 drop".to_owned()));
    with_rule(n3.host(), &narrow.join("\n"), || {
        bench.expect("n1", &["mtu"]).says("n3");
    });
    bench.expect("n1", &[]);

    let port = n1.mesh_address().port();
    let answers = format!("ct state established accept; udp dport {port} drop");
    with_rule(n1.host(), &hook("input", answers), || {
        bench.expect("n1", &["firewall"]);
    });
    bench.expect("n1", &[]);
}

fn of_other_nodes(bench: &Bench) {
    let (n1, n3) = (bench.node("n1"), bench.node("n3"));
    n3.stop();
    let ahead = harness::clock::ahead("+90s");
    let ahead: Vec<_> = ahead
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    n3.start_with(&ahead);
    bench.mesh.wait_ready();
    limit_files(n3, 16_384);
    bench
        .expect("n1", &["clock"])
        .says("the clock of n3 is 1m 30s ahead");
    bench
        .expect("n3", &["clock"])
        .says("the clock of this node differs from those of 2 of 2");

    n3.kill();
    let told = bench.expect("n1", &["reach"]);
    told.says("n3 answers neither this node nor others");
    assert_eq!(told.code, Some(4));

    n1.stop();
    let held = n1.host().run(|| UdpSocket::bind(n1.mesh_address()));
    let held = held.expect("the agent gave it back");
    bench.expect("n1", &["port", "agent"]).says("has it");
    drop(held);
    bench.expect("n1", &["agent"]);
}

#[test]
fn a_wrong_address_and_an_old_certificate_are_found() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("ip"),
        Need::Program("faketime")
    );
    let _turn = turn::shared();
    let mut wire = Wire::new();
    let bench = Bench::new(&mut wire);
    let mesh = &bench.mesh;
    let names = ["n1", "n2", "n3"];
    let [n1, n2, n3] = names.map(|name| mesh.node(name));

    // Another CA, made yesterday, and a certificate of then; nobody renews it, as the issuer's files are gone.
    for node in mesh.nodes() {
        fs::remove_dir_all(node.state()).expect("it was made");
    }
    let before = harness::clock::ahead("-17h");
    let starling = |words: &[&str], is_past: bool| {
        let mut command = leashed(program::agent());
        command.args(words).arg("--state").arg(n1.state());
        if is_past {
            command.envs(before.iter().map(|(name, value)| (*name, value)));
        }
        run(command);
    };
    let out = |node: &Node| node.state().display().to_string();
    starling(
        &[
            "init",
            "--trust-domain",
            harness::mesh::TRUST_DOMAIN,
            "--node",
            "n1",
        ],
        true,
    );
    starling(&["ca", "issue", "--node", "n3", "--out", &out(n3)], true);
    starling(&["ca", "issue", "--node", "n1", "--out", &out(n1)], false);
    starling(&["ca", "issue", "--node", "n2", "--out", &out(n2)], false);
    fs::rename(n1.state().join("ca"), mesh.scratch().path().join("ca")).expect("it was made");

    mesh.start();
    for node in mesh.nodes() {
        limit_files(node, 16_384);
    }
    bench
        .expect("n3", &["certificate"])
        .says("no issuer is known");
    bench
        .expect("n1", &["certificate"])
        .says("a certificate of n3 ends soon");
    n3.stop();
    wait_until(crate::PATIENCE, "n1 to hear that n3 left", || {
        bench.check(n1, &bench.roomy).checks().is_empty()
    });

    n2.stop();
    let nowhere = n2.mesh_address().port();
    let text = fs::read_to_string(n2.directory().join("starling.toml")).expect("it was written");
    let text = format!("advertise = \"198.18.77.250:{nowhere}\"\n{text}");
    fs::write(n2.directory().join("starling.toml"), text).expect("a file can be written");
    n2.start();
    n2.wait_ready();
    limit_files(n2, 16_384);
    let told = bench.expect("n2", &["reach-back"]);
    told.says("198.18.77.250");
}
