//! `starling validate`: is this configuration good?

use std::path::PathBuf;

use clap::Args;

use starling_gossip::ServiceName;

use super::{block_on, client, out};
use crate::admin::view;
use crate::config::{Config, DIRECTORY, Problems};
use crate::route::Route;
use crate::route::split::Subset;

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
                    doubts(&config)
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

/// What can be done, but is probably not meant so. Which subsets there are only a running agent knows; without one,
/// nothing is said of them.
fn doubts(config: &Config) -> Vec<String> {
    let mut doubts: Vec<_> = config.routes.iter().flat_map(Route::shadows).collect();
    if !config.routes.is_empty() {
        let asked = block_on(client::ask_for::<Vec<view::Service>>(
            &config.admin.socket,
            "/v1/services",
        ));
        if let Ok(Ok(services)) = asked {
            let has = |service: &ServiceName, subset: &Subset| has(&services, service, subset);
            doubts.extend(config.routes.iter().flat_map(|route| route.unknown(has)));
        }
    }
    doubts.iter().map(ToString::to_string).collect()
}

fn has(services: &[view::Service], service: &ServiceName, subset: &Subset) -> Option<bool> {
    let known = services
        .iter()
        .find(|known| known.service == service.as_str())?;
    let mut instances = known.instances.iter();
    Some(instances.any(|instance| subset.holds(&instance.labels, &instance.zone)))
}

fn count(number: usize, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}
