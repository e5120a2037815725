//! `starling leave`: this host stops being part of the mesh.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::client::{self, ClientError};
use super::{block_on, out};
use crate::admin::view;
use crate::ca::{BOOK, INTERMEDIATE_CERT, INTERMEDIATE_KEY, ROOT_KEY};
use crate::config::{SOCKET, STATE};
use crate::invites::DIRECTORY as INVITES;
use crate::state::{NODE_CHAIN, NODE_KEY, RESET_KEY, StateDir, TRUST, service_files};

/// Say goodbye to the mesh and end the agent of this host
///
/// The others learn at once that it is gone on purpose, and calls under way finish first. Its certificates stay good until they
/// end; for a host that must not come back, see `starling revoke`.
#[derive(Debug, Args)]
pub(super) struct Leave {
    /// Also remove the keys and certificates, so that the host can only come back by a new invitation
    #[arg(long)]
    forget: bool,
    /// State directory, for --forget
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Leave {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let state = self
            .forget
            .then(|| StateDir::open(&self.state))
            .transpose()?;
        if let Some(state) = &state {
            check(state)?;
        }
        match block_on(self.say_goodbye(state.as_ref()))? {
            Ok(node) => out::say(&format!("Node {node} has left the mesh."))?,
            // It may have been stopped before.
            Err(error) if self.forget && is_not_running(&error) => {
                out::complain("No agent runs here; nobody is told.");
            }
            Err(error) => return Err(error),
        }
        let Some(state) = state else {
            return Ok(());
        };
        forget(&state)?;
        out::say(&format!(
            "Its keys and certificates are removed from {}.",
            state.path().display()
        ))?;
        Ok(())
    }

    /// Asks the agent to leave and waits until it has ended. Returns its node's name.
    async fn say_goodbye(&self, state: Option<&StateDir>) -> anyhow::Result<String> {
        let status: view::Status = client::ask_for(&self.socket, "/v1/status").await?;
        if let Some(found) = state.map(StateDir::node).transpose()?.flatten() {
            anyhow::ensure!(
                found.as_str() == status.identity,
                "{} holds {found}, but the agent is {}; name its --state",
                self.state.display(),
                status.identity
            );
        }
        let agent = client::pid(&self.socket).await;
        let left: view::Leaving = client::post_for(&self.socket, "/v1/leave", b"").await?;
        let deadline = Instant::now() + Duration::from_secs(left.within_s) + SPARE;
        // The socket goes before the agent does.
        while agent.is_some_and(is_running) || client::ask(&self.socket, "/v1/status").await.is_ok()
        {
            anyhow::ensure!(
                Instant::now() < deadline,
                "the agent was asked to end, but still runs; its log tells more"
            );
            sleep(LOOK).await;
        }
        Ok(status.node)
    }
}

/// Whether a process is there and has not ended; one that has may wait for its parent (proc_pid_stat(5)).
fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    let state = stat
        .rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn is_not_running(error: &anyhow::Error) -> bool {
    let client = error.downcast_ref::<ClientError>();
    client.is_some_and(|error| matches!(error, ClientError::NotRunning { .. }))
}

/// What must not be lost with a host.
fn check(state: &StateDir) -> anyhow::Result<()> {
    anyhow::ensure!(
        !state.exists(ROOT_KEY),
        "{} holds the root key of the mesh: move it to a safe place first, with ca/root.pem",
        state.path().display()
    );
    anyhow::ensure!(
        state.exists(NODE_CHAIN) || state.exists(NODE_KEY),
        "{} is no node's state directory",
        state.path().display()
    );
    Ok(())
}

/// The keys first: whatever stops us, they are gone.
fn forget(state: &StateDir) -> anyhow::Result<()> {
    let services = state
        .services()?
        .into_iter()
        .map(|name| service_files(&name));
    let (chains, keys): (Vec<_>, Vec<_>) = services.unzip();
    let own = [
        NODE_KEY,
        INTERMEDIATE_KEY,
        RESET_KEY,
        NODE_CHAIN,
        INTERMEDIATE_CERT,
        TRUST,
        BOOK,
        "generation",
        "peers.cache",
    ];
    // Or they would be good again if this host became an issuer again.
    let invites = state.list(INVITES).into_iter();
    let invites = invites.map(|name| format!("{INVITES}/{name}"));
    let names = keys.into_iter().chain(own.map(str::to_owned));
    let names = names.chain(chains).chain(invites);
    for name in names {
        state
            .remove(&name)
            .with_context(|| format!("not all of {} is removed", state.path().display()))?;
        state.remove(&format!("{name}.next"))?;
    }
    Ok(())
}

/// Beyond what the agent says that it takes.
const SPARE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use starling_gossip::{NodeName, ServiceName};
    use starling_transport::TrustDomain;

    use super::*;
    use crate::ca::{Authority, LIFETIME};

    #[test]
    fn a_host_forgets_all_that_makes_it_a_node_and_never_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = StateDir::create(&dir.path().join("n1")).unwrap();
        let (domain, n2) = (
            TrustDomain::parse("example.org").unwrap(),
            NodeName::parse("n2").unwrap(),
        );
        let authority = Authority::init(&issuer, &domain, &NodeName::parse("n1").unwrap()).unwrap();
        let state = StateDir::create(&dir.path().join("n2")).unwrap();
        let orders = [ServiceName::parse("orders").unwrap()];
        authority
            .write_bundle(&state, &n2, &orders, LIFETIME)
            .unwrap();
        check(&issuer).unwrap_err();
        check(&state).unwrap();
        state.write("invites/0123", b"{}").unwrap();
        forget(&state).unwrap();
        assert!(state.services().unwrap().is_empty());
        assert!(!state.exists(TRUST) && !state.exists(NODE_KEY) && !state.exists("svc/orders.key"));
        assert!(state.list(INVITES).is_empty());
        check(&state).unwrap_err();
    }
}
