//! The dashboard as a browser meets it: the page, and what it is told while the mesh changes.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use harness::apps::Moody;
use harness::{Mesh, Need, Node, browser, need, peers, stream, turn};
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

#[test]
fn chromium_shows_every_page_and_sees_a_node_go() {
    need!(Need::Agent, Need::Python, Need::Browser);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[
        ("n1", &["web"]),
        ("n2", &["orders", "stock"]),
        ("n3", &["orders"]),
    ]);
    let (watcher, other) = (mesh.node("n1"), mesh.node("n3"));
    let apps: Vec<_> = mesh.nodes()[1..]
        .iter()
        .map(|node| (node, Moody::well(node.host())))
        .collect();
    for (node, app) in &apps {
        let labels = format!("labels = {{ host = \"{}\" }}", node.name());
        node.serve("orders", app.address(), "http", &["web"], &labels);
    }
    watcher.call("orders", "web");
    mesh.start();
    mesh.wait_healthy("orders", &["n2", "n3"], crate::PATIENCE);

    let mut look = browser::script("mesh.py");
    look.arg(format!("http://{}/", watcher.admin_address()))
        .arg(other.pid().to_string())
        .arg(browser::screenshots());
    let looked = peers::answer(look);
    assert!(looked["pictures"].as_u64() > Some(0), "{looked}");
}

/// A message or a pulse each five seconds, of three lines: minutes, which nothing here takes.
const LINES_MAX: usize = 300;
