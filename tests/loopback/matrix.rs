//! The matrix as processes: whatever happens to an agent after its operator's command returned, no call passes that the newest
//! text denies. Each row and each column at least once, 0.1 and 1 s after the document was taken; all cells are in
//! `node/src/documents/matrix.rs`.
//!
//! | row | column | where |
//! |---|---|---|
//! | kill -9 | grant removed | `documents::a_kill_within_a_minute_of_a_denial_does_not_open_the_door` |
//! | kill -9 | node revoked | `revocation::a_kill_within_a_minute_of_a_revocation_does_not_open_the_door` |
//! | kill -9, orderly stop | operator revoked | `operators::revoking_an_operators_key_opened_what_that_operator_had_closed` |
//! | signer revoked, by an operator and by the root | first deny | the same |
//! | kill -9 | key revoked | here |
//! | OOM kill | first deny | here |
//! | orderly stop | deny added to an earlier revision | here |
//! | a host that joins later | group narrowed | here |
//! | rooms full | node revoked | here |
//! | signer's grant ended | grant removed | here |
//! | reload refused | service revoked | here |
//! | disk full | issuer revoked | here |
//! | an older version that cannot read it | first deny | here |
//! | clock ±1 h | first deny | here |
//! | split and heal | service revoked | `hosts`, `partition::a_revocation_that_one_side_of_a_cut_took_in_holds_on_both_after` |

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use harness::apps::mirror;
use harness::cgroup::Cgroup;
use harness::clock::Clock;
use harness::probe::Probe;
use harness::process::{Signal, run};
use harness::{Mesh, Need, Node, http, let_pass, need, program, skip, turn, wait_until};
use serde_json::Value;

/// A way to deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    FirstDeny,
    DenyAdded,
    GrantRemoved,
    GroupNarrowed,
    Node,
    Service,
    Key,
    Issuer,
}

/// What is different from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Usual,
    /// There is no more room for what can deny than for this.
    RoomsFull,
    /// The callee's clock can be set.
    OwnClock,
}

/// `web` on n2, whose certificates come from an issuer of its own, calls `orders` on n3. The operator works on n3, so that its
/// agent has the document in force when the command returns. n4 offers `orders` too, once it is started.
struct World {
    mesh: Mesh,
    column: Column,
    orders: SocketAddr,
    alice: String,
    /// The callee's, if it has one of its own.
    clock: Option<Clock>,
    /// The operator whose grant ends soon, if there is one.
    brief: Mutex<String>,
}

/// What happens around a document; the callee runs again at its end.
type Row = fn(&World);

const AGES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

impl World {
    fn new(setting: Setting, column: Column) -> Self {
        let orders = &["orders"][..];
        let mesh = Mesh::loopback(&[
            ("n1", &[]),
            ("n2", &["web"]),
            ("n3", orders),
            ("n4", orders),
        ]);
        let allow = if column.has_grant() { "nobody" } else { "web" };
        for name in ["n3", "n4"] {
            let node = mesh.node(name);
            node.serve("orders", mirror(node.host()), "http", &[allow], "");
        }
        issue_by_own_issuer(&mesh, mesh.node("n2"), "web");
        let orders = mesh.node("n2").call("orders", "web");
        let alice = mesh.operator("alice", "policy,revocation");
        let clock = || Clock::new(mesh.scratch().path().join("clock"));
        let clock = (setting == Setting::OwnClock).then(clock);
        let world = Self {
            orders,
            alice: alice.display().to_string(),
            mesh,
            column,
            clock,
            brief: Mutex::default(),
        };
        for name in ["n1", "n2"] {
            world.node(name).start();
        }
        world.start_callee();
        world.mesh.wait_ready();
        world.open();
        if setting == Setting::RoomsFull {
            world.fill_rooms();
        }
        world
    }

    fn node(&self, name: &str) -> &Node {
        self.mesh.node(name)
    }

    fn callee(&self) -> &Node {
        self.node("n3")
    }

    fn status(&self) -> u16 {
        http::get(self.orders, "/").map_or(0, |answer| answer.status)
    }

    fn sign(&self, arguments: &[&str]) {
        let signed = ["--key", &self.alice, "--yes"];
        self.callee().must(&[arguments, &signed[..]].concat());
    }

    fn apply(&self, body: &str) {
        self.apply_as(&self.alice, body);
    }

    fn apply_as(&self, key: &str, body: &str) {
        let text = format!("kind = \"policy\"\nname = \"orders\"\n\n{body}");
        let file = self.mesh.scratch().write("orders.toml", text);
        let file = file.display().to_string();
        self.callee()
            .must(&["apply", "-f", &file, "--key", key, "--yes"]);
    }

    /// Fills the rooms of what can deny: a thief all of the own shares, and who revokes the share of policies.
    fn fill_rooms(&self) {
        let thief = self.mesh.operator("thief", "policy,revocation");
        let thief = thief.display().to_string();
        for (name, key, kind) in [
            ("thief", &thief, "policy"),
            ("thief", &thief, "revocation"),
            ("alice", &self.alice, "policy"),
        ] {
            let said = self.fill(name, key, kind);
            assert!(is_full(&said), "{name} {kind}: {said}");
        }
    }

    /// Applies long texts, more of them than there is room for in one share; what the command says in the end.
    fn fill(&self, name: &str, key: &str, kind: &str) -> String {
        let directory = self.mesh.scratch().directory(&format!("{name}-{kind}"));
        let says = match kind {
            "policy" => rule("deny", "\"guest\"").replace("orders", "db"),
            _ => format!("[[revoked]]\npublic_key = \"sha256:{}\"\n", "7".repeat(64)),
        };
        let padding = format!("# {}\n", "x".repeat(118)).repeat(500);
        for nth in 0..20 {
            let text =
                format!("kind = \"{kind}\"\nname = \"full-{name}-{nth}\"\n\n{says}{padding}");
            std::fs::write(directory.join(format!("{nth}.toml")), text).expect("there is room");
        }
        let directory = directory.display().to_string();
        let applied = self
            .callee()
            .operate(&["apply", "--dir", &directory, "--key", key, "--yes"]);
        String::from_utf8_lossy(&applied.stderr).into_owned()
    }

    /// Has the call be allowed, and waits until it is.
    fn open(&self) {
        match self.column {
            Column::DenyAdded => self.apply(&rule("grant", "\"web\"")),
            Column::GrantRemoved => self.apply(&rule("grant", "\"web\", \"mobile\"")),
            Column::GroupNarrowed => self.apply(&group("\"web\", \"mobile\"")),
            _ => {
                for key in self.said() {
                    self.sign(&["delete", &key]);
                }
            }
        }
        wait_until(crate::PATIENCE, "the call to pass", || self.status() == 200);
    }

    /// What is to be in force from here on, whatever happens.
    fn close(&self) {
        let revoke = |what: &str| self.sign(&["revoke", what, "--reason", "stolen"]);
        match self.column {
            // In words that an older version does not know.
            Column::FirstDeny => self.apply(&(rule("deny", "\"web\"") + "methods = [\"GET\"]\n")),
            Column::DenyAdded => self.apply(&(rule("grant", "\"web\"") + &rule("deny", "\"web\""))),
            Column::GrantRemoved => {
                let name = format!("brief-{}", self.callee().log().len());
                let brief = self.mesh.operator_for("2s", &name, "policy");
                let brief = brief.display().to_string();
                self.apply_as(&brief, &rule("grant", "\"mobile\""));
                *self.brief.lock().expect("nobody panicked") = brief;
            }
            Column::GroupNarrowed => self.apply(&group("\"mobile\"")),
            Column::Node => revoke("node/n2"),
            Column::Service => revoke("svc/web"),
            // Its issuer runs no agent that could be asked for the line.
            Column::Key => {
                let certificate = self.certificate_of_caller().display().to_string();
                let key = self.key_of_caller();
                self.sign(&[
                    "revoke",
                    &key,
                    "--certificate",
                    &certificate,
                    "--reason",
                    "stolen",
                ]);
            }
            Column::Issuer => revoke("issuer/n2"),
        }
    }

    /// The documents by which the call is denied.
    fn said(&self) -> Vec<String> {
        let all = self.callee().ask("get").unwrap_or_default();
        let all = all.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let live = all.iter().filter(|one| one["state"] != "deleted");
        let live = live.map(|one| (text(&one["kind"]), text(&one["name"])));
        let said = live.filter(|(kind, name)| match self.column.is_policy() {
            true => (kind.as_str(), name.as_str()) == ("policy", "orders"),
            false => kind == "revocation" && !name.starts_with("full-"),
        });
        said.map(|(kind, name)| format!("{kind}/{name}")).collect()
    }

    fn is_revoked(&self) -> bool {
        let said = self.said();
        let states = said.iter().filter_map(|key| self.callee().document(key));
        let states: Vec<_> = states.map(|(_, state, _)| state).collect();
        !states.is_empty() && states.iter().all(|state| state == "in force")
    }

    fn certificate_of_caller(&self) -> PathBuf {
        self.node("n2").state().join("svc/web.pem")
    }

    fn key_of_caller(&self) -> String {
        let certificate = self.certificate_of_caller();
        let script =
            "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | sha256sum";
        let mut hash = Command::new("sh");
        hash.args(["-c", script]).arg(certificate);
        let hash = run(hash);
        format!(
            "key/sha256:{}",
            hash.split_whitespace().next().expect("a hash")
        )
    }

    /// Closes the door, has `row` happen at each age, and counts who got through. The row brings the callee back.
    fn hold(&self, row: Row) {
        for age in AGES {
            let label = format!("{:?} {age:?}", self.column);
            let probe = Probe::start(self.orders);
            wait_until(crate::PATIENCE, "the call to pass", || self.status() == 200);
            self.close();
            let denied = Instant::now();
            let_pass(age);
            row(self);
            let_pass(Duration::from_secs(1));
            match self.column.is_policy() {
                true => assert!(is_denied(self.callee()), "{label}"),
                false => assert!(self.is_revoked(), "{label}"),
            }
            let seen = probe.since(denied);
            let passed = seen.iter().filter(|status| **status == 200).count();
            assert_eq!(passed, 0, "{label}: of {seen:?}");
            assert!(seen.len() > 10, "{label}: {seen:?}");
            // The same world lets it pass without the document.
            self.open();
        }
    }

    fn start_callee(&self) {
        let environment = self.clock.iter().flat_map(Clock::environment);
        let environment: Vec<_> = environment.collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        self.callee().start_with(&environment);
    }

    fn restart(&self) {
        self.start_callee();
        self.callee().wait_ready();
        wait_until(crate::PATIENCE, "n2 to know n3 again", || {
            self.node("n2").healthy("orders").contains(&"n3".to_owned()) || !self.column.is_policy()
        });
    }
}

impl Column {
    /// Whether a document allows the call before it is denied; else the host's own file does.
    fn has_grant(self) -> bool {
        matches!(
            self,
            Self::DenyAdded | Self::GrantRemoved | Self::GroupNarrowed
        )
    }

    fn is_policy(self) -> bool {
        self.has_grant() || self == Self::FirstDeny
    }
}

fn rule(table: &str, from: &str) -> String {
    format!("[[{table}]]\nservices = [\"orders\"]\nfrom = [{from}]\n")
}

fn group(members: &str) -> String {
    format!("[groups]\nfront = [{members}]\n\n") + &rule("grant", "\"group:front\"")
}

/// What `starling explain` says on the callee itself.
fn is_denied(node: &Node) -> bool {
    let explained = node.operate(&["explain", "web", "orders", "GET", "/"]);
    explained.status.code() == Some(3)
}

/// Makes the root vouch for an issuer on `node`, which issues the node's own certificates.
fn issue_by_own_issuer(mesh: &Mesh, node: &Node, service: &str) {
    let issuer = mesh.scratch().path().join("second-issuer");
    let starling = |words: &[&str], paths: &[(&str, &Path)]| {
        let mut command = Command::new(program::agent());
        command.args(words).args(["--node", node.name()]);
        for (option, path) in paths {
            command.arg(option).arg(path);
        }
        run(command);
    };
    let root = mesh.issuer();
    starling(
        &["ca", "add-issuer"],
        &[("--state", &root), ("--out", &issuer)],
    );
    let state = node.state();
    starling(
        &["ca", "issue", "--service", service],
        &[("--state", &issuer), ("--out", &state)],
    );
}

/// Runs worlds beside each other: most of their time they wait.
fn beside_each_other(worlds: Vec<(Setting, Column, Row)>) {
    let run = |(setting, column, row): (Setting, Column, Row)| {
        std::thread::spawn(move || World::new(setting, column).hold(row))
    };
    let running: Vec<_> = worlds.into_iter().map(run).collect();
    let ended: Vec<_> = running.into_iter().map(|world| world.join()).collect();
    for world in ended {
        if let Err(panic) = world {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn nothing_that_is_denied_passes_whatever_ends_an_agent() {
    need!(Need::Agent, Need::Program("openssl"));
    let _turn = turn::shared();
    let mut worlds: Vec<(Setting, Column, Row)> = vec![
        (Setting::Usual, Column::Key, |world| {
            world.callee().kill();
            world.restart();
        }),
        (Setting::Usual, Column::DenyAdded, |world| {
            world.callee().stop();
            world.restart();
        }),
    ];
    match Cgroup::new() {
        Ok(_there_can_be_one) => {
            worlds.push((Setting::Usual, Column::FirstDeny, run_out_of_memory))
        }
        Err(why) => skip::tell(&why),
    }
    beside_each_other(worlds);
}

fn run_out_of_memory(world: &World) {
    let group = Cgroup::new().expect("there was one before");
    group.run_out_of_memory(world.callee().pid());
    wait_until(crate::PATIENCE, "the agent to be killed", || {
        !world.callee().is_running()
    });
    assert!(group.killed() >= 1);
    world.callee().kill();
    world.restart();
}

#[test]
fn nothing_that_is_denied_passes_whatever_changes_around_an_agent() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("faketime"),
        Need::Program("nsenter")
    );
    let _turn = turn::shared();
    beside_each_other(vec![
        (Setting::Usual, Column::Service, |world| {
            let n3 = world.callee();
            let refused = || {
                let status = n3.ask("status").unwrap_or_default();
                status["config"]["last_error"].is_string()
            };
            n3.write("broken.toml", "[[service]]\nname = \"orders");
            n3.signal(Signal::HUP);
            wait_until(crate::PATIENCE, "the reload to be refused", refused);
            n3.remove("broken.toml");
            n3.signal(Signal::HUP);
            wait_until(crate::PATIENCE, "the reload to be taken", || !refused());
        }),
        (Setting::Usual, Column::Issuer, |world| {
            // It runs on its usual disk before, and goes back there after.
            let n3 = world.callee();
            n3.kill();
            let disk = n3.use_small_disk();
            disk.fill();
            world.restart();
            let none = world.callee().operate(&[
                "apply",
                "-f",
                &unrelated(world),
                "--key",
                &world.alice,
                "--yes",
            ]);
            let why = String::from_utf8_lossy(&none.stderr).into_owned();
            assert!(why.contains("kept on disk"), "{why}");
            n3.kill();
            world.restart();
            disk.free();
            n3.kill();
            n3.use_usual_build();
            world.restart();
        }),
        (Setting::Usual, Column::FirstDeny, |world| {
            let n3 = world.callee();
            n3.stop();
            n3.use_version_without("methods");
            world.restart();
            let (_, state, in_force) = n3.document("policy/orders").expect("it is held");
            assert_eq!((state.as_str(), in_force), ("not in force", None));
            let_pass(Duration::from_secs(1));
            assert_eq!(world.status(), 403);
            n3.stop();
            n3.use_usual_build();
            world.restart();
        }),
        (Setting::OwnClock, Column::FirstDeny, |world| {
            let (n3, clock) = (world.callee(), world.clock.as_ref());
            let clock = clock.expect("this world has a clock of its own");
            for offset in ["+1h", "-1h"] {
                clock.set(offset);
                let_pass(Duration::from_millis(500));
                assert!(is_denied(n3), "{offset}");
            }
            // Its certificates have not begun at the wrong time, so it would not start; an hour ahead it does.
            n3.kill();
            clock.set("+1h");
            world.restart();
            let_pass(Duration::from_millis(500));
            n3.kill();
            clock.set("+0");
            world.restart();
        }),
    ]);
}

#[test]
fn nothing_that_is_denied_passes_whatever_else_the_mesh_holds() {
    need!(Need::Agent);
    let _turn = turn::shared();
    beside_each_other(vec![
        (Setting::Usual, Column::GroupNarrowed, |world| {
            // Its own file allows nobody, so it has nothing to forget.
            let n4 = world.node("n4");
            // None at first, and those of the last time later.
            let _none = std::fs::remove_dir_all(n4.state().join("documents"));
            n4.start();
            n4.wait_ready();
            wait_until(crate::PATIENCE, "n2 to know n4", || {
                world
                    .node("n2")
                    .healthy("orders")
                    .contains(&"n4".to_owned())
            });
            wait_until(crate::PATIENCE, "n4 to hear", || {
                n4.document("policy/orders")
                    .is_some_and(|(_, state, _)| state == "in force")
            });
            let_pass(Duration::from_millis(500));
            n4.kill();
        }),
        (Setting::RoomsFull, Column::Node, |world| {
            world.callee().kill();
            world.restart();
            assert!(is_full(&world.fill("alice", &world.alice, "policy")));
        }),
        (Setting::Usual, Column::GrantRemoved, |world| {
            let brief = world.brief.lock().expect("nobody panicked").clone();
            let has_ended = || {
                let file = unrelated(world);
                let refused = world
                    .callee()
                    .operate(&["apply", "-f", &file, "--key", &brief, "--yes"]);
                let why = String::from_utf8_lossy(&refused.stderr).into_owned();
                why.contains("ended")
            };
            wait_until(crate::PATIENCE, "the grant to end", has_ended);
            world.callee().kill();
            world.restart();
        }),
    ]);
}

fn is_full(said: &str) -> bool {
    said.contains("share is full")
}

/// A policy that has nothing to do with the call, another one each time.
fn unrelated(world: &World) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let text = format!(
        "kind = \"policy\"\nname = \"unrelated\"\n\n[[deny]]\nservices = [\"db-{number}\"]\nfrom = [\"web\"]\n"
    );
    let file = world.mesh.scratch().write("unrelated.toml", text);
    file.display().to_string()
}
