//! The configuration that `init` and `join` write where there is none, so that a host can start at once.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use starling_gossip::ServiceName;

use super::out;
use crate::ca;
use crate::config::{DIRECTORY, STATE};

/// What the first configuration of a host says.
#[derive(Debug, Args)]
pub(super) struct Starter {
    /// Where to write starling.toml; no file is ever changed [default: /etc/starling, and nowhere if --state is given]
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Offer the HTTP app at this port, or any app with tcp:PORT; may be repeated
    #[arg(long = "serve", value_name = "SERVICE=PORT", value_parser = Offer::parse)]
    serves: Vec<Offer>,
    /// A service that may call what --serve offers; may be repeated
    #[arg(long = "allow", value_name = "SERVICE", value_parser = ServiceName::parse, requires = "serves")]
    allows: Vec<ServiceName>,
    /// Let apps call a service at 127.0.0.1:PORT, as this host's first service; may be repeated
    #[arg(long = "call", value_name = "SERVICE=PORT", value_parser = Offer::parse)]
    calls: Vec<Offer>,
}

/// `orders=8080` or `db=tcp:5432`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Offer {
    service: ServiceName,
    protocol: &'static str,
    port: u16,
}

/// What there is to say about the node itself.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    /// The command that writes.
    pub(super) command: &'static str,
    /// The state directory, if it is not the usual one.
    pub(super) state: Option<&'a Path>,
    pub(super) seeds: &'a [String],
    /// Of certificates, if this host is an issuer.
    pub(super) lifetime: Option<Duration>,
    /// The services that this host holds certificates of.
    pub(super) services: &'a [ServiceName],
}

impl Starter {
    /// Finds mistakes, and makes the directories, before anything else is done.
    pub(super) fn prepare(
        &self,
        state: Option<&Path>,
        services: &[ServiceName],
    ) -> anyhow::Result<()> {
        let lacking = self
            .serves
            .iter()
            .find(|offer| !services.contains(&offer.service));
        if let Some(Offer { service, .. }) = lacking {
            anyhow::bail!("this host is to offer `{service}`, but gets no certificate of it");
        }
        anyhow::ensure!(
            self.calls.is_empty() || !services.is_empty(),
            "a host calls as one of its services, and this one has none"
        );
        let is_wanted = self.config.is_some() || !self.serves.is_empty() || !self.calls.is_empty();
        let Some(directory) = self.directory(state) else {
            anyhow::ensure!(
                !is_wanted,
                "with --state, --config says where the configuration is to be written"
            );
            return Ok(());
        };
        let inner = directory.join(SERVICES_D);
        match make_directories(&inner) {
            // The user of the agent often may not write there; an operator then does.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_wanted => Ok(()),
            made => made.with_context(|| format!("cannot make {}", inner.display())),
        }
    }

    /// Writes the files that are not there yet, and tells which.
    pub(super) fn write(&self, facts: &Facts<'_>) -> anyhow::Result<()> {
        let Some(directory) = self.directory(facts.state) else {
            return Ok(());
        };
        write(&directory.join("starling.toml"), &node_toml(facts)?)?;
        for offer in &self.serves {
            let name = format!("{SERVICES_D}/{}.toml", offer.service);
            write(&directory.join(name), &offer.serve_toml(&self.allows))?;
        }
        for offer in &self.calls {
            let name = format!("{SERVICES_D}/call-{}.toml", offer.service);
            let caller = facts
                .services
                .first()
                .context("a host calls as one of its services")?;
            write(&directory.join(name), &offer.call_toml(caller))?;
        }
        Ok(())
    }

    fn directory(&self, state: Option<&Path>) -> Option<PathBuf> {
        directory(self.config.as_deref(), state)
    }
}

/// Where the configuration is, if it is known: who names a state directory may have put it anywhere.
pub(super) fn directory(config: Option<&Path>, state: Option<&Path>) -> Option<PathBuf> {
    match (config, state) {
        (Some(config), _) => Some(config.to_owned()),
        (None, None) => Some(DIRECTORY.into()),
        (None, Some(_)) => None,
    }
}

impl Offer {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "an app is SERVICE=PORT or SERVICE=tcp:PORT, as in orders=8080".to_owned();
        let (service, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (protocol, port) = match rest.split_once(':') {
            None | Some(("http", _)) => ("http", rest.trim_start_matches("http:")),
            Some(("tcp", port)) => ("tcp", port),
            Some(_) => return Err(wrong()),
        };
        let port = port.parse().ok().filter(|port| *port != 0);
        Ok(Self {
            service: ServiceName::parse(service).map_err(|error| error.to_string())?,
            protocol,
            port: port.ok_or_else(wrong)?,
        })
    }

    fn serve_toml(&self, allows: &[ServiceName]) -> String {
        let Self {
            service,
            protocol,
            port,
        } = self;
        let allows: Vec<_> = allows.iter().map(ServiceName::as_str).collect();
        format!(
            "[[service]]\nname = \"{service}\"\nport = {port}\nprotocol = \"{protocol}\"\nallow = {allows:?}\n"
        )
    }

    fn call_toml(&self, caller: &ServiceName) -> String {
        let Self {
            service,
            port,
            protocol,
        } = self;
        let text = format!(
            "[[upstream]]\nservice = \"{service}\"\nlisten = \"127.0.0.1:{port}\"\nas = \"{caller}\"\nprotocol = \"{protocol}\"\n"
        );
        match *protocol {
            "http" => format!(
                "{text}hosts = [\"127.0.0.1:{port}\", \"localhost:{port}\", \"{service}\"]\n"
            ),
            _ => text,
        }
    }
}

fn node_toml(facts: &Facts<'_>) -> anyhow::Result<String> {
    let mut text = format!(
        "# Written by `starling {}`.\nseeds = {:?}\n",
        facts.command, facts.seeds
    );
    if let Some(state) = facts.state {
        let state = std::path::absolute(state)?;
        let state = state.to_str().context("--state is not UTF-8")?;
        // JSON's escapes are TOML's.
        text += &format!(
            "state = {}
",
            serde_json::Value::from(state)
        );
    }
    if let Some(lifetime) = facts.lifetime.filter(|lifetime| *lifetime != ca::LIFETIME) {
        text += &format!(
            "\n[issuer]\nlifetime = \"{}\"\n",
            humantime::format_duration(lifetime)
        );
    }
    Ok(text)
}

/// Others may read the configuration and never write it, whatever the umask is: it says who may call.
fn make_directories(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path);
    let mut file = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            out::complain(&format!("{} is left as it is.", path.display()));
            return Ok(());
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            out::complain(&format!(
                "{} is not for this user to write. It should say:\n{text}",
                path.display()
            ));
            return Ok(());
        }
        file => file.with_context(|| format!("cannot write {}", path.display()))?,
    };
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    out::complain(&format!("{} is written.", path.display()));
    Ok(())
}

/// `state`, or the usual directory.
pub(super) fn state(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| STATE.into(), Path::to_owned)
}

const SERVICES_D: &str = "services.d";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    fn names(names: &[&str]) -> Vec<ServiceName> {
        names
            .iter()
            .map(|name| ServiceName::parse(name).unwrap())
            .collect()
    }

    #[test]
    fn offers_are_read() {
        let check = |text: &str, expected: Option<(&str, &str, u16)>| {
            let offer = Offer::parse(text).ok();
            let found = offer
                .as_ref()
                .map(|o| (o.service.as_str(), o.protocol, o.port));
            assert_eq!(found, expected, "{text}");
        };
        check("orders=8080", Some(("orders", "http", 8080)));
        check("orders=http:8080", Some(("orders", "http", 8080)));
        check("db=tcp:5432", Some(("db", "tcp", 5432)));
        for wrong in [
            "orders",
            "orders=",
            "orders=0",
            "orders=70000",
            "Orders=1",
            "=1",
            "a=udp:1",
            "a=tcp:",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn what_is_written_is_good_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config");
        let starter = Starter {
            config: Some(config.clone()),
            serves: vec![
                Offer::parse("orders=8080").unwrap(),
                Offer::parse("db=tcp:5432").unwrap(),
            ],
            allows: names(&["web"]),
            calls: vec![Offer::parse("pay=9001").unwrap()],
        };
        let services = names(&["db", "orders"]);
        let state = dir.path().join("a \"state\"");
        let facts = Facts {
            command: "join",
            state: Some(&state),
            seeds: &["10.0.0.1:7400".to_owned()],
            lifetime: Some(Duration::from_secs(3600)),
            services: &services,
        };
        starter.prepare(Some(&state), &services).unwrap();
        starter.write(&facts).unwrap();
        let read = Config::load(&config).unwrap();
        assert_eq!((read.services.len(), read.upstreams.len()), (2, 1));
        let hosts = &read.upstreams[0].hosts;
        for (host, is_admitted) in [
            ("127.0.0.1:9001", true),
            ("localhost:9001", true),
            ("pay", true),
            ("evil.example:9001", false),
        ] {
            let host = http::uri::Authority::from_static(host);
            assert_eq!(hosts.admit(&host), is_admitted, "{host}");
        }
        assert_eq!(
            (read.seeds, read.state),
            (facts.seeds.to_vec(), state.clone())
        );
        assert_eq!(read.issuer.lifetime, Duration::from_secs(3600));
        fs::write(config.join("starling.toml"), "zone = \"a\"").unwrap();
        starter.write(&facts).unwrap();
        assert_eq!(Config::load(&config).unwrap().zone, "a");
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path();
        let starter = |config: Option<&str>, serve: &[&str], call: &[&str]| Starter {
            config: config.map(|name| dir.path().join(name)),
            serves: serve
                .iter()
                .map(|offer| Offer::parse(offer).unwrap())
                .collect(),
            allows: Vec::new(),
            calls: call
                .iter()
                .map(|offer| Offer::parse(offer).unwrap())
                .collect(),
        };
        let other = starter(Some("c"), &["orders=1"], &[]);
        other.prepare(Some(state), &names(&["web"])).unwrap_err();
        let nobody = starter(Some("c"), &[], &["orders=1"]);
        nobody.prepare(Some(state), &[]).unwrap_err();
        let nowhere = starter(None, &["orders=1"], &[]);
        nowhere
            .prepare(Some(state), &names(&["orders"]))
            .unwrap_err();
        starter(None, &[], &[]).prepare(Some(state), &[]).unwrap();
        assert!(!dir.path().join("c").exists());
    }
}
