//! `starling validate`: is this configuration good?

use std::path::PathBuf;

use clap::Args;

use super::{doubts, out};
use crate::config::{Config, DIRECTORY, Problems};

/// Check configuration without touching the machine
///
/// A directory is read as an agent would read it. Files are read as if they were all there is.
#[derive(Debug, Args)]
pub(super) struct Validate {
    /// Directories, or single files
    #[arg(value_name = "PATH", default_value = DIRECTORY)]
    paths: Vec<PathBuf>,
}

impl Validate {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let (directories, files): (Vec<_>, Vec<_>) =
            self.paths.into_iter().partition(|path| path.is_dir());
        let mut results: Vec<_> = directories
            .iter()
            .map(|directory| (directory.display().to_string(), Config::load(directory)))
            .collect();
        if !files.is_empty() {
            let names: Vec<_> = files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            results.push((names.join(", "), Config::load_files(&files)));
        }
        let mut problems = Problems::default();
        for (what, result) in results {
            match result {
                Ok(config) => {
                    doubts::of_routes(&config.routes, &config.admin.socket)
                        .iter()
                        .for_each(|doubt| out::complain(doubt));
                    out::say(&good(&what, &config))?;
                }
                Err(more) => problems.append(more),
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems.into())
        }
    }
}

fn good(what: &str, config: &Config) -> String {
    let mut counts = vec![
        count(config.services.len(), "service"),
        count(config.upstreams.len(), "upstream"),
    ];
    if !config.routes.is_empty() {
        counts.push(count(config.routes.len(), "route"));
    }
    format!("{what}: good ({})", counts.join(", "))
}

fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}
