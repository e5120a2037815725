//! Spans of two agents, as a collector made of OpenTelemetry's own Python package reads them.

use std::io::Read;
use std::net::SocketAddr;

use harness::apps::{Moody, Reply, mirror};
use harness::http::{Answer, Client};
use harness::process::Process;
use harness::{Host, Mesh, Need, need, peers, poll, stream, turn, wait_until};
use serde_json::Value;

/// `web` on n1 calls `shop`, which shows what it gets, and `moody` on n2. n1 exports over HTTP, n2 over gRPC.
struct Traced {
    mesh: Mesh,
    app: SocketAddr,
    shop: SocketAddr,
    moody: SocketAddr,
    collector: Process,
}

impl Traced {
    fn start() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shop", "moody"])]);
        let here = Host::loopback("collector");
        let log = mesh.scratch().path().join("collector.log");
        let (collector, http) = peers::serve(&here, "otlp_receiver.py", &log);
        let grpc = collector.log().lines().find_map(|line| {
            let port = line.strip_prefix("grpc ")?.parse().ok()?;
            Some(SocketAddr::new(here.ip(), port))
        });
        let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
        let trace = |at: SocketAddr, protocol: &str| {
            format!("[trace]\nendpoint = \"http://{at}\"\nprotocol = \"{protocol}\"\nsample = 0")
        };
        n1.write_config(&[n2], &trace(http, "http"));
        n2.write_config(&[n1], &trace(grpc.expect("it says so first"), "grpc"));
        let app = mirror(n2.host());
        n2.serve("shop", app, "http", &["web"], "");
        let moods = Moody::start(n2.host(), |call, _| {
            Reply::status(if call == 1 { 503 } else { 200 })
        });
        n2.serve("moody", moods.address(), "http", &["web"], "");
        let retry = "retry = { attempts = 2, on = [\"5xx\"], budget = { percent = 100 } }";
        let (shop, moody) = (
            n1.call("shop", "web"),
            n1.call_as_told("moody", "web", retry),
        );
        mesh.start();
        for service in ["shop", "moody"] {
            mesh.wait_healthy(service, &["n2"], crate::PATIENCE);
        }
        Self {
            mesh,
            app,
            shop,
            moody,
            collector,
        }
    }

    /// The spans of this trace, once there are so many; by when they began.
    #[track_caller]
    fn spans(&self, trace: &str, count: usize) -> Vec<Value> {
        let what = format!("{count} spans of {trace}");
        poll(crate::PATIENCE, &what, || {
            let spans = self.seen(trace);
            assert!(spans.len() <= count, "{spans:#?}");
            (spans.len() == count).then_some(spans)
        })
    }

    fn seen(&self, trace: &str) -> Vec<Value> {
        let log = self.collector.log();
        let lines = log.lines().filter(|line| line.contains(trace));
        let spans = lines.filter_map(|line| serde_json::from_str(line).ok());
        let mut spans: Vec<Value> = spans.collect();
        spans.sort_by_key(|span| span["start"].as_u64());
        spans
    }
}

#[track_caller]
fn ask(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Answer {
    let asked = Client::new(address).ask("GET", path, fields, &[]);
    asked.expect("an answer")
}

/// What the app behind got as `traceparent`.
fn traceparent(answer: &Answer) -> String {
    let head = answer.text();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("traceparent: "));
    line.expect("every call has one").to_owned()
}

/// What a span says under this name.
fn said<'s>(span: &'s Value, key: &str) -> &'s Value {
    &span["attributes"][key]
}

/// Of which trace a call of a test is: one that nobody else uses.
fn trace(number: u8) -> String {
    format!("4bf92f3577b34da6a3ce929d0e0e47{number:02x}")
}

const APP: &str = "00f067aa0ba902b7";

#[test]
fn each_span_is_the_child_of_who_called() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let traced = Traced::start();
    // As W3C says it, as B3 says it in one field and in several.
    let ways = |trace: &str| {
        [
            vec![("traceparent", format!("00-{trace}-{APP}-01"))],
            vec![("b3", format!("{trace}-{APP}-1"))],
            vec![
                ("x-b3-traceid", trace.to_owned()),
                ("x-b3-spanid", APP.to_owned()),
                ("x-b3-sampled", "1".to_owned()),
            ],
        ]
    };
    for number in 0..3 {
        let trace = trace(number);
        let fields = &ways(&trace)[usize::from(number)];
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = ask(traced.shop, "/cart?secret=1", &fields);
        let spans = traced.spans(&trace, 2);
        let [client, server] = &spans[..] else {
            panic!("{spans:#?}");
        };
        assert_eq!(
            (&client["kind"], &client["parent"]),
            (&"SPAN_KIND_CLIENT".into(), &APP.into())
        );
        assert_eq!(
            (&server["kind"], &server["parent"]),
            (&"SPAN_KIND_SERVER".into(), &client["id"])
        );
        let id = server["id"].as_str().expect("hex digits");
        assert_eq!(
            traceparent(&answer),
            format!("00-{trace}-{id}-01"),
            "the app's parent"
        );

        for (span, transport, service, node) in [
            (client, "http", "web", "n1"),
            (server, "grpc", "shop", "n2"),
        ] {
            assert_eq!(span["transport"], transport);
            assert_eq!(span["resource"]["service.name"], service);
            assert_eq!(span["resource"]["service.namespace"], "mesh.test");
            assert_eq!(span["resource"]["service.instance.id"], node);
            assert_eq!(
                (&span["name"], &span["scope"]),
                (&"GET".into(), &"starling".into())
            );
            assert_eq!(said(span, "http.request.method"), "GET");
            assert_eq!(said(span, "http.response.status_code"), 200);
            assert_eq!(said(span, "url.path"), "/cart");
            assert_eq!(said(span, "instance"), "n2");
            assert!(span["start"].as_u64() < span["end"].as_u64());
            assert_eq!(span["is_error"], false);
            assert!(!span.to_string().contains("secret"), "{span:#}");
            // Telling is told of to nobody.
            let silent = span["fields"]["traceparent"].as_str();
            assert!(
                silent.is_some_and(|value| value.ends_with("-00")),
                "{span:#}"
            );
            // The line that the same agent wrote.
            let log = traced.mesh.node(node).log();
            let words = [
                format!("trace_id={trace}"),
                format!("span_id={}", span["id"].as_str().unwrap_or_default()),
            ];
            assert!(
                log.lines()
                    .any(|line| words.iter().all(|word| line.contains(word))),
                "{words:?}"
            );
        }
    }
}

#[test]
fn tries_refusals_and_silence() {
    need!(Need::Agent, Need::Python);
    let _turn = turn::shared();
    let traced = Traced::start();
    let sampled = |number| format!("00-{}-{APP}-01", trace(number));

    // The first try fails: each is a span, and each has its own child.
    let answer = ask(traced.moody, "/again", &[("traceparent", &sampled(0))]);
    assert_eq!(answer.status, 200);
    let spans = traced.spans(&trace(0), 4);
    let of = |kind: &str| -> Vec<_> { spans.iter().filter(|span| span["kind"] == kind).collect() };
    let (clients, servers) = (of("SPAN_KIND_CLIENT"), of("SPAN_KIND_SERVER"));
    for (at, (client, server)) in clients.iter().zip(&servers).enumerate() {
        assert_eq!(
            (&client["parent"], &server["parent"]),
            (&APP.into(), &client["id"])
        );
        assert_eq!(client["is_error"], at == 0, "{client:#}");
        assert_eq!(said(client, "http.response.status_code"), [503, 200][at]);
        assert_eq!(said(client, "error.type").as_str(), [Some("503"), None][at]);
        assert_eq!(
            said(client, "http.request.resend_count").as_u64(),
            [None, Some(1)][at]
        );
    }
    assert_eq!((clients.len(), servers.len()), (2, 2));

    // Whom the callee denies made the mistake, not the callee.
    traced
        .mesh
        .node("n2")
        .serve("shop", traced.app, "http", &["nobody"], "");
    wait_until(crate::PATIENCE, "the denial", || {
        ask(traced.shop, "/", &[]).status == 403
    });
    ask(traced.shop, "/mine", &[("traceparent", &sampled(1))]);
    let spans = traced.spans(&trace(1), 2);
    for (span, error) in spans.iter().zip([Some("denied"), None]) {
        assert_eq!(said(span, "reason"), "denied");
        assert_eq!(said(span, "error.type").as_str(), error);
        assert_eq!(span["is_error"], error.is_some());
    }

    // Nobody wants those recorded, and what is begun here is not: `sample` is 0.
    ask(
        traced.moody,
        "/",
        &[("traceparent", &format!("00-{}-{APP}-00", trace(2)))],
    );
    ask(traced.moody, "/quiet", &[]);
    // The last words arrive though the agents end at once.
    ask(traced.moody, "/last", &[("traceparent", &sampled(3))]);
    for node in traced.mesh.nodes() {
        node.stop();
    }
    traced.spans(&trace(3), 2);
    assert!(traced.seen(&trace(2)).is_empty() && traced.seen("/quiet").is_empty());
}

/// A collector that never answers, and one that is not there.
#[test]
fn a_slow_or_dead_collector_costs_callers_nothing() {
    need!(Need::Agent);
    let _turn = turn::alone();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shop"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let silent = stream::serve(n1.host(), |mut stream| {
        // Until its caller gives up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let dead = n2.host().free_tcp();
    n1.write_config(&[n2], &format!("[trace]\nendpoint = \"http://{silent}\""));
    n2.write_config(
        &[n1],
        &format!(
            "[trace]\nendpoint = \"http://{dead}\"\nprotocol = \"grpc\"\n[limits]\ndrain = \"1s\""
        ),
    );
    n2.serve("shop", mirror(n2.host()), "http", &["web"], "");
    let shop = n1.call("shop", "web");
    mesh.start();
    mesh.wait_healthy("shop", &["n2"], crate::PATIENCE);
    let sampled = format!("00-{}-{APP}-01", trace(0));
    let mut client = Client::new(shop);
    let dropped = |node: &harness::Node, reason| {
        node.metrics()
            .sum("starling_spans_dropped_total", &[("reason", reason)])
    };
    // More than the queue and what is on its way can hold. Had they waited for the collector, it would take hours.
    for _ in 0..6000 {
        let answer = client.ask("GET", "/", &[("traceparent", &sampled)], &[]);
        assert_eq!(answer.expect("an answer").status, 200);
    }
    wait_until(crate::PATIENCE, "n1 to drop", || {
        dropped(n1, "queue_full") > 0.0
    });
    wait_until(crate::PATIENCE, "n2 to drop", || {
        dropped(n2, "unreachable") > 0.0
    });
    let held = n1.resident_bytes();
    assert!(held < 100 << 20, "{held}");
    // They do not hold up the end either.
    n2.stop();
    n1.stop();
    let log = n1.log();
    assert!(log.contains("spans are lost"), "{log}");
    assert_eq!(n2.log().matches("spans are not exported").count(), 1);
}
