//! A member gone bad: it has a valid certificate and says what it likes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{Node, Port};
use crate::documents::{digest, rooms_digest};
use crate::local::State;
use crate::metrics::Refusal;
use crate::names::{NodeId, ServiceName};
use crate::wire::credentials::{Credentials, ServiceProof, hash, proof_bytes};
use crate::wire::document::{Bodies, Listing, Rooms};
use crate::wire::manifest::{Manifest, Record, Service, signed_bytes, trust_domain_hash};
use crate::wire::{Blob, Entry, Frame, Page, Question, Row, Vouched};
use crate::{Inbound, Signer};

/// A member gone bad.
#[derive(Debug)]
pub struct Attacker {
    port: Port,
    trust_domain: String,
    credentials: Vec<u8>,
}

/// A record that was true once.
#[derive(Debug)]
pub struct Captured(Vouched);

/// One forgery: what it is called, what it is counted as, and the frames that carry it.
pub(super) struct Forgery {
    pub(super) name: &'static str,
    pub(super) refusal: Refusal,
    pub(super) frames: Vec<Vec<u8>>,
    /// What it answers when asked to prove it.
    pub(super) page: Page,
}

/// What the attacker knows of its victim's neighbour: the newest it can have seen of it.
pub(super) struct Target {
    pub(super) vouched: Vouched,
    pub(super) manifest: Manifest,
}

impl Attacker {
    /// Turns the node at `port` bad.
    pub fn new(port: Port, trust_domain: &str) -> Self {
        let credentials = Credentials {
            chain: port.signer.chain(),
            services: [].into(),
        }
        .encode();
        Self {
            port,
            trust_domain: trust_domain.into(),
            credentials,
        }
    }

    /// Sends a frame as it is.
    pub async fn send(&self, to: SocketAddr, frame: Vec<u8>) {
        self.port.carrier.send(to, frame.into()).await.unwrap();
    }

    /// Asks like any member and gets what any member gets.
    pub(super) async fn look_up(&self, at: SocketAddr, node: NodeId) -> Target {
        let question = Question::Nodes {
            nodes: vec![node.bytes()],
        };
        let answer = self
            .port
            .carrier
            .ask(at, question.encode().into(), 1 << 20)
            .await
            .unwrap();
        let vouched = Page::decode(&answer.bytes).unwrap().records.remove(0);
        let (_, manifest) = Record::decode(&vouched.record.0).unwrap();
        Target { vouched, manifest }
    }

    /// Keeps what `at` tells of a node.
    pub async fn capture(&self, at: SocketAddr, node: &Node) -> Captured {
        let identity = format!("spiffe://{}/node/{}", self.trust_domain, node.name());
        Captured(self.look_up(at, NodeId::of(&identity)).await.vouched)
    }

    /// Says again what was captured, with its proof if asked for it.
    pub async fn replay(&self, to: SocketAddr, Captured(vouched): &Captured) {
        let records = vec![vouched.record.clone()];
        self.send(to, Frame::Rumour { hops: 5, records }.encode())
            .await;
        let page = Page {
            records: vec![vouched.clone()],
            more: false,
        };
        self.frame(&page, Duration::from_secs(1)).await;
    }

    /// The next frame somebody sends us, answering every question on the way with `page`.
    pub(super) async fn frame(&self, page: &Page, limit: Duration) -> Option<(SocketAddr, Frame)> {
        let next = async {
            loop {
                match self.port.carrier.receive().await? {
                    Inbound::Frame { from, frame, .. } => {
                        return Some((from, Frame::decode(&frame).unwrap()));
                    }
                    Inbound::Question { answer, .. } => {
                        drop(answer.send(Bytes::from(page.encode())))
                    }
                }
            }
        };
        timeout(limit, next).await.ok().flatten()
    }

    /// Says to `to` that it holds `documents`, whatever they are, and hands them out until `limit`.
    pub(crate) async fn offer_documents(
        &self,
        to: SocketAddr,
        now_ms: u64,
        documents: &[(Row, Vec<u8>)],
        limit: Duration,
    ) {
        let mut rows: Vec<Row> = documents.iter().map(|(row, _)| row.clone()).collect();
        rows.sort_by_key(|row| row.hash);
        let room = rows.first().map(|row| row.kind.clone()).unwrap_or_default();
        let held = digest(rows.iter().map(|row| &row.hash)).unwrap_or_default();
        let rooms = Rooms {
            rooms: vec![(room.clone(), held)],
        };
        let manifest = Manifest {
            docs: rooms_digest([(room.as_str(), &held)].into_iter()),
            docs_out_of_force: 0,
            sequence: now_ms,
            kv_version: now_ms,
            ..self.manifest(1, now_ms / 1000)
        };
        let record = Blob(self.sign(&manifest));
        let listing = Listing { rows, more: false };
        let page = Page {
            records: vec![Vouched {
                record: record.clone(),
                credentials: Blob(self.credentials.clone()),
            }],
            more: false,
        };
        let records = vec![record];
        self.send(to, Frame::Rumour { hops: 0, records }.encode())
            .await;
        let serve = async {
            while let Some(inbound) = self.port.carrier.receive().await {
                let Inbound::Question {
                    question, answer, ..
                } = inbound
                else {
                    continue;
                };
                let bytes = match Question::decode(&question).unwrap() {
                    Question::Rooms => rooms.encode(),
                    Question::Listing { .. } => listing.encode(),
                    Question::Bodies { .. } => Bodies {
                        documents: documents
                            .iter()
                            .map(|(_, bytes)| Blob(bytes.clone()))
                            .collect(),
                    }
                    .encode(),
                    _ => page.encode(),
                };
                drop(answer.send(Bytes::from(bytes)));
            }
        };
        let _ = timeout(limit, serve).await;
    }

    /// A manifest of ours, as an honest node would sign it.
    pub(super) fn manifest(&self, generation: u64, issued: u64) -> Manifest {
        Manifest {
            trust_domain: trust_domain_hash(&self.trust_domain),
            node: self.id(),
            generation,
            sequence: 1,
            kv_version: 1,
            issued,
            ttl_s: 900,
            cell: 0,
            state: State::Serving,
            addrs: vec![self.port.addr],
            zone: String::new(),
            caps: 0,
            services: Vec::new(),
            calls: Vec::new(),
            credentials: hash(&self.credentials),
            docs: None,
            docs_out_of_force: 0,
            summary: None,
            later: Vec::new(),
        }
    }

    /// Signs a manifest, of whomever, with our own key.
    pub(super) fn sign(&self, manifest: &Manifest) -> Vec<u8> {
        let bytes = manifest.encode();
        let signature = self
            .port
            .signer
            .sign(&signed_bytes(&self.trust_domain, &bytes))
            .unwrap();
        Record {
            manifest: Blob(bytes),
            signature: Blob(signature),
        }
        .encode()
    }

    /// Claims a service with a proof that another key made.
    pub(super) fn claim(
        &self,
        mut manifest: Manifest,
        service: &str,
        chain: &dyn Signer,
    ) -> Vouched {
        let name = ServiceName::parse(service).unwrap();
        let identity = format!("spiffe://{}/node/{}", self.trust_domain, self.port.name);
        let proof = ServiceProof {
            chain: chain.chain(),
            signature: self
                .port
                .signer
                .sign(&proof_bytes(&identity, &name))
                .unwrap(),
        };
        let credentials = Credentials {
            chain: self.port.signer.chain(),
            services: [(name.clone(), proof)].into(),
        }
        .encode();
        manifest.credentials = hash(&credentials);
        manifest.services = vec![Service {
            name,
            protocol: "http".into(),
            labels: Default::default(),
            weight: 1000,
            healthy: true,
        }];
        Vouched {
            record: Blob(self.sign(&manifest)),
            credentials: Blob(credentials),
        }
    }

    pub(super) fn id(&self) -> NodeId {
        NodeId::of(&format!(
            "spiffe://{}/node/{}",
            self.trust_domain, self.port.name
        ))
    }

    /// Where we are.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr
    }

    /// Who we are.
    pub fn name(&self) -> &crate::NodeName {
        &self.port.name
    }

    /// A heartbeat of another's that it reaches only in half an hour.
    pub(super) fn plausible_heartbeat(&self, target: &Target) -> Vec<u8> {
        let Manifest {
            node,
            generation,
            kv_version,
            ..
        } = target.manifest;
        let entry = Entry {
            node: node.bytes(),
            generation,
            heartbeat: 50_000,
            version: kv_version,
        };
        Frame::Syn {
            nonce: 8,
            digest: vec![entry],
        }
        .encode()
    }

    /// What a member can say that is not true: GOSSIP's measured forgeries and their relatives, in our frames.
    pub(super) fn forgeries(&self, target: &Target, now_ms: u64) -> Vec<Forgery> {
        let real = &target.manifest;
        let ahead = |sequence: u64| Manifest {
            sequence,
            kv_version: sequence,
            services: Vec::new(),
            ..real.clone()
        };
        let rumour = |record: Vec<u8>| {
            Frame::Rumour {
                hops: 5,
                records: vec![Blob(record)],
            }
            .encode()
        };
        let line = |generation, heartbeat, version| Entry {
            node: real.node.bytes(),
            generation,
            heartbeat,
            version,
        };
        let syn = |digest: Vec<Entry>| Frame::Syn { nonce: 7, digest }.encode();
        let invented = |first: u32, count: u32| -> Vec<Entry> {
            let entry = |n: u32| {
                let mut node = [0; 16];
                node[..4].copy_from_slice(&n.to_be_bytes());
                Entry {
                    node,
                    generation: now_ms,
                    heartbeat: 1,
                    version: 1,
                }
            };
            (first..first + count).map(entry).collect()
        };
        let mut long = real.encode();
        long.push(0);
        let under_ours = self.sign(&Manifest {
            credentials: hash(&self.credentials),
            ..ahead(real.sequence + 8)
        });
        let forgery = |name, refusal, frames| Forgery {
            name,
            refusal,
            frames,
            page: Page::default(),
        };
        vec![
            forgery(
                "another's manifest, signed by us",
                Refusal::Signature,
                vec![rumour(self.sign(&ahead(real.sequence + 1000)))],
            ),
            forgery(
                "another's manifest with its newest signature",
                Refusal::Signature,
                vec![rumour(
                    Record {
                        manifest: Blob(ahead(real.sequence + 7).encode()),
                        signature: Record::decode(&target.vouched.record.0)
                            .unwrap()
                            .0
                            .signature,
                    }
                    .encode(),
                )],
            ),
            Forgery {
                page: Page {
                    records: vec![Vouched {
                        record: Blob(under_ours.clone()),
                        credentials: Blob(self.credentials.clone()),
                    }],
                    more: false,
                },
                ..forgery(
                    "another's manifest under our credentials",
                    Refusal::Credentials,
                    vec![rumour(under_ours)],
                )
            },
            forgery(
                "another's departure",
                Refusal::Signature,
                vec![rumour(self.sign(&Manifest {
                    state: State::Left,
                    ..ahead(real.sequence + 9)
                }))],
            ),
            forgery(
                "a version at the end of all versions",
                Refusal::Malformed,
                vec![rumour(self.sign(&ahead(u64::MAX)))],
            ),
            forgery(
                "a heartbeat at the end of all heartbeats",
                Refusal::Inflated,
                vec![syn(vec![line(real.generation, u64::MAX, real.kv_version)])],
            ),
            forgery(
                "a version nobody signed",
                Refusal::Inflated,
                vec![syn(vec![line(real.generation, 1, u64::MAX)])],
            ),
            forgery(
                "a life in the future",
                Refusal::Future,
                vec![syn(vec![line(u64::MAX, 1, 1)])],
            ),
            forgery(
                "a former life",
                Refusal::Stale,
                vec![syn(vec![line(real.generation - 1, 1, 1)])],
            ),
            forgery(
                "invented nodes",
                Refusal::UnknownNode,
                vec![syn(invented(0, 600)), syn(invented(600, 600))],
            ),
            forgery(
                "too many invented nodes",
                Refusal::TooMany,
                vec![syn(invented(0, 1200)), syn(invented(0, 1800))],
            ),
            forgery(
                "an answer nobody asked for",
                Refusal::NoHandshake,
                vec![
                    Frame::SynAck {
                        nonce: 99,
                        digest: vec![],
                        records: vec![],
                    }
                    .encode(),
                    Frame::Ack {
                        nonce: 99,
                        records: vec![target.vouched.record.clone()],
                    }
                    .encode(),
                ],
            ),
            forgery(
                "a record of another mesh",
                Refusal::OtherMesh,
                vec![rumour(self.sign(&Manifest {
                    trust_domain: [0; 16],
                    ..ahead(real.sequence + 1)
                }))],
            ),
            forgery(
                "a record of another cell",
                Refusal::OtherCell,
                vec![rumour(self.sign(&Manifest {
                    cell: 7,
                    ..self.manifest(now_ms, now_ms / 1000)
                }))],
            ),
            forgery(
                "a record with a byte too many",
                Refusal::Malformed,
                vec![rumour(
                    Record {
                        manifest: Blob(long),
                        signature: Blob(vec![0; 64]),
                    }
                    .encode(),
                )],
            ),
            forgery(
                "nonsense",
                Refusal::Malformed,
                vec![vec![1, 9, 9, 9], vec![0x53, 0xB0, 0, 0]],
            ),
            forgery(
                "the real record, tampered with",
                Refusal::Signature,
                vec![{
                    let (mut record, _) = Record::decode(&target.vouched.record.0).unwrap();
                    record.manifest.0 = ahead(real.sequence + 1).encode();
                    rumour(record.encode())
                }],
            ),
        ]
    }
}
