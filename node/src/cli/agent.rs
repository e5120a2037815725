//! `starling agent`: run the agent of this host.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::config::{Config, DIRECTORY};
use crate::state::StateDir;
use crate::{agent, demo, telemetry};

/// Run the agent of this host
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Directory of starling.toml and services.d
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    config: PathBuf,
    /// State directory, whatever the configuration says
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// End with this process, which started us
    #[arg(long, hide = true)]
    parent: Option<i32>,
}

impl Agent {
    /// Everything that can be wrong with files is found here, before the machine is touched.
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(parent) = self.parent {
            demo::leash::follow(parent)?;
        }
        let mut config = Config::load(&self.config)?;
        let state_is_given = self.state.is_some();
        if let Some(state) = self.state {
            config.state = std::path::absolute(state)?;
        }
        let state = StateDir::open(&config.state)?;
        // From here on keys are in memory: no core dumps, and no other process of this user looks in.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .context("cannot protect the memory of this process")?;
        let level = telemetry::log::init(&config.log)?;
        let ended = agent::run(agent::Options {
            directory: self.config,
            config,
            state,
            state_is_given,
            level: level.clone(),
        });
        level.flush();
        ended
    }
}
