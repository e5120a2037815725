//! Tells news, and keeps our own fresh.

use std::sync::Arc;

use tokio::time::{Instant, sleep, sleep_until};

use super::{Core, pick};
use crate::names::NodeId;
use crate::rumours::{FANOUT, Rumour};
use crate::wire::{Blob, Frame};

impl Core {
    /// Tells rumours when they are due.
    pub(super) async fn spread(self: Arc<Self>) {
        loop {
            let next = self
                .rumours
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .next();
            match next {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => self.tell_due(),
                    () = self.rumours_due.notified() => {}
                },
                None => self.rumours_due.notified().await,
            }
        }
    }

    fn tell_due(self: &Arc<Self>) {
        let peers = self.peers();
        let told = FANOUT.min(peers.len().max(1));
        let due = {
            let table = self.registry.table();
            let cost = |node| {
                told * table
                    .entries
                    .get(&node)
                    .map_or(0, |entry| entry.record.len())
            };
            self.rumours
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take(Instant::now(), cost)
        };
        // What travels together goes to the same peers; only rumours with as many hops left travel together.
        for group in due.chunk_by(|a, b| (a.hops, a.from) == (b.hops, b.from)) {
            self.tell_group(group, &peers);
        }
    }

    fn tell_group(self: &Arc<Self>, group: &[Rumour], peers: &[(NodeId, std::net::SocketAddr)]) {
        let records: Vec<Blob> = {
            let table = self.registry.table();
            let entries = group
                .iter()
                .filter_map(|rumour| table.entries.get(&rumour.node));
            entries.map(|entry| Blob(entry.record.to_vec())).collect()
        };
        // Neither whoever told us nor whom it is about needs to hear it.
        let knows = |node: NodeId| {
            group
                .iter()
                .any(|rumour| rumour.from == Some(node) || rumour.node == node)
        };
        let others: Vec<_> = peers
            .iter()
            .copied()
            .filter(|(node, _)| !knows(*node))
            .collect();
        let frame = Frame::Rumour {
            hops: group[0].hops,
            records,
        }
        .encode();
        for (_, addr) in pick(&others, FANOUT) {
            self.send(addr, frame.clone());
        }
    }

    /// Tells one node of ourselves.
    pub(super) fn greet(self: &Arc<Self>, addr: std::net::SocketAddr) {
        let own = self.registry.own;
        let record = self
            .registry
            .table()
            .entries
            .get(&own)
            .map(|entry| Blob(entry.record.to_vec()));
        if let Some(record) = record {
            let hops = crate::rumours::hops(self.members_alive());
            self.send(
                addr,
                Frame::Rumour {
                    hops,
                    records: vec![record],
                }
                .encode(),
            );
        }
    }

    /// Signs our manifest anew long before it is past its time, renewed certificates included.
    pub(super) async fn keep_announcing(self: Arc<Self>) {
        loop {
            sleep(self.settings.ttl.div_f64(3.0 + fastrand::f64() * 0.5)).await;
            if let Err(error) = self.announce_again() {
                tracing::error!(%error, "our own manifest could not be renewed");
            }
        }
    }
}
