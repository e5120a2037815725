use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::config::{HealthKind, Place, Protocol};

const PATIENCE: Duration = Duration::from_secs(10);

fn health(kind: HealthKind) -> Health {
    let interval = Duration::from_millis(10);
    Health {
        kind,
        interval,
        timeout: Duration::from_secs(2),
        up: 1,
        down: 1,
    }
}

fn http(path: &str) -> Option<Health> {
    Some(health(HealthKind::Http { path: path.into() }))
}

fn service(name: &str, address: SocketAddr, health: Option<Health>) -> Service {
    Service {
        name: ServiceName::parse(name).unwrap(),
        address,
        protocol: Protocol::Http,
        is_detected: false,
        is_told: false,
        http: HttpVersion::H1,
        hosts: crate::config::Hosts::default(),
        trust_headers: Vec::new(),
        allow: Vec::new(),
        grants: Vec::new(),
        denies: Vec::new(),
        mode: None,
        plaintext: None,
        labels: BTreeMap::new(),
        weight: 100,
        health,
        limits: crate::config::ServiceLimits::default(),
        declared: Place {
            file: Path::new("t.toml").into(),
            line: 1,
        },
    }
}

/// An app that answers every connection with these bytes, and counts them.
async fn app(answer: &'static str) -> (SocketAddr, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (count, counted) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.send_modify(|count| *count += 1);
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, counted)
}

async fn until(states: &mut watch::Receiver<States>, name: &str, healthy: bool) -> State {
    let wanted = |states: &States| {
        states
            .get(name)
            .is_some_and(|state| state.healthy == healthy)
    };
    let wanted = |states: &States| wanted(states) && (healthy || states[name].problem.is_some());
    timeout(PATIENCE, states.wait_for(wanted))
        .await
        .unwrap()
        .unwrap()[name]
        .clone()
}

async fn probed(answer: &'static str, path: &str) -> Result<(), String> {
    let (address, _) = app(answer).await;
    let target = Target::of(&service("orders", address, http(path))).unwrap();
    probe::probe(&target)
        .await
        .map_err(|problem| problem.to_string())
}

#[tokio::test]
async fn good_answers_pass() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nbody without end",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        assert_eq!(probed(answer, "/healthz").await, Ok(()), "{answer:?}");
    }
}

#[tokio::test]
async fn bad_answers_do_not() {
    for (answer, problem) in [
        (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
            "it answered 503",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "it answered 404",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "no HTTP answer"),
        ("", "no HTTP answer"),
    ] {
        let found = probed(answer, "/healthz").await.unwrap_err();
        assert!(found.starts_with(problem), "{answer:?}: {found}");
    }
    let endless = "HTTP/1.1 200 OK\r\nx: ".to_owned() + &"a".repeat(4 * 16 * 1024);
    let found = probed(endless.leak(), "/healthz").await.unwrap_err();
    assert!(found.starts_with("no HTTP answer"), "{found}");
    let found = probed("", "no slash").await.unwrap_err();
    assert!(found.starts_with("the path"), "{found}");
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_given_up() {
    // The kernel completes the connection; nobody accepts it.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut declared = service("orders", silent.local_addr().unwrap(), http("/"));
    declared.health.as_mut().unwrap().timeout = Duration::from_millis(50);
    let target = Target::of(&declared).unwrap();
    assert!(matches!(
        probe::probe(&target).await,
        Err(probe::Problem::Slow(_))
    ));
}

#[tokio::test]
async fn http2_apps_are_asked_in_http2() {
    use hyper::server::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut declared = service("orders", listener.local_addr().unwrap(), http("/healthz"));
    declared.http = HttpVersion::H2;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer =
            hyper::service::service_fn(async |request: http::Request<hyper::body::Incoming>| {
                let status = if request.uri().path() == "/healthz" {
                    200
                } else {
                    404
                };
                let body = http_body_util::Empty::<bytes::Bytes>::new();
                http::Response::builder().status(status).body(body)
            });
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), answer)
            .await;
    });
    let target = Target::of(&declared).unwrap();
    probe::probe(&target).await.unwrap();
}

#[tokio::test]
async fn an_app_that_comes_and_goes_is_followed() {
    let mut checks = Checks::new();
    let mut states = checks.watch();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    checks.reconcile(&[service("orders", address, Some(health(HealthKind::Tcp)))]);
    assert!(
        !states.borrow()["orders"].healthy,
        "not before its first check"
    );
    assert_eq!(until(&mut states, "orders", true).await.problem, None);

    drop(listener);
    let state = until(&mut states, "orders", false).await;
    assert!(
        state
            .problem
            .unwrap()
            .starts_with("no connection to 127.0.0.1:")
    );

    let _again = TcpListener::bind(address).await.unwrap();
    until(&mut states, "orders", true).await;
}

#[tokio::test]
async fn without_a_check_an_app_is_healthy() {
    let mut checks = Checks::new();
    let states = checks.watch();
    checks.reconcile(&[service("orders", ([127, 0, 0, 1], 9).into(), None)]);
    assert!(states.borrow()["orders"].healthy);
}

#[tokio::test]
async fn a_reload_keeps_what_did_not_change() {
    let mut checks = Checks::new();
    let mut states = checks.watch();
    let (address, _) = app("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let orders = service("orders", address, http("/healthz"));
    checks.reconcile(std::slice::from_ref(&orders));
    until(&mut states, "orders", true).await;

    // Another label is no reason to doubt the app; another service is checked beside it.
    let mut labelled = orders.clone();
    labelled.labels.insert("version".into(), "v2".into());
    let (other, _) = app("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
    checks.reconcile(&[labelled, service("cart", other, http("/"))]);
    assert!(states.borrow()["orders"].healthy);
    assert!(!states.borrow()["cart"].healthy);
    until(&mut states, "cart", false).await;

    // Another path is another check: it begins anew.
    checks.reconcile(&[service("orders", address, http("/ready"))]);
    assert!(!states.borrow()["orders"].healthy && !states.borrow().contains_key("cart"));
    until(&mut states, "orders", true).await;

    // A check that is taken away leaves a healthy app.
    checks.reconcile(&[service("orders", ([127, 0, 0, 1], 9).into(), None)]);
    assert!(states.borrow()["orders"].healthy);
}

#[tokio::test]
async fn what_is_no_longer_declared_is_no_longer_asked() {
    let mut checks = Checks::new();
    let (address, mut asked) = app("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    checks.reconcile(&[service("orders", address, http("/"))]);
    timeout(PATIENCE, asked.wait_for(|count| *count >= 3))
        .await
        .unwrap()
        .unwrap();
    checks.reconcile(&[]);
    timeout(PATIENCE, async {
        while checks.tasks.join_next().await.is_some() {}
    })
    .await
    .unwrap();
    assert!(checks.watch().borrow().is_empty());
}
