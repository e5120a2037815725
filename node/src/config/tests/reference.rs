//! What the documentation says of the configuration, held against the code.

use std::collections::BTreeMap;

use super::*;
use crate::config::keys::keys_of;
use crate::config::raw;
use crate::documents::file::DocumentFile;
use crate::route::action::{Outcome, Rewrite};
use crate::route::split::Subset;
use crate::telemetry::access::Fields;

/// Every key with its default as an operator would write it.
fn in_code() -> BTreeMap<String, String> {
    let text = "[trace]\nendpoint = \"http://localhost:1\"\n\
                [[service]]\nname = \"a\"\nport = 1\nhealth = { kind = \"http\" }\nlimits = { rate = { requests = 1 } }\n\
                [[service]]\nname = \"b\"\nport = 1\n\
                [[upstream]]\nservice = \"a\"\nlisten = \"127.0.0.1:2\"\nas = \"b\"\n\
                outlier = {}\nlimits = { rate = { requests = 1 } }\n\
                [[route]]\nservice = \"a\"\n[[route.rule]]\n[[route.rule]]\nredirect = { path = \"/\" }\n\
                [[route.rule]]\nrespond = { status = 200 }\n";
    let config = read(text);
    let Config {
        admin,
        log,
        trace,
        limits,
        issuer,
        ..
    } = &config;
    let [service, bare] = &config.services[..] else {
        panic!("two services")
    };
    let health = service.health.as_ref().unwrap();
    let HealthKind::Http { path } = &health.kind else {
        panic!("a check of kind http")
    };
    let [upstream] = &config.upstreams[..] else {
        panic!("one upstream")
    };
    let CallSettings {
        balance,
        retry,
        timeout,
        limits: call_limits,
        outlier,
    } = &*upstream.calls;
    let conditions = Condition::ALL
        .iter()
        .filter(|(_, condition)| retry.on.has(*condition))
        .map(|(name, _)| *name)
        .collect::<Vec<_>>();
    let [rule, redirecting, responding] = &config.routes[0].rules[..] else {
        panic!("three rules")
    };
    let (Outcome::Forward(forward), Outcome::Redirect(redirect), Outcome::Respond(respond)) = (
        &rule.action.outcome,
        &redirecting.action.outcome,
        &responding.action.outcome,
    ) else {
        panic!("one of each kind")
    };
    let any = |is_any: bool| if is_any { "any" } else { "some" }.to_owned();
    let all = |is_all: bool| if is_all { "all" } else { "some" }.to_owned();
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
    let list = |is_empty: bool| {
        assert!(is_empty, "there is a default");
        "[]".to_owned()
    };
    let mesh = starling_transport::TrustDomain::parse("example.org").unwrap();
    let compiled = crate::policy::Snapshot::compile(&mesh, &config, &[]);
    let default_mode = compiled.entry("a").unwrap().mode;
    let format = match log.format {
        LogFormat::Text => "\"text\"",
        LogFormat::Json => "\"json\"",
    };
    let http = match service.http {
        HttpVersion::H1 => "\"1\"",
        HttpVersion::H2 | HttpVersion::Grpc => "\"2\"",
    };
    let protocol = match trace.collector.as_ref().unwrap().protocol {
        ExportProtocol::Http => "\"http\"",
        ExportProtocol::Grpc => "\"grpc\"",
    };
    let calls = &rule.action.calls;
    let defaults = [
        ("listen", quoted(&config.listen)),
        ("advertise", none(config.advertise.is_none())),
        ("seeds", format!("{:?}", config.seeds)),
        ("zone", quoted(&config.zone)),
        ("state", quoted(&config.state.display())),
        ("admin.socket", quoted(&admin.socket.display())),
        ("admin.listen", quoted(&admin.listen)),
        ("admin.dashboard", admin.dashboard.to_string()),
        ("admin.remote", none(admin.remote.is_none())),
        ("admin.names", "[]".to_owned()),
        ("admin.allow", "[]".to_owned()),
        ("admin.certificate", none(admin.remote.is_none())),
        ("admin.key", none(admin.remote.is_none())),
        ("log.format", format.to_owned()),
        ("log.level", quoted(&log.level)),
        ("log.access.fields", all(log.access.fields == Fields::ALL)),
        ("log.access.sample", log.access.sample.percent().to_string()),
        (
            "trace.endpoint",
            none(Config::default().trace.collector.is_none()),
        ),
        ("trace.protocol", protocol.to_owned()),
        ("trace.sample", trace.sample.to_string()),
        ("policy.mode", quoted(&default_mode)),
        ("groups", format!("{:?}", config.groups)),
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
        ("issuer.listen", none(issuer.listen.is_none())),
        ("issuer.lifetime", time(issuer.lifetime)),
        ("service.name", required()),
        ("service.address", quoted(&service.address.ip())),
        ("service.port", required()),
        ("service.protocol", quoted(&service.protocol)),
        ("service.http", http.to_owned()),
        ("service.proxy_protocol", none(!service.is_told)),
        ("service.hosts", any(!service.hosts.is_declared())),
        (
            "service.trust_headers",
            list(service.trust_headers.is_empty()),
        ),
        ("service.allow", list(service.allow.is_empty())),
        ("service.grant", none(service.grants.is_empty())),
        ("service.grant.from", required()),
        ("service.grant.methods", none(true)),
        ("service.grant.paths", none(true)),
        ("service.deny", none(service.denies.is_empty())),
        ("service.deny.from", required()),
        ("service.deny.methods", none(true)),
        ("service.deny.paths", none(true)),
        ("service.mode", none(service.mode.is_none())),
        ("service.plaintext", none(service.plaintext.is_none())),
        ("service.labels", format!("{:?}", service.labels)),
        ("service.weight", service.weight.to_string()),
        ("service.health", none(bare.health.is_none())),
        ("service.health.kind", required()),
        ("service.health.path", quoted(path)),
        ("service.health.service", "\"\"".to_owned()),
        ("service.health.command", "none".to_owned()),
        ("service.health.interval", time(health.interval)),
        ("service.health.timeout", time(health.timeout)),
        ("service.health.up", health.up.to_string()),
        ("service.health.down", health.down.to_string()),
        (
            "service.limits.concurrent",
            none(service.limits.concurrent.is_none()),
        ),
        ("service.limits.queue", service.limits.queue.to_string()),
        ("service.limits.queue_wait", time(service.limits.queue_wait)),
        ("service.limits.rate", none(bare.limits.rate.is_none())),
        ("upstream.service", required()),
        ("upstream.listen", required()),
        ("upstream.as", required()),
        ("upstream.protocol", none(upstream.protocol.is_none())),
        ("upstream.hosts", any(!upstream.hosts.is_declared())),
        (
            "upstream.balance.algorithm",
            quoted(&balance.algorithm.as_str()),
        ),
        (
            "upstream.balance.on",
            none(balance.algorithm.key().is_none()),
        ),
        ("upstream.balance.slow_start", time(balance.slow_start)),
        ("upstream.balance.panic", balance.panic.to_string()),
        (
            "upstream.balance.zone.prefer",
            balance.zone.prefer.to_string(),
        ),
        (
            "upstream.balance.zone.failover",
            format!("{:?}", balance.zone.failover),
        ),
        (
            "upstream.balance.zone.spill_below",
            balance.zone.spill_below.to_string(),
        ),
        ("upstream.retry.attempts", retry.attempts.to_string()),
        ("upstream.retry.on", format!("{conditions:?}")),
        ("upstream.retry.methods", format!("{:?}", retry.methods)),
        (
            "upstream.retry.budget.percent",
            retry.budget.percent.to_string(),
        ),
        (
            "upstream.retry.budget.min_per_second",
            retry.budget.min_per_second.to_string(),
        ),
        ("upstream.retry.backoff", time(retry.backoff)),
        ("upstream.timeout.request", none(timeout.request.is_none())),
        ("upstream.timeout.idle", none(timeout.idle.is_none())),
        ("upstream.timeout.per_try", none(timeout.per_try.is_none())),
        (
            "upstream.limits.connections",
            none(call_limits.connections.is_none()),
        ),
        (
            "upstream.limits.pending",
            none(call_limits.pending.is_none()),
        ),
        (
            "upstream.limits.concurrent",
            none(call_limits.concurrent.is_none()),
        ),
        ("upstream.limits.rate", "none".to_owned()),
        (
            "upstream.outlier.consecutive",
            outlier.consecutive.to_string(),
        ),
        ("upstream.outlier.answers", outlier.answers.to_string()),
        (
            "upstream.outlier.success_rate",
            outlier.success_rate.to_string(),
        ),
        ("upstream.outlier.base", time(outlier.base)),
        ("upstream.outlier.max_share", outlier.max_share.to_string()),
        ("route.service", required()),
        ("route.rule.name", quoted(&rule.name)),
        ("route.rule.match", rule.matches.to_string()),
        ("route.rule.match.path", none(rule.matches.path.is_none())),
        (
            "route.rule.match.path_regex",
            none(rule.matches.path_regex.is_none()),
        ),
        (
            "route.rule.match.methods",
            any(rule.matches.methods.is_empty()),
        ),
        (
            "route.rule.match.headers",
            any(rule.matches.headers.is_empty()),
        ),
        ("route.rule.match.query", any(rule.matches.query.is_empty())),
        (
            "route.rule.match.callers",
            any(rule.matches.callers.is_empty()),
        ),
        ("route.rule.match.zones", any(rule.matches.zones.is_empty())),
        ("route.rule.to", forward.split.to_string()),
        ("route.rule.split", none(forward.split.parts.len() == 1)),
        ("route.rule.split.to", required()),
        ("route.rule.split.weight", required()),
        ("route.rule.sticky", none(forward.split.sticky.is_none())),
        ("route.rule.sticky.header", none(true)),
        ("route.rule.sticky.cookie", none(true)),
        (
            "route.rule.rewrite",
            none(forward.rewrite == Rewrite::default()),
        ),
        ("route.rule.rewrite.path", none(true)),
        ("route.rule.rewrite.prefix", none(true)),
        ("route.rule.rewrite.host", none(true)),
        ("route.rule.redirect", none(true)),
        (
            "route.rule.redirect.status",
            redirect.status.as_u16().to_string(),
        ),
        (
            "route.rule.redirect.scheme",
            none(redirect.scheme.is_none()),
        ),
        ("route.rule.redirect.host", none(redirect.host.is_none())),
        ("route.rule.redirect.path", none(true)),
        ("route.rule.redirect.prefix", none(true)),
        ("route.rule.respond", none(true)),
        ("route.rule.respond.status", required()),
        (
            "route.rule.respond.body",
            format!("{:?}", str::from_utf8(&respond.body).unwrap()),
        ),
        (
            "route.rule.respond.content_type",
            quoted(&respond.content_type.to_str().unwrap()),
        ),
        (
            "route.rule.request_headers",
            none(forward.request_headers.is_empty()),
        ),
        (
            "route.rule.response_headers",
            none(rule.action.response_headers.is_empty()),
        ),
        ("route.rule.mirror", none(forward.mirror.is_none())),
        ("route.rule.mirror.service", none(true)),
        ("route.rule.mirror.to", Subset::default().to_string()),
        ("route.rule.mirror.percent", "100".to_owned()),
        ("route.rule.mirror.credentials", "false".to_owned()),
        ("route.rule.fault", none(rule.action.fault.is_none())),
        ("route.rule.fault.delay", none(true)),
        ("route.rule.fault.delay_percent", "100".to_owned()),
        ("route.rule.fault.abort", none(true)),
        ("route.rule.fault.abort_percent", "100".to_owned()),
        (
            "route.rule.body_bytes",
            none(rule.action.body_bytes_max.is_none()),
        ),
        ("route.rule.balance", none(calls.balance.is_none())),
        ("route.rule.retry", none(calls.retry.is_none())),
        ("route.rule.timeout", none(calls.timeout.is_none())),
        ("route.rule.limits", none(calls.limits.is_none())),
        ("route.rule.outlier", none(calls.outlier.is_none())),
    ];
    let rates = [
        ("service.limits.rate", &service.limits.rate),
        ("upstream.limits.rate", &call_limits.rate),
    ];
    let rates = rates.into_iter().flat_map(|(table, rate)| {
        let rate = rate.as_ref().unwrap();
        assert_eq!(rate.burst, rate.requests);
        [
            ("requests", required()),
            ("per", time(rate.per)),
            ("burst", none(true)),
            ("key", none(rate.key.is_none())),
        ]
        .map(|(key, default)| (format!("{table}.{key}"), default))
    });
    defaults
        .into_iter()
        .map(|(key, default)| (key.to_owned(), default))
        .chain(rates)
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
        ("log.access.", keys_of::<raw::AccessLog>()),
        ("trace.", keys_of::<raw::Trace>()),
        ("limits.", keys_of::<raw::Limits>()),
        ("policy.", keys_of::<raw::policy::Policy>()),
        ("service.grant.", keys_of::<raw::policy::Rule>()),
        ("service.deny.", keys_of::<raw::policy::Rule>()),
        ("issuer.", keys_of::<raw::Issuer>()),
        ("service.", keys_of::<raw::Service>()),
        ("service.health.", keys_of::<raw::Health>()),
        ("upstream.", keys_of::<raw::Upstream>()),
        ("service.limits.", keys_of::<raw::calls::ServiceLimits>()),
        ("service.limits.rate.", keys_of::<raw::calls::Rate>()),
        ("upstream.balance.", keys_of::<raw::calls::Balance>()),
        ("upstream.balance.zone.", keys_of::<raw::calls::Zone>()),
        ("upstream.retry.", keys_of::<raw::calls::Retry>()),
        ("upstream.retry.budget.", keys_of::<raw::calls::Budget>()),
        ("upstream.timeout.", keys_of::<raw::calls::Timeouts>()),
        ("upstream.limits.", keys_of::<raw::calls::CallLimits>()),
        ("upstream.limits.rate.", keys_of::<raw::calls::Rate>()),
        ("upstream.outlier.", keys_of::<raw::calls::Outlier>()),
        ("route.", keys_of::<raw::route::Route>()),
        ("route.rule.", keys_of::<raw::route::Rule>()),
        ("route.rule.match.", keys_of::<raw::route::Match>()),
        ("route.rule.split.", keys_of::<raw::route::Part>()),
        ("route.rule.sticky.", keys_of::<raw::route::Sticky>()),
        ("route.rule.rewrite.", keys_of::<raw::route::Rewrite>()),
        ("route.rule.redirect.", keys_of::<raw::route::Redirect>()),
        ("route.rule.respond.", keys_of::<raw::route::Respond>()),
        ("route.rule.mirror.", keys_of::<raw::route::Mirror>()),
        ("route.rule.fault.", keys_of::<raw::route::Fault>()),
    ];
    let tables = [
        "admin",
        "log",
        "log.access",
        "trace",
        "limits",
        "policy",
        "issuer",
        "service",
        "service.limits",
        "upstream",
        "upstream.balance",
        "upstream.balance.zone",
        "upstream.retry",
        "upstream.retry.budget",
        "upstream.timeout",
        "upstream.limits",
        "upstream.outlier",
        "route",
        "route.rule",
    ];
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
        let text: Vec<_> = text.lines().map(str::trim_start).collect();
        for snippet in text.join("\n").split("\n```toml\n").skip(1) {
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

/// Documents stand in fences of their own: ```toml document.
#[test]
fn every_document_in_the_documentation_is_good() {
    let mut snippets = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for snippet in text.split("\n```toml document\n").skip(1) {
            let snippet = snippet.split("\n```").next().unwrap();
            if let Err(problems) = DocumentFile::parse(Path::new("document.toml"), snippet) {
                panic!("{}:\n{snippet}\n{problems}", page.display());
            }
            snippets += 1;
        }
    }
    assert!(snippets >= 2);
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
