//! A mesh in one process: real documents, real state directories, real policy and trust; a network in memory and a paused clock.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use http::{Method, Uri};
use starling_gossip::documents::{Receipt, SubmitError};
use starling_gossip::testing::{Authority, Memory, Network, Node, Operator};
use starling_gossip::{DocumentKey, Revision, Settings};
use starling_transport::Svid;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::kinds::{Consumer, Fallback, Layers, Set, consumers};
use super::super::preflight::{End, Ending, Patience, Runner, Text, rehearse};
use super::super::{Keeper, clearance};
use super::columns::{Column, NEW};
use crate::config::Config;
use crate::host::Host;
use crate::policy::{ServiceSet, Subject};
use crate::state::StateDir;
use crate::testing::Ca;

/// Some nodes, and one caller whose call is asked about: `web` on `n9` calls `orders`.
pub(super) struct World {
    pub(super) cast: Arc<Cast>,
    pub(super) network: Memory,
    pub(super) sites: Vec<Site>,
    /// The node that the operator hands the document to.
    pub(super) taker: usize,
    pub(super) caller: Svid,
    pub(super) column: &'static Column,
    /// Whether the document that denies is there at all.
    pub(super) is_taken: bool,
    pub(super) label: String,
    pub(super) dir: tempfile::TempDir,
    /// How far the nodes' clocks are ahead.
    skew_ms: Arc<AtomicI64>,
}

/// Who issues and signs; the same for all worlds of a test.
pub(super) struct Cast {
    pub(super) ca: Ca,
    authority: Authority,
    /// Senior to all others; makes what was there before.
    pub(super) carol: Operator,
    /// Signs what denies.
    pub(super) alice: Operator,
    pub(super) bob: Operator,
    pub(super) thief: Operator,
}

/// A node and its disk.
pub(super) struct Site {
    name: &'static str,
    state: StateDir,
    pub(super) child: Arc<Child>,
    build: Build,
    running: Option<Running>,
    /// Whether the call must not pass here, from now on.
    pub(super) is_denied: bool,
}

struct Running {
    host: Arc<Host>,
    tasks: JoinSet<()>,
}

/// Which version of the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    /// Cannot read texts with the line [`NEW`].
    Old,
    New,
}

/// Reads texts as a child process of the program would.
#[derive(Debug)]
pub(super) struct Child {
    build: Build,
    killed_until: Mutex<Instant>,
}

/// The consumers of an older version.
struct Old(Box<dyn Consumer>);

impl World {
    /// A world with one node, which starts with the documents of `disk`, if there is one.
    pub(super) async fn new(
        cast: &Arc<Cast>,
        column: &'static Column,
        (age, is_taken): (Duration, bool),
        disk: Option<&Self>,
    ) -> Self {
        let mut network = Memory::new(1);
        network.authority = cast.authority.clone();
        let mut world = Self {
            network,
            sites: Vec::new(),
            taker: 0,
            caller: cast.ca.service_on("web", "n9"),
            column,
            is_taken,
            label: format!("{} at {age:?}, taken: {is_taken}", column.name),
            dir: tempfile::tempdir_in(quick_disk()).unwrap(),
            skew_ms: Arc::default(),
            cast: cast.clone(),
        };
        let documents = world.dir.path().join("n1/documents");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&documents)
            .unwrap();
        let disk = disk.map(|disk| disk.dir.path().join("n1/documents"));
        for file in disk
            .into_iter()
            .flat_map(|disk| fs::read_dir(disk).unwrap())
        {
            let file = file.unwrap();
            fs::copy(file.path(), documents.join(file.file_name())).unwrap();
        }
        world.add("n1").await;
        for packet in (column.base)(&world) {
            world.submit(0, &packet).await.unwrap();
        }
        sleep(STEP).await;
        world
    }

    /// Starts one more node, with an empty disk.
    pub(super) async fn add(&mut self, name: &'static str) {
        self.add_denying(name, false).await;
    }

    /// The same; with `is_closed` it has to deny from its first moment, if there is something to deny.
    pub(super) async fn add_denying(&mut self, name: &'static str, is_closed: bool) {
        let state = StateDir::create(&self.dir.path().join(name)).unwrap();
        state.make_directory("documents").unwrap();
        self.sites.push(Site {
            name,
            state,
            child: Child::of(Build::New),
            build: Build::New,
            running: None,
            is_denied: is_closed && self.is_taken,
        });
        self.start(self.sites.len() - 1).await;
    }

    /// Starts a node on what its disk holds, and asks about the call before anything else happens.
    pub(super) async fn start(&mut self, at: usize) {
        let site = &self.sites[at];
        let others = self.sites.iter().filter(|other| other.name != site.name);
        let seeds = others.filter_map(|other| {
            let running = other.running.as_ref()?;
            let catalogue = running.host.membership.catalogue();
            let addr = catalogue.members.get(&running.host.node)?.addrs.first()?;
            Some(addr.to_string())
        });
        let settings = Settings {
            seeds: seeds.collect(),
            documents_dir: Some(site.state.path().join("documents")),
            clock: self.network.clock_with(self.skew_ms.clone()),
            ..Settings::new(self.network.trust_domain())
        };
        let port = self.network.port(site.name).await;
        let Node { membership, .. } = Node::start_at(port, settings);
        let identities = self.cast.ca.identities(site.name, "orders");
        let host = Ca::host(identities, self.config(), membership);
        let (build, mut consumers) = match site.build {
            Build::New => ("new", consumers(&host)),
            Build::Old => ("old", consumers(&host)),
        };
        if site.build == Build::Old {
            let old = consumers.into_iter().map(|one| Box::new(Old(one)) as _);
            consumers = old.collect();
        }
        let child = site.child.clone();
        let keeper = Keeper::start_as(build, &site.state, &host.membership, consumers, child).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run(host.clone()));
        self.sites[at].running = Some(Running { host, tasks });
        self.observe();
    }

    /// Ends a node at once.
    pub(super) async fn kill(&mut self, at: usize) {
        if let Some(mut running) = self.sites[at].running.take() {
            running.tasks.shutdown().await;
            self.network.unplug(self.sites[at].name);
        }
    }

    /// Ends a node in order.
    pub(super) async fn stop(&mut self, at: usize) {
        if let Some(running) = &self.sites[at].running {
            running.host.membership.leave().await;
        }
        self.observe();
        self.kill(at).await;
    }

    /// Another version is installed at the first node.
    pub(super) async fn restart_as(&mut self, build: Build) {
        self.kill(0).await;
        self.sites[0].build = build;
        self.sites[0].child = Child::of(build);
        self.start(0).await;
    }

    /// What a process leaves behind that dies while it writes.
    pub(super) fn leave_half_written(&self, at: usize) {
        let directory = self.sites[at].state.path().join("documents");
        let files = fs::read_dir(&directory).unwrap();
        let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        for name in names {
            let name = name.to_string_lossy();
            let bytes = fs::read(directory.join(&*name)).unwrap_or_default();
            let half = &bytes[..bytes.len() / 2];
            // As gossip calls what it has not written to the end, and as the state directory does.
            for unfinished in ["unfinished".to_owned(), format!(".{name}.0123456789abcdef")] {
                if name != "unfinished" && !name.starts_with('.') {
                    fs::write(directory.join(unfinished), half).unwrap();
                }
            }
        }
    }

    /// What was found of the documents is gone, so that all is checked again.
    pub(super) fn lose_clearances(&self, at: usize) {
        self.sites[at].state.remove(clearance::FILE).unwrap();
    }

    /// From now on nothing can be written to the documents of a node, but in place.
    pub(super) fn fill_disk(&self, at: usize) {
        let directory = self.sites[at].state.path().join("documents");
        fs::create_dir_all(directory.join("unfinished/full")).unwrap();
        let clearances = self.sites[at].state.path().join(clearance::FILE);
        let _ = fs::remove_file(&clearances);
        fs::create_dir_all(clearances.join("full")).unwrap();
    }

    pub(super) fn free_disk(&self, at: usize) {
        let directory = self.sites[at].state.path().join("documents");
        fs::remove_dir_all(directory.join("unfinished")).unwrap();
        fs::remove_dir_all(self.sites[at].state.path().join(clearance::FILE)).unwrap();
    }

    /// Sets the nodes' clocks ahead.
    pub(super) fn skew(&self, ahead: Duration) {
        let ahead = i64::try_from(ahead.as_millis()).unwrap();
        self.skew_ms.store(ahead, Ordering::Relaxed);
    }

    /// Sets the nodes' clocks back.
    pub(super) fn skew_back(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap();
        self.skew_ms.store(-by, Ordering::Relaxed);
    }

    pub(super) fn host(&self, at: usize) -> &Arc<Host> {
        &self.sites[at].running.as_ref().unwrap().host
    }

    pub(super) async fn submit(&self, at: usize, packet: &[u8]) -> Result<Receipt, SubmitError> {
        self.host(at).membership.submit(packet).await
    }

    /// The operator hands over what denies; from then on the call is denied there.
    pub(super) async fn take_newest(&mut self) {
        for packet in (self.column.newest)(self) {
            self.submit(self.taker, &packet).await.unwrap();
        }
        self.sites[self.taker].is_denied = true;
    }

    /// Signed by the root itself.
    pub(super) fn by_root(&self, document: &DocumentKey, body: &str) -> Vec<u8> {
        let document = document.to_string();
        let draft = self.cast.carol.draft(&self.network, &document, 1, body);
        let message = draft.to_sign_as_root(self.network.trust_domain());
        draft.signed_by_root(self.network.sign_as_root(&message))
    }

    /// Waits until another node holds what the first one does.
    pub(super) async fn until_alike(&self, at: usize) {
        let digest = |at: usize| self.host(at).membership.documents().digest();
        let began = Instant::now();
        while digest(0) != digest(at) || self.host(at).membership.catalogue().members.len() < 2 {
            assert!(began.elapsed().as_secs() < 10, "{}", self.label);
            sleep(STEP).await;
        }
        sleep(STEP).await;
    }

    /// Whether the call would pass at a node. One that does not run passes nothing.
    pub(super) fn allows(&self, at: usize) -> bool {
        let Some(Running { host, .. }) = &self.sites[at].running else {
            return false;
        };
        let trust = &host.identities.current().trust;
        let chain = self.caller.chain();
        let Ok(leaf) = trust.verify_der(&chain, SystemTime::now()) else {
            return false;
        };
        let policy = host.policy.current();
        let (method, uri) = (&Method::GET, &Uri::from_static("/"));
        let subject = Subject::Request { method, uri };
        policy
            .entry("orders")
            .unwrap()
            .judge(&leaf.id, subject)
            .allowed
    }

    /// Lets time pass and asks about the call all the while.
    pub(super) async fn watch(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut step = STEP;
        while Instant::now() < end {
            sleep(step.min(end - Instant::now())).await;
            self.observe();
            step = (step * 2).min(Duration::from_secs(1));
        }
    }

    fn observe(&self) {
        for (at, site) in self.sites.iter().enumerate() {
            assert!(
                !(site.is_denied && self.allows(at)),
                "{}: passes at {}",
                self.label,
                site.name
            );
        }
    }

    /// With the document the call is denied at all nodes that run; without it, it passes there.
    pub(super) fn check_end(&self) {
        let running = |at: &usize| self.sites[*at].running.is_some();
        for at in (0..self.sites.len()).filter(running) {
            assert_eq!(self.allows(at), !self.is_taken, "{}: {at}", self.label);
        }
    }

    /// The file of a host that runs `orders`.
    pub(super) fn toml(&self) -> String {
        let allow = match self.column.is_allowed_by_toml {
            true => "allow = [\"web\"]",
            false => "",
        };
        format!("[[service]]\nname = \"orders\"\nport = 1\nprotocol = \"http\"\n{allow}\n")
    }

    fn config(&self) -> Config {
        Config::from_bytes(Path::new("starling.toml"), self.toml().as_bytes()).unwrap()
    }
}

impl Cast {
    pub(super) fn new() -> Arc<Self> {
        let network = Memory::new(1);
        let operator = |name, rank, time: Option<Duration>| {
            Operator::with(&network, name, &KINDS, |grant| {
                grant.rank = rank;
                if let Some(time) = time {
                    grant.not_after = network.clock().now_s() + time.as_secs();
                }
            })
        };
        Arc::new(Self {
            ca: Ca::new(),
            carol: operator("carol", 1, None),
            alice: operator("alice", 2, Some(GRANT_TIME)),
            bob: operator("bob", 3, None),
            thief: operator("thief", 4, None),
            authority: network.authority,
        })
    }
}

impl Child {
    fn of(build: Build) -> Arc<Self> {
        let killed_until = Mutex::new(Instant::now());
        Arc::new(Self {
            build,
            killed_until,
        })
    }

    /// There is no memory for children.
    pub(super) fn kill_for(&self, time: Duration) {
        *self.killed_until.lock().unwrap() = Instant::now() + time;
    }

    fn check(&self, texts: &[Text]) -> Ending {
        let mut ending = Ending::default();
        for (at, text) in texts.iter().enumerate() {
            ending.begun += 1;
            if Instant::now() < *self.killed_until.lock().unwrap() {
                ending.end = End::Stopped("killed".into());
                return ending;
            }
            let read = match self.build.reads(&text.body) {
                true => rehearse(text, |covers| ending.coverages.push((at, covers))),
                false => Err("unknown".to_owned()),
            };
            if let Err(problem) = read {
                ending.problems.push((at, problem));
            }
            ending.done += 1;
        }
        ending
    }
}

impl Runner for Child {
    fn run<'a>(&'a self, texts: &'a [Text], _patience: Patience) -> BoxFuture<'a, Ending> {
        Box::pin(async { self.check(texts) })
    }
}

impl Build {
    fn reads(self, body: &str) -> bool {
        self == Self::New || !body.starts_with(NEW)
    }
}

impl Consumer for Old {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn fallback(&self) -> Fallback {
        self.0.fallback()
    }

    fn check(&self, key: &DocumentKey, body: &str) -> Result<(), String> {
        match Build::Old.reads(body) {
            true => self.0.check(key, body),
            false => Err("unknown".to_owned()),
        }
    }

    fn read(&self, revision: &Revision) -> Result<(), String> {
        match Build::Old.reads(&revision.body) {
            true => self.0.read(revision),
            false => Err("unknown".to_owned()),
        }
    }

    fn coverage(&self, revision: &Revision) -> ServiceSet {
        match Build::Old.reads(&revision.body) {
            true => self.0.coverage(revision),
            false => ServiceSet::All,
        }
    }

    fn take(&self, set: Set<Layers>) {
        self.0.take(set);
    }
}

/// What the operators may sign, and what rooms there are besides those of deletions and of operators' revocations.
pub(super) const KINDS: [&str; 3] = ["policy", "revocation", "route"];

/// How long alice's grant lasts.
pub(super) const GRANT_TIME: Duration = Duration::from_secs(2 * 3600);

/// Far more than a decision takes here, and less than the youngest document's age.
const STEP: Duration = Duration::from_millis(50);

/// In memory where there is such a disk: some thousand files are synced.
fn quick_disk() -> PathBuf {
    let shm = Path::new("/dev/shm");
    match shm.is_dir() {
        true => shm.to_owned(),
        false => std::env::temp_dir(),
    }
}
