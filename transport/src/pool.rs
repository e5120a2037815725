//! Connections to callees, shared by all calls between the same two identities at the same node.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::endpoint::{Callee, DialError, Endpoint, now};
use crate::h3::{Limits, Requester};
use crate::identity::SpiffeId;
use crate::session::{Protocol, Session};

/// Hands out HTTP/3 connections: one per (caller, callee, node address), one dial in flight for each. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoint: Endpoint,
    limits: Limits,
    dial_budget: Duration,
    slots: Mutex<HashMap<Key, Arc<Slot>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    caller: SpiffeId,
    callee: SpiffeId,
    addr: SocketAddr,
}

/// One key's connection. Calls read `live` without waiting; who finds none waits for `dialling`.
#[derive(Debug, Default)]
struct Slot {
    live: ArcSwapOption<Live>,
    dialling: AsyncMutex<Backoff>,
}

/// A connection with the moment a call last asked for it.
#[derive(Debug)]
struct Live {
    requester: Requester,
    session: Session,
    identities_revision: u64,
    /// When new calls go to another one, so that those under way here can finish before a certificate ends.
    retires: Instant,
    asked_at: Mutex<Instant>,
}

/// Failures in a row and when the next dial is due.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    due: Option<Instant>,
}

impl Pool {
    /// A pool over `endpoint`. `dial_budget` bounds one dial, over all addresses of a node.
    pub fn new(endpoint: Endpoint, limits: Limits, dial_budget: Duration) -> Self {
        let slots = Mutex::default();
        Self {
            shared: Arc::new(Shared {
                endpoint,
                limits,
                dial_budget,
                slots,
            }),
        }
    }

    /// A connection as `caller` to `callee` at the node with these addresses, dialled if there is none. Addresses are
    /// tried in their order, the next one 250 ms after the last (RFC 8305), and the first that answers wins. Cancel-safe.
    pub async fn get(
        &self,
        caller: &SpiffeId,
        callee: &SpiffeId,
        addrs: &[SocketAddr],
    ) -> Result<Requester, DialError> {
        let addr = *addrs.first().ok_or(DialError::NoAddress)?;
        let key = Key {
            caller: caller.clone(),
            callee: callee.clone(),
            addr,
        };
        let slot = self.slot(&key);
        let revision = self.shared.endpoint.identities_revision();
        if let Some(live) = slot.usable(revision) {
            return Ok(live);
        }
        let mut backoff = slot.dialling.lock().await;
        if let Some(live) = slot.usable(revision) {
            return Ok(live);
        }
        backoff.check(addr)?;
        // Boxed: calls that find a connection, which are nearly all, need no room for a dial.
        match Box::pin(self.dial(&key, addrs)).await {
            Ok(live) => {
                *backoff = Backoff::default();
                let requester = live.requester.clone();
                let live = Arc::new(live);
                slot.live.store(Some(Arc::clone(&live)));
                tokio::spawn(close_when_idle(Arc::downgrade(&slot), live.session.clone()));
                Ok(requester)
            }
            Err(error) => {
                backoff.failed();
                Err(error)
            }
        }
    }

    /// Where its connections are made.
    pub fn endpoint(&self) -> &Endpoint {
        &self.shared.endpoint
    }

    /// Connections held open.
    pub fn len(&self) -> usize {
        let slots = self.slots();
        slots
            .values()
            .filter(|slot| {
                slot.live
                    .load()
                    .as_ref()
                    .is_some_and(|live| live.requester.is_open())
            })
            .count()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    async fn dial(&self, key: &Key, addrs: &[SocketAddr]) -> Result<Live, DialError> {
        let revision = self.shared.endpoint.identities_revision();
        let callee = Callee::Exactly(key.callee.clone());
        let mut dials: FuturesUnordered<_> = (0u32..)
            .zip(addrs.iter().take(ADDRS_MAX))
            .map(|(nth, addr)| {
                let callee = &callee;
                async move {
                    tokio::time::sleep(STAGGER * nth).await;
                    let budget = self.shared.dial_budget;
                    self.shared
                        .endpoint
                        .dial(&key.caller, callee, *addr, Protocol::H3, budget)
                        .await
                }
            })
            .collect();
        let mut failed = DialError::NoAddress;
        while let Some(dialled) = dials.next().await {
            match dialled {
                Ok(session) => return self.start(session, revision).await,
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn start(&self, session: Session, identities_revision: u64) -> Result<Live, DialError> {
        let started = Requester::start(session.quinn().clone(), self.shared.limits.clone());
        let started = tokio::time::timeout(self.shared.dial_budget, started).await;
        let addr = session.peer_addr();
        let (requester, driver) = started
            .map_err(|_elapsed| DialError::TimedOut {
                addr,
                budget: self.shared.dial_budget,
            })?
            .map_err(|source| DialError::Start { addr, source })?;
        tokio::spawn(driver);
        let left = session.ends().duration_since(now()).unwrap_or_default();
        Ok(Live {
            retires: Instant::now() + retire_after(left),
            requester,
            session,
            identities_revision,
            asked_at: Mutex::new(Instant::now()),
        })
    }

    fn slot(&self, key: &Key) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        if slots.len() >= SLOTS_MAX {
            slots.retain(|_, slot| {
                slot.live
                    .load()
                    .as_ref()
                    .is_some_and(|live| live.requester.is_open())
            });
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Slot>>> {
        self.shared
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// The connection, if it is open, was made with the identities in force, and neither certificate ends soon. Another
    /// one finishes what it carries and is then dropped.
    fn usable(&self, revision: u64) -> Option<Requester> {
        let live = self.live.load();
        let live = live
            .as_ref()
            .filter(|live| live.requester.is_open() && live.identities_revision == revision)
            .filter(|live| Instant::now() < live.retires)?;
        live.touch();
        Some(live.requester.clone())
    }
}

impl Live {
    fn touch(&self) {
        *self.asked_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn unused_for(&self) -> Duration {
        if self.requester.in_flight() > 0 {
            return Duration::ZERO;
        }
        self.asked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }
}

impl Backoff {
    fn check(&self, addr: SocketAddr) -> Result<(), DialError> {
        let wait = self
            .due
            .map(|due| due.saturating_duration_since(Instant::now()))
            .unwrap_or_default();
        if wait.is_zero() {
            Ok(())
        } else {
            Err(DialError::BackingOff {
                addr,
                failures: self.failures,
                wait,
            })
        }
    }

    /// 100 ms, doubled up to 5 s, each half fixed and half random, so that callers of a node that comes back spread.
    fn failed(&mut self) {
        let longest = BACKOFF_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(Instant::now() + longest.mul_f64(0.5 + fastrand::f64() / 2.0));
    }
}

/// Half of what is left of the certificates. The next connection shows the peer's newest certificate, which by then is
/// mostly a renewed one; if it is not, the halves bound how often we dial for nothing.
fn retire_after(left: Duration) -> Duration {
    if left < CUT_ANYWAY {
        return left;
    }
    left / 2
}

/// Drops the slot's hold on `session` once nobody asked for it for [`IDLE`] and nothing is in flight, or once it ended.
async fn close_when_idle(slot: std::sync::Weak<Slot>, session: Session) {
    loop {
        tokio::select! {
            () = session.closed() => break,
            () = tokio::time::sleep(IDLE / 4) => {}
        }
        let Some(slot) = slot.upgrade() else { break };
        let held = slot.live.load_full();
        match held.filter(|live| live.session.is_same(&session)) {
            // Another connection took its place: this one ends with its last call.
            None => break,
            Some(live) if live.unused_for() < IDLE => {}
            Some(_) => break slot.live.store(None),
        }
    }
}

/// A connection that carried no call for this long is closed: it costs 100 KiB and a keep-alive every 1.5 s.
const IDLE: Duration = Duration::from_secs(60);

/// Head start of one address before the next is tried (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// A node announces at most this many addresses.
const ADDRS_MAX: usize = 8;

/// Keys remembered; those without a connection are then forgotten.
const SLOTS_MAX: usize = 4096;

/// When a connection has no longer than this, dialling anew gains nothing.
const CUT_ANYWAY: Duration = Duration::from_secs(2);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);
