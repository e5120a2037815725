//! `starling demo`, and the small apps that it starts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{block_on, out};
use crate::demo;

/// Run a whole mesh on this machine and show how to try it
///
/// Three agents and a few small apps, on 127.0.0.x and free ports. Needs no rights; Ctrl-C ends it and nothing is left
/// behind.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Write configuration, keys and logs here and keep them [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// An app of the demo
#[derive(Debug, Args)]
pub(super) struct DemoApp {
    kind: Kind,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    name: String,
    #[arg(long)]
    node: String,
    #[arg(long)]
    parent: i32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Http,
    Echo,
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        block_on(demo::run(self.dir.as_deref(), out::say))?
    }
}

impl DemoApp {
    pub(super) fn run(self) -> anyhow::Result<()> {
        demo::leash::follow(self.parent)?;
        block_on(async {
            match self.kind {
                Kind::Http => demo::app::http(self.listen, &self.name, &self.node).await,
                Kind::Echo => demo::app::echo(self.listen).await,
            }
        })?
    }
}
