//! Answers what other nodes ask.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use tokio::sync::oneshot;

use super::Core;
use crate::carrier::ANSWER_BYTES_MAX;
use crate::metrics::{DROPPED, Refusal, SENT};
use crate::names::NodeId;
use crate::registry::Wanted;
use crate::wire::{Page, Question};

impl Core {
    /// Answers in a task of its own, as a page takes a while to put together.
    pub(super) fn answer(
        self: &Arc<Self>,
        peer: Arc<str>,
        question: Bytes,
        answer: oneshot::Sender<Bytes>,
    ) {
        let Ok(permit) = self.incoming.clone().try_acquire_owned() else {
            counter!(DROPPED, "what" => "answer").increment(1);
            return;
        };
        let core = self.clone();
        self.spawn(async move {
            match core.answer_to(&peer, &question) {
                Ok(page) => {
                    counter!(SENT).increment(page.len() as u64);
                    // Fails if the asker has gone, which is its own affair.
                    let _ = answer.send(page);
                }
                Err(refusal) => refusal.count(1),
            }
            drop(permit);
        });
    }

    fn answer_to(&self, peer: &Arc<str>, question: &[u8]) -> Result<Bytes, Refusal> {
        let asker = self.guard.admit_peer(peer, question.len())?;
        let page = match Question::decode(question)? {
            Question::Ping => Page::default().encode(),
            Question::All { after } => {
                let after = Wanted::After(after.map(NodeId::from_bytes));
                self.registry.page(&after, ANSWER_BYTES_MAX).encode()
            }
            Question::Nodes { nodes } => {
                let nodes = nodes.into_iter().map(NodeId::from_bytes).collect();
                let nodes = Wanted::Nodes(nodes);
                self.registry.page(&nodes, ANSWER_BYTES_MAX).encode()
            }
            Question::Rooms => self.rooms().encode(),
            Question::Parts => self.parts().encode(),
            Question::Listing { room, part, after } => self.listing(&room, part, after).encode(),
            Question::Bodies { hashes } => self.bodies(&hashes).encode(),
        };
        self.registry.seen(asker);
        self.guard.charge(peer, page.len())?;
        Ok(page.into())
    }
}
