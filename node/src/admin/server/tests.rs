use bytes::Bytes;
use futures_util::future::BoxFuture;
use starling_gossip::DocumentKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::admin::view::{
    Config, Document, Edges, EndedInvitations, Explained, GoodFrom, Gossip, History, Invited,
    Leaving, LineAnswer, LineQuestion, Node, NodePolicy, Reader, Receipt, Refused, RevokedName,
    Route, Scraped, Seer, Service, Status, Unsigned,
};
use crate::tap::{Ask, Tap};
use crate::telemetry::Format;

/// An agent that is not ready yet.
struct Young;

impl Source for Young {
    fn status(&self) -> Status {
        Status {
            node: "n1".into(),
            identity: "spiffe://example.org/node/n1".into(),
            trust_domain: "example.org".into(),
            version: "0.1.0".into(),
            uptime_s: 1,
            state: "starting".into(),
            listen: "0.0.0.0:7400".into(),
            advertise: "10.0.0.1:7400".into(),
            zone: "rack-1".into(),
            svids: Vec::new(),
            renewal: None,
            issuer: None,
            refused_by_peer: None,
            gossip: Gossip::default(),
            documents: Default::default(),
            services: Vec::new(),
            upstreams: Vec::new(),
            plaintext: Vec::new(),
            dashboard: None,
            config: Config {
                directory: "/etc/starling".into(),
                age_s: 1,
                last_error: None,
                absent: Vec::new(),
            },
        }
    }

    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    fn services(&self) -> Vec<Service> {
        Vec::new()
    }

    fn explain(
        &self,
        question: Question,
        from: Option<String>,
    ) -> BoxFuture<'static, Result<Explained, String>> {
        Box::pin(std::future::ready(match from {
            Some(node) => Err(format!("no node `{node}`")),
            None => Ok(Explained {
                node: "n1".into(),
                question,
                route: None,
                limits: Vec::new(),
                instances: Vec::new(),
            }),
        }))
    }

    fn check(&self) -> BoxFuture<'static, crate::check::agent::Agent> {
        Box::pin(std::future::ready(crate::check::tests::agent()))
    }

    fn routes(&self) -> Vec<Route> {
        Vec::new()
    }

    fn policy(&self, service: String) -> BoxFuture<'static, Result<Vec<NodePolicy>, String>> {
        Box::pin(std::future::ready(Err(format!("no node runs `{service}`"))))
    }

    fn edges(&self, window: Window) -> Edges {
        Edges {
            window_s: window.seconds(),
            ..Edges::default()
        }
    }

    fn survey(&self, window: Window) -> BoxFuture<'static, Edges> {
        Box::pin(std::future::ready(self.edges(window)))
    }

    fn tap(&self, ask: Ask) -> Result<Tap, Refused> {
        Err(Refused {
            status: 403,
            error: format!("{} opens nothing", ask.pass),
            hint: None,
        })
    }

    fn sees(&self, pass: &str) -> Result<Seer, Refused> {
        match pass {
            "good" => Ok(Seer {
                operator: "alice".into(),
                pass: "0".into(),
                seconds_left: 60,
            }),
            _ => Err(Refused {
                status: 403,
                error: format!("{pass} opens nothing"),
                hint: None,
            }),
        }
    }

    fn end_invitations(&self, _name: RevokedName) -> BoxFuture<'static, EndedInvitations> {
        Box::pin(std::future::ready(EndedInvitations::default()))
    }

    fn lines(&self, _question: LineQuestion) -> BoxFuture<'static, LineAnswer> {
        Box::pin(std::future::ready(LineAnswer::default()))
    }

    fn good_from(&self, _invited: &Invited) -> GoodFrom {
        GoodFrom { good_from: None }
    }

    fn readers(&self, _texts: Vec<Unsigned>) -> BoxFuture<'static, Vec<Reader>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn leave(&self) -> Leaving {
        Leaving { within_s: 30 }
    }

    fn documents(&self) -> Vec<Document> {
        Vec::new()
    }

    fn operators(&self) -> Vec<crate::admin::view::Operator> {
        Vec::new()
    }

    fn document(&self, key: &DocumentKey) -> History {
        History {
            document: Document {
                kind: key.kind.to_string(),
                name: key.name.to_string(),
                ..Document::default()
            },
            newest: 0,
            revisions: Vec::new(),
        }
    }

    fn submit(&self, document: Bytes) -> BoxFuture<'_, Result<Receipt, Refused>> {
        Box::pin(std::future::ready(Err(Refused {
            status: 422,
            error: format!("{} bytes are not a document", document.len()),
            hint: None,
        })))
    }

    fn ready(&self) -> Result<(), String> {
        Err("no certificate yet".into())
    }

    fn metrics(&self, format: Format) -> String {
        format!("starling_build_info 1\n# {format:?}\n")
    }

    fn metrics_of(
        &self,
        node: String,
        format: Format,
    ) -> BoxFuture<'static, Result<String, String>> {
        Box::pin(std::future::ready(match &*node {
            "n2" => Ok(format!("up 1\n# {format:?}\n")),
            _ => Err(format!("no node `{node}` is known here")),
        }))
    }

    fn scraped(&self, address: &str) -> Vec<Scraped> {
        vec![Scraped {
            targets: vec![address.to_owned()],
            labels: std::collections::BTreeMap::new(),
        }]
    }
}

/// An admin server at an address of its own, until dropped.
struct Running {
    address: SocketAddr,
    drain: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn running() -> Running {
    running_with(true).await
}

async fn running_with(dashboard: bool) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = CancellationToken::new();
    let door = Door::Http {
        listener,
        dashboard,
    };
    let task = tokio::spawn(serve(door, Arc::new(Young), drain.clone()));
    Running {
        address,
        drain,
        task,
    }
}

async fn exchange(mut stream: impl Stream, request: &str) -> String {
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

impl Running {
    async fn send(&self, request: &str) -> String {
        exchange(TcpStream::connect(self.address).await.unwrap(), request).await
    }

    /// The status line's code for a request to `path` with these fields.
    async fn status(&self, line: &str, fields: &str) -> u16 {
        let answer = self
            .send(&format!(
                "{line} HTTP/1.1\r\n{fields}connection: close\r\n\r\n"
            ))
            .await;
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

#[tokio::test]
async fn what_is_reached_over_http_can_only_be_read() {
    let agent = running().await;
    let host = format!("host: {}\r\n", agent.address);
    for (line, expected) in [
        ("GET /healthz", 200),
        ("HEAD /healthz", 200),
        ("GET /readyz", 503),
        ("GET /metrics", 200),
        ("GET /metrics?name=x", 200),
        ("GET /v1/sd", 200),
        ("GET /v1/nodes/n2/metrics", 200),
        ("GET /v1/nodes/n3/metrics", 502),
        ("GET /v1/nodes//metrics", 502),
        ("POST /v1/sd", 405),
        ("POST /v1/nodes/n2/metrics", 405),
        ("GET /v1/status", 404),
        ("GET /v1/nodes", 404),
        ("GET /", 200),
        ("HEAD /", 200),
        ("GET /page/main.js", 200),
        ("GET /page/", 404),
        ("GET /page/../main.js", 404),
        ("GET /v1/explain?caller=web&callee=orders", 200),
        ("GET /v1/explain?caller=web&callee=orders&from=n9", 502),
        ("GET /v1/explain", 400),
        ("POST /v1/explain?caller=web&callee=orders", 405),
        ("POST /v1/events", 405),
        ("HEAD /v1/events", 404),
        ("POST /", 405),
        ("GET /debug/pprof", 404),
        ("GET /v1/documents", 404),
        ("GET /v1/documents/policy/orders", 200),
        ("GET /v1/documents/policy", 404),
        ("GET /v1/policy?service=orders", 404),
        ("GET /v1/policy", 400),
        ("POST /v1/policy?service=orders", 405),
        ("POST /v1/documents", 405),
        ("POST /metrics", 405),
        ("DELETE /metrics", 405),
        ("OPTIONS /metrics", 405),
    ] {
        assert_eq!(agent.status(line, &host).await, expected, "{line}");
    }
    let page = agent
        .send("GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .await;
    assert!(
        page.ends_with("\r\n\r\nstarling_build_info 1\n# Text\n"),
        "{page}"
    );
    assert!(
        page.contains("version=0.0.4") && !page.contains("access-control"),
        "{page}"
    );
    let accept = "accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1";
    let page = agent
        .send(&format!(
            "GET /metrics HTTP/1.0\r\nhost: localhost\r\n{accept}\r\n\r\n"
        ))
        .await;
    assert!(
        page.contains("application/openmetrics-text; version=1.0.0")
            && page.ends_with("# OpenMetrics\n"),
        "{page}"
    );
    let found = agent
        .send("GET /v1/sd HTTP/1.0\r\nhost: localhost:7401\r\n\r\n")
        .await;
    assert!(
        found.contains("content-type: application/json")
            && found.ends_with(r#"[{"targets":["localhost:7401"],"labels":{}}]"#),
        "{found}"
    );
    let why = agent
        .send("GET /readyz HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .await;
    assert!(why.ends_with("no certificate yet\n"), "{why}");
}

#[tokio::test]
async fn without_a_dashboard_there_is_what_monitoring_needs() {
    let agent = running_with(false).await;
    let host = format!("host: {}\r\n", agent.address);
    for (line, expected) in [
        ("GET /healthz", 200),
        ("GET /readyz", 503),
        ("GET /metrics", 200),
        ("GET /v1/sd", 200),
        ("GET /v1/nodes/n2/metrics", 200),
        ("GET /", 404),
        ("GET /page/main.js", 404),
        ("GET /v1/events", 404),
        ("GET /v1/explain?caller=web&callee=orders", 404),
        ("GET /v1/policy?service=orders", 404),
        ("GET /v1/documents/policy/orders", 404),
    ] {
        assert_eq!(agent.status(line, &host).await, expected, "{line}");
    }
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let agent = running().await;
    let port = agent.address.port();
    let fields = |text: &str| text.replace("PORT", &port.to_string());
    for (given, expected) in [
        ("host: 127.0.0.1:PORT\r\n", 200),
        ("host: 127.0.0.1\r\n", 200),
        ("host: LocalHost:PORT\r\n", 200),
        (
            "host: 127.0.0.1:PORT\r\norigin: http://127.0.0.1:PORT\r\n",
            200,
        ),
        ("", 403),
        ("host: evil.example\r\n", 403),
        ("host: evil.example:PORT\r\n", 403),
        ("host: 127.0.0.1.evil.example\r\n", 403),
        ("host: localhost.evil.example\r\n", 403),
        ("host: 127.0.0.2:PORT\r\n", 403),
        ("host: 0.0.0.0:PORT\r\n", 403),
        ("host: [::1]:PORT\r\n", 403),
        ("host: localhost\r\nhost: localhost\r\n", 403),
        ("host: user@localhost@evil\r\n", 403),
        (
            "host: 127.0.0.1:PORT\r\norigin: http://evil.example\r\n",
            403,
        ),
        ("host: 127.0.0.1:PORT\r\norigin: null\r\n", 403),
        (
            "host: 127.0.0.1:PORT\r\norigin: https://127.0.0.1:PORT\r\n",
            403,
        ),
        ("host: localhost\r\nsec-fetch-site: none\r\n", 200),
        ("host: localhost\r\nsec-fetch-site: same-origin\r\n", 200),
        ("host: localhost\r\nsec-fetch-site: same-site\r\n", 403),
        ("host: localhost\r\nsec-fetch-site: cross-site\r\n", 403),
        (
            "host: localhost\r\nsec-fetch-site: none\r\nsec-fetch-site: cross-site\r\n",
            403,
        ),
    ] {
        assert_eq!(
            agent.status("GET /metrics", &fields(given)).await,
            expected,
            "{given:?}"
        );
    }
    for path in [
        "/",
        "/page/main.js",
        "/v1/events",
        "/v1/explain?caller=a&callee=b",
    ] {
        let line = format!("GET {path}");
        let status = agent.status(&line, "host: evil.example\r\n").await;
        assert_eq!(status, 403, "{path}");
    }
    assert_eq!(
        agent
            .status("GET http://evil.example/metrics", "host: localhost\r\n")
            .await,
        403
    );
}

#[tokio::test]
async fn browsers_are_told_to_run_nothing_but_the_dashboard() {
    let agent = running().await;
    for path in [
        "/",
        "/page/style.css",
        "/metrics",
        "/nothing",
        "/v1/explain",
    ] {
        let answer = agent
            .send(&format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n"))
            .await;
        for field in [
            "content-security-policy: default-src 'none'; script-src 'self'; ",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(answer.contains(field), "{path}: no {field}: {answer}");
        }
        assert!(!answer.contains("set-cookie") && !answer.contains("unsafe-"));
    }
}

/// Reads until the first event is there, or the answer is over.
async fn first_event(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.contains("\n\n") {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        if length == 0 {
            break;
        }
    }
    text
}

impl Running {
    async fn watch(&self) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = "GET /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let text = first_event(&mut stream).await;
        (stream, text)
    }
}

#[tokio::test]
async fn streams_of_events_are_bounded_and_give_their_places_back() {
    let agent = running().await;
    let mut watching = Vec::new();
    for _ in 0..STREAMS_MAX {
        let (stream, text) = agent.watch().await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        assert!(text.contains("content-type: text/event-stream\r\n"));
        assert!(text.contains(r#""whole":true"#) && text.contains(r#"["status","",0,{"#));
        watching.push(stream);
    }
    let (_, refused) = agent.watch().await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert_eq!(
        agent.status("GET /metrics", "host: localhost\r\n").await,
        200,
        "there is room for monitoring"
    );

    drop(watching.pop());
    let freed = async {
        while !agent.watch().await.1.starts_with("HTTP/1.1 200 ") {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), freed).await.unwrap();

    agent.drain.cancel();
    timeout(Duration::from_secs(10), agent.task)
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    watching[0].read_to_end(&mut rest).await.unwrap();
    assert!(
        rest.ends_with(b"0\r\n\r\n"),
        "the stream ended, it did not break"
    );
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let agent = running().await;
    let long = format!(
        "host: localhost\r\nx: {}\r\n",
        "a".repeat(2 * HEAD_BYTES_MAX)
    );
    assert_eq!(agent.status("GET /healthz", &long).await, 431);
    let many = format!("host: localhost\r\n{}", "x: y\r\n".repeat(FIELDS_MAX + 1));
    assert_eq!(agent.status("GET /healthz", &many).await, 431);
}

#[tokio::test]
async fn the_socket_answers_commands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let socket = Socket::bind(&path).unwrap();
    let drain = CancellationToken::new();
    let task = tokio::spawn(serve(Door::Socket(socket), Arc::new(Young), drain.clone()));
    let ask =
        async |request: &str| exchange(UnixStream::connect(&path).await.unwrap(), request).await;

    let answer = ask("GET /v1/status HTTP/1.0\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/json"), "{head}");
    assert_eq!(
        serde_json::from_str::<Status>(body).unwrap(),
        Young.status()
    );
    assert!(
        ask("GET /v1/nodes HTTP/1.0\r\n\r\n")
            .await
            .ends_with("\r\n\r\n[]")
    );
    assert!(
        ask("GET /v1/services HTTP/1.0\r\n\r\n")
            .await
            .ends_with("\r\n\r\n[]")
    );
    assert!(
        ask("POST /v1/status HTTP/1.0\r\n\r\n")
            .await
            .contains(" 405 ")
    );
    let history = ask("GET /v1/documents/policy/orders HTTP/1.0\r\n\r\n").await;
    assert!(history.contains("\"name\":\"orders\""), "{history}");
    for path in [
        "/v1/documents/policy",
        "/v1/documents/a/b/c",
        "/v1/documents/../x",
    ] {
        let answer = ask(&format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert!(answer.contains(" 404 "), "{answer}");
    }
    let post = |length: usize| {
        let body = "x".repeat(length);
        format!("POST /v1/documents HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let refused = ask(&post(7)).await;
    assert!(
        refused.contains(" 422 ") && refused.contains("7 bytes are not a document"),
        "{refused}"
    );
    let too_long = ask(&post(257 * 1024)).await;
    assert!(too_long.contains(" 413 "), "{too_long}");

    drain.cancel();
    task.await.unwrap();
    assert!(!path.exists());
}

#[tokio::test(start_paused = true)]
async fn the_silent_are_cut_off() {
    let agent = running().await;
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..CONNECTIONS_MAX + 4 {
        silent.push(TcpStream::connect(agent.address).await.unwrap());
    }
    // Every place is taken; with the clock stopped, time runs on to the limit as soon as all wait.
    assert_eq!(
        agent.status("GET /healthz", "host: localhost\r\n").await,
        200
    );
}

#[tokio::test]
async fn draining_closes_kept_connections() {
    let agent = running().await;
    let mut kept = TcpStream::connect(agent.address).await.unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut head = [0; 15];
    kept.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    agent.drain.cancel();
    timeout(Duration::from_secs(10), agent.task)
        .await
        .unwrap()
        .unwrap();
    assert!(
        TcpStream::connect(agent.address).await.is_err(),
        "nobody listens any more"
    );
}
