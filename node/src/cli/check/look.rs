//! Looking at files and the system, as far as that takes no agent.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::ports;
use crate::ca::{INTERMEDIATE_CERT, INTERMEDIATE_KEY};
use crate::check::Facts;
use crate::check::agent::Agent;
use crate::check::certificates::{self, Certificate, Kind};
use crate::check::files::{self, Entry, Files};
use crate::check::system::{Buffer, System};
use crate::config::{Config, DIRECTORY};
use crate::state::{NODE_CHAIN, StateDir, StateError, TRUST, service_files};

/// All facts, those of the agent given.
pub(super) fn facts(
    agent: Result<Agent, String>,
    directory: Option<PathBuf>,
    state: Option<PathBuf>,
    socket: &Path,
) -> anyhow::Result<Facts> {
    let running = agent
        .as_ref()
        .ok()
        .map(|agent| PathBuf::from(&agent.directory));
    let directory = directory.or(running).unwrap_or_else(|| DIRECTORY.into());
    let (config, problems) = match Config::load(&directory) {
        Ok(config) => (config, Vec::new()),
        Err(problems) => {
            let told = problems.iter().map(|problem| {
                let line = problem
                    .line
                    .map_or_else(String::new, |line| format!("{line}:"));
                let what = format!("{}:{line} {}", problem.file.display(), problem.what);
                (what, problem.hint.clone())
            });
            (Config::default(), told.collect())
        }
    };
    let running = agent.as_ref().ok().map(|agent| PathBuf::from(&agent.state));
    // What cannot be read does not tell where the keys are.
    let declared = problems.is_empty().then(|| config.state.clone());
    let state = state.or(running).or(declared);
    // The socket is the agent's own file: whose it is, all has to be.
    let owner = fs::symlink_metadata(socket).map(|found| found.uid()).ok();
    let owner = owner.filter(|_| agent.is_ok());
    let files = state
        .as_deref()
        .map(|state| files(state, owner))
        .transpose()?;
    let ports = match agent {
        Err(_) if problems.is_empty() => {
            let is_issuer = state.is_some_and(|state| state.join(INTERMEDIATE_KEY).exists());
            ports::closed(&config, is_issuer)
        }
        _ => Vec::new(),
    };
    Ok(Facts {
        system: System {
            config: problems,
            buffers: BUFFERS.into_iter().filter_map(buffer).collect(),
            ports,
            silent_apps: silent_apps(&config),
        },
        files: files.unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent,
    })
}

fn files(path: &Path, owner: Option<u32>) -> anyhow::Result<Files> {
    let us = rustix::process::geteuid();
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let missing = StateError::Missing {
                path: path.to_owned(),
            };
            return Ok(Files {
                path: path.display().to_string(),
                problem: Some((missing.to_string(), missing.hint())),
                ..Files::default()
            });
        }
        Err(error) => return Err(error).context(format!("cannot look at {}", path.display())),
    };
    let owner = owner.unwrap_or_else(|| match us.is_root() {
        true => found.uid(),
        false => us.as_raw(),
    });
    let entries = entries(path).with_context(|| {
        let path = path.display();
        format!("cannot look into {path}: look as root or as the user that runs the agent")
    })?;
    let read = StateDir::open_as(path, owner).and_then(|state| state.identities());
    let problem = read.err().map(|error| {
        let hint = error.hint();
        (causes(&error), hint)
    });
    let now = SystemTime::now();
    Ok(Files {
        path: path.display().to_string(),
        owner,
        entries,
        problem,
        certificates: certificates(path, now),
        roots: read_all(path, TRUST, Kind::Authority, now),
    })
}

/// The directory, what is in it, and what is in the directories in it.
fn entries(path: &Path) -> std::io::Result<Vec<Entry>> {
    let mut entries = vec![entry(String::new(), path)?];
    let mut open = vec![(String::new(), path.to_owned())];
    while let Some((prefix, directory)) = open.pop() {
        for found in fs::read_dir(directory)?.take(ENTRIES_MAX) {
            let path = found?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{prefix}{name}");
            // What is just being written goes as it comes.
            let Ok(entry) = entry(name.clone(), &path) else {
                continue;
            };
            if entry.kind == files::Kind::Directory && prefix.is_empty() {
                open.push((format!("{name}/"), path));
            }
            entries.push(entry);
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn entry(name: String, path: &Path) -> std::io::Result<Entry> {
    let found = fs::symlink_metadata(path)?;
    let kind = if found.is_symlink() {
        files::Kind::Link
    } else if found.is_dir() {
        files::Kind::Directory
    } else if path
        .extension()
        .is_some_and(|extension| extension == "key" || extension == "next")
    {
        files::Kind::Secret
    } else {
        files::Kind::Public
    };
    Ok(Entry {
        name,
        owner: found.uid(),
        mode: found.mode() & 0o7777,
        kind,
    })
}

/// The leaves and the intermediate, named by their files.
fn certificates(state: &Path, now: SystemTime) -> Vec<Certificate> {
    let names = fs::read_dir(state.join("svc")).into_iter().flatten();
    let names = names.filter_map(|found| {
        let name = found.ok()?.file_name();
        let service = name.to_str()?.strip_suffix(".pem")?.to_owned();
        Some(service_files(&service).0)
    });
    let leaf = |name: &str| read_all(state, name, Kind::Leaf, now).into_iter().next();
    let mut found: Vec<_> = names.filter_map(|name| leaf(&name)).collect();
    found.extend(leaf(NODE_CHAIN));
    found.extend(read_all(state, INTERMEDIATE_CERT, Kind::Authority, now));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn read_all(state: &Path, name: &str, kind: Kind, now: SystemTime) -> Vec<Certificate> {
    let pem = fs::read(state.join(name)).unwrap_or_default();
    certificates::read(name, kind, &pem, now)
}

fn buffer(name: &'static str) -> Option<Buffer> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let bytes = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    Some(Buffer { name, bytes })
}

fn silent_apps(config: &Config) -> Vec<(String, String)> {
    let services = config.services.iter();
    let silent =
        services.filter(|service| TcpStream::connect_timeout(&service.address, APP_WAIT).is_err());
    silent
        .map(|service| (service.name.to_string(), service.address.to_string()))
        .collect()
}

/// An error and what caused it, in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

const BUFFERS: [&str; 2] = ["net.core.rmem_max", "net.core.wmem_max"];

/// Files looked at in one directory.
const ENTRIES_MAX: usize = 4096;

/// An app on this host accepts or refuses at once.
const APP_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use starling_gossip::NodeName;
    use starling_transport::TrustDomain;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::ca::Authority;
    use crate::check::{Check, findings};

    fn state(dir: &Path) -> PathBuf {
        let path = dir.join("state");
        let state = StateDir::create(&path).unwrap();
        let (domain, node) = (
            TrustDomain::parse("example.org").unwrap(),
            NodeName::parse("n1").unwrap(),
        );
        let authority = Authority::init(&state, &domain, &node).unwrap();
        let lifetime = crate::ca::LIFETIME;
        authority
            .write_bundle(&state, &node, &[], lifetime)
            .unwrap();
        path
    }

    fn found(files: Files) -> Vec<Check> {
        let facts = Facts {
            system: System::default(),
            files,
            version: "0.1.0".into(),
            agent: Ok(crate::check::tests::agent()),
        };
        findings(&facts).iter().map(|one| one.check).collect()
    }

    #[test]
    fn a_state_directory_as_it_is_made_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let path = state(dir.path());
        let files = files(&path, None).unwrap();
        assert_eq!(files.certificates.len(), 2, "{:?}", files.certificates);
        assert_eq!(files.roots.len(), 1);
        assert_eq!(found(files), []);
    }

    #[test]
    fn a_key_that_others_may_read_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = state(dir.path());
        let open = Permissions::from_mode(0o644);
        fs::set_permissions(path.join("node.key"), open).unwrap();
        let files = files(&path, None).unwrap();
        assert_eq!(found(files), [Check::Files]);
    }

    #[test]
    fn what_does_not_fit_together_or_is_not_there_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = state(dir.path());
        fs::remove_file(path.join("node.key")).unwrap();
        assert_eq!(found(files(&path, None).unwrap()), [Check::State]);
        let nowhere = files(&dir.path().join("nowhere"), None).unwrap();
        assert_eq!(found(nowhere), [Check::State]);
    }
}
