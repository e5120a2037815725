//! `starling demo`: a whole mesh on one machine, to look at and to try.
//!
//! Three agents run as they do in production: the same program, real TOML, a real CA, one process each. Only their
//! addresses (127.0.0.1 to 127.0.0.3, free ports) and their directory are made up. Callers never rest, one instance is
//! slow and one caller is denied, so that there is something to find. Needs no rights and leaves nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use crate::admin::view;
use crate::cli::client;

pub(crate) mod app;
mod children;
mod directory;
mod files;
pub(crate) mod leash;
mod logs;
mod plan;
pub(crate) mod traffic;
mod words;

use children::Children;
use directory::Directory;
use logs::Logs;
use plan::Plan;

/// Runs the demo until it is asked to stop. `say` prints to the operator. With `keep`, everything is written there and
/// stays.
pub(crate) async fn run(
    keep: Option<&Path>,
    mut say: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let directory = Directory::open(keep)?;
    let program = std::env::current_exe().context("cannot find out where this program is")?;
    let mut children = Children::new(program.clone(), directory.path().join("logs"));

    let outcome = tokio::select! {
        outcome = show(&directory, &program, &mut children, &mut say) => outcome,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    // A second signal while we wait for the agents to leave means now.
    tokio::select! {
        () = children.stop() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    children.kill().await;
    let last_words = words::ended(&directory);
    drop(directory);
    if outcome.is_ok() {
        say(&last_words)?;
    }
    outcome
}

/// Starts everything, tells what runs, and ends only if something goes wrong.
async fn show(
    directory: &Directory,
    program: &Path,
    children: &mut Children,
    say: &mut impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    say("Starting three agents and their apps ...")?;
    let mut plan = Plan::make(directory.path())?;
    plan.write()?;
    plan.release_ports();
    for app in &plan.apps {
        children.spawn_app(&app.process_name(), &plan.arguments(app))?;
    }
    for node in &plan.nodes {
        children.spawn_agent(node.name, &node.arguments())?;
    }
    tokio::select! {
        ready = ready(&plan) => ready?,
        ended = children.first_end() => return Err(ended.into()),
    }
    for (name, arguments) in plan.traffic() {
        children.spawn_app(name, &arguments)?;
    }
    say(&words::running(&plan, directory, program))?;
    let logs = Logs(directory.path().join("logs"));
    let ended = tokio::select! {
        ended = children.first_end() => ended,
        never = logs.keep_small() => match never {},
    };
    Err(ended.into())
}

/// Waits until every agent is ready, knows every instance, and one call has made it through.
async fn ready(plan: &Plan) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_WAIT;
    loop {
        let Err(not_yet) = is_ready(plan).await else {
            return Ok(());
        };
        ensure!(
            Instant::now() < deadline,
            "the agents are not ready after {START_WAIT:?}: {not_yet:#} (their logs: {})",
            plan.directory.join("logs").display()
        );
        sleep(POLL).await;
    }
}

async fn is_ready(plan: &Plan) -> anyhow::Result<()> {
    for node in &plan.nodes {
        let answer = client::get_tcp(node.admin, "/readyz")
            .await
            .with_context(|| format!("agent {}", node.name))?;
        ensure!(answer.status == 200, "agent {} is not ready", node.name);
        let services: Vec<view::Service> = client::ask_for(&node.socket(), "/v1/services").await?;
        let instances = services.iter().flat_map(|service| &service.instances);
        let known = instances
            .filter(|instance| instance.healthy && instance.liveness == "alive")
            .count();
        ensure!(
            known == plan.apps.len(),
            "agent {} knows {known} of {} instances",
            node.name,
            plan.apps.len()
        );
    }
    for callee in ["hello", "orders"] {
        let address = plan.call("web", callee).listen;
        let answer = client::get_tcp(address, "/").await;
        let status = answer
            .with_context(|| format!("the first call of {callee}"))?
            .status;
        ensure!(
            status == 200,
            "the first call of {callee} was answered with {status}"
        );
    }
    Ok(())
}

/// Three agents on a busy laptop are ready in about two seconds.
const START_WAIT: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
