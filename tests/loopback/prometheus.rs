//! A real Prometheus scrapes a mesh through one agent, and every alert is seen firing after its fault.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::apps::{Moody, Reply};
use harness::http::{self, Client};
use harness::process::leashed;
use harness::{Mesh, Need, Node, Process, need, poll, program, turn, wait_until};
use serde_json::Value;

/// Alerts for what no test can bring about in a running agent, or another test does to one: `promtool test rules` alone sees them fire
/// here.
const NOT_INJECTED: [&str; 2] = ["StarlingTaskPanicked", "StarlingDocumentNotOnDisk"];

/// Faults are worked on all at once, so this is for all of them together.
const ALL_FIRE: Duration = Duration::from_secs(90);

/// Prometheus, told to look every second.
struct Prometheus {
    process: Process,
    address: SocketAddr,
    fired: BTreeSet<String>,
}

/// What apps call, on n1.
struct Calls(Vec<Client>);

#[test]
fn every_alert_fires_in_a_real_mesh() {
    need!(
        Need::Agent,
        Need::Program("prometheus"),
        Need::Program("promtool")
    );
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[
        ("n1", &["web", "guest", "c1", "c2", "c3", "c4", "c5"]),
        ("n2", &["orders", "open", "dead"]),
        ("n3", &[]),
        ("n4", &[]),
    ]);
    let [n1, n2, n3, n4] = ["n1", "n2", "n3", "n4"].map(|name| mesh.node(name));
    n1.write_config(&[n2, n3], "[limits]\nwait = \"100ms\"\n");
    let app = Moody::start(n2.host(), |_, _| Reply::status(500));
    let mut calls = services(n1, n2, app.address());
    let crowd = crowd(n1);
    // Its certificates end sooner than they should, as if nobody renewed them.
    mesh.issue(n2, &["orders", "open", "dead"], &["--lifetime", "4h"]);
    documents(&mesh);
    n3.start();
    n4.start();
    mesh.wait_ready();

    let strangers = Mesh::loopback(&[("s1", &[]), ("s2", &[])]);
    for stranger in strangers.nodes() {
        stranger.write_config(&[n1], "");
        stranger.start();
        stranger.wait_ready();
    }
    // Who is thrown out can be asked only on its own host.
    let mut prometheus = Prometheus::start(n1, n4);
    wait_until(crate::PATIENCE, "all agents to be scraped", || {
        prometheus.count("up == 1") == 5
    });
    n3.kill();
    let carol = mesh.scratch().path().join("carol.operator");
    let carol = carol.display().to_string();
    n1.must(&[
        "revoke", "node/n4", "--reason", "stolen", "--key", &carol, "--yes",
    ]);
    n2.kill();
    // About a service that is called by nobody, or the calls that the others' alerts need would be denied.
    n2.hold_back(&n1.newest_hash("policy/young"), "nowhere");
    n2.start();
    n2.wait_ready();
    n2.write("broken.toml", "port = \"none\"\n");
    checked(n1);

    let rules = alerts();
    let missing = |fired: &BTreeSet<String>| -> Vec<_> {
        let wanted = rules.iter().filter(|alert| !fired.contains(*alert));
        wanted
            .filter(|alert| !NOT_INJECTED.contains(&alert.as_str()))
            .cloned()
            .collect()
    };
    let mut left = Vec::new();
    let done = harness::wait::try_poll(ALL_FIRE, || {
        calls.once();
        prometheus.look();
        left = missing(&prometheus.fired);
        // The last one takes a page of three megabytes, which is in the way of the others.
        if left == ["StarlingSeriesSwallowed"] {
            throng(&crowd);
        }
        left.is_empty().then_some(())
    });
    assert!(
        done.is_some(),
        "never fired: {left:?}\n{}",
        prometheus.process.log()
    );
    checked(n1);
    let examples = prometheus.ask(&format!(
        "query_exemplars?query=starling_request_duration_seconds_bucket&start=0&end={}",
        u32::MAX
    ));
    let trace = &examples["data"][0]["exemplars"][0]["labels"]["trace_id"];
    assert!(
        trace.as_str().is_some_and(|trace| trace.len() == 32),
        "{examples}"
    );
}

/// Declares an app that fails, one that is not there, one that lets everybody in, and who calls them.
fn services(n1: &Node, n2: &Node, app: SocketAddr) -> Calls {
    n2.serve("orders", app, "http", &["web"], "");
    n2.serve("open", app, "http", &["web"], "mode = \"audit\"");
    let nowhere = n2.host().free_tcp();
    let health = "health = { kind = \"tcp\", interval = \"200ms\", down = 1 }";
    n2.serve("dead", nowhere, "http", &["web"], health);
    let calls = [
        ("orders", "web"),
        ("orders", "guest"),
        ("open", "guest"),
        ("dead", "web"),
    ];
    let clients = calls.map(|(callee, caller)| {
        Client::new(n1.call_as_told(callee, caller, "protocol = \"http\""))
    });
    Calls(clients.into())
}

impl Calls {
    fn once(&mut self) {
        for client in &mut self.0 {
            // That they fail is what they are for.
            let _failed = client.get("/");
        }
    }
}

/// More names than a metric has room for: five callers of a service whose route has 250 rules.
fn crowd(n1: &Node) -> Vec<SocketAddr> {
    let rules = (0..RULES).map(|number| {
        format!(
            "[[route.rule]]\nmatch = {{ path = \"/{number}\" }}\nrespond = {{ status = 204 }}\n"
        )
    });
    let rules: String = rules.collect();
    n1.write(
        "fan.toml",
        &format!("[[route]]\nservice = \"fan\"\n{rules}"),
    );
    let callers = ["c1", "c2", "c3", "c4", "c5"];
    let calls = callers.map(|caller| n1.call_as_told("fan", caller, "protocol = \"http\""));
    calls.into()
}

fn throng(crowd: &[SocketAddr]) {
    for address in crowd {
        let mut client = Client::new(*address);
        for number in 0..RULES {
            let answer = client.get(&format!("/{number}"));
            assert_eq!(answer.expect("the agent answers").status, 204);
        }
    }
}

/// Two operators say different things while n1 and n2 do not see each other; n2 hears of a third that it will hold back.
fn documents(mesh: &Mesh) {
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let document = |name: &str, from: &str| {
        let text = format!(
            "kind = \"policy\"\nname = \"{name}\"\n\n[[grant]]\nservices = [\"open\"]\nfrom = [\"{from}\"]\n"
        );
        let file = mesh.scratch().write(&format!("{name}-{from}.toml"), &text);
        file.display().to_string()
    };
    let apply = |node: &Node, operator: &str, file: &str| {
        let key = mesh.scratch().path().join(format!("{operator}.operator"));
        let key = key.display().to_string();
        node.must(&["apply", "-f", file, "--key", &key, "--yes"]);
    };
    for (operator, kind) in [
        ("alice", "policy"),
        ("bob", "policy"),
        ("carol", "revocation"),
    ] {
        mesh.operator(operator, kind);
    }
    n2.start();
    n2.wait_ready();
    apply(n2, "alice", &document("fork", "c1"));
    n2.stop();
    n1.start();
    n1.wait_ready();
    apply(n1, "bob", &document("fork", "c2"));
    n2.start();
    mesh.wait_ready();
    apply(n1, "bob", &document("young", "c3"));
    wait_until(crate::PATIENCE, "n2 to have the new document", || {
        let young = n2.document("policy/young");
        young.is_some_and(|(_, state, _)| state == "in force")
    });
}

impl Prometheus {
    /// With the configuration that we ship, but for addresses, and with its rules in a hurry.
    fn start(node: &Node, besides: &Node) -> Self {
        let scratch = node.directory();
        let shipped = |file: &str| {
            let path = program::repository("deploy/prometheus").join(file);
            fs::read_to_string(path).expect("it is there")
        };
        let config = shipped("prometheus.yml")
            .replace("127.0.0.1:7401", &node.admin_address().to_string())
            .replace(
                "scrape_interval: 15s",
                "scrape_interval: 1s\n  evaluation_interval: 1s",
            )
            .replace("refresh_interval: 30s", "refresh_interval: 1s")
            .replace(
                "    relabel_configs:",
                &format!(
                    "    static_configs:\n      - targets: [\"{}\"]\n    relabel_configs:",
                    besides.admin_address()
                ),
            );
        fs::write(scratch.join("prometheus.yml"), config).expect("it can be written");
        fs::write(
            scratch.join("starling.rules.yml"),
            in_a_hurry(&shipped("starling.rules.yml")),
        )
        .expect("it can be written");
        let address = node.host().free_tcp();
        let mut command = leashed(program::path("prometheus"));
        command
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=prometheus")
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .arg("--log.level=warn")
            .current_dir(scratch);
        let process = Process::spawn("prometheus", command, &scratch.join("prometheus.log"));
        let mut prometheus = Self {
            process,
            address,
            fired: BTreeSet::new(),
        };
        wait_until(crate::PATIENCE, "prometheus to be ready", || {
            prometheus.process.check();
            http::get(address, "/-/ready").is_ok_and(|answer| answer.status == 200)
        });
        prometheus
    }

    fn ask(&self, question: &str) -> Value {
        let answer = http::get(self.address, &format!("/api/v1/{question}"));
        let answer = answer.expect("prometheus answers");
        serde_json::from_slice(&answer.body).expect("it is JSON")
    }

    fn count(&self, query: &str) -> usize {
        let query = query.replace(' ', "%20").replace('=', "%3D");
        let answer = self.ask(&format!("query?query={query}"));
        answer["data"]["result"].as_array().map_or(0, Vec::len)
    }

    /// Notes what fires.
    fn look(&mut self) {
        self.process.check();
        let answer = self.ask("alerts");
        let alerts = answer["data"]["alerts"].as_array().cloned();
        let firing = alerts
            .unwrap_or_default()
            .into_iter()
            .filter(|alert| alert["state"] == "firing");
        let names =
            firing.filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned));
        self.fired.extend(names);
    }
}

/// The names of all alerts that we ship.
fn alerts() -> Vec<String> {
    let file = program::repository("deploy/prometheus/starling.rules.yml");
    let text = fs::read_to_string(file).expect("it is there");
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// Rules that look back ten seconds or half a minute, and wait for nothing to last.
fn in_a_hurry(rules: &str) -> String {
    let lines = rules
        .lines()
        .filter(|line| !line.trim().starts_with("for: "));
    let lines = lines.map(|line| {
        line.replace("[5m]", "[10s]")
            .replace("[10m]", "[30s]")
            .replace("[1h]", "[30s]")
            .replace("offset 10m", "offset 30s")
            .replace("offset 1h", "offset 30s")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Fails if `promtool` finds anything to say against the metrics of all nodes that answer.
#[track_caller]
fn checked(node: &Node) {
    let found = node.admin("/v1/sd").expect("the agent answers");
    let found: Value = serde_json::from_slice(&found.body).expect("it is JSON");
    let mut good = 0;
    for target in found.as_array().into_iter().flatten() {
        let path = target["labels"]["__metrics_path__"].as_str();
        let page = poll(crate::PATIENCE, "an answer", || {
            node.admin(path.expect("a path")).ok()
        });
        if page.status != 200 {
            continue;
        }
        let mut command = Command::new(program::path("promtool"));
        command.args(["check", "metrics"]);
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut promtool = command.spawn().expect("it runs");
        let mut input = promtool.stdin.take().expect("it is piped");
        input.write_all(&page.body).expect("it reads all");
        drop(input);
        let output = promtool.wait_with_output().expect("it ends");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && complaints.is_empty(),
            "{target}: {complaints}"
        );
        good += 1;
    }
    assert!(good > 0, "{found}");
}

/// A route has at most 256.
const RULES: usize = 250;
