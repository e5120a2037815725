//! What the tasks of one membership share, and the tasks.

mod answer;
mod dial;
mod documents;
mod pull;
mod pump;
mod review;
mod spread;
mod supervise;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use metrics::counter;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::dial::Book;
use self::documents::Syncs;
use self::pull::Pulls;
use crate::carrier::{Answer, Carrier};
use crate::catalogue::Catalogue;
use crate::convergence::Convergence;
use crate::documents::Library;
use crate::engine::codec::Message;
use crate::engine::{Engine, Outlet};
use crate::guard::Guard;
use crate::local::{Local, LocalError};
use crate::metrics::{DROPPED, SENT};
use crate::names::NodeId;
use crate::own::{Own, Signed, next_generation};
use crate::registry::Registry;
use crate::rumours::{Rumour, Rumours, hops};
use crate::settings::Settings;
use crate::summary::Summary;
use crate::wire::Question;

/// What the tasks share. Its locks are held for moments and never across an await.
pub(crate) struct Core {
    settings: Settings,
    carrier: Arc<dyn Carrier>,
    pub(crate) registry: Arc<Registry>,
    guard: Guard,
    own: Mutex<Own>,
    own_changed: Notify,
    engine: ArcSwapOption<Engine>,
    rumours: Mutex<Rumours>,
    rumours_due: Notify,
    pulls: Pulls,
    pub(crate) library: Library,
    syncs: Syncs,
    book: Mutex<Book>,
    seeds: Mutex<Vec<SocketAddr>>,
    /// Which version of which life of ours each peer is known to have.
    acks: watch::Sender<BTreeMap<NodeId, (u64, u64)>>,
    convergence: Mutex<Convergence>,
    outgoing: Arc<Semaphore>,
    incoming: Arc<Semaphore>,
    probing: Arc<Semaphore>,
    sending_to: Mutex<BTreeMap<SocketAddr, usize>>,
    outranked_at: Mutex<Option<Instant>>,
    summarized_at: Mutex<Option<Instant>>,
    catalogue: ArcSwap<Catalogue>,
    changes: watch::Sender<u64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Core {
    pub(crate) fn new(
        settings: Settings,
        carrier: Arc<dyn Carrier>,
        own: Own,
        registry: Arc<Registry>,
        library: Library,
    ) -> Self {
        let guard = Guard::new(
            &settings.trust_domain,
            registry.clone(),
            settings.clock.clone(),
        );
        let catalogue = ArcSwap::from_pointee(Catalogue::empty(own.local.node.clone()));
        Self {
            carrier,
            guard,
            own: Mutex::new(own),
            own_changed: Notify::new(),
            engine: ArcSwapOption::empty(),
            rumours: Mutex::new(Rumours::new(Instant::now())),
            rumours_due: Notify::new(),
            pulls: Pulls::default(),
            library,
            syncs: Syncs::default(),
            book: Mutex::new(Book::open(&settings, &registry)),
            seeds: Mutex::new(dial::literal_seeds(&settings).collect()),
            acks: watch::Sender::default(),
            convergence: Mutex::default(),
            outgoing: Arc::new(Semaphore::new(SENDS_MAX)),
            incoming: Arc::new(Semaphore::new(ANSWERS_MAX)),
            probing: Arc::new(Semaphore::new(PROBES_MAX)),
            sending_to: Mutex::default(),
            outranked_at: Mutex::default(),
            summarized_at: Mutex::default(),
            catalogue,
            changes: watch::Sender::new(0),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            settings,
            registry,
        }
    }

    /// Starts all tasks. They end with [`Core::stop`].
    pub(crate) fn start(self: &Arc<Self>) {
        self.rebuild();
        self.spawn(self.clone().supervise());
        self.spawn(self.clone().pump());
        self.spawn(self.clone().spread());
        self.spawn(self.clone().keep_reviewing());
        self.spawn(self.clone().keep_building());
        self.spawn(self.clone().keep_announcing());
        self.spawn(self.clone().keep_documents());
        self.spawn(self.clone().resolve_seeds());
        self.spawn(self.clone().dial());
        self.spawn(self.clone().keep_book());
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
    }

    /// Ends all tasks without waiting for them.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
    }

    /// Waits until all tasks have ended.
    pub(crate) async fn stopped(&self) {
        self.tasks.wait().await;
        self.engine.store(None);
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn acks(&self) -> watch::Receiver<BTreeMap<NodeId, (u64, u64)>> {
        self.acks.subscribe()
    }

    /// Which life and version of ours is the newest.
    pub(crate) fn newest(&self) -> Option<(u64, u64)> {
        let table = self.registry.table();
        let manifest = &table.entries.get(&self.registry.own)?.manifest;
        Some((manifest.generation, manifest.kv_version))
    }

    /// Ends chitchat as a panic in it would.
    #[cfg(test)]
    pub(crate) fn abort_engine(&self) {
        self.engine.load().as_ref().expect("it runs").abort();
    }

    /// What we announce now.
    pub(crate) fn local(&self) -> Local {
        self.own().local.clone()
    }

    /// Announces `local`: signs it, puts it into the table, and has it told.
    pub(crate) fn announce(&self, local: Local) -> Result<(), LocalError> {
        let mut own = self.own();
        let moved = own.local.addrs.first() != local.addrs.first();
        if moved {
            // chitchat knows a life by its address, so another address is another life.
            let generation = self
                .next_generation(own.generation + 1)
                .map_err(LocalError::Generation)?;
            own.new_life(generation);
        }
        self.sign(&mut own, local)
    }

    /// Takes in how our calls go, to be told by reconciliation alone, and not more often than [`SUMMARY_PAUSE`]: nobody has to
    /// hear of it at once, and a rumour a minute from each of 256 nodes would be most of the traffic.
    pub(crate) fn summarize(&self, summary: Summary) -> Result<(), LocalError> {
        let mut own = self.own();
        own.summary = summary.tidy();
        let now = Instant::now();
        let mut told = self
            .summarized_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| now < told + SUMMARY_PAUSE) {
            return Ok(());
        }
        let (announced, read) = {
            let table = self.registry.table();
            let own = table.entries.get(&self.registry.own);
            let announced = own.and_then(|entry| entry.manifest.summary.clone());
            (announced, table.extras_are_read())
        };
        if announced == own.summary.clone().filter(|_| read) {
            return Ok(());
        }
        *told = Some(now);
        let local = own.local.clone();
        let signed = self.signed(&mut own, local)?;
        self.put(signed);
        Ok(())
    }

    /// Announces how many documents are not in force here, if that is news.
    pub(crate) fn set_documents_out_of_force(&self, count: usize) -> Result<(), LocalError> {
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let mut own = self.own();
        if own.documents_out_of_force == count {
            return Ok(());
        }
        own.documents_out_of_force = count;
        let local = own.local.clone();
        self.sign(&mut own, local)
    }

    /// Announces what is announced already, with the documents held now.
    fn announce_again(&self) -> Result<(), LocalError> {
        let mut own = self.own();
        let local = own.local.clone();
        self.sign(&mut own, local)
    }

    fn sign(&self, own: &mut Own, local: Local) -> Result<(), LocalError> {
        let signed = self.signed(own, local)?;
        self.put(signed);
        let rumour = Rumour {
            node: own.id(),
            hops: hops(self.members_alive()),
            from: None,
        };
        self.tell(rumour, Instant::now());
        Ok(())
    }

    fn signed(&self, own: &mut Own, local: Local) -> Result<Signed, LocalError> {
        own.documents = self.library.documents().digest();
        own.extras_are_read = self.registry.table().extras_are_read();
        own.sign(local)
    }

    /// Begins a life that outranks `generation`.
    fn outrank(&self, generation: u64) -> Result<(), LocalError> {
        let mut own = self.own();
        let at_least = generation.max(own.generation).saturating_add(1);
        let generation = self
            .next_generation(at_least)
            .map_err(LocalError::Generation)?;
        own.new_life(generation);
        let local = own.local.clone();
        self.sign(&mut own, local)
    }

    fn next_generation(&self, at_least: u64) -> std::io::Result<u64> {
        next_generation(
            self.settings.clock.now_ms(),
            at_least,
            self.settings.generation_file.as_deref(),
        )
    }

    /// Puts it into the table, and has chitchat reconcile it.
    fn put(
        &self,
        Signed {
            record,
            manifest,
            vetted,
        }: Signed,
    ) {
        self.registry.set_own(record, manifest, vetted);
        self.own_changed.notify_one();
    }

    /// Has something told at `at`.
    fn tell(&self, rumour: Rumour, at: Instant) {
        self.rumours
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(rumour, at);
        self.rumours_due.notify_one();
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Members believed to be here, ourselves included.
    fn members_alive(&self) -> usize {
        self.registry
            .table()
            .entries
            .values()
            .filter(|entry| entry.here())
            .count()
    }

    /// Where the members believed to be here are reached, ourselves aside.
    pub(crate) fn peers(&self) -> Vec<(NodeId, SocketAddr)> {
        let table = self.registry.table();
        let here = table
            .entries
            .iter()
            .filter(|(node, entry)| **node != self.registry.own && entry.here());
        here.map(|(node, entry)| (*node, entry.manifest.gossip_addr()))
            .collect()
    }

    /// Sends a frame without waiting. Past the bounds, of all frames under way and of those to one address, it is dropped.
    fn send(self: &Arc<Self>, to: SocketAddr, frame: Vec<u8>) {
        let Ok(permit) = self.outgoing.clone().try_acquire_owned() else {
            counter!(DROPPED, "what" => "frame").increment(1);
            return;
        };
        let Some(turn) = Turn::take(self, to) else {
            counter!(DROPPED, "what" => "frame").increment(1);
            return;
        };
        counter!(SENT).increment(frame.len() as u64);
        let core = self.clone();
        self.spawn(async move {
            let sent = timeout(SEND_TIME, core.carrier.send(to, frame.into())).await;
            if let Ok(Err(error)) = sent {
                tracing::debug!(peer.addr = %to, %error, "gossip frame not sent");
            }
            drop((permit, turn));
        });
    }

    /// Puts a question; a carrier's error and silence are the same here.
    async fn ask(
        &self,
        to: SocketAddr,
        question: &Question,
        bytes_max: usize,
        time: Duration,
    ) -> Option<Answer> {
        let question = Bytes::from(question.encode());
        timeout(time, self.carrier.ask(to, question, bytes_max))
            .await
            .ok()?
            .ok()
    }
}

/// The right to send to an address, given back on drop.
struct Turn {
    core: Weak<Core>,
    to: SocketAddr,
}

impl Turn {
    fn take(core: &Arc<Core>, to: SocketAddr) -> Option<Self> {
        let mut sending = core
            .sending_to
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = sending.entry(to).or_default();
        if *count >= SENDS_TO_ONE_MAX {
            return None;
        }
        *count += 1;
        Some(Self {
            core: Arc::downgrade(core),
            to,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else {
            return;
        };
        let mut sending = core
            .sending_to
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sending.get_mut(&self.to) {
            *count -= 1;
            if *count == 0 {
                sending.remove(&self.to);
            }
        }
    }
}

/// The way out for chitchat. Weak, because the core holds chitchat.
struct WayOut(Weak<Core>);

impl Outlet for WayOut {
    fn say(&self, to: SocketAddr, message: Message, reply: Option<u64>) {
        let Some(core) = self.0.upgrade() else { return };
        if let Some(frame) = core.guard.outbound(message, reply) {
            core.send(to, frame);
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("own", &self.registry.own)
            .finish_non_exhaustive()
    }
}

/// Up to `count` of `all`, chosen at random.
fn pick<T: Copy + Ord>(all: &[T], count: usize) -> Vec<T> {
    let mut picked = BTreeSet::new();
    let count = count.min(all.len());
    while picked.len() < count {
        picked.insert(all[fastrand::usize(..all.len())]);
    }
    picked.into_iter().collect()
}

/// Between two announcements that say nothing but how our calls go.
const SUMMARY_PAUSE: Duration = Duration::from_secs(30);

/// Frames on their way at once. Three a second go out, so this many wait only when the network stands still.
const SENDS_MAX: usize = 256;

/// Frames on their way to one address, so that one dead peer does not use up what all share.
const SENDS_TO_ONE_MAX: usize = 8;

/// Questions being answered at once. Past it they are refused, and asked again elsewhere.
const ANSWERS_MAX: usize = 64;

/// Probes under way at once; when half of a cell is gone they take turns.
const PROBES_MAX: usize = 64;

/// How long a frame may take to be sent, a new connection included.
const SEND_TIME: Duration = Duration::from_secs(5);
