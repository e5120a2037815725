//! The dashboard for those who are not on its host: who gets in, and how everybody else is turned away.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use harness::process::leashed;
use harness::{Mesh, Need, Node, browser, need, peers, turn, wait_until};

/// n1 shows its dashboard to others: to operators with a pass, and to ops.
struct Desk {
    mesh: Mesh,
    address: String,
}

impl Desk {
    fn open() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["ops", "web"]), ("n2", &["batch"])]);
        let n1 = mesh.node("n1");
        let address = n1.host().free_tcp().to_string();
        let file = n1.directory().join("starling.toml");
        let text = std::fs::read_to_string(&file).expect("it was written before");
        let remote = format!(
            "[admin]\nremote = \"{address}\"\nallow = [\"ops\"]\nnames = [\"n1.mesh.test\"]\n"
        );
        std::fs::write(&file, text.replace("[admin]\n", &remote)).expect("a file can be written");
        mesh.start();
        Self { mesh, address }
    }

    fn n1(&self) -> &Node {
        self.mesh.node("n1")
    }

    fn state(&self, node: &str, file: &str) -> PathBuf {
        self.mesh.node(node).state().join(file)
    }

    /// A real client that knows the mesh's root. `url` may hold a name; all lead to n1.
    fn curl(&self, url: &str, options: &[&str]) -> Answer {
        Answer::of(self.client(url, &[&["-i", "--max-time", "20"], options].concat()))
    }

    fn client(&self, url: &str, options: &[&str]) -> Command {
        let (ip, port) = self.address.rsplit_once(':').expect("a port");
        let mut curl = leashed("curl");
        curl.args(["-sS", "--cacert"]);
        curl.arg(self.state("n1", "trust.pem"));
        for name in NAMES {
            curl.args(["--resolve", &format!("{name}:{port}:{ip}")]);
        }
        curl.args(options).arg(url.replace("PORT", port));
        curl
    }

    /// The event stream, of which something has come.
    fn events(&self, options: &[&str]) -> Events {
        let url = "https://n1.node.mesh.test:PORT/v1/events";
        let mut curl = self.client(url, &[&["-N", "--max-time", "60"], options].concat());
        curl.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = curl.spawn().expect("curl runs");
        let mut stream = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stream.read_line(&mut line).expect("an event comes");
        assert!(line.starts_with("data: "), "{line}");
        Events { child, stream }
    }

    /// By the name in the node's certificate.
    fn ask(&self, path: &str, options: &[&str]) -> Answer {
        self.curl(&format!("https://n1.node.mesh.test:PORT{path}"), options)
    }

    fn pass(&self, key: &str, options: &[&str]) -> String {
        let arguments = [&["login", "--bare", "--key", key], options].concat();
        self.n1().must(&arguments).trim().to_owned()
    }
}

/// What curl printed; status 0 if there was no answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn of(mut curl: Command) -> Self {
        let output = curl.output().expect("curl runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let status = text
            .split(' ')
            .nth(1)
            .filter(|_| text.starts_with("HTTP/1.1"));
        Self {
            status: status.and_then(|word| word.parse().ok()).unwrap_or(0),
            text,
        }
    }

    #[track_caller]
    fn is(&self, status: u16, word: &str) {
        assert!(
            self.status == status && self.text.contains(word),
            "not {status} with {word:?}: {self:?}"
        );
    }
}

/// An open event stream.
struct Events {
    child: Child,
    stream: BufReader<std::process::ChildStdout>,
}

impl Events {
    /// How long after `from` the agent ends it.
    fn ends(mut self, from: Instant) -> Duration {
        let mut rest = Vec::new();
        self.stream
            .read_to_end(&mut rest)
            .expect("a pipe can be read");
        let after = from.elapsed();
        self.child.wait().expect("curl ends with its stream");
        after
    }
}

const NAMES: [&str; 3] = ["n1.node.mesh.test", "n1.mesh.test", "evil.test"];

#[test]
fn a_pass_opens_the_dashboard_from_elsewhere_and_nothing_less_does() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    let desk = Desk::open();
    let (alice, alices_key) = desk.mesh.operator_with_key("alice", "see");
    let alice = alice.display().to_string();
    let pass = desk.pass(&alice, &[]);
    let field = format!("starling-pass: {pass}");

    // The page is no secret; what it shows is.
    desk.ask("/", &[]).is(200, "<main");
    for path in [
        "/v1/events",
        "/v1/explain?caller=a&callee=b",
        "/v1/edges",
        "/metrics",
        "/readyz",
    ] {
        desk.ask(path, &[]).is(401, "an operator's pass");
        desk.ask(path, &["-H", "starling-pass: starling-pass1.x"])
            .is(401, "this is not a pass");
    }
    desk.ask("/readyz", &["-H", &field]).is(200, "ready");
    // Without TLS there is nobody.
    let plain = desk.curl("http://n1.node.mesh.test:PORT/readyz", &["-H", &field]);
    assert_eq!(plain.status, 0, "{plain:?}");

    // A browser logs in once.
    let jar = desk.mesh.scratch().path().join("jar").display().to_string();
    desk.ask("/v1/login", &["-X", "POST"])
        .is(401, "an operator's pass");
    let bad = ["-X", "POST", "-H", "starling-pass: starling-pass1.x"];
    desk.ask("/v1/login", &bad).is(403, "this is not a pass");
    let login = desk.ask("/v1/login", &["-X", "POST", "-H", &field, "-c", &jar]);
    login.is(204, "set-cookie: __Host-starling=starling-pass1.");
    login.is(204, "; Secure; HttpOnly; SameSite=Strict");
    desk.ask("/metrics", &["-b", &jar])
        .is(200, "starling_build_info");
    let forged = ["-H", "cookie: __Host-starling=starling-pass1.x"];
    desk.ask("/metrics", &forged).is(401, "this is not a pass");
    desk.ask("/v1/logout", &["-X", "POST"]).is(204, "Max-Age=0");
    assert!(desk.n1().log().contains("dashboard opened operator=alice"));
    assert!(!desk.n1().log().contains(&pass), "passes are never logged");

    // It only shows.
    for method in ["POST", "PUT", "DELETE"] {
        desk.ask("/v1/documents", &["-X", method, "-H", &field])
            .is(405, "only reading");
    }
    desk.ask("/v1/status", &["-H", &field])
        .is(404, "nothing of this name");

    // Pages of others, and names that are not ours, get nothing with it.
    for wrong in [
        "origin: https://evil.test",
        "origin: http://n1.node.mesh.test",
        "origin: null",
        "sec-fetch-site: cross-site",
        "sec-fetch-site: same-site",
    ] {
        desk.ask("/metrics", &["-b", &jar, "-H", wrong])
            .is(403, "not from another web page");
        let login = ["-X", "POST", "-H", &field, "-H", wrong];
        desk.ask("/v1/login", &login)
            .is(403, "not from another web page");
    }
    let insecure = ["-k", "-H", &field];
    desk.curl("https://evil.test:PORT/metrics", &insecure)
        .is(403, "[admin] names");
    desk.curl("https://n1.mesh.test:PORT/metrics", &insecure)
        .is(200, "starling_build_info");
    let by_address = format!("https://{}/metrics", desk.address);
    desk.curl(&by_address, &insecure)
        .is(200, "starling_build_info");

    // A pass for another node, for calls alone, or of an operator without the right.
    let elsewhere = desk.pass(&alice, &["--node", "n2", "--url", "https://n2"]);
    let carol = desk.mesh.operator("carol", "tap").display().to_string();
    let calls = desk.pass(&carol, &["--tap", "*"]);
    for (pass, why) in [
        (elsewhere, "for another node to carry"),
        (calls, "does not open dashboards"),
    ] {
        desk.ask("/metrics", &["-H", &format!("starling-pass: {pass}")])
            .is(401, why);
    }

    // Who is revoked sees no more.
    let root = desk
        .mesh
        .operator("root", "revocation")
        .display()
        .to_string();
    desk.n1().must(&[
        "revoke",
        &alices_key,
        "--operator",
        "--reason",
        "leaked",
        "--key",
        &root,
        "--yes",
    ]);
    wait_until(crate::PATIENCE, "alice's pass to open nothing", || {
        desk.ask("/readyz", &["-b", &jar]).status == 401
    });
    desk.ask("/readyz", &["-b", &jar]).is(401, "is revoked");
}

#[test]
fn chromium_logs_in() {
    need!(Need::Agent, Need::Python, Need::Browser);
    let _turn = turn::shared();
    let desk = Desk::open();
    let alice = desk.mesh.operator("alice", "see").display().to_string();
    let mut look = browser::script("login.py");
    look.args(["--at", &format!("https://{}/", desk.address)])
        .args(["--pass", &desk.pass(&alice, &[])])
        .arg("--shots")
        .arg(browser::screenshots());
    let looked = peers::answer(look);
    assert!(looked["pictures"].as_u64() > Some(0), "{looked}");
}

#[test]
fn a_certificate_of_the_mesh_opens_it_if_it_is_named() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    let desk = Desk::open();
    let with = |node: &str, name: &str| {
        let file = |end: &str| {
            desk.state(node, &format!("{name}.{end}"))
                .display()
                .to_string()
        };
        desk.ask("/metrics", &["--cert", &file("pem"), "--key", &file("key")])
    };
    with("n1", "svc/ops").is(200, "starling_build_info");
    with("n1", "svc/web").is(
        401,
        "the certificate of spiffe://mesh.test/svc/web does not open",
    );
    with("n2", "node").is(
        401,
        "the certificate of spiffe://mesh.test/node/n2 does not open",
    );
    // One of another mesh does not even get a connection.
    let other = Mesh::loopback(&[("x", &["ops"])]);
    let file = |end: &str| {
        let state = other.node("x").state();
        state.join(format!("svc/ops.{end}")).display().to_string()
    };
    let foreign = desk.ask("/metrics", &["--cert", &file("pem"), "--key", &file("key")]);
    assert_eq!(foreign.status, 0, "{foreign:?}");
    let old = desk.ask("/", &["--tls-max", "1.2"]);
    assert_eq!(old.status, 0, "{old:?}");

    let alice = desk
        .mesh
        .operator("alice", "revocation")
        .display()
        .to_string();
    let revoke = [
        "revoke", "svc/ops", "--reason", "lost", "--key", &alice, "--yes",
    ];
    desk.n1().must(&revoke);
    wait_until(crate::PATIENCE, "ops to be refused", || {
        with("n1", "svc/ops").status == 0
    });
}

#[test]
fn a_revocation_ends_streams_and_kept_connections_of_the_remote_door() {
    need!(Need::Agent, Need::Program("curl"));
    let _turn = turn::shared();
    let desk = Desk::open();
    let (alice, alices_key) = desk.mesh.operator_with_key("alice", "see");
    let root = desk
        .mesh
        .operator("root", "revocation")
        .display()
        .to_string();
    let revoke = |what: &[&str]| {
        let signed = ["--reason", "lost", "--key", &root, "--yes"];
        desk.n1().must(&[&["revoke"], what, &signed[..]].concat());
        Instant::now()
    };

    // By the pass of an operator whose key is revoked.
    let pass = desk.pass(&alice.display().to_string(), &[]);
    let by_pass = desk.events(&["-H", &format!("starling-pass: {pass}")]);
    let after = by_pass.ends(revoke(&[&alices_key, "--operator"]));
    assert!(after < crate::SEEN, "a pass's stream ended after {after:?}");
    eprintln!("measured: a pass's event stream ended {after:?} after the command");

    // By a certificate whose issuer is revoked.
    let file = |end: &str| {
        let file = desk.state("n1", &format!("svc/ops.{end}"));
        file.display().to_string()
    };
    let (cert, key) = (file("pem"), file("key"));
    let ops = ["--cert", &cert, "--key", &key];
    let events = desk.events(&ops);
    // Two requests a second, over one connection as long as that lasts. What is written to stderr is not held in a buffer.
    let url = "https://n1.node.mesh.test:PORT/readyz?[1-16]";
    let told = "%{stderr}%{http_code} %{num_connects}\\n";
    let options = ["--rate", "2/s", "-o", "/dev/null", "-w", told];
    let mut kept = desk.client(url, &[&ops[..], &options].concat());
    kept.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut kept = kept.spawn().expect("curl runs");
    let lines = BufReader::new(kept.stderr.take().expect("it is piped")).lines();
    let lines = lines.map(|line| line.expect("a pipe can be read"));
    // Beside the codes stand curl's own errors.
    let mut codes = lines.filter(|line| !line.starts_with("curl:"));
    let before: Vec<_> = codes.by_ref().take(4).collect();
    assert_eq!(before, ["200 1", "200 0", "200 0", "200 0"]);
    let after = events.ends(revoke(&["issuer/n1"]));
    assert!(after < crate::SEEN, "an event stream ended after {after:?}");
    eprintln!("measured: a certificate's event stream ended {after:?} after the command");
    let after: Vec<_> = codes.collect();
    kept.wait().expect("curl ends");
    // A node of the revoked issuer passes the revocation on for a second before it is in force there, and one request may have
    // been on its way.
    let good = after.iter().take_while(|code| code.starts_with("200"));
    let good = good.count();
    eprintln!("measured: {good} more answers on a kept connection, two are asked for a second");
    let refused = after[good..].iter().all(|code| code.starts_with("000"));
    assert!(good <= 3 && after.len() == 12 && refused, "{after:?}");
}
