//! Files that are damaged never make an agent serve wider: it refuses to start and says which file, goes without what they are for, or
//! keeps what was good.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::process::Signal;
use harness::{Mesh, Need, Node, need, turn, wait_until};
use serde_json::Value;

/// What can happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    Missing,
    Empty,
    /// Its first half only.
    Truncated,
    /// One bit in its middle.
    Flipped,
    /// Closed to its owner too.
    Closed,
    /// A directory in its place.
    Directory,
    /// A link to the very same bytes: they may be anybody's.
    Link,
}

const ALL: [Damage; 7] = [
    Damage::Missing,
    Damage::Empty,
    Damage::Truncated,
    Damage::Flipped,
    Damage::Closed,
    Damage::Directory,
    Damage::Link,
];

/// What an agent that starts makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// It ends with an error that names the file.
    Refused,
    /// It serves, with the identities and the policy that it had.
    Same,
    /// It serves less: the service is gone, or has no certificate.
    Less,
}

/// What proves who we are and whom we trust.
const IDENTITY: [&str; 5] = [
    "state/trust.pem",
    "state/node.pem",
    "state/node.key",
    "state/svc/site.pem",
    "state/svc/site.key",
];

/// What says who may call.
const CONFIG: [&str; 2] = ["starling.toml", "services.d/site.toml"];

fn expected(file: &str, damage: Damage) -> &'static [Start] {
    use Damage::{Closed, Directory, Empty, Flipped, Link, Missing, Truncated};
    match (file, damage) {
        // Tests run as root, whom no mode keeps out; the bytes are the right ones.
        (_, Closed) => &[Start::Same],
        // Made anew; peers then take longer to notice that it was restarted.
        ("state/reset.key" | "state/generation", Missing) => &[Start::Same],
        // An issuer that cannot issue still serves; what it would issue is checked before it is handed out.
        (file, _) if file.starts_with("state/ca/") => &[Start::Same, Start::Refused],
        // A number or a key like any other.
        ("state/reset.key", Flipped) | ("state/generation", Flipped | Truncated) => {
            &[Start::Same, Start::Refused]
        }
        // Operators keep configurations elsewhere and link them. A link to a number is replaced by a file.
        ("services.d/site.toml" | "starling.toml" | "state/generation", Link) => &[Start::Same],
        // A service without a certificate takes no calls; the rest works.
        ("state/svc/site.pem" | "state/svc/site.key", _) => &[Start::Less],
        // It runs on the last configuration that could be read, if it finds the state directory that holds it.
        ("services.d/site.toml", Truncated | Directory) => &[Start::Same],
        ("starling.toml", Truncated | Directory) => &[Start::Same, Start::Refused],
        // A file that says less.
        ("services.d/site.toml", Missing | Empty) => &[Start::Less],
        // An address that another bit makes is an address.
        ("services.d/site.toml" | "starling.toml", Flipped) => &[Start::Same, Start::Refused],
        _ => &[Start::Refused],
    }
}

/// Whether an error leads to the file.
fn says_which(said: &str, file: &str) -> bool {
    // A key is named together with its certificate, and a certificate that is gone by what needs it. Without its own
    // settings the agent looks for its state elsewhere.
    let stem = file.trim_end_matches("pem").trim_end_matches("key");
    let else_where = ["certificate of service `site`", "/var/lib/starling"];
    said.contains(stem) || else_where.iter().any(|words| said.contains(words))
}

fn inflict(file: &Path, damage: Damage) {
    let whole = fs::read(file).expect("it was there before");
    match damage {
        Damage::Missing => fs::remove_file(file),
        Damage::Empty => fs::write(file, b""),
        Damage::Truncated => fs::write(file, &whole[..whole.len() / 2]),
        Damage::Flipped => {
            let mut bytes = whole.clone();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x04;
            fs::write(file, bytes)
        }
        Damage::Closed => fs::set_permissions(file, fs::Permissions::from_mode(0o0)),
        Damage::Directory => fs::remove_file(file).and_then(|()| fs::create_dir(file)),
        Damage::Link => {
            let moved = file.with_extension("moved");
            fs::rename(file, &moved).and_then(|()| symlink(&moved, file))
        }
    }
    .expect("the file is ours");
}

/// The files of one host as they were, to be put back after each damage.
struct Host<'m> {
    node: &'m Node,
    pristine: PathBuf,
}

impl<'m> Host<'m> {
    fn new(mesh: &'m Mesh) -> Self {
        let node = mesh.node("n1");
        let app = node.host().free_tcp();
        node.serve("site", app, "http", &["web"], "");
        // What a first life leaves behind is there from now on.
        mesh.start();
        node.stop();
        Self::pristine(mesh)
    }

    /// As the files are now.
    fn pristine(mesh: &'m Mesh) -> Self {
        let node = mesh.node("n1");
        let pristine = mesh.scratch().path().join("pristine");
        copy(node.directory(), &pristine);
        Self { node, pristine }
    }

    fn restore(&self) {
        let target = self.node.directory();
        for kept in ["state", "services.d", "starling.toml"] {
            let mut remove = Command::new("rm");
            remove.arg("-rf").arg(target.join(kept));
            assert!(remove.status().expect("rm runs").success());
            copy(&self.pristine.join(kept), &target.join(kept));
        }
    }

    /// What it serves and as whom, if it serves.
    fn serves(&self) -> Option<(Vec<Value>, Vec<Value>)> {
        let status = self.node.ask("status")?;
        let identities = status["svids"].as_array()?.iter();
        let services = status["services"].as_array()?.iter();
        Some((
            identities.map(|svid| svid["identity"].clone()).collect(),
            services.map(|service| service["allow"].clone()).collect(),
        ))
    }

    /// Starts the agent once; the error if it refuses.
    fn try_start(&self) -> Result<(), String> {
        self.node.start();
        let mut ended = false;
        wait_until(crate::PATIENCE, "the agent to be ready or to end", || {
            ended = !self.node.is_running();
            ended
                || self
                    .node
                    .admin("/readyz")
                    .is_ok_and(|answer| answer.status == 200)
        });
        if ended {
            self.node.kill();
            return Err(self.node.log());
        }
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(from).arg(to);
    assert!(copy.status().expect("cp runs").success());
}

#[test]
fn an_agent_does_not_start_wider_than_it_was() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["site"])]);
    let host = Host::new(&mesh);
    let others = [
        "state/reset.key",
        "state/generation",
        "state/ca/root.pem",
        "state/ca/intermediate.pem",
        "state/ca/intermediate.key",
    ];
    let mut usual = None;
    for file in IDENTITY.into_iter().chain(CONFIG).chain(others) {
        for damage in ALL {
            host.restore();
            let _ = fs::remove_file(host.node.directory().join("agent.log"));
            if usual.is_none() {
                host.try_start().expect("nothing is damaged yet");
                usual = host.serves();
                host.node.kill();
            }
            inflict(&host.node.directory().join(file), damage);
            let started = host.try_start();
            let outcome = match &started {
                Err(said) => {
                    assert!(says_which(said, file), "{file} {damage:?}: {said}");
                    Start::Refused
                }
                Ok(()) if host.serves() == usual => Start::Same,
                Ok(()) => {
                    let (identities, services) = host.serves().expect("it answers");
                    let (before, rules) = usual.as_ref().expect("it was asked first");
                    let is_known = |identity| before.contains(identity);
                    let is_less = identities.len() < before.len()
                        && identities.iter().all(is_known)
                        && services == *rules;
                    assert!(
                        services.is_empty() || is_less,
                        "{file} {damage:?}: {identities:?} {services:?}"
                    );
                    Start::Less
                }
            };
            let expected = expected(file, damage);
            assert!(
                expected.contains(&outcome),
                "{file} {damage:?}: {outcome:?}, not {expected:?}: {started:?}"
            );
            if started.is_ok() {
                host.node.kill();
            }
        }
    }
}

/// The mesh denies `web` what the host's own file allows. Whatever becomes of the files that say so, it stays denied.
#[test]
fn a_document_that_is_damaged_never_allows_what_it_denied() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["site"])]);
    let node = mesh.node("n1");
    node.serve("site", node.host().free_tcp(), "tcp", &["web"], "");
    mesh.start();
    assert!(!is_denied(node), "the host's own file allows it");
    let alice = mesh.operator("alice", "policy").display().to_string();
    let deny =
        "kind = \"policy\"\nname = \"site\"\n\n[[deny]]\nservices = [\"site\"]\nfrom = [\"web\"]\n";
    let file = mesh
        .scratch()
        .write("deny.toml", deny)
        .display()
        .to_string();
    node.must(&["apply", "-f", &file, "--key", &alice, "--yes"]);
    assert!(is_denied(node));
    node.stop();
    let host = Host::pristine(&mesh);
    let documents = fs::read_dir(node.directory().join("state/documents"));
    let names = documents.expect("there is one").filter_map(|entry| {
        let entry = entry.expect("it can be listed");
        let is_empty = entry.metadata().expect("it is there").len() == 0;
        (!is_empty).then(|| entry.file_name().into_string().expect("it is UTF-8"))
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert!(names.len() >= 2, "{names:?}");
    for name in &names {
        for damage in ALL {
            host.restore();
            inflict(&node.directory().join("state/documents").join(name), damage);
            if host.try_start().is_ok() {
                assert!(is_denied(node), "{name} {damage:?}");
                node.kill();
            }
        }
    }
}

/// What `starling explain` says of `web` calling `site`.
fn is_denied(node: &Node) -> bool {
    let explained = node.operate(&["explain", "web", "site"]);
    match explained.status.code() {
        Some(0) => false,
        Some(3) => true,
        _ => panic!("{}", String::from_utf8_lossy(&explained.stderr)),
    }
}

#[test]
fn an_agent_that_runs_keeps_what_was_good() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["site"])]);
    let host = Host::new(&mesh);
    host.restore();
    host.try_start().expect("nothing is damaged");
    let usual = host.serves().expect("it answers");
    for file in IDENTITY.into_iter().chain(CONFIG) {
        for damage in ALL {
            let takes_back = [Damage::Missing, Damage::Empty].contains(&damage);
            if file == "services.d/site.toml" && takes_back {
                continue;
            }
            inflict(&host.node.directory().join(file), damage);
            let taken = || {
                let metrics = host.node.metrics();
                metrics.sum("starling_config_reloads_total", &[])
            };
            let before = taken();
            host.node.signal(Signal::HUP);
            wait_until(crate::PATIENCE, "the files to be looked at", || {
                taken() > before
            });
            assert_eq!(host.serves().as_ref(), Some(&usual), "{file} {damage:?}");
            host.restore();
        }
    }
    host.node.signal(Signal::HUP);
    host.node.stop();
}
