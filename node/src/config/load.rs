//! From a directory to a [`Config`].

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::check::{Checker, is_host_port};
use super::keys::{self, shown};
use super::problems::{Problem, Problems};
use super::{Admin, Config, Issuer, Limits, Log, Service, Trace, Upstream, policy, raw, whole};
use crate::route::Route;
use crate::state::Fingerprint;

/// What a file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Everything.
    Node,
    /// Services, upstreams and routes.
    Services,
}

/// Files and what they held.
pub type Contents = Vec<(PathBuf, Vec<u8>)>;

impl Config {
    /// Reads `starling.toml` and `services.d/*.toml` in `directory`. Either may be missing, the directory may not.
    pub fn load(directory: &Path) -> Result<Self, Problems> {
        Self::load_with_files(directory).map(|(config, _)| config)
    }

    /// The same, with the contents of the files, to read them again by [`Self::from_files`].
    pub fn load_with_files(directory: &Path) -> Result<(Self, Contents), Problems> {
        match fs::metadata(directory) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(unreadable(directory, "it is not a directory")),
            Err(error) => return Err(unreadable(directory, error)),
        }
        // `validate .` says `starling.toml:3`, not `./starling.toml:3`.
        let directory = directory.strip_prefix(".").unwrap_or(directory);
        let (files, problems) = files(directory);
        Self::read(&files, problems)
    }

    /// Reads what was read before.
    pub fn from_files(files: &[(PathBuf, Vec<u8>)]) -> Result<Self, Problems> {
        let (mut config, mut problems) = (Self::default(), Problems::default());
        for (file, content) in files {
            problems.append(config.add(file, content));
        }
        whole::check(&config, &mut problems);
        problems.or(|| config)
    }

    /// Reads single files as if they were all there is.
    pub fn load_files(files: &[PathBuf]) -> Result<Self, Problems> {
        Self::read(files, Problems::default()).map(|(config, _)| config)
    }

    /// Reads the content of one file; `file` only serves messages and says by its name what may stand in it.
    pub fn from_bytes(file: &Path, content: &[u8]) -> Result<Self, Problems> {
        let mut config = Self::default();
        let mut problems = config.add(file, content);
        whole::check(&config, &mut problems);
        problems.or(|| config)
    }

    /// What the files in `directory` look like now; see [`Fingerprint`].
    pub fn fingerprint(directory: &Path) -> Fingerprint {
        Fingerprint::of(files(directory).0)
    }

    fn read(files: &[PathBuf], mut problems: Problems) -> Result<(Self, Contents), Problems> {
        let (mut config, mut contents) = (Self::default(), Contents::new());
        for file in files {
            match content(file) {
                Ok(content) => {
                    problems.append(config.add(file, &content));
                    contents.push((file.clone(), content));
                }
                Err(error) => problems.append(unreadable(file, error)),
            }
        }
        whole::check(&config, &mut problems);
        problems.or(|| (config, contents))
    }

    /// Adds what one file says. After a problem the rest is only good for finding more of them.
    fn add(&mut self, file: &Path, content: &[u8]) -> Problems {
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) => {
                let readable = str::from_utf8(&content[..error.valid_up_to()]).unwrap_or_default();
                let mut checker = Checker::new(file, readable);
                checker.problem(
                    readable.len()..readable.len(),
                    "this line is not UTF-8 text",
                    "save the file as UTF-8",
                );
                return checker.finish();
            }
        };
        let mut checker = Checker::new(file, text);
        if let Some(raw) = parse(text, role(file), &mut checker) {
            self.merge(&raw, &mut checker);
        }
        checker.finish()
    }

    fn merge(&mut self, raw: &raw::File, checker: &mut Checker<'_>) {
        let listen = raw
            .listen
            .as_ref()
            .and_then(|listen| checker.address("listen", listen));
        self.listen = listen.unwrap_or(self.listen);
        if let Some(advertise) = &raw.advertise {
            self.advertise = check_advertise(advertise, checker);
        }
        for seed in raw.seeds.iter().flatten() {
            check_seed(seed, checker);
            self.seeds.push(seed.get_ref().clone());
        }
        if let Some(zone) = &raw.zone {
            check_zone(zone, checker);
            self.zone = zone.get_ref().clone();
        }
        if let Some(state) = raw
            .state
            .as_ref()
            .and_then(|state| checker.absolute_path("state", state))
        {
            self.state = state;
        }
        if let Some(admin) = &raw.admin {
            self.admin = Admin::check(admin, checker);
        }
        if let Some(log) = &raw.log {
            self.log = Log::check(log, checker);
        }
        if let Some(trace) = &raw.trace {
            self.trace = Trace::check(trace, checker);
        }
        if let Some(limits) = &raw.limits {
            self.limits = Limits::check(limits, checker);
        }
        if let Some(mode) = raw.policy.as_ref().and_then(|policy| policy.mode.as_ref()) {
            self.mode = policy::check_mode(mode, checker);
        }
        if let Some(groups) = &raw.groups {
            self.groups
                .append(&mut policy::check_groups(groups, checker));
        }
        if let Some(issuer) = &raw.issuer {
            self.issuer = Issuer::check(issuer, checker);
        }
        let services = raw
            .service
            .iter()
            .flatten()
            .filter_map(|service| Service::check(service, checker));
        self.services.extend(services);
        let upstreams = raw
            .upstream
            .iter()
            .flatten()
            .filter_map(|upstream| Upstream::check(upstream, checker));
        self.upstreams.extend(upstreams);
        let routes = raw
            .route
            .iter()
            .flatten()
            .filter_map(|route| Route::check(route, checker));
        self.routes.extend(routes);
    }
}

/// `None` after a problem with the syntax or with the type of a value: these end the file. Nesting is bounded by the TOML
/// reader.
fn parse(text: &str, role: Role, checker: &mut Checker<'_>) -> Option<raw::File> {
    let parsed = DeTable::parse(text).and_then(|mut table| {
        keys::remove_unknown(table.get_mut(), checker);
        if role == Role::Services {
            keys::refuse_node_settings(table.get_ref(), checker);
        }
        raw::File::deserialize(toml::de::Deserializer::from(table))
    });
    parsed.map_err(|error| checker.refuse(&error)).ok()
}

fn check_advertise(
    advertise: &Spanned<String>,
    checker: &mut Checker<'_>,
) -> Option<std::net::SocketAddr> {
    let address = checker.address("advertise", advertise)?;
    if address.ip().is_unspecified() {
        let what = format!("nobody can reach `advertise = \"{address}\"`");
        checker.problem(
            advertise.span(),
            what,
            "name the address by which other hosts reach this one",
        );
        return None;
    }
    Some(address)
}

fn check_seed(seed: &Spanned<String>, checker: &mut Checker<'_>) {
    let text = seed.get_ref();
    if is_host_port(text) {
        return;
    }
    let with_port = format!("{text}:{}", super::MESH_PORT);
    let hint = if is_host_port(&with_port) {
        format!("a port belongs behind it, as in \"{with_port}\"")
    } else {
        "a seed is a host and a port, as in \"10.0.0.2:7400\" or \"n2.example.org:7400\"".to_owned()
    };
    checker.problem(
        seed.span(),
        format!("`{}` is not a seed", shown(text)),
        &hint,
    );
}

fn check_zone(zone: &Spanned<String>, checker: &mut Checker<'_>) {
    let text = zone.get_ref();
    let is_word = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/'));
    if !is_word || text.len() > ZONE_BYTES_MAX {
        let what = format!("`zone` is not a plain word: `{}`", shown(text));
        checker.problem(
            zone.span(),
            what,
            "up to 63 characters of a-z A-Z 0-9 . _ / -, as in \"rack-1\"",
        );
    }
}

/// A file is judged by where it stands: whatever lies in `services.d` may hold services only.
fn role(file: &Path) -> Role {
    let in_services_d = file
        .parent()
        .and_then(Path::file_name)
        .is_some_and(|name| name == SERVICES_D);
    if in_services_d {
        Role::Services
    } else {
        Role::Node
    }
}

/// The files that make the configuration, in the order in which they are read.
fn files(directory: &Path) -> (Vec<PathBuf>, Problems) {
    let mut problems = Problems::default();
    let node = directory.join("starling.toml");
    let services_d = directory.join(SERVICES_D);
    let mut services = match fs::read_dir(&services_d) {
        Ok(entries) => entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| is_ours(path))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            problems = unreadable(&services_d, error);
            Vec::new()
        }
    };
    services.sort_unstable();
    if services.len() > FILES_MAX {
        problems.append(unreadable(
            &services_d,
            format!("it holds more than {FILES_MAX} files"),
        ));
        services.truncate(FILES_MAX);
    }
    if node.exists() || node.is_symlink() {
        services.insert(0, node);
    }
    (services, problems)
}

/// `*.toml`, but not what editors and package managers leave around.
fn is_ours(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden
        && path
            .extension()
            .is_some_and(|extension| extension == "toml")
}

fn content(file: &Path) -> io::Result<Vec<u8>> {
    // Not to be held up by a FIFO.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(content)
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Problems {
    let mut problems = Problems::default();
    let what = format!("cannot be read: {why}");
    problems.push(Problem {
        file: path.into(),
        line: None,
        what,
        hint: None,
    });
    problems
}

const SERVICES_D: &str = "services.d";

/// A service takes about 200 bytes; this is thousands of them.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// One file per service, and far more than one host runs.
const FILES_MAX: usize = 1024;
const ZONE_BYTES_MAX: usize = 63;
