//! `starling demo`, and the small apps that it starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{block_on, out};
use crate::demo::{self, app, traffic};

/// Run a whole mesh on this machine and show how to try it
///
/// Three agents, a few small apps and steady traffic between them, on 127.0.0.x and free ports. Needs no rights; Ctrl-C
/// ends it and nothing is left behind.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Write configuration, keys and logs here and keep them [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// An app of the demo
#[derive(Debug, Args)]
pub(super) struct DemoApp {
    #[command(subcommand)]
    kind: Kind,
    #[arg(long, global = true, default_value_t = 0)]
    parent: i32,
}

#[derive(Debug, Subcommand)]
enum Kind {
    Http {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        name: String,
        #[arg(long)]
        node: String,
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
        #[arg(long)]
        calls: Option<SocketAddr>,
    },
    Echo {
        #[arg(long)]
        listen: SocketAddr,
    },
    Traffic {
        #[arg(long)]
        every_ms: u64,
        /// `ADDRESS/PATH`
        #[arg(long)]
        http: Vec<String>,
        #[arg(long)]
        echo: Vec<SocketAddr>,
    },
}

impl Demo {
    pub(super) fn run(self) -> anyhow::Result<()> {
        block_on(demo::run(self.dir.as_deref(), out::say))?
    }
}

impl DemoApp {
    pub(super) fn run(self) -> anyhow::Result<()> {
        demo::leash::follow(self.parent)?;
        block_on(self.kind.run())?
    }
}

impl Kind {
    async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Http {
                listen,
                name,
                node,
                delay_ms,
                calls,
            } => {
                let app = app::Http {
                    name,
                    node,
                    delay: Duration::from_millis(delay_ms),
                    calls,
                };
                app::http(listen, app).await
            }
            Self::Echo { listen } => app::echo(listen).await,
            Self::Traffic {
                every_ms,
                http,
                echo,
            } => {
                let http = http.iter().map(|target| target_of(target));
                let traffic = traffic::Traffic {
                    http: http.collect::<Result<_, _>>()?,
                    echo,
                    every: Duration::from_millis(every_ms),
                };
                traffic.run().await;
                Ok(())
            }
        }
    }
}

fn target_of(text: &str) -> anyhow::Result<(SocketAddr, String)> {
    let (address, path) = text.split_once('/').unwrap_or((text, ""));
    Ok((address.parse()?, format!("/{path}")))
}
