//! The one place that starts things, in order, and stops them in the other order.
//!
//! In: identities and policy, then the mesh port, then listeners for apps, then the announcement that others may call.
//! Out: the announcement that they may no longer, then no new calls, then those under way, then the goodbye.

mod announce;
pub(crate) mod check;
pub(crate) mod explain;
mod follow;
mod invitations;
mod issuers;
mod issuing;
pub mod last_config;
mod lines;
mod listeners;
mod means;
pub(crate) mod policies;
pub(crate) mod readers;
mod remote;
mod source;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use starling_gossip::{Local, Membership, Settings};
use starling_transport::{
    Courier, Endpoint, Identities, Options as EndpointOptions, Pool, Protocol, h3,
};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::view::Absent;
use crate::admin::{self, Door, Socket};
use crate::config::{Config, Contents};
use crate::control::{self, Control};
use crate::documents::{Keeper, kinds, preflight};
use crate::health::Checks;
use crate::host::{Host, Parts};
use crate::inbound;
use crate::memory;
use crate::mesh::{BundleVerifier, KnownLines, QuicCarrier};
use crate::notify::Notifier;
use crate::plaintext;
use crate::renewal::{self, Renewer};
use crate::scrape::Scrape;
use crate::state::StateDir;
use crate::survey::{self, Survey};
use crate::telemetry::access;
use crate::telemetry::log::Level;
use crate::telemetry::{Recorder, metrics};

use announce::Announcer;
use listeners::Listeners;
use means::Kind;
use source::Facts;

/// What the command line found.
#[derive(Debug)]
pub struct Options {
    /// Where the configuration was read, to read it again.
    pub directory: PathBuf,
    /// What it said, or what was kept of it.
    pub config: Config,
    /// The files that say it; none if they cannot be read, and then why.
    pub files: Result<Contents, String>,
    /// The state directory, open and checked.
    pub state: StateDir,
    /// The command line named it, whatever the files say.
    pub state_is_given: bool,
    /// The log filter, to change on reload.
    pub level: Level,
}

/// Runs the agent until it is told to stop (SIGTERM or SIGINT). An error means that it could not start.
pub fn run(options: Options) -> anyhow::Result<()> {
    let runtime = runtime().context("cannot start the runtime")?;
    let ended = runtime.block_on(start_and_serve(options));
    // What still runs here was cut off on purpose.
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// One thread where there are one or two cores: it costs a third less CPU per request than two threads that hand work
/// to each other (docs/performance.md).
fn runtime() -> std::io::Result<Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = if cores <= 2 {
        let mut builder = Builder::new_current_thread();
        builder.max_io_events_per_tick(IO_EVENTS_PER_TICK);
        builder
    } else {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(cores);
        builder
    };
    builder.enable_all().build()
}

async fn start_and_serve(options: Options) -> anyhow::Result<()> {
    let mut stop = StopSignals::new()?;
    let mut agent = Agent::start(options).await?;
    tracing::info!(node = %agent.host.node, "agent started");
    agent
        .notifier
        .ready(&format!("node {} serves", agent.host.node));
    tokio::select! {
        () = stop.next() => {}
        () = agent.facts.leaving.cancelled() => {}
        // None of them ends by itself, so an agent without one is better started afresh than kept half alive.
        ended = agent.background.join_next() => anyhow::bail!("a background task ended: {ended:?}"),
    }
    tracing::info!("stopping");
    agent.notifier.stopping();
    tokio::select! {
        () = agent.stop() => tracing::info!("agent stopped"),
        () = stop.next() => tracing::warn!("stopped at once, as asked for a second time"),
    }
    Ok(())
}

/// Everything that runs.
struct Agent {
    host: Arc<Host>,
    endpoint: Endpoint,
    announcer: Arc<Announcer>,
    facts: Arc<Facts>,
    notifier: Arc<Notifier>,
    /// Tasks that serve no call: they end with `over`.
    background: JoinSet<()>,
    over: CancellationToken,
}

impl Agent {
    async fn start(options: Options) -> anyhow::Result<Self> {
        let Options {
            directory,
            config,
            files,
            state,
            state_is_given,
            level,
        } = options;
        let recorder = Recorder::install()?;
        let (set, faults) = state.identities_beside(None)?;
        let set = renewal::at_start(set, &state, config.issuer.lifetime)?;
        let identities = Identities::new(set);
        let endpoint = bind(&config, &state, &identities)?;
        let advertise = announce::address(&config, endpoint.local_addr()?).await;
        let announcer = Announcer::new(identities.clone(), advertise);
        let node_id = identities.current().node.id().clone();
        let courier = Courier::new(endpoint.clone(), node_id.clone());
        let lines = Arc::<KnownLines>::default();
        let join = |local: Local| -> anyhow::Result<Membership> {
            let verifier = BundleVerifier::noting(identities.clone(), lines.clone());
            Ok(Membership::start(
                settings(&config, &state, &identities)?,
                Arc::new(QuicCarrier(courier.clone())),
                Arc::new(verifier),
                local,
            )?)
        };
        let mut first = announcer.local(&config);
        first.services.truncate(Local::SERVICES_MAX);
        first.calls.truncate(Local::CALLS_MAX);
        let alone = Local {
            services: Vec::new(),
            calls: Vec::new(),
            ..first.clone()
        };
        // What is at fault is found when the means are; until then the node is a member without services.
        let membership = join(first)
            .or_else(|_at_fault| join(alone))
            .context("cannot join the mesh")?;
        let h3 = h3::Limits {
            header_bytes: config.limits.header_bytes as usize,
        };
        let pool = Pool::new(endpoint.clone(), h3.clone(), config.limits.connect);
        let doors = config.admin.clone();
        access::configure(config.log.access);
        let facts = Facts::new(directory.clone(), advertise);
        let host = Host::new(Parts {
            node: node_id.node_name().unwrap_or_default().parse()?,
            identities: identities.clone(),
            config,
            membership,
            lines,
            pool,
            control: Control::new(control::handlers()),
            scrape: Scrape::new(recorder),
        });
        host.traces.configure(&host.config.load().trace);
        facts
            .means
            .set(Kind::Identity, follow::absent_identities(&faults));
        match files {
            Ok(files) => last_config::keep(&state, &files),
            Err(error) => {
                tracing::error!(
                    error,
                    "the configuration cannot be read; the agent runs on the last one that could"
                );
                host.is_config_stale.store(true, Ordering::Relaxed);
                facts.set_error(error);
            }
        }
        // What operators said is in force before anybody is served.
        let consumers = kinds::consumers(&host);
        let checked_by = Arc::new(preflight::Program::itself());
        let keeper = Keeper::start(&state, &host.membership, consumers, checked_by).await;
        let over = CancellationToken::new();
        let mut background = JoinSet::new();
        background.spawn(keeper.clone().run(host.clone()));
        background.spawn(take_sessions(host.clone(), endpoint.clone(), courier, h3));
        background.spawn(host.clone().follow_catalogue());
        background.spawn(host.edges.clone().keep());
        background.spawn(Survey::keep(host.clone()));
        background.spawn(survey::tell(host.clone()));
        background.spawn(memory::give_back(host.clone()));
        background.spawn(level.clone().write_often());
        background.spawn(plaintext::follow(host.clone()));
        let unopened = admin(
            &mut background,
            &host,
            &doors,
            source::View::new(&host, &facts, &keeper),
            &over,
        )
        .await?;
        facts.means.set(Kind::Admin, unopened);
        let notifier = Arc::new(Notifier::from_env());
        let mut checks = Checks::new();
        checks.reconcile(&host.config.load().services);
        background.spawn(follow::health(
            host.clone(),
            announcer.clone(),
            facts.clone(),
            checks.watch(),
        ));
        let renewer = Renewer::new(host.clone(), state.clone());
        let issuing = issuing::Issuing::new(
            host.clone(),
            announcer.clone(),
            state.clone(),
            facts.clone(),
        );
        let mut follower = follow::Follower {
            host: host.clone(),
            announcer: announcer.clone(),
            facts: facts.clone(),
            directory,
            state,
            state_is_given,
            level,
            listeners: Listeners::new(host.clone()),
            checks,
        };
        follower.provide().await;
        background.spawn(follower.run());
        background.spawn(issuing.run());
        background.spawn(renewer.run());
        background.spawn(watchdog(notifier.clone()));
        facts.is_ready.store(true, Ordering::Relaxed);
        metrics::config_loaded();
        Ok(Self {
            host,
            endpoint,
            announcer,
            facts,
            notifier,
            background,
            over,
        })
    }

    /// Stops without losing a call that can be finished within the grace.
    async fn stop(mut self) {
        let config = self.host.config.load_full();
        self.facts.is_ready.store(false, Ordering::Relaxed);
        self.facts.is_draining.store(true, Ordering::Relaxed);
        self.announcer.drain();
        follow::announce(&self.host, &self.announcer, &self.facts);
        tokio::time::sleep(NOTICE).await;
        let grace_ends = Instant::now() + config.limits.drain;
        self.host.drain.cancel();
        self.host.tasks.close();
        if tokio::time::timeout(config.limits.drain, self.host.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(left = self.host.tasks.len(), grace = ?config.limits.drain, "cut off what did not finish");
            self.host.stop.cancel();
            self.host.tasks.wait().await;
        }
        let left = grace_ends.saturating_duration_since(Instant::now());
        self.host
            .traces
            .close(left.clamp(FLUSH_TIME_MIN, FLUSH_TIME_MAX))
            .await;
        self.host.membership.leave().await;
        self.over.cancel();
        self.background.abort_all();
        let _told = tokio::time::timeout(CLOSE_BUDGET, self.endpoint.close()).await;
    }
}

fn bind(
    config: &Config,
    state: &StateDir,
    identities: &Arc<Identities>,
) -> anyhow::Result<Endpoint> {
    let options = EndpointOptions {
        listen: config.listen,
        reset_key: state.reset_key()?,
        streams_per_peer: config.limits.streams_per_peer,
        connections_max: CONNECTIONS_MAX,
    };
    Ok(Endpoint::bind(&options, identities.clone())?)
}

fn settings(
    config: &Config,
    state: &StateDir,
    identities: &Identities,
) -> anyhow::Result<Settings> {
    let set = identities.current();
    state.make_directory("documents")?;
    Ok(Settings {
        seeds: config.seeds.clone(),
        generation_file: Some(state.path().join("generation")),
        peers_file: Some(state.path().join("peers.cache")),
        documents_dir: Some(state.path().join("documents")),
        ..Settings::new(set.trust.trust_domain().as_str())
    })
}

async fn admin(
    background: &mut JoinSet<()>,
    host: &Arc<Host>,
    admin: &crate::config::Admin,
    source: Arc<source::View>,
    over: &CancellationToken,
) -> anyhow::Result<Vec<Absent>> {
    // Another agent of this configuration may run, and without the socket nobody can ask this one.
    let mut doors = vec![Door::Socket(Socket::bind(&admin.socket)?)];
    let mut unopened = Vec::new();
    match tokio::net::TcpListener::bind(admin.listen).await {
        Ok(listener) => doors.push(Door::Http {
            listener,
            dashboard: admin.dashboard,
        }),
        Err(error) => unopened.push(closed(
            "admin.listen",
            &format!("cannot listen on {}: {error}", admin.listen),
        )),
    }
    if let Some(remote) = &admin.remote {
        match remote::open(remote, host).await {
            Ok((door, following)) => {
                doors.push(door);
                if let Some(following) = following {
                    background.spawn(following);
                }
            }
            Err(error) => unopened.push(closed("admin.remote", &format!("{error:#}"))),
        }
    }
    for door in doors {
        background.spawn(admin::serve(door, source.clone(), over.clone()));
    }
    Ok(unopened)
}

/// A door that is opened at the start only.
fn closed(key: &str, why: &str) -> Absent {
    Absent {
        entry: format!("`{key}`"),
        declared: String::new(),
        why: format!("{why}; the agent runs without it until it is started again"),
    }
}

/// Hands each new connection of a peer to what it speaks. Ends with the endpoint.
pub(crate) async fn take_sessions(
    host: Arc<Host>,
    endpoint: Endpoint,
    courier: Courier,
    limits: h3::Limits,
) {
    let mut serving = JoinSet::new();
    while let Some(session) = endpoint.accept().await {
        match session.protocol() {
            Protocol::Gossip => courier.adopt(session),
            Protocol::H3 => {
                drop(serving.spawn(inbound::serve(host.clone(), session, limits.clone())))
            }
        }
        while serving.try_join_next().is_some() {}
    }
}

/// Tells the service manager that this thread still turns.
async fn watchdog(notifier: Arc<Notifier>) {
    let Some(every) = notifier.watchdog_every() else {
        return std::future::pending().await;
    };
    let mut every = tokio::time::interval(every);
    loop {
        every.tick().await;
        notifier.watchdog();
    }
}

/// SIGTERM or SIGINT.
struct StopSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// With tokio's 1,024 one thread hands on all requests that wait in one go, and two agents take turns instead of working
/// at the same time: with 8, 16 connections get a third more requests through and 64 a tenth, for the same CPU each.
/// Tunnels lose up to a tenth of small requests and gain as much in bulk.
const IO_EVENTS_PER_TICK: usize = 8;

/// Connections of other agents held open: one per pair of services and node is typical, at about 100 KiB each.
const CONNECTIONS_MAX: usize = 4096;

/// How long others get to hear that we drain before we refuse anything: a rumour takes some 100 ms to go round a cell.
const NOTICE: Duration = Duration::from_millis(300);

/// How long the last spans may take to a collector: of the grace what is left, but so much that a collector that is well
/// gets them, and no more than one that is not deserves.
const FLUSH_TIME_MIN: Duration = Duration::from_millis(500);
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);

/// How long the peers get to acknowledge that we close.
const CLOSE_BUDGET: Duration = Duration::from_secs(1);
