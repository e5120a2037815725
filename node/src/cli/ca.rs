//! `starling ca`: certificates for other hosts, made on an issuer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use starling_gossip::{NodeName, ServiceName};

use super::{out, pause};
use crate::ca::{Authority, CaError, ROOT_KEY};
use crate::config::STATE;
use crate::state::StateDir;

/// Make certificates for other hosts
#[derive(Debug, Args)]
pub(super) struct Ca {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Issue(Issue),
    AddIssuer(AddIssuer),
}

/// Make or renew the state directory of a host
///
/// Run it again with the same --out to renew: certificates and keys are replaced, and a running agent takes them up
/// without a restart. To renew this host's own, use its state directory as --out.
#[derive(Debug, Args)]
struct Issue {
    /// Name of the host in the mesh
    #[arg(long, value_name = "NAME", value_parser = NodeName::parse)]
    node: NodeName,
    /// A service that runs or calls there; may be repeated
    #[arg(long = "service", value_name = "NAME", value_parser = ServiceName::parse)]
    services: Vec<ServiceName>,
    /// Directory to write, to be copied to that host as its state directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// State directory of this issuer
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
    /// How long the certificates live
    #[arg(long, value_name = "TIME", default_value = LIFETIME, value_parser = humantime::parse_duration)]
    lifetime: Duration,
    /// The `issued_before` of a revocation of this host, if it is ahead of the clock here, as in 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    after: Option<SystemTime>,
}

impl Ca {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Issue(issue) => issue.run(),
            Command::AddIssuer(add) => add.run(),
        }
    }
}

impl Issue {
    fn run(self) -> anyhow::Result<()> {
        crate::ca::check_lifetime(self.lifetime)?;
        let issuer = StateDir::open(&self.state)?;
        let authority = Authority::load(&issuer)?;
        let bundle = StateDir::create(&self.out)?;
        let now = SystemTime::now();
        let begins = self.after.map_or(now, |after| after.max(now));
        let services = &self.services;
        authority.write_bundle_from(&bundle, &self.node, services, self.lifetime, begins)?;
        write_book(&authority)?;
        let (dir, lifetime) = (
            bundle.path().display(),
            humantime::format_duration(self.lifetime),
        );
        out::say(&format!(
            "{dir} is ready for node {}{}; its certificates live {lifetime}.",
            self.node,
            with(&self.services)
        ))?;
        if bundle == issuer {
            return Ok(());
        }
        out::say(&format!(
            "Copy it to that host as its state directory: {}.",
            copy(&dir.to_string())
        ))?;
        Ok(())
    }
}

/// Waits while the agent rewrites the book. The certificates are good without it.
fn write_book(authority: &Authority) -> io::Result<()> {
    let until = SystemTime::now() + BOOK_WAIT;
    while authority.unbooked().is_some() && SystemTime::now() < until {
        pause(BOOK_PAUSE)?;
        // The reason is kept and said below.
        let _ = authority.book().flush(SystemTime::now());
    }
    if let Some(why) = authority.unbooked() {
        out::complain(&format!(
            "The certificates could not be noted in the book of this issuer: {why}. If one of their keys leaks, give \
             `starling revoke` the certificate too: --certificate FILE."
        ));
    }
    Ok(())
}

/// Make a host an issuer, or renew its intermediate certificate; run it where the root key is
///
/// Copy what it writes into the state directory of that host. Its agent takes it up without a restart.
#[derive(Debug, Args)]
struct AddIssuer {
    /// Name of the host in the mesh
    #[arg(long, value_name = "NAME", value_parser = NodeName::parse)]
    node: NodeName,
    /// Directory to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// State directory with the root key in it
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state: PathBuf,
}

impl AddIssuer {
    fn run(self) -> anyhow::Result<()> {
        let root = root_state(&self.state)?;
        let bundle = StateDir::create(&self.out)?;
        let authority = Authority::add_issuer(&root, &bundle, &self.node)?;
        let dir = bundle.path().display();
        let left = authority
            .not_after()
            .duration_since(SystemTime::now())
            .unwrap_or_default();
        out::say(&format!(
            "{dir} makes node {} an issuer for {} days.",
            self.node,
            left.as_secs() / 86_400
        ))?;
        if bundle != root {
            out::say(&format!(
                "Copy it into the state directory of that host: {}; then remove {dir}.",
                copy(&dir.to_string())
            ))?;
        }
        Ok(())
    }
}

/// How a bundle gets to its host.
fn copy(dir: &str) -> String {
    format!(
        "`rsync -rp --chown=starling:starling {dir}/ root@HOST:{STATE}/` (without --chown where the agent runs as root)"
    )
}

/// The directory that holds the root's key. That there is none here says nothing of how a mesh is begun.
pub(super) fn root_state(path: &Path) -> anyhow::Result<StateDir> {
    if !path.exists() {
        return Err(CaError::NoRootKey {
            path: path.join(ROOT_KEY),
        }
        .into());
    }
    let state = StateDir::open(path)?;
    Authority::check_root_key(&state)?;
    Ok(state)
}

/// ` and the services a, b`, or nothing.
pub(super) fn with(services: &[ServiceName]) -> String {
    let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!(" and service {one}"),
        _ => format!(" and services {}", names.join(", ")),
    }
}

/// The agent rewrites a full book in less.
const BOOK_WAIT: Duration = Duration::from_secs(2);

const BOOK_PAUSE: Duration = Duration::from_millis(50);

/// [`crate::ca::LIFETIME`] as typed.
pub(super) const LIFETIME: &str = "24h";

#[cfg(test)]
mod tests {
    #[test]
    fn the_default_lifetime_is_that_of_the_ca() {
        assert_eq!(
            humantime::parse_duration(super::LIFETIME).unwrap(),
            crate::ca::LIFETIME
        );
    }
}
