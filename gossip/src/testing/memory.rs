//! A network in memory, with faults drawn from a seed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::{Authority, Network, Port};
use crate::carrier::{FRAME_BYTES_MAX, QUESTION_BYTES_MAX};
use crate::{Answer, Carrier, CarrierError, Clock, Inbound, NodeName, Signer};

/// A network in memory. Cheap to clone; clones are the same network.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Who issues its certificates.
    pub authority: Authority,
    inner: Arc<Mutex<Inner>>,
    began: Instant,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// The share of frames, questions and answers that are lost.
    pub loss: f64,
    /// The shortest way there.
    pub latency_min: Duration,
    /// The longest.
    pub latency_max: Duration,
}

#[derive(Debug)]
struct Inner {
    random: fastrand::Rng,
    faults: Faults,
    ports: HashMap<SocketAddr, Open>,
    addrs: BTreeMap<NodeName, SocketAddr>,
    /// Which side of a partition an address is on.
    sides: HashMap<SocketAddr, u8>,
    /// Where sending never ends.
    stalled: HashSet<SocketAddr>,
    frames: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Open {
    life: u64,
    sender: mpsc::Sender<Inbound>,
}

impl Memory {
    /// A good network: 0.5 to 1 ms, no loss.
    pub fn new(seed: u64) -> Self {
        let faults = Faults {
            loss: 0.0,
            latency_min: Duration::from_micros(500),
            latency_max: Duration::from_millis(1),
        };
        Self {
            authority: Authority::new("example.org"),
            inner: Arc::new(Mutex::new(Inner {
                random: fastrand::Rng::with_seed(seed),
                faults,
                ports: HashMap::new(),
                addrs: BTreeMap::new(),
                sides: HashMap::new(),
                stalled: HashSet::new(),
                frames: 0,
                bytes: 0,
            })),
            began: Instant::now(),
        }
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> Faults {
        self.inner().faults
    }

    /// Puts these nodes on a side of their own; nothing passes between sides.
    pub fn part<'a>(&self, side: u8, nodes: impl IntoIterator<Item = &'a str>) {
        let mut inner = self.inner();
        for node in nodes {
            let addr = inner.addrs[node];
            inner.sides.insert(addr, side);
        }
    }

    /// Ends all partitions.
    pub fn heal(&self) {
        self.inner().sides.clear();
    }

    /// Has everything sent to a node hang, as when its connection stands still.
    pub fn stall(&self, node: &str) {
        let mut inner = self.inner();
        let addr = inner.addrs[node];
        inner.stalled.insert(addr);
    }

    /// Takes a node off the network without a word, as when its machine loses power.
    pub fn unplug(&self, node: &str) {
        let mut inner = self.inner();
        let addr = inner.addrs[node];
        inner.ports.remove(&addr);
    }

    /// Frames and bytes sent so far, questions and answers included.
    pub fn traffic(&self) -> (u64, u64) {
        let inner = self.inner();
        (inner.frames, inner.bytes)
    }

    /// A clock that goes with tokio's, set `offset_ms` ahead, which may change.
    pub fn clock_with(&self, offset_ms: Arc<AtomicI64>) -> Clock {
        let began = self.began;
        Clock::from_fn(move || {
            let elapsed = i64::try_from(began.elapsed().as_millis()).unwrap();
            (EPOCH_MS + elapsed + offset_ms.load(Ordering::Relaxed))
                .try_into()
                .unwrap()
        })
    }

    /// A port with any identity, at the address of `name`.
    pub fn port_as(&self, name: &str, svid: Arc<super::Svid>) -> Port {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        let name = NodeName::parse(name).unwrap();
        let mut inner = self.inner();
        let next = inner.addrs.len() + 1;
        let [_, _, high, low] = u32::try_from(next).unwrap().to_be_bytes();
        let addr = *inner
            .addrs
            .entry(name.clone())
            .or_insert_with(|| SocketAddr::from(([10, 0, high, low], 7400)));
        let life = inner.random.u64(..);
        inner.ports.insert(addr, Open { life, sender });
        drop(inner);
        let carrier = MemoryCarrier {
            network: self.clone(),
            identity: svid.identity.clone(),
            addr,
            life,
            receiver: tokio::sync::Mutex::new(receiver),
        };
        Port {
            name,
            addr,
            carrier: Arc::new(carrier),
            signer: svid,
            verifier: Arc::new(self.authority.clone()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Lets one packet travel; says whether it arrives.
    async fn travel(&self, from: SocketAddr, to: SocketAddr, bytes: usize) -> bool {
        let (lost, latency) = {
            let mut inner = self.inner();
            inner.frames += 1;
            inner.bytes += bytes as u64;
            let Faults {
                loss,
                latency_min,
                latency_max,
            } = inner.faults;
            let share = inner.random.f64();
            let latency = latency_min + (latency_max - latency_min).mul_f64(share);
            (inner.random.f64() < loss, latency)
        };
        sleep(latency).await;
        if self.inner().stalled.contains(&to) {
            return pending().await;
        }
        let inner = self.inner();
        !lost && inner.sides.get(&from) == inner.sides.get(&to)
    }

    fn hand_over(&self, to: SocketAddr, inbound: Inbound) -> bool {
        let inner = self.inner();
        inner
            .ports
            .get(&to)
            .is_some_and(|open| open.sender.try_send(inbound).is_ok())
    }
}

#[async_trait]
impl Network for Memory {
    fn trust_domain(&self) -> &str {
        self.authority.trust_domain()
    }

    async fn port(&self, name: &str) -> Port {
        self.port_as(name, Arc::new(self.authority.node(name)))
    }

    fn service(&self, name: &str) -> Arc<dyn Signer> {
        Arc::new(self.authority.service(name))
    }

    fn sign_as_root(&self, message: &[u8]) -> Vec<u8> {
        self.authority.sign_as_root(message)
    }

    fn clock(&self) -> Clock {
        self.clock_with(Arc::default())
    }
}

/// One node's way into the network.
struct MemoryCarrier {
    network: Memory,
    identity: Arc<str>,
    addr: SocketAddr,
    /// Tells this port from an earlier or later one at the same address.
    life: u64,
    receiver: tokio::sync::Mutex<mpsc::Receiver<Inbound>>,
}

impl MemoryCarrier {
    fn plugged_in(&self) -> bool {
        self.network
            .inner()
            .ports
            .get(&self.addr)
            .is_some_and(|open| open.life == self.life)
    }
}

#[async_trait]
impl Carrier for MemoryCarrier {
    async fn send(&self, to: SocketAddr, frame: Bytes) -> Result<(), CarrierError> {
        assert!(
            frame.len() <= FRAME_BYTES_MAX,
            "a frame of {} bytes",
            frame.len()
        );
        if !self.plugged_in() {
            return Err(CarrierError::Unreachable { to, source: None });
        }
        if self.network.travel(self.addr, to, frame.len()).await {
            let inbound = Inbound::Frame {
                peer: self.identity.clone(),
                from: self.addr,
                frame,
            };
            self.network.hand_over(to, inbound);
        }
        Ok(())
    }

    async fn ask(
        &self,
        to: SocketAddr,
        question: Bytes,
        answer_bytes_max: usize,
    ) -> Result<Answer, CarrierError> {
        assert!(
            question.len() <= QUESTION_BYTES_MAX,
            "a question of {} bytes",
            question.len()
        );
        let peer = {
            let inner = self.network.inner();
            let name = inner
                .addrs
                .iter()
                .find(|(_, addr)| **addr == to)
                .map(|(name, _)| name.clone());
            name.map(|name| {
                format!(
                    "spiffe://{}/node/{name}",
                    self.network.authority.trust_domain()
                )
            })
        };
        let (Some(peer), true) = (peer, self.plugged_in()) else {
            return Err(CarrierError::Unreachable { to, source: None });
        };
        let (sender, receiver) = oneshot::channel();
        let inbound = Inbound::Question {
            peer: self.identity.clone(),
            from: self.addr,
            question: question.clone(),
            answer: sender,
        };
        let arrived = self.network.travel(self.addr, to, question.len()).await
            && self.network.hand_over(to, inbound);
        if !arrived {
            // Nothing comes back from where nothing arrives.
            return pending().await;
        }
        let bytes = receiver
            .await
            .map_err(|_closed| CarrierError::Refused(to))?;
        if bytes.len() > answer_bytes_max {
            return Err(CarrierError::AnswerTooLong(to));
        }
        if !self.network.travel(to, self.addr, bytes.len()).await {
            return pending().await;
        }
        Ok(Answer {
            peer: peer.into(),
            bytes,
        })
    }

    async fn receive(&self) -> Option<Inbound> {
        self.receiver.lock().await.recv().await
    }
}

/// Some time in 2026.
const EPOCH_MS: i64 = 1_790_000_000_000;

/// What a node has not taken in yet; past it, it is lost.
const INBOX_MAX: usize = 1024;
