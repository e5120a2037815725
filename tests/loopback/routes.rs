//! Routes of real agents: canaries under load, mirrors, failures on purpose, answers of the agent's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use harness::apps::Nginx;
use harness::http::{Answer, Client};
use harness::load::{Load, State};
use harness::process::Signal;
use harness::{Mesh, Need, Node, need, program, stream, turn, wait_until};

/// Tells every request back as it came, under the name of its host.
fn echo(node: &Node) -> SocketAddr {
    let name = node.name().to_owned();
    stream::serve(node.host(), move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            let body = format!("{name}\n{request}");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nserver: echo\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    })
}

/// Head and body of a request whose length is announced.
pub(crate) fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let head = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break String::from_utf8_lossy(&bytes).into_owned();
        }
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8_lossy(&body))
}

/// `web` on n1 calls `site`: an echo as v1 on n2 and as v2 on n3.
fn two_versions() -> (Mesh, SocketAddr) {
    let mesh = Mesh::loopback(&[
        ("n1", &["web"]),
        ("n2", &["site"]),
        ("n3", &["site", "next"]),
    ]);
    for (name, version) in [("n2", "v1"), ("n3", "v2")] {
        let node = mesh.node(name);
        let labels = format!("labels = {{ version = \"{version}\" }}");
        node.serve("site", echo(node), "http", &["web"], &labels);
    }
    let address = mesh.node("n1").call("site", "web");
    (mesh, address)
}

/// Puts a route in force on n1 and waits until it is.
fn direct(mesh: &Mesh, rules: &str, shown: &str) {
    let node = mesh.node("n1");
    node.write(
        "route.toml",
        &format!("[[route]]\nservice = \"site\"\n{rules}"),
    );
    node.signal(Signal::HUP);
    wait_until(crate::PATIENCE, &format!("the route {shown}"), || {
        node.show("routes", &["site"])
            .is_some_and(|page| page.contains(shown))
    });
}

fn split(v1: u32) -> String {
    format!(
        "[[route.rule]]\nsticky = {{ header = \"x-user\" }}\nsplit = [{{ to = {{ version = \"v1\" }}, weight = {v1} }}, \
         {{ to = {{ version = \"v2\" }}, weight = {} }}]\n",
        100 - v1
    )
}

fn host_of(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text().lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_canary_goes_from_nothing_to_all_under_load() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::alone();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"]), ("n3", &["site"])]);
    let _apps = [("n2", "v1"), ("n3", "v2")].map(|(name, version)| {
        let node = mesh.node(name);
        let nginx = Nginx::start(
            node.host(),
            &mesh.scratch().directory(&format!("nginx-{name}")),
            name,
        );
        let labels = format!("labels = {{ version = \"{version}\" }}");
        node.serve("site", nginx.address(), "http", &["web"], &labels);
        nginx
    });
    let node = mesh.node("n1");
    let address = node.call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    let key = mesh.operator("alice", "route").display().to_string();
    // Said on one host, done on another.
    let say = |on: &str, v1: u32| {
        let rules = split(v1).replace("route.rule", "rule");
        let text = format!("kind = \"route\"\nname = \"site\"\n{rules}");
        let file = mesh.scratch().write("canary.toml", &text);
        let file = file.display().to_string();
        let arguments = ["apply", "-f", &file, "--key", &key, "--yes"];
        mesh.node(on).must(&arguments);
        let shown = format!("{v1}% version=v1");
        wait_until(crate::PATIENCE, &shown, || {
            let pages = mesh
                .nodes()
                .iter()
                .map(|node| node.show("routes", &["site"]));
            pages.flatten().filter(|page| page.contains(&shown)).count() == 3
        });
    };
    say("n2", 100);
    let state = State::default();
    let report = std::thread::scope(|scope| {
        let load = Load::start(scope, &state, node.host(), 16, address, "/");
        for (v1, on) in [(99, "n3"), (90, "n2"), (50, "n1"), (10, "n3"), (0, "n2")] {
            let before = load.good();
            say(on, v1);
            wait_until(crate::PATIENCE, "more answers", || {
                load.good() >= before + 2_000
            });
        }
        load.stop()
    });
    assert!(report.failures.is_empty(), "{:?}", report.failures.first());
    assert!(report.good >= 10_000, "{}", report.good);
    let metrics = node.metrics();
    for version in ["version=v1", "version=v2"] {
        let routed = metrics.sum(
            "starling_routed_total",
            &[("callee", "site"), ("subset", version)],
        );
        assert!(routed > 1_000.0, "{version}: {routed}");
    }
    let mut client = Client::new(address);
    for _ in 0..50 {
        assert_eq!(host_of(&client.get("/").expect("an answer")), "n3");
    }

    // A host's own route stands before the mesh's.
    direct(&mesh, &split(100), "100% version=v1");
    let page = node.must(&["routes", "site"]);
    assert!(
        page.contains("this host's own route of `site` stands before the mesh's, route/site@6"),
        "{page}"
    );
    assert_eq!(host_of(&client.get("/").expect("an answer")), "n2");
}

#[test]
fn a_user_keeps_its_version_and_rules_are_tried_in_order() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, address) = two_versions();
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    let mut client = Client::new(address);
    let mut ask = |path: &str, fields: &[(&str, &str)]| {
        client.ask("GET", path, fields, b"").expect("an answer")
    };
    let users: Vec<_> = (0..40).map(|user| format!("user-{user}")).collect();
    let mut hosts = || {
        users
            .iter()
            .map(|user| host_of(&ask("/", &[("x-user", user)])))
            .collect::<Vec<_>>()
    };
    direct(&mesh, &split(50), "50% version=v1");
    let half = hosts();
    assert_eq!(hosts(), half);
    assert!(half.contains(&"n2".to_owned()) && half.contains(&"n3".to_owned()));
    direct(&mesh, &split(40), "40% version=v1");
    for (before, after) in half.iter().zip(hosts()) {
        assert!(
            *before == after || (before == "n2" && after == "n3"),
            "{before} -> {after}"
        );
    }

    let rules = "[[route.rule]]\nmatch = { headers = { x-beta = \"1\" } }\nto = { version = \"v2\" }\n\
                 [[route.rule]]\nmatch = { path = \"/old/**\" }\nredirect = { prefix = \"/new\", status = 308 }\n\
                 [[route.rule]]\nmatch = { path = \"/closed\" }\nrespond = { status = 410, body = \"gone\\n\" }\n\
                 response_headers = { set = { x-closed = \"yes\" } }\n\
                 [[route.rule]]\nmatch = { path = \"/api/**\", methods = [\"GET\", \"POST\"] }\nto = { version = \"v1\" }\n\
                 rewrite = { prefix = \"/v1\", host = \"inner.example.org\" }\nbody_bytes = 8\n\
                 request_headers = { set = { x-by = \"route\" }, remove = [\"x-secret\"] }\n\
                 response_headers = { remove = [\"server\"] }\n\
                 [[route.rule]]\nmatch = { path = \"/sick\" }\nfault = { abort = 599 }\n\
                 [[route.rule]]\nto = { version = \"v1\" }\n";
    direct(&mesh, rules, "respond 410");
    let explain = |arguments: &[&str]| {
        let node = mesh.node("n1");
        node.show("explain", &[&["web", "site"], arguments].concat())
            .expect("it is allowed")
    };
    let told = explain(&["GET", "/api/%61"]);
    assert!(
        told.contains("route: rule 4 at ") && told.contains("; its app gets /v1/a\n"),
        "{told}"
    );
    assert!(told.contains("no: the route sends to version=v1"), "{told}");
    let told = explain(&["GET", "/api/a", "-H", "x-beta: 1"]);
    assert!(told.contains("no: the route sends to version=v2"), "{told}");
    let told = explain(&["GET", "/closed", "--from", "n1"]);
    assert!(
        told.contains(": respond 410") && told.contains("no: the caller's agent answers"),
        "{told}"
    );
    let mut client = Client::new(address);
    let mut ask = |method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]| {
        client.ask(method, path, fields, body).expect("an answer")
    };
    assert_eq!(host_of(&ask("GET", "/", &[("x-beta", "1")], b"")), "n3");
    assert_eq!(host_of(&ask("GET", "/", &[("x-beta", "2")], b"")), "n2");
    let moved = ask("GET", "/old/a?x=1", &[], b"");
    assert_eq!(
        (moved.status, moved.header("location")),
        (308, Some("/new/a?x=1"))
    );
    assert_eq!(moved.mesh_error(), None);
    let closed = ask("GET", "/closed", &[], b"");
    assert_eq!((closed.status, closed.text().as_str()), (410, "gone\n"));
    assert_eq!(closed.header("x-closed"), Some("yes"));
    let answer = ask("GET", "/api/%61?q", &[("x-secret", "1")], b"");
    assert_eq!(
        (host_of(&answer).as_str(), answer.header("server")),
        ("n2", None)
    );
    let seen = answer.text();
    assert!(seen.contains("GET /v1/a?q HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.contains("host: inner.example.org\r\n") && seen.contains("x-by: route\r\n"),
        "{seen}"
    );
    assert!(!seen.contains("x-secret"), "{seen}");
    assert_eq!(ask("POST", "/api/a", &[], b"12345678").status, 200);
    let large = ask("POST", "/api/a", &[], b"123456789");
    assert_eq!(
        (large.status, large.mesh_error()),
        (413, Some("body-too-large"))
    );
    let failed = ask("GET", "/sick", &[], b"");
    assert_eq!((failed.status, failed.mesh_error()), (599, Some("fault")));
    let ambiguous = ask("GET", "/api/../x", &[], b"");
    assert_eq!(
        (ambiguous.status, ambiguous.mesh_error()),
        (400, Some("ambiguous-path"))
    );
}

/// A body of unknown length is cut off where it exceeds the limit, and the caller is told why.
#[test]
fn an_endless_upload_is_refused_when_it_has_grown_too_large() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    // It takes all that it gets, and would never answer.
    let taker = stream::serve(mesh.node("n2").host(), |mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    mesh.node("n2").serve("site", taker, "http", &["web"], "");
    let address = mesh.node("n1").call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::PATIENCE);
    direct(
        &mesh,
        "[[route.rule]]\nbody_bytes = 100000\n",
        "bodies up to 100000 bytes",
    );
    let mut connection = stream::connect(mesh.node("n1").host(), address);
    let head = format!("POST / HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n\r\n");
    connection.write_all(head.as_bytes()).expect("it listens");
    // It may close before it has taken all of this.
    let _ =
        connection.write_all(format!("{:x}\r\n{}\r\n", 200_000, "x".repeat(200_000)).as_bytes());
    let mut answer = Vec::new();
    let _ = connection.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("starling-error: body-too-large"),
        "{answer}"
    );
}

#[test]
fn a_mirror_gets_copies_as_the_caller_and_holds_up_nobody() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, address) = two_versions();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let copies = seen.clone();
    // Takes every request and answers none.
    let hole = stream::serve(mesh.node("n3").host(), move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            copies.lock().expect("no panic").push(request);
        }
    });
    mesh.node("n3").serve("next", hole, "http", &["web"], "");
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    mesh.wait_healthy("next", &["n3"], crate::PATIENCE);
    let rule = "[[route.rule]]\nto = { version = \"v1\" }\nmirror = { service = \"next\" }\n";
    direct(&mesh, rule, "mirror 100% to next");
    let mut client = Client::new(address);
    // More than may be under way: each would wait for ever if the caller waited for its copy.
    for number in 0..80 {
        let secrets = [
            ("Authorization", "Bearer secret"),
            ("Cookie", "id=secret"),
            ("X-Starling-Mirror", "no"),
        ];
        let answer = client.ask(
            "POST",
            "/buy",
            &secrets,
            format!("item-{number:03}").as_bytes(),
        );
        assert_eq!(host_of(&answer.expect("an answer")), "n2");
    }
    let first = || seen.lock().expect("no panic").first().cloned();
    wait_until(crate::PATIENCE, "a copy", || first().is_some());
    let copy = first().unwrap_or_default();
    assert!(
        copy.starts_with("POST /buy HTTP/1.1\r\n") && copy.contains("item-"),
        "{copy}"
    );
    assert!(
        copy.contains("starling-caller: spiffe://mesh.test/svc/web\r\n"),
        "{copy}"
    );
    assert!(copy.contains("x-starling-mirror: 1\r\n"), "{copy}");
    assert!(
        !copy.contains("secret") && !copy.contains("\r\nstarling-mirror"),
        "{copy}"
    );
    let skipped = mesh
        .node("n1")
        .metrics()
        .sum("starling_mirrored_total", &[("outcome", "skipped")]);
    assert_eq!(skipped, 16.0);
}

#[test]
fn the_share_of_a_version_that_is_gone_goes_to_the_others() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, address) = two_versions();
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    direct(&mesh, &split(50), "50% version=v1");
    mesh.node("n3").kill();
    let mut client = Client::new(address);
    for user in 0..40 {
        let answer = client.ask("GET", "/", &[("x-user", &user.to_string())], b"");
        assert_eq!(host_of(&answer.expect("an answer")), "n2");
    }
}

#[test]
fn tcp_connections_are_split_too() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"]), ("n3", &["site"])]);
    for (name, version) in [("n2", "v1"), ("n3", "v2")] {
        let node = mesh.node(name);
        let says = stream::serve(node.host(), move |mut stream| {
            // Its caller may be gone.
            let _ = stream.write_all(name.as_bytes());
        });
        node.serve(
            "site",
            says,
            "tcp",
            &["web"],
            &format!("labels = {{ version = \"{version}\" }}"),
        );
    }
    let address = mesh.node("n1").call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    let ask = || {
        let mut said = String::new();
        let mut connection = stream::connect(mesh.node("n1").host(), address);
        connection.read_to_string(&mut said).map(|_| said)
    };
    let rules = "[[route.rule]]\nmatch = { methods = [\"GET\"] }\nto = { version = \"v1\" }\n\
                 [[route.rule]]\nmatch = { callers = [\"web\"] }\nto = { version = \"v2\" }\n";
    direct(&mesh, rules, "from web");
    for _ in 0..20 {
        assert_eq!(ask().expect("an answer"), "n3");
    }
    let half = "[[route.rule]]\nsplit = [{ to = { version = \"v1\" }, weight = 50 }, \
                { to = { version = \"v2\" }, weight = 50 }]\n";
    direct(&mesh, half, "50% version=v1");
    let both = || {
        let mut said: Vec<_> = (0..60).map(|_| ask().expect("an answer")).collect();
        said.sort_unstable();
        said.dedup();
        said
    };
    assert_eq!(both(), ["n2", "n3"]);
    direct(
        &mesh,
        "[[route.rule]]\nfault = { abort = 503 }\n",
        "fail 100% with 503",
    );
    assert!(ask().is_err());
}

#[test]
fn doubts_about_routes_are_told_with_their_place() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let (mesh, _address) = two_versions();
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    direct(
        &mesh,
        "[[route.rule]]\nto = { version = \"v3\" }\n[[route.rule]]\nname = \"late\"\nto = { version = \"v1\" }\n",
        "version=v3",
    );
    let node = mesh.node("n1");
    let page = node.show("routes", &[]).expect("an answer");
    let validated = Command::new(program::agent())
        .arg("validate")
        .arg(node.directory())
        .output()
        .expect("it runs");
    let validated = String::from_utf8_lossy(&validated.stderr).into_owned();
    for text in [page, validated] {
        assert!(
            text.contains("route.toml:3: no instance of `site` has `version=v3`"),
            "{text}"
        );
        assert!(
            text.contains("route.toml:5: no call to `site` reaches rule \"late\""),
            "{text}"
        );
    }
    let document = "kind = \"route\"\nname = \"site\"\n[[rule]]\nto = { version = \"v3\" }\n";
    let file = mesh.scratch().write("site.toml", document);
    let file = file.display().to_string();
    let applied = node.operate(&["apply", "-f", &file, "--dry-run"]);
    let applied = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(
        applied.contains("site.toml:3: no instance of `site` has `version=v3`")
            && !applied.contains("reaches"),
        "{applied}"
    );
    let routes = node.ask("routes").expect("an answer");
    assert_eq!(
        routes[0]["rules"][0]["targets"][0]["instances"], 0,
        "{routes}"
    );
    assert_eq!(routes[0]["origin"], "local");
}
