//! Tokens that are refused, certificates that are renewed under load, issuers that are gone, hosts that leave.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::apps::Nginx;
use harness::load::{Load, State};
use harness::process::{leashed, run};
use harness::{Mesh, Need, Node, need, program, turn, wait_until};

fn starling(words: &[&str]) -> Command {
    let mut command = leashed(program::agent());
    command.args(words);
    command
}

fn join_port(node: &Node) -> String {
    SocketAddr::new(node.host().ip(), 7402).to_string()
}

/// Whether `asked` knows `node` as an issuer.
fn is_issuer(asked: &Node, node: &str) -> bool {
    let nodes = asked.ask("nodes").unwrap_or_default();
    let mut nodes = nodes.as_array().into_iter().flatten();
    nodes.any(|one| one["node"] == node && one["is_issuer"] == true)
}

/// A token for n9 with the service `pay`, made on `issuer`; `more` goes to the command as it is.
fn invite(issuer: &Node, more: &[&str]) -> String {
    let mut command = starling(&["invite", "--node", "n9", "--service", "pay"]);
    command.arg("--state").arg(issuer.state());
    command.arg("--config").arg(issuer.directory()).args(more);
    run(command).trim().to_owned()
}

fn join(token: &str, state: &Path) -> Output {
    let mut command = starling(&["join", token, "--state"]);
    command.arg(state).stdin(Stdio::null());
    command.output().expect("starling runs")
}

/// What `join` says when it does not work.
fn refused(token: &str, state: &Path) -> String {
    let output = join(token, state);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "joined with {token}");
    assert!(!state.join("node.key").exists(), "a key of nobody");
    assert!(!error.contains(token), "the token is told");
    error
}

/// The token with other bytes in it and a checksum that fits.
fn forged(token: &str, from: &str, to: &str) -> String {
    let script = "\
import base64, hashlib, sys
token, old, new = sys.argv[1:]
text = token.removeprefix('starling1-')
body = base64.urlsafe_b64decode(text + '=' * (-len(text) % 4))[:-4]
seed = 1 + body[0] + 32 + 16
old = body[seed:seed + 32] if old == 'seed' else body[seed - 16:seed] if old == 'id' else old.encode()
assert body.count(old) == 1 and len(old) == len(new)
body = body.replace(old, new.encode())
body += hashlib.sha256(body).digest()[:4]
print('starling1-' + base64.urlsafe_b64encode(body).rstrip(b'=').decode())";
    let mut python = leashed(program::path("python3"));
    python.args(["-c", script, token, from, to]);
    run(python).trim().to_owned()
}

#[test]
fn every_token_that_is_no_good_is_refused_for_its_own_counted_reason() {
    need!(Need::Agent, Need::Program("python3"));
    let _turn = turn::shared();
    let (mesh, other) = (
        Mesh::loopback(&[("n1", &["web"])]),
        Mesh::loopback(&[("n1", &["web"])]),
    );
    let issuer = mesh.node("n1");
    mesh.start();
    let scratch = |name: &str| mesh.scratch().path().join(name);

    let short = invite(issuer, &["--ttl", "1s"]);
    let good = invite(issuer, &[]);
    let first = join(&good, &scratch("first"));
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let spent = refused(&good, &scratch("spent"));
    assert!(
        spent.contains("joined with this token before") && spent.contains("starling invite"),
        "{spent}"
    );

    let revoked = invite(issuer, &[]);
    let state = issuer.state().display().to_string();
    let listed = run(starling(&["invite", "--list", "--state", &state]));
    let open = listed
        .lines()
        .rfind(|line| line.contains("open for"))
        .expect("one is open");
    let id = open.split(' ').next().expect("it has an id");
    run(starling(&["invite", "--revoke", id, "--state", &state]));
    assert!(refused(&revoked, &scratch("revoked")).contains("took the invitation back"));

    let open = invite(issuer, &[]);
    let letters = "x".repeat(32);
    refused(&forged(&open, "seed", &letters), &scratch("seed"));
    refused(&forged(&open, "id", &letters[..16]), &scratch("id"));
    refused(&forged(&open, "\u{2}n9", "\u{2}n8"), &scratch("node"));
    refused(&forged(&open, "\u{3}pay", "\u{3}web"), &scratch("service"));
    let slip = open.replace(
        &open[60..62],
        if &open[60..62] == "AA" { "BB" } else { "AA" },
    );
    assert!(refused(&slip, &scratch("slip")).contains("this is no token"));
    let foreign = invite(other.node("n1"), &["--issuer", &join_port(issuer)]);
    assert!(refused(&foreign, &scratch("foreign")).contains("is not of the mesh"));
    wait_until(crate::PATIENCE, "the short token to expire", || {
        run(starling(&["invite", "--list", "--state", &state])).contains("expired")
    });
    assert!(refused(&short, &scratch("expired")).contains("expired"));

    let metrics = issuer.metrics();
    for outcome in [
        "joined",
        "spent",
        "revoked",
        "tampered",
        "unknown",
        "other_node",
        "other_services",
        "expired",
    ] {
        let counted = metrics.sum("starling_joins_total", &[("outcome", outcome)]);
        assert_eq!(counted, 1.0, "{outcome}");
    }
    let turned_away = metrics.sum(
        "starling_joins_turned_away_total",
        &[("reason", "other_mesh")],
    );
    assert!(turned_away >= 1.0);
    let log = issuer.log();
    assert!(
        !log.contains(&good) && log.contains("a host joins"),
        "{log}"
    );
}

#[test]
fn invitations_outlived_the_revocation_of_their_name() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["web"])]);
    let [n1, n2] = ["n1", "n2"].map(|name| mesh.node(name));
    mesh.start();
    let alice = mesh.operator("alice", "revocation").display().to_string();
    add_issuer(&n1.state(), "n2", &n2.state());
    wait_until(crate::PATIENCE, "n1 to know n2 as an issuer", || {
        is_issuer(n1, "n2")
    });
    let scratch = |name: &str| mesh.scratch().path().join(name);
    let (used, open, elsewhere) = (invite(n1, &[]), invite(n1, &[]), invite(n2, &[]));
    assert!(join(&used, &scratch("used")).status.success());

    let revoke = || {
        let signed = ["--reason", "stolen", "--yes", "--key", &alice];
        let output = n1.operate(&[&["revoke", "node/n9"], &signed[..]].concat());
        assert!(output.status.success(), "{output:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    };
    let (listed, missing) = revoke();
    let lines = |word: &str| listed.lines().filter(|line| line.contains(word)).count();
    assert_eq!((lines(" used "), lines("open for")), (1, 2), "{listed}");
    assert!(!missing.contains("was not asked"), "{missing}");
    for (token, name) in [(&open, "open"), (&elsewhere, "elsewhere")] {
        let error = refused(token, &scratch(name));
        assert!(error.contains("revoked"), "{error}");
    }
    // At once, in the same second perhaps.
    let joined = join(&invite(n1, &[]), &scratch("again"));
    assert!(joined.status.success(), "{joined:?}");

    n2.kill();
    wait_until(crate::PATIENCE, "n1 to miss n2", || {
        n1.liveness("n2").as_deref() != Some("alive")
    });
    let (listed, missing) = revoke();
    assert!(listed.contains("taken back"), "{listed}");
    assert!(missing.contains("Issuer n2 was not asked"), "{missing}");
}

#[test]
fn a_revoked_issuer_went_on_as_one_and_renewed_from_itself() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["web"])]);
    let [n1, n2] = ["n1", "n2"].map(|name| mesh.node(name));
    mesh.start();
    let alice = mesh.operator("alice", "revocation").display().to_string();
    add_issuer(&n1.state(), "n2", &n2.state());
    let both = || is_issuer(n2, "n1") && is_issuer(n2, "n2");
    wait_until(crate::PATIENCE, "two issuers", both);
    let issued_by_n2 = |node: &Node, more: &[&str]| {
        let mut issue = starling(&["ca", "issue", "--node", node.name(), "--service", "web"]);
        issue.args(more).arg("--state").arg(n2.state());
        issue.arg("--out").arg(node.state());
        run(issue);
    };
    issued_by_n2(n2, &[]);
    let by_alice = |words: &[&str]| n2.must(&[words, &["--key", &alice, "--yes"]].concat());
    by_alice(&["revoke", "node/n1", "--reason", "stolen"]);

    // It knows it, says so, and its commands make nothing that would be refused.
    wait_until(crate::PATIENCE, "n1 to be no issuer", || {
        n1.state().join("ca/revoked").exists()
    });
    let refused = |words: &[&str]| {
        let mut command = starling(words);
        command.arg("--state").arg(n1.state());
        let output = command.output().expect("starling runs");
        assert!(!output.status.success(), "{words:?} worked");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let out = mesh.scratch().path().join("n8").display().to_string();
    for words in [
        &["invite", "--node", "n9"][..],
        &["ca", "issue", "--node", "n8", "--out", &out],
    ] {
        let error = refused(words);
        assert!(
            error.contains("of this issuer is revoked") && error.contains("add-issuer"),
            "{error}"
        );
    }
    let found = n1.operate(&["check"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains("this host is no issuer any more"), "{found}");

    // Back by the other issuer, it is a node like others.
    issued_by_n2(n1, &["--lifetime", "8s"]);
    wait_until(crate::PATIENCE, "n1 to be renewed by n2", || {
        renewed(n1) >= 1.0
    });
    let theirs = fs::read_to_string(n2.state().join("ca/intermediate.pem")).expect("it is there");
    let chain = fs::read_to_string(n1.state().join("node.pem")).expect("it is there");
    assert!(chain.contains(theirs.trim()), "{chain}");
    assert!(!is_issuer(n2, "n1"));

    // A revocation that is taken back was none.
    by_alice(&["delete", "revocation/node-n1"]);
    wait_until(crate::PATIENCE, "n1 to be an issuer again", both);
    assert!(!n1.state().join("ca/revoked").exists());
    invite(n1, &[]);
    let itself = refused(&["invite", "--node", "n1"]);
    assert!(
        itself.contains("this host itself") && itself.contains("starling ca issue --node n1"),
        "{itself}"
    );
}

/// `web` on n1 calls `site`, nginx on n2. Certificates live `life`; n1 is the issuer.
fn short_lived(life: &str) -> (Mesh, Nginx, SocketAddr) {
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    let [n1, n2] = ["n1", "n2"].map(|name| mesh.node(name));
    mesh.issue(n1, &["web"], &["--lifetime", life]);
    mesh.issue(n2, &["site"], &["--lifetime", life]);
    for (node, seed) in [(n1, n2), (n2, n1)] {
        node.write_config(&[seed], &format!("[issuer]\nlifetime = \"{life}\""));
    }
    let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
    n2.serve("site", nginx.address(), "http", &["web"], "");
    let address = n1.call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::PATIENCE);
    (mesh, nginx, address)
}

fn renewed(node: &Node) -> f64 {
    node.metrics()
        .sum("starling_renewals_total", &[("outcome", "renewed")])
}

/// Renewals that an issuer put off. Honest nodes are never put off.
fn put_off(node: &Node) -> f64 {
    node.metrics().sum("starling_renewals_refused_total", &[])
}

/// What the root key makes of `node`, straight into `out`.
fn add_issuer(root: &Path, node: &str, out: &Path) {
    let mut command = starling(&["ca", "add-issuer", "--node", node, "--state"]);
    command.arg(root).arg("--out").arg(out);
    run(command);
}

#[test]
fn leaves_and_intermediate_are_rotated_under_load_and_nothing_is_lost() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::alone();
    let (mesh, _nginx, address) = short_lived("12s");
    let [n1, n2] = ["n1", "n2"].map(|name| mesh.node(name));
    let state = State::default();
    let (report, began) = std::thread::scope(|scope| {
        let began = Instant::now();
        let load = Load::start(scope, &state, n1.host(), 64, address, "/");
        wait_until(crate::PATIENCE, "all certificates to be renewed", || {
            renewed(n1) >= 2.0 && renewed(n2) >= 2.0
        });
        let old = fs::read(n1.state().join("ca/intermediate.pem")).expect("it is there");
        add_issuer(&n1.state(), "n1", &n1.state());
        let new = fs::read(n1.state().join("ca/intermediate.pem")).expect("it is there");
        assert_ne!(old, new);
        let new = String::from_utf8(new).expect("it is PEM");
        wait_until(crate::PATIENCE, "leaves of the new intermediate", || {
            [
                n1.state().join("svc/web.pem"),
                n2.state().join("svc/site.pem"),
            ]
            .iter()
            .all(|chain| fs::read_to_string(chain).is_ok_and(|chain| chain.contains(&new)))
        });
        wait_until(crate::PATIENCE * 2, "10,000 answers", || {
            load.good() >= 10_000
        });
        (load.stop(), began)
    });
    assert_eq!((put_off(n1), put_off(n2)), (0.0, 0.0));
    assert!(
        report.failures.is_empty(),
        "{:?}",
        &report.failures[..report.failures.len().min(5)]
    );
    println!(
        "{} good in {:?}, slowest {:?}",
        report.good,
        began.elapsed(),
        report.slowest
    );
}

#[test]
fn when_all_issuers_are_lost_nodes_serve_on_and_the_root_key_makes_another() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::alone();
    let (mesh, _nginx, address) = short_lived("16s");
    let [n1, n2] = ["n1", "n2"].map(|name| mesh.node(name));
    let began = Instant::now();
    // The only issuer is one no longer; its CA lies in a safe.
    let safe: PathBuf = mesh.scratch().directory("safe");
    fs::rename(n1.state().join("ca"), safe.join("ca")).expect("it is ours");
    run({
        let mut chmod = leashed("chmod");
        chmod.arg("700").arg(&safe);
        chmod
    });
    let state = State::default();
    let report = std::thread::scope(|scope| {
        let load = Load::start(scope, &state, n1.host(), 8, address, "/");
        let failing = || {
            n2.ask("status")
                .is_some_and(|status| status["renewal"]["error"].is_string())
        };
        wait_until(crate::PATIENCE, "n2 to say that nobody renews", failing);
        let shown = n2.show("status", &[]).expect("an answer");
        assert!(
            shown.contains("Not renewed for") && shown.contains("add-issuer"),
            "{shown}"
        );
        assert!(
            n2.log().contains("the certificate is not renewed"),
            "{}",
            n2.log()
        );
        let left = n2.metrics().sum(
            "starling_svid_expires_seconds",
            &[("identity", "spiffe://mesh.test/node/n2")],
        );
        assert!(left > 0.0 && left < 9.0, "{left}");
        add_issuer(&safe, "n2", &n2.state());
        wait_until(crate::PATIENCE, "both to be renewed by n2", || {
            renewed(n1) >= 2.0 && renewed(n2) >= 2.0
        });
        assert!(!failing());
        // Beyond the life of the first certificates.
        wait_until(crate::PATIENCE, "the first certificates to be over", || {
            began.elapsed() > Duration::from_secs(17)
        });
        load.stop()
    });
    assert!(
        report.good > 0 && report.failures.is_empty(),
        "{:?}",
        report.failures.first()
    );
}

#[test]
fn a_host_leaves_with_a_goodbye_and_can_forget_who_it_was() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
    mesh.start();
    let n2 = mesh.node("n2");
    let state = n2.state().display().to_string();
    let shown = n2
        .show("leave", &["--forget", "--state", &state])
        .expect("it leaves");
    assert!(
        shown.contains("Node n2 has left the mesh") && shown.contains("are removed"),
        "{shown}"
    );
    wait_until(crate::PATIENCE, "its agent to end", || !n2.is_running());
    assert!(!n2.state().join("node.key").exists() && !n2.state().join("svc/site.key").exists());
    wait_until(crate::SEEN, "n1 to know that n2 has left", || {
        let nodes = mesh.node("n1").ask("nodes").unwrap_or_default();
        let nodes = nodes.as_array().cloned().unwrap_or_default();
        nodes
            .iter()
            .any(|node| node["node"] == "n2" && node["state"] == "left")
    });
    assert!(n2.log().contains("agent stopped"), "{}", n2.log());
    n2.kill();
    let root = mesh.node("n1").state().display().to_string();
    assert!(
        mesh.node("n1")
            .show("leave", &["--forget", "--state", &root])
            .is_none(),
        "the root key lies there"
    );
    assert!(mesh.node("n1").is_running());
}

#[test]
fn at_an_open_umask_others_could_write_who_may_call() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let scratch = harness::Scratch::new();
    let (etc, state) = (scratch.path().join("etc"), scratch.path().join("state"));
    let mut init = leashed("/bin/sh");
    init.args(["-c", "umask 000 && exec \"$0\" \"$@\""])
        .arg(program::agent());
    init.args(["init", "--trust-domain", "example.org", "--node", "n1"]);
    init.args(["--service", "web", "--serve", "web=8080", "--config"])
        .arg(&etc);
    init.arg("--state").arg(&state);
    run(init);
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o7777;
    for (path, expected) in [
        ("etc", 0o755),
        ("etc/services.d", 0o755),
        ("etc/starling.toml", 0o644),
        ("etc/services.d/web.toml", 0o644),
        ("state", 0o700),
        ("state/node.key", 0o600),
        ("state/ca/root.key", 0o600),
    ] {
        assert_eq!(mode(&scratch.path().join(path)), expected, "{path}");
    }
}

/// How a command that waits for its input ends when it is made to dump its core: whether there is one.
fn dumps_core(command: &[&std::ffi::OsStr]) -> bool {
    let scratch = harness::Scratch::new();
    let mut shell = leashed("/bin/sh");
    shell
        .args(["-c", "ulimit -c unlimited && exec \"$0\" \"$@\""])
        .args(command);
    shell
        .current_dir(scratch.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = shell.spawn().expect("there is a shell");
    let pid = child.id().to_string();
    let is = |name: &str| {
        let found = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        found.trim() == name
    };
    let name = Path::new(command[0])
        .file_name()
        .expect("a program")
        .to_string_lossy();
    wait_until(crate::PATIENCE, "the command to run", || is(&name));
    harness::let_pass(Duration::from_millis(300));
    run({
        let mut kill = leashed("kill");
        kill.args(["-ABRT", &pid]);
        kill
    });
    child.wait().expect("it ends").core_dumped()
}

#[test]
fn commands_that_hold_keys_leave_no_core_behind() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let agent = program::agent();
    let join = [agent.as_os_str(), "join".as_ref(), "-".as_ref()];
    let cat = program::path("cat");
    // Where no process leaves a core there is nothing to see.
    if dumps_core(&[cat.as_os_str()]) {
        assert!(!dumps_core(&join), "a core with the keys of a host");
    }
}
