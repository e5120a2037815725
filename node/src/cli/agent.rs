//! `starling agent`: run the agent of this host.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::agent::last_config;
use crate::config::{Config, Contents, DIRECTORY};
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
    pub(super) fn run(self) -> anyhow::Result<()> {
        if let Some(parent) = self.parent {
            demo::leash::follow(parent)?;
        }
        let state_is_given = self.state.is_some();
        let given = self.state.as_ref().map(std::path::absolute).transpose()?;
        let (mut config, files) = load(&self.config, given.as_deref())?;
        config.state = given.unwrap_or(config.state);
        let state = StateDir::open(&config.state)?;
        let level = telemetry::log::init(&config.log)?;
        let ended = agent::run(agent::Options {
            directory: self.config,
            config,
            files,
            state,
            state_is_given,
            level: level.clone(),
        });
        level.flush();
        ended
    }
}

/// The configuration of the files, or the last one that could be read, and then why these cannot.
fn load(
    directory: &Path,
    state: Option<&Path>,
) -> anyhow::Result<(Config, Result<Contents, String>)> {
    let problems = match Config::load_with_files(directory) {
        Ok((config, files)) => return Ok((config, Ok(files))),
        Err(problems) => problems,
    };
    let state = state.map_or_else(|| last_config::state_of(directory), Path::to_owned);
    let kept = StateDir::open(&state).ok();
    match kept.and_then(|state| last_config::read(&state)) {
        Some(config) => Ok((config, Err(problems.to_string()))),
        None => Err(problems.into()),
    }
}
