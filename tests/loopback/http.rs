//! curl → agent → agent → nginx.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::apps::Nginx;
use harness::http::Client;
use harness::process::run;
use harness::{Mesh, Need, need, program, turn};

/// `web` on n1 calls `site`, which is nginx on n2.
struct Site {
    mesh: Mesh,
    nginx: Nginx,
    url: String,
}

impl Site {
    fn start() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
        let nginx = Nginx::start(
            mesh.node("n2").host(),
            &mesh.scratch().directory("nginx"),
            "n2",
        );
        mesh.node("n2")
            .serve("site", nginx.address(), "http", &["web"], "");
        let url = format!("http://{}", mesh.node("n1").call("site", "web"));
        mesh.start();
        mesh.wait_healthy("site", &["n2"], crate::SEEN);
        Self { mesh, nginx, url }
    }

    fn curl(&self) -> Command {
        let mut curl = Command::new(program::path("curl"));
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "240"]);
        curl
    }

    fn get(&self, path: &str) -> String {
        let mut curl = self.curl();
        curl.arg(format!("{}{path}", self.url));
        run(curl)
    }
}

#[test]
fn curl_gets_from_nginx_and_nginx_learns_who_calls() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let site = Site::start();
    assert_eq!(site.get("/"), "n2\n");
    assert_eq!(site.get("/caller"), "spiffe://mesh.test/svc/web\n");
}

#[test]
fn headers_that_claim_an_identity_do_not_get_through() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let site = Site::start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut curl = site.curl();
    curl.args([
        "-H",
        "x-forwarded-client-cert: URI=spiffe://mesh.test/svc/admin",
    ]);
    curl.args([
        "-H",
        "starling-trick: 1",
        "-H",
        "starling-caller: spiffe://mesh.test/svc/admin",
    ]);
    curl.args(["-H", &format!("traceparent: {trace}")]);
    let printed = run({
        curl.arg(format!("{}/forwarded", site.url));
        curl
    });
    let trace_id = &trace[3..35];
    assert!(
        printed.starts_with("||") && printed.contains(trace_id),
        "{printed}"
    );
}

#[test]
fn answers_without_a_body_are_the_apps_own() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let site = Site::start();
    let check = |method: &str, path: &str, expected: &str| {
        let mut curl = Command::new(program::path("curl"));
        curl.args(["--silent", "--max-time", "20", "--output", "/dev/null"]);
        curl.args(if method == "HEAD" {
            vec!["--head"]
        } else {
            vec!["--request", method]
        });
        curl.args([
            "--write-out",
            "%{http_code} %header{starling-error}|%header{location}",
        ]);
        curl.arg(format!("{}{path}", site.url));
        assert_eq!(run(curl), expected, "{method} {path}");
    };
    check("GET", "/status/204", "204 |");
    check("HEAD", "/", "200 |");
    check("GET", "/status/503", "503 |");
    check("GET", "/files/absent", "404 |");
    check("GET", "/", "200 |");
}

#[test]
fn curl_keeps_its_connection() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let site = Site::start();
    let mut curl = site.curl();
    curl.args(["--output", "/dev/null", "--write-out", "%{num_connects}\n"]);
    curl.arg(format!("{}/?[1-50]", site.url));
    // curl counts the connections it had to make for each transfer.
    let connects: u32 = run(curl)
        .lines()
        .map(|line| line.parse::<u32>().expect("a number"))
        .sum();
    assert_eq!(connects, 1);
}

#[test]
fn http2_with_prior_knowledge_is_taken_from_apps() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let site = Site::start();
    let mut curl = site.curl();
    curl.args(["--http2-prior-knowledge", "--write-out", "%{http_version}"]);
    curl.arg(&site.url);
    assert_eq!(run(curl), "n2\n2");
}

#[test]
fn a_thousand_parallel_requests_are_all_answered() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::alone();
    let site = Site::start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut curl = site.curl();
            curl.args([
                "--parallel",
                "--parallel-immediate",
                "--parallel-max",
                "250",
            ]);
            curl.args(["--output", "/dev/null", "--write-out", "%{http_code}\n"]);
            curl.arg(format!("{}/?[1-250]", site.url));
            scope.spawn(move || {
                let codes = run(curl);
                assert_eq!(codes, "200\n".repeat(250));
            });
        }
    });
}

#[test]
fn a_gibibyte_comes_down_and_goes_up_unchanged() {
    need!(
        Need::Agent,
        Need::Program("nginx"),
        Need::Program("curl"),
        Need::Program("openssl")
    );
    let _turn = turn::alone();
    let site = Site::start();
    let original = site.nginx.files().join("big");
    random_file(&original, 1 << 30);
    let expected = sha256(&original);

    let copy = site.mesh.scratch().path().join("copy");
    let mut down = site.curl();
    down.arg("--output")
        .arg(&copy)
        .arg(format!("{}/files/big", site.url));
    run(down);
    assert_eq!(sha256(&copy), expected);
    fs::remove_file(&copy).expect("it is ours");

    let mut up = site.curl();
    up.arg("--upload-file")
        .arg(&original)
        .arg(format!("{}/uploads/big", site.url));
    run(up);
    assert_eq!(sha256(&site.nginx.uploads().join("big")), expected);
}

#[test]
fn an_upload_of_unknown_length_arrives_whole() {
    need!(
        Need::Agent,
        Need::Program("nginx"),
        Need::Program("curl"),
        Need::Program("openssl")
    );
    let _turn = turn::shared();
    let site = Site::start();
    let original = site.mesh.scratch().path().join("original");
    random_file(&original, 5_000_000);
    let mut up = site.curl();
    up.args(["--header", "transfer-encoding: chunked", "--upload-file"])
        .arg(&original);
    up.arg(format!("{}/uploads/part", site.url));
    run(up);
    assert_eq!(
        sha256(&site.nginx.uploads().join("part")),
        sha256(&original)
    );
}

#[test]
fn a_slow_reader_does_not_make_the_agents_grow() {
    need!(
        Need::Agent,
        Need::Program("nginx"),
        Need::Program("curl"),
        Need::Program("openssl")
    );
    let _turn = turn::alone();
    let site = Site::start();
    random_file(&site.nginx.files().join("big"), 256 << 20);
    let resident = || {
        site.mesh
            .nodes()
            .iter()
            .map(|node| node.resident_bytes())
            .max()
            .unwrap_or_default()
    };
    let before = resident();
    let mut curl = site.curl();
    curl.args([
        "--limit-rate",
        "2M",
        "--max-time",
        "4",
        "--output",
        "/dev/null",
    ]);
    curl.arg(format!("{}/files/big", site.url));
    let mut reader = curl.spawn().expect("curl runs");
    let mut peak = before;
    harness::wait_until(crate::PATIENCE, "curl to give up", || {
        peak = peak.max(resident());
        reader.try_wait().expect("it is our child").is_some()
    });
    let grown = peak.saturating_sub(before) >> 20;
    assert!(
        grown < 48,
        "an agent grew by {grown} MiB for one slow reader"
    );
}

#[test]
fn who_is_not_allowed_is_told_so_by_reason() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["guest"]), ("n2", &["site"])]);
    let nginx = Nginx::start(
        mesh.node("n2").host(),
        &mesh.scratch().directory("nginx"),
        "n2",
    );
    mesh.node("n2")
        .serve("site", nginx.address(), "http", &["web"], "");
    let address = mesh.node("n1").call("site", "guest");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    let mut client = Client::new(address);
    let answer = client.get("/").expect("an answer");
    assert_eq!((answer.status, answer.mesh_error()), (403, Some("denied")));
    for (node, side) in [("n1", "caller"), ("n2", "callee")] {
        let count = || {
            mesh.node(node).metrics().sum(
                "starling_requests_total",
                &[("side", side), ("reason", "denied")],
            )
        };
        harness::wait_until(crate::SEEN, "the refusal to be counted", || count() == 1.0);
    }
}

#[test]
fn a_call_on_the_same_node_obeys_the_same_policy() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web", "guest", "site"])]);
    let node = mesh.node("n1");
    let nginx = Nginx::start(node.host(), &mesh.scratch().directory("nginx"), "n1");
    node.serve("site", nginx.address(), "http", &["web"], "");
    let (allowed, denied) = (node.call("site", "web"), node.call("site", "guest"));
    mesh.start();
    mesh.wait_healthy("site", &["n1"], crate::SEEN);
    let answer = harness::http::get(allowed, "/caller").expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "spiffe://mesh.test/svc/web\n")
    );
    let answer = harness::http::get(denied, "/").expect("an answer");
    assert_eq!((answer.status, answer.mesh_error()), (403, Some("denied")));
}

#[test]
fn a_service_nobody_offers_fails_with_its_reason_in_bounded_time() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    let node = mesh.node("n1");
    let address = node.host().free_tcp();
    // Nobody announces a protocol, so the upstream says it.
    node.write(
        "site.toml",
        &format!("[[upstream]]\nservice = \"site\"\nlisten = \"{address}\"\nas = \"web\"\nprotocol = \"http\"\n"),
    );
    mesh.start();
    let began = std::time::Instant::now();
    let answer = harness::http::get(address, "/").expect("an answer");
    assert!(
        matches!(answer.mesh_error(), Some("unknown-service" | "no-instance")),
        "{answer:?}"
    );
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_service_nobody_offers_was_waited_for_twice_and_the_line_told_half() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    let node = mesh.node("n1");
    // What it speaks is not known either.
    let address = node.call("site", "web");
    mesh.start();
    let began = std::time::Instant::now();
    let answer = harness::http::get(address, "/").expect("an answer");
    let took = began.elapsed().as_secs_f64();
    assert_eq!(answer.mesh_error(), Some("unknown-service"));
    // `limits.wait` is 2 s.
    assert!((1.9..3.0).contains(&took), "{took} s");
    let line = || {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains("reason=unknown-service"));
        let (_, duration) = line?.split_once("duration_ms=")?;
        let duration = duration.split(' ').next()?;
        Some(duration.parse::<f64>().ok()? / 1e3)
    };
    let told = harness::poll(crate::PATIENCE, "the access line", line);
    assert!((told - took).abs() < 0.2, "{told} of {took} s");
}

fn random_file(path: &Path, bytes: u64) {
    // A cipher over zeros is as random as it needs to be, and much faster than random numbers.
    let script = format!(
        "head -c {bytes} /dev/zero | openssl enc -aes-128-ctr -nosalt -K 0102030405060708090a0b0c0d0e0f10 \
         -iv 00000000000000000000000000000000 > '{}'",
        path.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    run(shell);
    assert_eq!(fs::metadata(path).expect("it was written").len(), bytes);
}

fn sha256(path: &Path) -> String {
    let mut command = Command::new("sha256sum");
    command.arg(path);
    run(command).split(' ').next().expect("a hash").to_owned()
}
