//! A mesh as an operator would set it up: `starling init` on the first host, `starling ca issue` for the others, a little
//! TOML each, and one agent per host.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::disk::{self, Disk};
use crate::host::Host;
use crate::http::{self, Answer};
use crate::metrics::Metrics;
use crate::process::{Process, Signal, leashed, run};
use crate::program;
use crate::scratch::Scratch;
use crate::wait::wait_until;
use crate::wire::Wire;

/// The trust domain of every mesh here.
pub const TRUST_DOMAIN: &str = "mesh.test";

/// Hosts of one trust domain and the agents on them. The first is the issuer.
#[derive(Debug)]
pub struct Mesh {
    // Agents end before their files go.
    nodes: Vec<Node>,
    scratch: Scratch,
}

/// A host of the mesh: its identity, its TOML and, while it runs, its agent.
#[derive(Debug)]
pub struct Node {
    host: Host,
    directory: PathBuf,
    mesh: SocketAddr,
    admin: SocketAddr,
    process: Mutex<Option<Process>>,
}

/// One instance as an agent knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    pub node: String,
    pub healthy: bool,
    pub liveness: String,
}

impl Mesh {
    /// Hosts that are addresses of this machine; each is named with the services it has identities for.
    pub fn loopback(hosts: &[(&str, &[&str])]) -> Self {
        Self::new(
            hosts
                .iter()
                .map(|(name, services)| (Host::loopback(name), *services))
                .collect(),
        )
    }

    /// Hosts that are namespaces.
    pub fn on(wire: &mut Wire, hosts: &[(&str, &[&str])]) -> Self {
        Self::new(
            hosts
                .iter()
                .map(|(name, services)| (wire.host(name), *services))
                .collect(),
        )
    }

    /// Makes the identities and a `starling.toml` for each host. Nothing runs yet.
    pub fn new(hosts: Vec<(Host, &[&str])>) -> Self {
        let scratch = Scratch::new();
        let services: Vec<_> = hosts.iter().map(|(_, services)| *services).collect();
        let nodes: Vec<_> = hosts
            .into_iter()
            .map(|(host, _)| Node::new(host, scratch.path()))
            .collect();
        let mesh = Self { nodes, scratch };
        for (node, services) in mesh.nodes.iter().zip(services) {
            mesh.issue(node, services, &[]);
            let others: Vec<_> = mesh
                .nodes
                .iter()
                .filter(|other| other.name() != node.name())
                .collect();
            node.write_config(&others, "");
        }
        mesh
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .iter()
            .find(|node| node.name() == name)
            .unwrap_or_else(|| panic!("no host {name}"))
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// For whatever else the test writes.
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// The state directory of the issuer, with the CA's keys.
    pub fn issuer(&self) -> PathBuf {
        self.nodes[0].state()
    }

    /// Gives `node` certificates for itself and `services`, as at first or anew. `options` go to the command as they are.
    pub fn issue(&self, node: &Node, services: &[&str], options: &[&str]) {
        let mut command = Command::new(program::agent());
        if self.issuer().join("ca").is_dir() {
            command.args(["ca", "issue", "--out"]).arg(node.state());
        } else {
            command.args(["init", "--trust-domain", TRUST_DOMAIN]);
        }
        command
            .arg("--state")
            .arg(self.issuer())
            .args(["--node", node.name()]);
        for service in services {
            command.args(["--service", service]);
        }
        command.args(options);
        run(command);
    }

    /// Makes an operator with the root's key; returns the file to sign with. Each ranks behind those made before, but for one
    /// called root, who ranks before all.
    pub fn operator(&self, name: &str, kinds: &str) -> PathBuf {
        self.operator_with_key(name, kinds).0
    }

    /// The same, with a grant that ends after `lifetime`, as in `2s`.
    pub fn operator_for(&self, lifetime: &str, name: &str, kinds: &str) -> PathBuf {
        self.new_operator(name, kinds, &["--lifetime", lifetime]).0
    }

    /// The same, with what its key is revoked by.
    pub fn operator_with_key(&self, name: &str, kinds: &str) -> (PathBuf, String) {
        self.new_operator(name, kinds, &[])
    }

    fn new_operator(&self, name: &str, kinds: &str, options: &[&str]) -> (PathBuf, String) {
        let file = self.scratch.path().join(format!("{name}.operator"));
        let mut command = Command::new(program::agent());
        command
            .args(["operator", "new", "--name", name, "--kinds", kinds, "--out"])
            .arg(&file)
            .arg("--state")
            .arg(self.issuer())
            .args(options);
        // The most senior, though others were made before.
        if name == "root" {
            command.args(["--rank", "0"]);
        }
        let said = run(command);
        let mut words = said.split_whitespace();
        let hash = words.find(|word| word.starts_with("sha256:"));
        let hash = hash
            .expect("it tells its public half")
            .trim_end_matches('.');
        (file, format!("key/{hash}"))
    }

    /// Starts all agents and waits until each is ready and knows the others.
    #[track_caller]
    pub fn start(&self) {
        for node in &self.nodes {
            node.start();
        }
        self.wait_ready();
    }

    /// Waits until every agent that was started is ready and knows all of them.
    #[track_caller]
    pub fn wait_ready(&self) {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.is_running()).collect();
        for node in &running {
            node.wait_ready();
            for other in &running {
                let what = format!("{} to know {}", node.name(), other.name());
                wait_until(START, &what, || {
                    node.liveness(other.name()).as_deref() == Some("alive")
                });
            }
        }
    }

    /// Waits until every running agent knows exactly these instances of `service` as healthy; returns how long it took.
    #[track_caller]
    pub fn wait_healthy(&self, service: &str, nodes: &[&str], within: Duration) -> Duration {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.is_running()).collect();
        let what = format!("all agents to know {service} on {nodes:?}");
        wait_until(within, &what, || {
            running.iter().all(|node| node.healthy(service) == nodes)
        })
    }
}

impl Node {
    fn new(host: Host, directory: &Path) -> Self {
        let directory = directory.join(host.name());
        fs::create_dir_all(directory.join("services.d")).expect("a directory can be made");
        let (mesh, admin) = (host.free_udp(), host.free_tcp());
        Self {
            host,
            directory,
            mesh,
            admin,
            process: Mutex::new(None),
        }
    }

    pub fn name(&self) -> &str {
        self.host.name()
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Configuration directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// The mesh port.
    pub fn mesh_address(&self) -> SocketAddr {
        self.mesh
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// Writes `starling.toml` with these seeds; `more` is added as it is.
    pub fn write_config(&self, seeds: &[&Self], more: &str) {
        let seeds: Vec<_> = seeds
            .iter()
            .map(|seed| format!("\"{}\"", seed.mesh))
            .collect();
        let text = format!(
            "listen = \"{}\"\nseeds = [{}]\nstate = \"{}\"\n\
             [admin]\nsocket = \"{}\"\nlisten = \"{}\"\n[log]\nlevel = \"info\"\n{more}\n",
            self.mesh,
            seeds.join(", "),
            self.state().display(),
            self.socket().display(),
            self.admin,
        );
        fs::write(self.directory.join("starling.toml"), text).expect("a file can be written");
    }

    /// Declares a service, callable by `allow`; `more` is added as it is.
    pub fn serve(
        &self,
        service: &str,
        app: SocketAddr,
        protocol: &str,
        allow: &[&str],
        more: &str,
    ) {
        let text = format!(
            "[[service]]\nname = \"{service}\"\naddress = \"{}\"\nport = {}\nprotocol = \"{protocol}\"\n\
             allow = {allow:?}\n{more}\n",
            app.ip(),
            app.port(),
        );
        self.write(&format!("{service}.toml"), &text);
    }

    /// Puts the node into a zone. Before its agent starts.
    pub fn in_zone(&self, zone: &str) {
        let file = self.directory.join("starling.toml");
        let text = fs::read_to_string(&file).expect("it was written before");
        fs::write(file, format!("zone = \"{zone}\"\n{text}")).expect("a file can be written");
    }

    /// Declares an upstream and returns the address where local apps call it.
    pub fn call(&self, service: &str, caller: &str) -> SocketAddr {
        self.call_as_told(service, caller, "")
    }

    /// The same; `more` is added as it is.
    pub fn call_as_told(&self, service: &str, caller: &str, more: &str) -> SocketAddr {
        let listen = self.host.free_tcp();
        let text = format!(
            "[[upstream]]\nservice = \"{service}\"\nlisten = \"{listen}\"\nas = \"{caller}\"\n{more}\n"
        );
        self.write(&format!("call-{service}-as-{caller}.toml"), &text);
        listen
    }

    /// Writes a file of `services.d`.
    pub fn write(&self, file: &str, text: &str) {
        // Whole or not at all: the agent watches the directory.
        let (path, new) = (self.service_file(file), self.directory.join("new"));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, path))
            .expect("a file can be written");
    }

    pub fn remove(&self, file: &str) {
        fs::remove_file(self.service_file(file)).expect("it was written before");
    }

    fn service_file(&self, file: &str) -> PathBuf {
        self.directory.join("services.d").join(file)
    }

    fn other_build(&self) -> PathBuf {
        self.directory.join("starling")
    }

    /// Has this agent be of another build from its next start on: a program of another size, which does the same.
    pub fn use_other_build(&self) {
        let other = self.other_build();
        fs::copy(program::agent(), &other).expect("there is room");
        let file = fs::OpenOptions::new().append(true).open(&other);
        let mut file = file.expect("it is there");
        file.write_all(b"\n").expect("there is room");
    }

    /// Has this agent be of a version that does not know the key `key` of the files that it reads: a copy of the program in which
    /// that word is another.
    pub fn use_version_without(&self, key: &str) {
        let other = key.replacen(|letter: char| letter.is_ascii_lowercase(), "0", 1);
        fs::copy(program::agent(), self.other_build()).expect("there is room");
        let mut sed = Command::new("sed");
        sed.env("LC_ALL", "C").arg("-i");
        sed.arg(format!("s/{key}/{other}/g"))
            .arg(self.other_build());
        run(sed);
    }

    /// Has this agent be the usual one again.
    pub fn use_usual_build(&self) {
        fs::remove_file(self.other_build()).expect("it was another");
    }

    /// Has this agent keep its documents on a small disk, from its next start on.
    pub fn use_small_disk(&self) -> Disk {
        let disk = Disk::over(&self.state().join("documents"));
        disk::write_wrapper(&self.other_build(), &disk.enter(), &program::agent());
        disk
    }

    /// Starts the agent.
    #[track_caller]
    pub fn start(&self) {
        self.start_with(&[]);
    }

    /// The same, with more in its environment.
    #[track_caller]
    pub fn start_with(&self, environment: &[(&str, &str)]) {
        let mut process = self.process();
        assert!(process.is_none(), "{} runs already", self.name());
        let other = self.other_build();
        let program = if other.is_file() {
            other
        } else {
            program::agent()
        };
        let mut command = self.host.command(program);
        command
            .envs(environment.iter().copied())
            .args(["agent", "--config"])
            .arg(&self.directory)
            .env("RUST_BACKTRACE", "1");
        *process = Some(Process::spawn(
            self.name(),
            command,
            &self.directory.join("agent.log"),
        ));
    }

    #[track_caller]
    pub fn wait_ready(&self) {
        wait_until(START, &format!("{} to be ready", self.name()), || {
            self.with_process(Process::check);
            self.admin("/readyz")
                .is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Asks the agent to end, as systemd would, and expects it to do so well.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::TERM);
        let mut process = self.process().take().expect("it runs");
        let status = process.wait(STOP);
        assert!(
            status.success(),
            "{}: {status}\n{}",
            self.name(),
            process.log()
        );
    }

    /// `kill -9`.
    pub fn kill(&self) {
        drop(self.process().take());
    }

    pub fn signal(&self, signal: Signal) {
        self.with_process(|process| process.signal(signal));
    }

    pub fn is_running(&self) -> bool {
        self.process().as_mut().is_some_and(Process::is_running)
    }

    /// What the agent has written, over all its lives.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default()
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.with_process(|process| process.pid())
    }

    pub fn resident_bytes(&self) -> u64 {
        self.with_process(|process| process.resident_bytes())
    }

    /// Where the agent's loopback HTTP listener is.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Asks the agent's loopback HTTP listener.
    pub fn admin(&self, path: &str) -> std::io::Result<Answer> {
        self.host.run(|| http::get(self.admin, path))
    }

    pub fn metrics(&self) -> Metrics {
        let answer = self.admin("/metrics").expect("the agent answers");
        assert_eq!(answer.status, 200);
        Metrics::parse(&answer.text())
    }

    /// What a command such as `starling status --json` prints; none while the agent does not answer.
    pub fn ask(&self, command: &str) -> Option<Value> {
        serde_json::from_str(&self.show(command, &["--json"])?).ok()
    }

    /// The same as people see it.
    pub fn show(&self, command: &str, options: &[&str]) -> Option<String> {
        let (code, printed) = self.answer(command, options);
        (code == Some(0)).then_some(printed)
    }

    /// The exit code of a command, and what it prints.
    pub fn answer(&self, command: &str, options: &[&str]) -> (Option<i32>, String) {
        let mut asked = leashed(program::agent());
        asked
            .arg(command)
            .args(options)
            .arg("--socket")
            .arg(self.socket());
        let output = asked.output().expect("the agent's program runs");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), printed)
    }

    /// Runs a command such as `starling nodes --watch`, with what it prints in the file `log`.
    pub fn watch(&self, command: &str, log: &Path) -> Process {
        let mut watching = leashed(program::agent());
        watching.args([command, "--watch", "--socket"]);
        watching.arg(self.socket());
        Process::spawn(command, watching, log)
    }

    /// Runs a command such as `starling apply` against this agent.
    pub fn operate(&self, arguments: &[&str]) -> Output {
        let mut command = leashed(program::agent());
        command.args(arguments).arg("--socket").arg(self.socket());
        command.output().expect("the agent's program runs")
    }

    /// The same; what it prints, after it succeeded.
    #[track_caller]
    pub fn must(&self, arguments: &[&str]) -> String {
        let output = self.operate(arguments);
        let (out, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{arguments:?}: {out}{error}");
        out.into_owned()
    }

    /// What became of a document here: its newest revision, its state, and the revision in force.
    pub fn document(&self, key: &str) -> Option<(u64, String, Option<u64>)> {
        let all = self.ask("get")?;
        let (kind, name) = key.split_once('/')?;
        let mut documents = all.as_array()?.iter();
        let found = documents.find(|one| one["kind"] == kind && one["name"] == name)?;
        Some((
            found["revision"].as_u64()?,
            found["state"].as_str()?.to_owned(),
            found["in_force"].as_u64(),
        ))
    }

    /// The hash of a document's newest revision.
    pub fn newest_hash(&self, key: &str) -> String {
        let history = self.must(&["history", key, "--json"]);
        let history: Value = serde_json::from_str(&history).expect("it is JSON");
        let hash = history["revisions"][0]["hash"].as_str();
        hash.expect("a hash").to_owned()
    }

    /// Has this agent, which is down, remember that a process ended while it read the policy with this hash, which is about
    /// `service`. No text is known that does end one.
    pub fn hold_back(&self, hash: &str, service: &str) {
        let file = self.state().join("documents/clearance");
        let text = fs::read_to_string(&file).expect("it is kept");
        let build = text.lines().next();
        let build = build.and_then(|line| line.strip_prefix("build "));
        let build = build.expect("it begins with the build");
        let cleared = format!("cleared {hash}");
        assert!(text.contains(&cleared), "{text}");
        let held = format!("held {hash} {build} SIGSEGV ={service}");
        fs::write(&file, text.replace(&cleared, &held)).expect("it can be written");
    }

    /// The instances of `service` as this agent knows them.
    pub fn instances(&self, service: &str) -> Vec<Instance> {
        let all = self.ask("services").unwrap_or_default();
        let list = all
            .as_array()
            .into_iter()
            .flatten()
            .find(|entry| entry["service"] == service);
        let instances = list
            .and_then(|entry| entry["instances"].as_array())
            .into_iter()
            .flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        instances
            .map(|instance| Instance {
                node: text(&instance["node"]),
                healthy: instance["healthy"] == true,
                liveness: text(&instance["liveness"]),
            })
            .collect()
    }

    /// Nodes with a healthy instance, in order.
    pub fn healthy(&self, service: &str) -> Vec<String> {
        let healthy = self
            .instances(service)
            .into_iter()
            .filter(|instance| instance.healthy);
        let mut nodes: Vec<_> = healthy.map(|instance| instance.node).collect();
        nodes.sort();
        nodes
    }

    /// `alive`, `suspect` or `dead`; none for a node this agent does not know.
    pub fn liveness(&self, node: &str) -> Option<String> {
        let nodes = self.ask("nodes")?;
        let found = nodes
            .as_array()?
            .iter()
            .find(|entry| entry["node"] == node)?;
        Some(found["liveness"].as_str()?.to_owned())
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn with_process<T>(&self, work: impl FnOnce(&mut Process) -> T) -> T {
        let mut process = self.process();
        work(
            process
                .as_mut()
                .unwrap_or_else(|| panic!("{} does not run", self.name())),
        )
    }
}

/// An agent is up in a fraction of a second; two cores may be busy with something else.
const START: Duration = Duration::from_secs(20);
/// The grace of an agent is 30 s unless its TOML says otherwise.
const STOP: Duration = Duration::from_secs(40);
