//! What `status`, `nodes` and `services` have in common: ask the running agent, print for people or for programs.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{block_on, client, out, pause};
use crate::config::SOCKET;
pub(super) use crate::span::span;

/// Whom to ask, and how to show the answer.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// Print the agent's JSON as it is
    #[arg(long)]
    json: bool,
    /// Print again every two seconds, until interrupted
    #[arg(long)]
    watch: bool,
    /// Admin socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

impl Ask {
    /// Whether to print for programs.
    pub(super) fn wants_json(&self) -> bool {
        self.json
    }

    /// Asks for `path` and prints the answer, rendered unless JSON is wanted.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        path: &str,
        render: fn(&T) -> String,
    ) -> anyhow::Result<()> {
        self.repeat(|| self.print_once(path, render))
    }

    /// Does it once, or again and again. An agent that does not answer may be starting, so that is no end.
    pub(super) fn repeat(&self, once: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        if !self.watch {
            return once();
        }
        loop {
            if io::stdout().is_terminal() {
                out::steer(CLEAR)?;
            }
            match once() {
                Err(error) if error.is::<io::Error>() => return Err(error),
                Err(error) => out::complain(&format!("{error:#}")),
                Ok(()) => {}
            }
            if out::is_closed() {
                return Ok(());
            }
            pause(WATCH_PAUSE)?;
        }
    }

    /// The same once, whatever the command line says of watching.
    pub(super) fn print_once<T: DeserializeOwned>(
        &self,
        path: &str,
        render: fn(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            let json = block_on(client::ask(&self.socket, path))??;
            out::say_json(
                String::from_utf8(json)
                    .context("the agent's answer is not text")?
                    .trim_end(),
            )?;
            return Ok(());
        }
        out::say(&render(&self.answer(path)?))?;
        Ok(())
    }

    /// The same of a part of the answer. JSON is made anew, of what this version knows.
    pub(super) fn print_part<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        keep: impl FnOnce(&mut T),
        render: fn(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut answer: T = self.answer(path)?;
        keep(&mut answer);
        if self.json {
            out::say_json(&serde_json::to_string(&answer)?)?;
        } else {
            out::say(&render(&answer))?;
        }
        Ok(())
    }

    /// The answer as a value.
    pub(super) fn answer<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(block_on(client::ask_for(&self.socket, path))??)
    }
}

/// Home, and nothing below (ECMA-48 CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// Between two looks of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(2);
