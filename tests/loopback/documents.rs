//! What operators say for the whole mesh.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use harness::process::run;
use harness::{Mesh, Need, Node, Scratch, http, let_pass, need, program, turn, wait_until};
use serde_json::{Value, json};

/// Three hosts; web on n1 calls orders on n3.
pub(crate) struct Shop {
    pub(crate) mesh: Mesh,
    orders: SocketAddr,
    _nginx: harness::apps::Nginx,
}

impl Shop {
    /// Its own TOML allows nobody who exists.
    fn open() -> Self {
        Self::allowing("nobody")
    }

    /// Its own TOML allows one caller.
    pub(crate) fn allowing(caller: &str) -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &[]), ("n3", &["orders"])]);
        let n3 = mesh.node("n3");
        let nginx =
            harness::apps::Nginx::start(n3.host(), &mesh.scratch().directory("nginx"), "n3");
        n3.serve("orders", nginx.address(), "http", &[caller], "");
        let orders = mesh.node("n1").call("orders", "web");
        mesh.start();
        mesh.wait_healthy("orders", &["n3"], crate::PATIENCE);
        Self {
            mesh,
            orders,
            _nginx: nginx,
        }
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        self.mesh.node(name)
    }

    pub(crate) fn status(&self) -> u16 {
        http::get(self.orders, "/").map_or(0, |answer| answer.status)
    }

    #[track_caller]
    pub(crate) fn wait_status(&self, status: u16) {
        let what = format!("a call to get {status}");
        wait_until(crate::PATIENCE, &what, || self.status() == status);
    }

    /// Waits until all running agents have this revision in this state.
    #[track_caller]
    fn wait_all(&self, revision: u64, state: &str) {
        for node in self.mesh.nodes().iter().filter(|node| node.is_running()) {
            let what = format!("{} to have revision {revision} {state}", node.name());
            wait_until(crate::PATIENCE, &what, || {
                node.document(KEY)
                    .is_some_and(|(newest, found, _)| (newest, found.as_str()) == (revision, state))
            });
        }
    }

    fn file(&self, from: &str) -> String {
        let text = format!(
            "kind = \"policy\"\nname = \"orders\"\n\n[[grant]]\nservices = [\"orders\"]\nfrom = [\"{from}\"]\n"
        );
        let file = self.mesh.scratch().write(&format!("{from}.toml"), &text);
        file.display().to_string()
    }
}

pub(crate) fn error(output: &Output) -> String {
    assert!(!output.status.success(), "it worked");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

const KEY: &str = "policy/orders";

#[test]
fn what_is_applied_on_one_node_is_in_force_on_all() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n2, n3) = (shop.node("n1"), shop.node("n2"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    assert_eq!(shop.status(), 403);

    // Shown, not done.
    let web = shop.file("web");
    let planned = n1.must(&["apply", "-f", &web, "--dry-run"]);
    assert!(
        planned.contains("policy/orders: new, revision 1")
            && planned.contains("+ from = [\"web\"]"),
        "{planned}"
    );
    let unasked = error(&n1.operate(&["apply", "-f", &web, "--key", &alice]));
    assert!(unasked.contains("--yes"), "{unasked}");
    let keyless = error(&n1.operate(&["apply", "-f", &web, "--yes"]));
    assert!(keyless.contains("hint: `--key"), "{keyless}");

    let done = n1.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    assert!(done.contains("policy/orders@1 is in force here"), "{done}");
    shop.wait_all(1, "in force");
    shop.wait_status(200);
    let again = n2.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    assert!(again.contains("policy/orders is so already"), "{again}");

    // Another one from another node; the way back from a third.
    let batch = shop.file("batch");
    let changed = n2.must(&["apply", "-f", &batch, "--key", &alice, "--yes"]);
    assert!(changed.contains("- from = [\"web\"]"), "{changed}");
    shop.wait_all(2, "in force");
    shop.wait_status(403);
    n3.must(&["rollback", KEY, "--key", &alice, "--yes"]);
    shop.wait_all(3, "in force");
    shop.wait_status(200);
    let history = n1.must(&["history", KEY]);
    let (table, keys) = history.split_once("\n\n").expect("keys stand below");
    assert_eq!(table.lines().count(), 4, "{history}");
    assert!(keys.contains("sha256:"), "{history}");
    assert!(history.contains("in force"), "{history}");
    let printed = n1.must(&["get", KEY]);
    let edited = shop.mesh.scratch().write("edited.toml", &printed);
    let same = n1.must(&["apply", "-f", &shown(&edited), "--key", &alice, "--yes"]);
    assert!(same.contains("is so already"), "{same}");
    wait_until(crate::PATIENCE, "n2 to see that all hold the same", || {
        let status = n2.show("status", &[]);
        status.is_some_and(|status| status.contains("the same on 3 of 3 nodes"))
    });

    n1.must(&["delete", KEY, "--key", &alice, "--yes"]);
    shop.wait_all(4, "deleted");
    shop.wait_status(403);
    let gone = error(&n2.operate(&["get", KEY]));
    assert!(gone.contains("deleted since revision 4"), "{gone}");
    // A deletion keeps no history.
    let gone = error(&n2.operate(&["rollback", KEY, "--key", &alice, "--yes"]));
    assert!(gone.contains("keeps no history"), "{gone}");
    let again = n2.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    assert!(
        again.contains("@5 is in force here") && !again.contains("deletes it"),
        "a deleted document that is made again: {again}"
    );
    shop.wait_status(200);
    assert!(
        n3.metrics()
            .sum("starling_documents", &[("state", "in_force")])
            == 1.0
    );
}

#[test]
fn what_an_operator_may_not_say_is_refused() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let n1 = shop.node("n1");
    let web = shop.file("web");

    // Of another mesh with the same name.
    let other = Scratch::new();
    let state = shown(&other.path().join("state"));
    let eve = shown(&other.path().join("eve.operator"));
    let mut init = Command::new(program::agent());
    init.args(["init", "--trust-domain", harness::mesh::TRUST_DOMAIN])
        .args(["--node", "x", "--state", &state]);
    run(init);
    let mut new = Command::new(program::agent());
    new.args(["operator", "new", "--name", "eve", "--kinds", "policy"])
        .args(["--out", &eve, "--state", &state]);
    run(new);
    let foreign = error(&n1.operate(&["apply", "-f", &web, "--key", &eve, "--yes"]));
    assert!(
        foreign.contains("no root of this mesh made its operator") && foreign.contains("hint:"),
        "{foreign}"
    );
    assert!(
        n1.metrics()
            .sum("starling_gossip_refused_total", &[("reason", "grant")])
            >= 1.0
    );

    let carol = shown(&shop.mesh.operator("carol", "route"));
    let wrong_kind = error(&n1.operate(&["apply", "-f", &web, "--key", &carol, "--yes"]));
    assert!(
        wrong_kind.contains("carol may not sign documents of kind policy, only route"),
        "{wrong_kind}"
    );
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    let bad = shop.mesh.scratch().write(
        "bad.toml",
        "kind = \"policy\"\nname = \"orders\"\n[[grant]]\nservces = [\"orders\"]\n",
    );
    let bad = error(&n1.operate(&["apply", "-f", &shown(&bad), "--key", &alice, "--yes"]));
    assert!(bad.contains("bad.toml:4: unknown key `servces`"), "{bad}");
    assert_eq!(n1.document(KEY), None);
    assert_eq!(shop.status(), 403);
}

#[test]
fn documents_survive_restarts_and_spoilt_files() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n3) = (shop.node("n1"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    let web = shop.file("web");
    n1.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    shop.wait_all(1, "in force");
    n3.stop();
    // It is in force again before anything is served.
    n3.start();
    n3.wait_ready();
    assert_eq!(n3.document(KEY), Some((1, "in force".into(), Some(1))));
    shop.wait_status(200);

    // A spoilt file is put aside, and peers give back what was in it.
    n3.kill();
    let files = fs::read_dir(n3.state().join("documents")).expect("it can be listed");
    let mut files = files.map(|entry| entry.expect("it can be read").path());
    let is_it = |path: &PathBuf| path.display().to_string().contains("policy@orders@");
    let file = files.find(is_it).expect("it is kept");
    let mut bytes = fs::read(&file).expect("it is kept");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("it can be written");
    n3.start();
    n3.wait_ready();
    shop.wait_all(1, "in force");
    shop.wait_status(200);
    let aside = format!("{}.broken", file.display());
    assert!(Path::new(&aside).exists(), "{aside}");
    assert!(n3.log().contains("document lost here"), "{}", n3.log());
}

#[test]
fn a_kill_within_a_minute_of_a_denial_does_not_open_the_door() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n3) = (shop.node("n1"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    let (web, batch) = (shop.file("web"), shop.file("batch"));
    let mut revision = 0;
    for after_ms in [100, 1_000] {
        for (file, status) in [(&web, 200), (&batch, 403)] {
            n1.must(&["apply", "-f", file, "--key", &alice, "--yes"]);
            revision += 1;
            shop.wait_all(revision, "in force");
            shop.wait_status(status);
        }
        let_pass(Duration::from_millis(after_ms));
        n3.kill();
        n3.start();
        n3.wait_ready();
        let expected = (revision, "in force".to_owned(), Some(revision));
        assert_eq!(n3.document(KEY), Some(expected));
        shop.wait_status(403);
        assert!((0..50).all(|_| shop.status() == 403), "after {after_ms} ms");
    }
}

#[test]
fn what_is_held_back_denies_and_is_seen_on_every_node() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let (n1, n3) = (shop.node("n1"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    let (web, batch) = (shop.file("web"), shop.file("batch"));
    n1.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    shop.wait_all(1, "in force");
    shop.wait_status(200);
    let both = "kind = \"policy\"\nname = \"orders\"\n\n[[grant]]\nservices = [\"orders\"]\nfrom = [\"web\", \"batch\"]\n";
    let both = shown(&shop.mesh.scratch().write("both.toml", both));
    n1.must(&["apply", "-f", &both, "--key", &alice, "--yes"]);
    shop.wait_all(2, "in force");
    n3.stop();

    n3.hold_back(&n1.newest_hash(KEY), "orders");
    n3.start();
    n3.wait_ready();
    assert_eq!(n3.document(KEY), Some((2, "held back".into(), None)));
    shop.wait_status(403);
    let status = n3.show("status", &[]).expect("it answers");
    assert!(status.contains("1 NOT IN FORCE"), "{status}");
    let found = n3.operate(&["check"]);
    let said = String::from_utf8_lossy(&found.stdout).into_owned();
    assert_eq!(found.status.code(), Some(3), "{said}");
    assert!(
        said.contains("policy/orders is held back: ")
            && said.contains("calls to orders are denied"),
        "{said}"
    );
    wait_until(crate::PATIENCE, "n1 to hear of it", || {
        let status = n1.show("status", &[]).unwrap_or_default();
        status.contains("n3: 1 document not in force")
    });
    let said = String::from_utf8_lossy(&n1.operate(&["check"]).stdout).into_owned();
    assert!(said.contains("n3: 1 document not in force"), "{said}");

    // Another revision is tried.
    n1.must(&["apply", "-f", &batch, "--key", &alice, "--yes"]);
    n1.must(&["apply", "-f", &web, "--key", &alice, "--yes"]);
    shop.wait_all(4, "in force");
    shop.wait_status(200);
    wait_until(crate::PATIENCE, "n1 to hear of it", || {
        let status = n1.show("status", &[]).unwrap_or_default();
        !status.contains("not in force")
    });
}

#[test]
fn a_reader_who_went_away_ended_a_command_before_it_had_signed() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let shop = Shop::open();
    let n1 = shop.node("n1");
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    let mut apply = Command::new("/bin/sh");
    // The reader has ended before anything is written.
    apply.args([
        "-c",
        "{ sleep 0.3; \"$0\" \"$@\"; echo \"exit $?\" >&2; } | exec true",
    ]);
    apply
        .arg(program::agent())
        .args(["apply", "-f", &shop.file("web")]);
    apply
        .args(["--key", &alice, "--yes", "--socket"])
        .arg(n1.socket());
    let output = apply.output().expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("exit 0"), "{said}");
    shop.wait_all(1, "in force");
    shop.wait_status(200);
}

#[test]
fn a_denial_that_came_over_a_full_disk_survives_a_crash() {
    need!(Need::Agent, Need::Program("nginx"), Need::Root);
    let _turn = turn::shared();
    let shop = Shop::allowing("web");
    let (n1, n2, n3) = (shop.node("n1"), shop.node("n2"), shop.node("n3"));
    let alice = shown(&shop.mesh.operator("alice", "policy"));
    n3.stop();
    let disk = n3.use_small_disk();
    n3.start();
    n3.wait_ready();
    shop.wait_status(200);
    disk.fill();
    let deny = "kind = \"policy\"\nname = \"orders\"\n\n[[deny]]\nservices = [\"orders\"]\nfrom = [\"web\"]\n";
    let deny = shown(&shop.mesh.scratch().write("deny.toml", deny));
    n1.must(&["apply", "-f", &deny, "--key", &alice, "--yes"]);
    shop.wait_status(403);
    let status = n3.show("status", &[]).expect("it answers");
    assert!(status.contains("1 NOT ON DISK here"), "{status}");
    let found = n3.operate(&["check"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(
        found.contains("1 document is in force here and not on disk")
            && found.contains("calls are denied until a peer sends them again"),
        "{found}"
    );

    // It crashes, and no peer has the document when it starts.
    n3.kill();
    n2.stop();
    n1.stop();
    n3.start();
    n3.wait_ready();
    assert_eq!(
        n3.document(KEY).map(|(_, state, _)| state),
        Some("lost".into())
    );
    disk.free();
    wait_until(crate::PATIENCE, "the index to be written", || {
        let status = n3.show("status", &[]).unwrap_or_default();
        !status.contains("NOT ON DISK")
    });
    n3.kill();
    n3.start();
    n3.wait_ready();
    assert_eq!(
        n3.document(KEY).map(|(_, state, _)| state),
        Some("lost".into())
    );
    n1.start();
    n1.wait_ready();
    wait_until(crate::PATIENCE, "it to be given back", || {
        n3.document(KEY) == Some((1, "in force".into(), Some(1)))
    });
    assert_eq!(shop.status(), 403);
}

#[test]
fn the_process_that_reads_documents_first_has_nothing_of_the_agents() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let script = "exec 7</dev/null 8</dev/null; exec \"$0\" preflight --parent \"$1\"";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(program::agent())
        .arg(std::process::id().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let process = Path::new("/proc").join(child.id().to_string());
    let open = || {
        let open = fs::read_dir(process.join("fd")).expect("it runs");
        let mut open: Vec<_> = open
            .map(|entry| entry.expect("it is there").file_name())
            .collect();
        open.sort();
        open
    };
    wait_until(crate::PATIENCE, "it to close what it inherited", || {
        open() == ["0", "1", "2"]
    });
    wait_until(crate::PATIENCE, "it to bound its CPU time", || {
        let limits = fs::read_to_string(process.join("limits")).expect("it runs");
        let limit = |name: &str, value: &str| {
            let mut lines = limits.lines();
            let line = lines
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default();
            line.split_whitespace().next() == Some(value)
        };
        limit("Max cpu time", "10") && limit("Max core file size", "0")
    });
    // It ends with its input.
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
    // And it is nobody's but its parent's.
    let stray = Command::new(program::agent())
        .args(["preflight", "--parent", "1"])
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(stray.status.code(), Some(1));
}

/// Posts to an agent's admin socket; the body of the answer.
fn post(node: &Node, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut stream = UnixStream::connect(node.socket()).expect("it answers");
    let length = body.len();
    let head = format!("POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-length: {length}");
    let sent = write!(stream, "{head}\r\n\r\n{body}");
    sent.expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (_head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    serde_json::from_str(body).expect("it is JSON")
}

#[test]
fn a_node_of_another_build_says_what_it_cannot_read_before_it_is_signed() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &[]), ("n2", &[]), ("n3", &[])]);
    let (n1, n3) = (mesh.node("n1"), mesh.node("n3"));
    n3.use_other_build();
    mesh.start();
    let good = json!({ "kind": "policy", "name": "good", "body": "mode = \"audit\"" });
    let bad = json!({ "kind": "policy", "name": "bad", "body": "a_key_of_tomorrow = 1" });
    let said = post(n1, "/v1/readers", &json!([good, bad]));
    // n2 is of the build that asks, and so reads what its operator's program reads.
    assert_eq!(said.as_array().map(Vec::len), Some(1), "{said}");
    assert_eq!(said[0]["node"], "n3");
    assert_eq!(said[0]["problems"][0][0], "policy/bad", "{said}");
    let why = said[0]["problems"][0][1].as_str().expect("a reason");
    assert!(why.contains("unknown key `a_key_of_tomorrow`"), "{why}");
    assert_eq!(post(n1, "/v1/readers", &json!([good])), json!([]));
}
