//! What the documentation says of the configuration, held against the code.

use std::collections::BTreeMap;

use super::*;
use crate::config::keys::keys_of;
use crate::config::raw;

/// Every key with its default as an operator would write it.
fn in_code() -> BTreeMap<String, String> {
    let text = "[[service]]\nname = \"a\"\nport = 1\nhealth = { kind = \"http\" }\n[[service]]\nname = \"b\"\nport = 1\n";
    let config = read(text);
    let Config {
        admin, log, limits, ..
    } = &config;
    let [service, bare] = &config.services[..] else {
        panic!("two services")
    };
    let health = service.health.as_ref().unwrap();
    let HealthKind::Http { path } = &health.kind else {
        panic!("a check of kind http")
    };
    let quoted = |value: &dyn fmt::Display| format!("\"{value}\"");
    let time = |value: Duration| format!("\"{}\"", humantime::format_duration(value));
    let required = || "required".to_owned();
    let none = |is_none: bool| {
        if is_none {
            "none".to_owned()
        } else {
            panic!("there is a default")
        }
    };
    let format = match log.format {
        LogFormat::Text => "\"text\"",
        LogFormat::Json => "\"json\"",
    };
    let http = match service.http {
        HttpVersion::H1 => "\"1\"",
        HttpVersion::H2 => "\"2\"",
    };
    let defaults = [
        ("listen", quoted(&config.listen)),
        ("advertise", none(config.advertise.is_none())),
        ("seeds", format!("{:?}", config.seeds)),
        ("zone", quoted(&config.zone)),
        ("state", quoted(&config.state.display())),
        ("admin.socket", quoted(&admin.socket.display())),
        ("admin.listen", quoted(&admin.listen)),
        ("log.format", format.to_owned()),
        ("log.level", quoted(&log.level)),
        ("limits.connections", limits.connections.to_string()),
        (
            "limits.streams_per_peer",
            limits.streams_per_peer.to_string(),
        ),
        ("limits.header_bytes", limits.header_bytes.to_string()),
        ("limits.pending", limits.pending.to_string()),
        ("limits.idle", time(limits.idle)),
        ("limits.wait", time(limits.wait)),
        ("limits.connect", time(limits.connect)),
        ("limits.drain", time(limits.drain)),
        ("service.name", required()),
        ("service.address", quoted(&service.address.ip())),
        ("service.port", required()),
        ("service.protocol", quoted(&service.protocol)),
        ("service.http", http.to_owned()),
        ("service.allow", format!("{:?}", service.allow)),
        ("service.labels", format!("{:?}", service.labels)),
        ("service.weight", service.weight.to_string()),
        ("service.health", none(bare.health.is_none())),
        ("service.health.kind", required()),
        ("service.health.path", quoted(path)),
        ("service.health.interval", time(health.interval)),
        ("service.health.timeout", time(health.timeout)),
        ("service.health.up", health.up.to_string()),
        ("service.health.down", health.down.to_string()),
        ("upstream.service", required()),
        ("upstream.listen", required()),
        ("upstream.as", required()),
        ("upstream.protocol", none(true)),
    ];
    defaults
        .into_iter()
        .map(|(key, default)| (key.to_owned(), default))
        .collect()
}

/// Keys and defaults in the table of `docs/configuration.md`.
fn in_docs() -> BTreeMap<String, String> {
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let from = page
        .find("<!-- keys")
        .expect("the table begins with a mark");
    let to = page
        .find("<!-- /keys -->")
        .expect("the table ends with a mark");
    let rows = page[from..to]
        .lines()
        .filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect();
        assert_eq!(cells.len(), 6, "four cells: {row}");
        assert!(
            ["yes", "new", "restart"].contains(&cells[4].as_str()),
            "{row}"
        );
        (cells[1].clone(), cells[2].clone())
    })
    .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

#[test]
fn every_key_and_default_is_documented_and_nothing_else() {
    assert_eq!(in_docs(), in_code());
}

#[test]
fn no_key_is_forgotten() {
    let sections = [
        ("", keys_of::<raw::File>()),
        ("admin.", keys_of::<raw::Admin>()),
        ("log.", keys_of::<raw::Log>()),
        ("limits.", keys_of::<raw::Limits>()),
        ("service.", keys_of::<raw::Service>()),
        ("service.health.", keys_of::<raw::Health>()),
        ("upstream.", keys_of::<raw::Upstream>()),
    ];
    let tables = ["admin", "log", "limits", "service", "upstream"];
    let keys = sections
        .iter()
        .flat_map(|(prefix, keys)| keys.iter().map(move |key| format!("{prefix}{key}")));
    let mut keys: Vec<_> = keys.filter(|key| !tables.contains(&key.as_str())).collect();
    keys.sort();
    assert_eq!(in_code().into_keys().collect::<Vec<_>>(), keys);
}

/// The Markdown of README, `docs/` and `examples/`.
fn pages() -> Vec<PathBuf> {
    let mut pages = files(root().join("docs"), "md");
    pages.extend(files(root().join("examples"), "md"));
    pages.push(root().join("README.md"));
    pages
}

/// The TOML below `examples/`.
fn examples() -> Vec<PathBuf> {
    files(root().join("examples"), "toml")
}

fn files(below: PathBuf, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![below];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn every_toml_snippet_in_the_documentation_is_good() {
    let mut snippets = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for snippet in text.split("\n```toml\n").skip(1) {
            let snippet = snippet.split("\n```").next().unwrap();
            if let Err(problems) =
                Config::from_bytes(Path::new("starling.toml"), snippet.as_bytes())
            {
                panic!("{}:\n{snippet}\n{problems}", page.display());
            }
            snippets += 1;
        }
    }
    assert!(snippets >= 5, "found only {snippets}");
}

#[test]
fn every_example_is_good() {
    let files = examples();
    assert!(files.len() >= 4, "found only {files:?}");
    let mut directories = 0;
    for file in files {
        if file.file_name().is_some_and(|name| name == "starling.toml") {
            let directory = file.parent().unwrap();
            Config::load(directory).unwrap_or_else(|problems| panic!("{problems}"));
            directories += 1;
        } else {
            Config::load_files(&[file]).unwrap_or_else(|problems| panic!("{problems}"));
        }
    }
    assert!(directories >= 2);
}

/// The promise of the quickstart.
#[test]
fn the_quickstart_takes_at_most_five_lines_for_a_service() {
    for file in examples()
        .iter()
        .filter(|file| file.to_string_lossy().contains("quickstart"))
    {
        let text = fs::read_to_string(file).unwrap();
        for table in text.split("\n\n") {
            assert!(table.trim().lines().count() <= 5, "{}", file.display());
        }
    }
}
