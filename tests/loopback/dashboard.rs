//! The dashboard as a browser meets it: the page, and what it is told while the mesh changes.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use harness::apps::Moody;
use harness::{Mesh, Need, Node, browser, need, peers, stream, turn, wait_until};
use serde_json::Value;

/// The events of one agent.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(node: &Node) -> Self {
        let address = node.admin_address();
        let mut stream = stream::connect(node.host(), address);
        let asked = stream
            .set_read_timeout(Some(crate::PATIENCE))
            .and_then(|()| {
                let request = format!("GET /v1/events HTTP/1.1\r\nhost: {address}\r\n\r\n");
                stream.write_all(request.as_bytes())
            });
        asked.expect("the agent listens");
        Self(BufReader::new(stream))
    }

    /// Reads on until a message says what is looked for. Pulses come all the time, so it ends by counting.
    fn until<T>(&mut self, what: &str, found: impl Fn(&Value) -> Option<T>) -> T {
        for _ in 0..LINES_MAX {
            let mut line = String::new();
            let length = self.0.read_line(&mut line).expect("events or pulses");
            assert!(length > 0, "the stream ended before {what}");
            let message = line
                .strip_prefix("data: ")
                .and_then(|text| serde_json::from_str(text).ok());
            if let Some(found) = message.as_ref().and_then(&found) {
                return found;
            }
        }
        panic!("no {what}");
    }
}

/// The item of this kind and name, if the message sets it.
fn item<'a>(message: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    let set = message["set"].as_array()?;
    let one = set.iter().find(|one| one[0] == kind && one[1] == name)?;
    Some(&one[3])
}

#[test]
fn a_node_that_is_killed_is_seen_on_the_dashboard_of_another() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["orders"])]);
    let (watcher, callee) = (mesh.node("n1"), mesh.node("n2"));
    let app = Moody::well(callee.host());
    callee.serve(
        "orders",
        app.address(),
        "http",
        &["web"],
        "labels = { version = \"v2\" }",
    );
    watcher.call("orders", "web");
    mesh.start();
    mesh.wait_healthy("orders", &["n2"], crate::PATIENCE);

    let page = watcher.admin("/").expect("an answer");
    assert_eq!(page.status, 200);
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    assert!(page.text().contains("<main"));

    let mut events = Events::of(watcher);
    events.until("everything", |message| {
        (message["whole"] == true).then_some(())?;
        assert_eq!(item(message, "status", "")?["node"], "n1");
        assert_eq!(item(message, "node", "n2")?["liveness"], "alive");
        let orders = &item(message, "service", "orders")?["instances"][0];
        assert_eq!(
            (&orders["node"], &orders["labels"]["version"]),
            (&"n2".into(), &"v2".into())
        );
        Some(())
    });
    callee.kill();
    events.until("the end of n2", |message| {
        let liveness = item(message, "node", "n2")?["liveness"].as_str()?;
        (liveness != "alive").then_some(())
    });
}

/// web calls orders, which calls stock, which enforces nothing; batch calls orders and may not.
struct Shop {
    mesh: Mesh,
    calls: Vec<SocketAddr>,
    _apps: Vec<Moody>,
}

impl Shop {
    fn open() -> Self {
        let mesh = Mesh::loopback(&[
            ("n1", &["web", "batch"]),
            ("n2", &["orders"]),
            ("n3", &["orders", "stock"]),
        ]);
        let [n1, n2, n3] = ["n1", "n2", "n3"].map(|name| mesh.node(name));
        let apps = [n2, n3].map(|node| Moody::well(node.host()));
        for (node, app) in [n2, n3].into_iter().zip(&apps) {
            let labels = format!("labels = {{ host = \"{}\" }}", node.name());
            node.serve("orders", app.address(), "http", &["web"], &labels);
            node.in_zone(node.name());
        }
        let audit = "mode = \"audit\"";
        n3.serve("stock", apps[1].address(), "http", &["nobody"], audit);
        let calls = vec![
            n1.call("orders", "web"),
            n1.call("orders", "batch"),
            n2.call("stock", "orders"),
        ];
        mesh.start();
        mesh.wait_healthy("orders", &["n2", "n3"], crate::PATIENCE);
        mesh.wait_healthy("stock", &["n3"], crate::PATIENCE);
        Self {
            mesh,
            calls,
            _apps: apps.into(),
        }
    }

    /// Issues a document with two revisions; returns a pass for live calls to orders.
    fn issue(&self) -> String {
        let n1 = self.mesh.node("n1");
        let key = self.mesh.operator("alice", "policy,tap,see");
        let key = key.display().to_string();
        for from in ["[\"web\"]", "[\"web\", \"shop\"]"] {
            let text = format!(
                "kind = \"policy\"\nname = \"orders\"\n\n[[grant]]\nservices = [\"orders\"]\nfrom = {from}\n"
            );
            let file = self.mesh.scratch().write("orders.toml", &text);
            let file = file.display().to_string();
            n1.must(&["apply", "-f", &file, "--key", &key, "--yes"]);
        }
        wait_until(crate::PATIENCE, "the second revision in force", || {
            n1.document("policy/orders")
                .is_some_and(|(_, _, in_force)| in_force == Some(2))
        });
        let pass = n1.must(&["login", "--bare", "--tap", "orders", "--key", &key]);
        pass.trim().to_owned()
    }
}

#[test]
fn chromium_shows_every_page_and_sees_a_node_go() {
    need!(Need::Agent, Need::Python, Need::Browser);
    let _turn = turn::shared();
    let shop = Shop::open();
    let pass = shop.issue();
    let mut look = browser::script("mesh.py");
    let watcher = shop.mesh.node("n1").admin_address();
    look.args(["--at", &format!("http://{watcher}/")])
        .args(["--pass", &pass])
        .args(["--pid", &shop.mesh.node("n3").pid().to_string()])
        .arg("--shots")
        .arg(browser::screenshots());
    for address in &shop.calls {
        look.args(["--call", &format!("http://{address}/")]);
    }
    let looked = peers::answer(look);
    assert!(looked["pictures"].as_u64() > Some(0), "{looked}");
}

/// How long frames take is told, not judged: the machine does other things too.
#[test]
fn chromium_shows_two_thousand_instances() {
    need!(Need::Python, Need::Browser);
    let _turn = turn::shared();
    let mut look = browser::script("crowd.py");
    look.arg("--shots").arg(browser::screenshots());
    let looked = peers::answer(look);
    println!(
        "frames while all changes every second: {}",
        looked["frames"]
    );
    assert!(looked["frames"]["map"]["median_ms"].is_number(), "{looked}");
}

/// A message or a pulse each five seconds, of three lines: minutes, which nothing here takes.
const LINES_MAX: usize = 300;
