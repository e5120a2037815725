//! Keeps chitchat running, one run per life, and tells it our version.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::{Instant, sleep};

use super::{Core, WayOut};
use crate::engine::{Engine, chitchat_id};
use crate::metrics::RESTARTS;

impl Core {
    /// Runs chitchat for ever. When a run ends by itself the next one is another life: with the old one's number, nobody would
    /// believe its heartbeats before they passed the old ones.
    pub(super) async fn supervise(self: Arc<Self>) {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let began = Instant::now();
            let Some(reason) = self.run_engine().await else {
                continue;
            };
            counter!(RESTARTS).increment(1);
            tracing::error!(
                reason,
                "reconciliation ended by itself and is started again"
            );
            self.engine.store(None);
            if began.elapsed() > RESTART_PAUSE_MAX {
                pause = RESTART_PAUSE_MIN;
            }
            sleep(pause).await;
            pause = (2 * pause).min(RESTART_PAUSE_MAX);
            if let Err(error) = self.outrank(0) {
                tracing::error!(%error, "a new life could not be announced");
            }
        }
    }

    /// One run of chitchat. `None` if it ended because another life began.
    async fn run_engine(self: &Arc<Self>) -> Option<String> {
        let (id, _) = self.own_version()?;
        let way_out = Arc::new(WayOut(Arc::downgrade(self)));
        let started = Engine::start(
            id,
            self.settings.interval,
            self.settings.dead_grace,
            way_out,
        )
        .await;
        let engine = match started {
            Ok(engine) => Arc::new(engine),
            Err(error) => return Some(error.to_string()),
        };
        self.engine.store(Some(engine.clone()));
        let mut ended = std::pin::pin!(engine.ended());
        loop {
            let (id, version) = self.own_version()?;
            if id != *engine.id() {
                return None;
            }
            engine.announce(version).await;
            tokio::select! {
                () = self.own_changed.notified() => {}
                end = &mut ended => {
                    return Some(end.err().map_or_else(|| "no reason given".into(), |error| error.to_string()));
                }
            }
        }
    }

    /// Our present life and its version.
    fn own_version(&self) -> Option<(chitchat::ChitchatId, u64)> {
        let table = self.registry.table();
        let manifest = &table.entries.get(&self.registry.own)?.manifest;
        let id = chitchat_id(manifest.node, manifest.generation, manifest.gossip_addr());
        Some((id, manifest.kv_version))
    }
}

const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);
