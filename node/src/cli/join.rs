//! `starling join`: this host becomes one of a mesh.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::starter::{self, Starter};
use super::{block_on, ca, out};
use crate::enrol;
use crate::state::StateDir;
use crate::token::Token;

/// Make this host a node of the mesh that the token is for
///
/// Keys are made here and never leave this host. A host that is a node already can join again as the same node, for
/// other services or after its certificates have ended.
#[derive(Debug, Args)]
pub(super) struct Join {
    /// What `starling invite` printed; without it, or as `-`, it is read from standard input, where no list of processes shows it
    #[arg(value_name = "TOKEN")]
    token: Option<String>,
    /// Where to keep keys and certificates [default: /var/lib/starling]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    starter: Starter,
}

impl Join {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let text = match self.token {
            Some(token) if token != "-" => token,
            _ => ask()?,
        };
        let token = Token::parse(&text).context("this is no token")?;
        self.starter
            .prepare(self.state.as_deref(), &token.services)?;
        let state = StateDir::create(&starter::state(self.state.as_deref()))?;
        let seeds = block_on(enrol::join(&token, &state))??;
        out::say(&format!(
            "This host is node {} of {}{}.",
            token.node,
            token.trust_domain,
            ca::with(&token.services)
        ))?;
        self.starter.write(&starter::Facts {
            command: "join",
            state: self.state.as_deref(),
            seeds: &seeds,
            lifetime: None,
            services: &token.services,
        })?;
        out::say(&format!(
            "Keys and certificates are in {}. Start its agent: `starling agent`.",
            state.path().display()
        ))?;
        Ok(())
    }
}

/// The token from standard input.
fn ask() -> anyhow::Result<String> {
    if io::stdin().is_terminal() {
        out::complain("Paste the token, and press Enter:");
        let mut line = String::new();
        io::stdin()
            .read_line(&mut line)
            .context("cannot read the token")?;
        return Ok(line);
    }
    let mut text = String::new();
    let read = io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.context("cannot read the token from standard input")?;
    Ok(text)
}

/// More than any token.
const INPUT_BYTES_MAX: u64 = 64 * 1024;
