//! Who may call whom, as operators set and see it: modes, explain, and what a change does to calls under way.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use harness::apps::mirror;
use harness::http::{self, Client};
use harness::{Mesh, Need, need, poll, stream, turn, wait_until};

/// `web` on n1 and on n2 calls `orders` and `pipe` on n2.
struct Shop {
    mesh: Mesh,
    orders: SocketAddr,
    pipe: SocketAddr,
    /// Callers on n1 and on n2: of `orders`, and of `pipe`.
    callers: [(SocketAddr, SocketAddr); 2],
}

impl Shop {
    fn start(rules: &str) -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["web", "orders", "pipe"])]);
        let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
        let orders = mirror(n2.host());
        let pipe = stream::serve(n2.host(), |mut stream| {
            let mut back = stream.try_clone().expect("a socket can be shared");
            // Ends with its caller.
            let _ = std::io::copy(&mut stream, &mut back);
        });
        let callers = [n1, n2].map(|node| (node.call("orders", "web"), node.call("pipe", "web")));
        let shop = Self {
            mesh,
            orders,
            pipe,
            callers,
        };
        shop.rule(&["web"], rules);
        shop.mesh.start();
        for service in ["orders", "pipe"] {
            shop.mesh.wait_healthy(service, &["n2"], crate::SEEN);
        }
        shop
    }

    /// Sets the rules of both services.
    fn rule(&self, allow: &[&str], more: &str) {
        let n2 = self.mesh.node("n2");
        n2.serve("orders", self.orders, "http", allow, more);
        let more = more.lines().filter(|line| !line.starts_with("plaintext"));
        let more: Vec<_> = more.collect();
        n2.serve("pipe", self.pipe, "tcp", allow, &more.join("\n"));
    }

    /// What n1 says; a callee too busy to answer it in time is asked again.
    fn explain(&self, question: &[&str]) -> (Option<i32>, String) {
        let ask = || self.mesh.node("n1").answer("explain", question);
        let is_told = |answer: &(Option<i32>, String)| answer.0 != Some(1);
        poll(crate::PATIENCE, "an answer of the callee", || {
            Some(ask()).filter(is_told)
        })
    }
}

#[test]
fn audit_lets_through_what_enforce_refuses_and_says_so() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::start("mode = \"audit\"");
    shop.rule(&[], "mode = \"audit\"");
    let (orders, _) = shop.callers[0];
    let question = ["web", "orders", "GET", "/cart"];
    wait_until(crate::PATIENCE, "the audit", || {
        shop.explain(&question).1.contains("let through")
    });
    assert_eq!(http::get(orders, "/cart").unwrap().status, 200);
    let (code, told) = shop.explain(&question);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains(r#"n2: "nothing allows it; mode audit lets it through""#),
        "{told}"
    );
    let labels = [
        ("caller", "web"),
        ("callee", "orders"),
        ("mode", "audit"),
        ("reason", "no-grant"),
    ];
    let n2 = shop.mesh.node("n2");
    let counted = n2.metrics().sum("starling_policy_audit_total", &labels);
    assert_eq!(counted, 1.0);
    assert!(n2.log().contains("would have denied this call"));

    shop.rule(&[], "");
    wait_until(crate::PATIENCE, "the denial", || {
        http::get(orders, "/cart").unwrap().mesh_error() == Some("denied")
    });
    let (code, told) = shop.explain(&question);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains(r#"n2: "nothing allows it""#), "{told}");
    // The same, asked of the node that runs it, about calls made there.
    let elsewhere = [&question[..], &["--from", "n2"]].concat();
    let (code, told) = shop.explain(&elsewhere);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("from n2"), "{told}");
    let (code, _) = shop.mesh.node("n1").answer("explain", &["web", "nobody"]);
    assert_eq!(code, Some(1));
}

#[test]
fn permissive_takes_callers_without_the_mesh_until_it_does_not() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::start("");
    let n2 = shop.mesh.node("n2");
    let plaintext = n2.host().free_tcp();
    let permissive = format!("mode = \"permissive\"\nplaintext = \"{plaintext}\"");
    assert!(http::get(plaintext, "/").is_err());
    shop.rule(&[], &permissive);
    wait_until(crate::PATIENCE, "the plaintext address", || {
        TcpStream::connect(plaintext).is_ok()
    });
    let mut client = Client::new(plaintext);
    let seen = client.get("/old").unwrap().text();
    assert!(seen.starts_with("GET /old HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("starling-caller"), "{seen}");
    let mut upgraded = upgrade(plaintext);
    assert_echo(&mut upgraded);

    let status = n2.ask("status").expect("the agent answers");
    let callers = status["plaintext"].as_array().expect("a list");
    assert_eq!(callers.len(), 1, "{status}");
    assert_eq!(callers[0]["service"], "orders", "{status}");
    let taken = [("callee", "orders"), ("outcome", "taken")];
    let taken = n2
        .metrics()
        .sum("starling_plaintext_connections_total", &taken);
    assert!(taken >= 2.0, "{taken}");

    shop.rule(&[], &permissive.replace("permissive", "audit"));
    wait_until(crate::PATIENCE, "the end of the plaintext address", || {
        TcpStream::connect(plaintext).is_err()
    });
    // Also for those that were there.
    assert!(client.get("/old").is_err());
    assert_cut(&mut upgraded);
}

#[test]
fn a_change_of_rules_cuts_what_is_under_way() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::start("");
    let mut open = Vec::new();
    for (orders, pipe) in shop.callers {
        let mut endless = TcpStream::connect(orders).unwrap();
        endless
            .write_all(b"GET /endless HTTP/1.1\r\nhost: orders\r\n\r\n")
            .unwrap();
        let mut endless = BufReader::new(endless);
        let mut line = String::new();
        while !line.starts_with("GET /endless") {
            line.clear();
            assert_ne!(endless.read_line(&mut line).unwrap(), 0, "it begins");
        }
        let mut tunnel = BufReader::new(TcpStream::connect(pipe).unwrap());
        assert_echo(&mut tunnel);
        let mut upgraded = upgrade(orders);
        assert_echo(&mut upgraded);
        open.extend([endless, tunnel, upgraded]);
    }
    // A change that denies nothing of it leaves it alone.
    shop.rule(
        &["web"],
        "[[service.deny]]\nfrom = [\"guest\"]\n[[service.deny]]\nfrom = [\"pay\"]",
    );
    wait_until(crate::PATIENCE, "the first change", || {
        let denied = ["guest", "orders", "GET", "/"];
        shop.explain(&denied).1.contains("a denial forbids it")
    });
    for at in [1, 2, 4, 5] {
        assert_echo(&mut open[at]);
    }
    shop.rule(&["web"], "[[service.deny]]\nfrom = [\"web\"]");
    for stream in &mut open {
        assert_cut(stream);
    }
    let n2 = shop.mesh.node("n2");
    wait_until(crate::PATIENCE, "the access lines", || {
        n2.log().matches("reason=denied").count() >= open.len()
    });
}

#[test]
fn a_caller_reached_another_virtual_host_of_an_app_by_way_of_a_service() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["web", "shop"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let hosts = "hosts = [\"shop.example\"]\n";
    n2.serve("shop", mirror(n2.host()), "http", &["web"], hosts);
    let callers = [n1, n2].map(|node| node.call("shop", "web"));
    mesh.start();
    mesh.wait_healthy("shop", &["n2"], crate::SEEN);
    let cases = [
        ("GET / HTTP/1.1", "shop.example", true),
        ("GET / HTTP/1.1", "SHOP.example:8080", true),
        ("GET http://shop.example/ HTTP/1.1", "admin.example", true),
        ("GET / HTTP/1.1", "admin.example", false),
        ("GET / HTTP/1.1", "shop.example.evil.example", false),
        ("GET http://admin.example/ HTTP/1.1", "shop.example", false),
    ];
    // On another host, and on the callee's own.
    for address in callers {
        for (line, host, is_served) in cases {
            let mut stream = TcpStream::connect(address).expect("it listens");
            let asked = format!("{line}\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            stream.write_all(asked.as_bytes()).expect("a connection");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            let told = match is_served {
                true => answer.starts_with("HTTP/1.1 200 "),
                false => {
                    answer.starts_with("HTTP/1.1 403 ")
                        && answer.contains("starling-error: wrong-host\r\n")
                }
            };
            assert!(told, "{line} {host}: {answer}");
        }
    }
}

#[test]
fn a_web_page_called_a_service_as_the_service_of_the_host_where_it_is_open() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shop"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    n2.serve("shop", mirror(n2.host()), "http", &["web"], "");
    let hosts = "protocol = \"http\"\nhosts = [\"localhost\", \"shop\"]\n";
    let address = n1.call_as_told("shop", "web", hosts);
    mesh.start();
    mesh.wait_healthy("shop", &["n2"], crate::SEEN);
    let ask = |fields: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let asked = format!("GET / HTTP/1.1\r\n{fields}connection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).expect("a connection");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    for fields in [
        "host: localhost:9\r\n",
        "host: shop\r\n",
        "host: shop\r\nsec-fetch-site: none\r\n",
    ] {
        let answer = ask(fields);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{fields}: {answer}");
    }
    for fields in [
        "host: evil.example\r\n",
        "host: localhost\r\nsec-fetch-site: cross-site\r\nsec-fetch-mode: no-cors\r\n",
        "host: localhost\r\norigin: https://evil.example\r\n",
        "host: localhost\r\norigin: https://evil.example\r\nconnection: upgrade\r\nupgrade: mirror\r\n",
    ] {
        let answer = ask(fields);
        let is_refused = answer.starts_with("HTTP/1.1 403 ")
            && answer.contains("starling-error: wrong-host\r\n");
        assert!(is_refused, "{fields}: {answer}");
    }
}

#[test]
fn a_caller_said_what_only_a_proxy_knows_and_an_app_gave_a_status_that_there_is_not() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["shop", "trusting", "odd"])]);
    let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
    let odd = stream::serve(n2.host(), |mut stream| {
        while crate::routes::read_request(&mut stream).is_some() {
            let answer = b"HTTP/1.1 600 Odd\r\ncontent-length: 0\r\n\r\n";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    let trust = "trust_headers = [\"x-remote-user\"]\n";
    n2.serve("shop", mirror(n2.host()), "http", &["web"], "");
    n2.serve("trusting", mirror(n2.host()), "http", &["web"], trust);
    n2.serve("odd", odd, "http", &["web"], "");
    let [shop, trusting, odd] = ["shop", "trusting", "odd"].map(|name| n1.call(name, "web"));
    mesh.start();
    for service in ["shop", "trusting", "odd"] {
        mesh.wait_healthy(service, &["n2"], crate::SEEN);
    }
    let fields = [
        ("X-Remote-User", "admin"),
        ("Remote_User", "admin"),
        ("X-Auth-Request-Groups", "admin"),
        ("SSL-Client-Verify", "admin"),
        ("X-Accel-Redirect", "admin"),
        ("X-Original-URL", "admin"),
        ("X-Forwarded-For", "192.0.2.1"),
    ];
    let told = |address| {
        let answer = Client::new(address).ask("GET", "/", &fields, b"");
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 200);
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("x-forwarded-for: 192.0.2.1\r\n"), "{body}");
        body.matches("admin").count()
    };
    assert_eq!((told(shop), told(trusting)), (0, 1));
    let answer = Client::new(odd).ask("GET", "/", &[], b"");
    let answer = answer.expect("an answer");
    let reason = answer.header("starling-error");
    assert_eq!((answer.status, reason), (502, Some("app-broken")));
}

/// A connection to `/` of the app, become one that echoes.
fn upgrade(address: SocketAddr) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream
        .set_read_timeout(Some(crate::PATIENCE))
        .expect("a connection");
    let asked = "GET / HTTP/1.1\r\nhost: orders\r\nconnection: upgrade\r\nupgrade: mirror\r\n\r\n";
    stream.write_all(asked.as_bytes()).expect("a connection");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).expect("a connection");
    assert!(line.starts_with("HTTP/1.1 101 "), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).expect("a connection");
    }
    stream
}

#[track_caller]
fn assert_echo(stream: &mut BufReader<TcpStream>) {
    stream.get_mut().write_all(b"echo\n").expect("a connection");
    let mut line = String::new();
    stream.read_line(&mut line).expect("a connection");
    assert_eq!(line, "echo\n");
}

/// Nothing more comes, however it ends, and soon.
#[track_caller]
fn assert_cut(stream: &mut BufReader<TcpStream>) {
    let socket = stream.get_ref();
    socket
        .set_read_timeout(Some(crate::PATIENCE))
        .expect("a connection");
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    assert!(
        !rest.windows(5).any(|bytes| bytes == b"\r\n0\r\n"),
        "it did not look like an end"
    );
}

#[test]
fn a_plaintext_address_is_closed_while_its_service_is_revoked() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let shop = Shop::start("");
    let n2 = shop.mesh.node("n2");
    let plaintext = n2.host().free_tcp();
    shop.rule(
        &[],
        &format!("mode = \"permissive\"\nplaintext = \"{plaintext}\""),
    );
    wait_until(crate::PATIENCE, "the plaintext address", || {
        TcpStream::connect(plaintext).is_ok()
    });
    let mut upgraded = upgrade(plaintext);
    assert_echo(&mut upgraded);
    let alice = shop.mesh.operator("alice", "revocation");
    let alice = alice.display().to_string();
    let signed = ["--key", &alice, "--yes"];
    let revoke = ["revoke", "svc/orders", "--reason", "leaked"];
    n2.must(&[&revoke[..], &signed[..]].concat());
    wait_until(crate::SEEN, "the end of the plaintext address", || {
        TcpStream::connect(plaintext).is_err()
    });
    assert_cut(&mut upgraded);
    let status = n2.show("status", &[]).expect("the agent answers");
    assert!(status.contains("here it counts as REVOKED"), "{status}");
    let (_, found) = n2.answer("check", &[]);
    assert!(
        found.contains("an operator revoked certificates of this host"),
        "{found}"
    );
    n2.must(&[&["delete", "revocation/svc-orders"], &signed[..]].concat());
    wait_until(crate::PATIENCE, "the plaintext address again", || {
        TcpStream::connect(plaintext).is_ok()
    });
}
