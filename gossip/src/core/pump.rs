//! Takes in what the carrier receives.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use super::Core;
use crate::carrier::Inbound;
use crate::engine::Delivery;
use crate::guard::Passed;
use crate::metrics::{ACCEPTED, DROPPED, RECEIVED};
use crate::names::NodeId;
use crate::rumours::{JITTER, Rumour};

impl Core {
    /// Receives until the carrier closes.
    pub(super) async fn pump(self: Arc<Self>) {
        while let Some(inbound) = self.carrier.receive().await {
            match inbound {
                Inbound::Frame { peer, from, frame } => {
                    counter!(RECEIVED).increment(frame.len() as u64);
                    match self.guard.inbound(&peer, &frame) {
                        Ok(passed) => self.act(&peer, from, passed),
                        Err(refusal) => refusal.count(1),
                    }
                }
                Inbound::Question {
                    peer,
                    question,
                    answer,
                    ..
                } => {
                    counter!(RECEIVED).increment(question.len() as u64);
                    self.answer(peer, question, answer);
                }
            }
        }
        tracing::info!("the carrier is closed, nothing more is received");
    }

    /// Does what a frame that passed the guard asks for.
    fn act(self: &Arc<Self>, peer: &Arc<str>, from: SocketAddr, passed: Passed) {
        let sender = NodeId::of(peer);
        if let Some(version) = passed.acknowledged {
            self.acknowledged(sender, version);
        }
        if let Some(generation) = passed.outranked {
            self.outranked(generation);
        }
        counter!(ACCEPTED, "way" => "frame").increment(passed.news.len() as u64);
        for (node, hops) in passed.news {
            self.pass_on(node, hops, sender);
        }
        if !passed.wanted.is_empty() {
            self.pull(peer, from, passed.wanted);
        }
        let message = passed
            .message
            .and_then(|(nonce, message)| Some((nonce, message.write()?)));
        if let Some((nonce, message)) = message {
            let engine = self.engine.load();
            let delivered = engine.as_ref().is_some_and(|engine| {
                engine.deliver(Delivery {
                    from,
                    nonce,
                    message,
                })
            });
            if !delivered {
                counter!(DROPPED, "what" => "message").increment(1);
            }
        }
    }

    /// Passes a rumour on, if it has hops left.
    pub(super) fn pass_on(&self, node: NodeId, hops: Option<u8>, sender: NodeId) {
        if let Some(hops) = hops.filter(|hops| *hops > 0) {
            let at = Instant::now() + JITTER.mul_f64(fastrand::f64());
            self.tell(
                Rumour {
                    node,
                    hops,
                    from: Some(sender),
                },
                at,
            );
        }
    }

    fn acknowledged(&self, sender: NodeId, version: u64) {
        // Only nodes we know can be in here, for a stranger's frame says nothing about us that passes.
        let generation = self.own().generation;
        self.acks.send_if_modified(|acks| {
            if acks.len() > self.settings.nodes_max {
                acks.clear();
            }
            acks.insert(sender, (generation, version)) != Some((generation, version))
        });
    }

    /// Somebody holds a record of ours that the present life does not outrank: the state directory was lost while the clock was
    /// behind, or another host runs with our key. The first is mended by another life; the second would go on for ever, so
    /// there is a pause.
    pub(super) fn outranked(&self, generation: u64) {
        let now = Instant::now();
        let mut last = self
            .outranked_at
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|last| now < last + OUTRANK_PAUSE) {
            return;
        }
        *last = Some(now);
        tracing::warn!(
            generation,
            "the mesh knows a newer life of this node; beginning another. If this repeats, two hosts use one identity"
        );
        if let Err(error) = self.outrank(generation) {
            tracing::error!(%error, "a new life could not be announced");
        }
    }
}

/// How often we outrank ourselves at most.
const OUTRANK_PAUSE: Duration = Duration::from_secs(10);
