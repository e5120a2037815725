use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

mod calls;
mod policy_keys;
mod reference;
mod route;
mod telemetry;

/// What an operator is told about `starling.toml` with this content. Empty if nothing.
fn told(text: &str) -> String {
    match Config::from_bytes(Path::new("starling.toml"), text.as_bytes()) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

/// Asserts the one problem of `text`: `line: what`, and the hint.
#[track_caller]
fn check(text: &str, line_and_what: &str, hint: &str) {
    let hint = if hint.is_empty() {
        String::new()
    } else {
        format!("\n  hint: {hint}")
    };
    assert_eq!(
        told(text),
        format!("error: starling.toml:{line_and_what}{hint}")
    );
}

const NO_HOST: &str = "a name or an address, with a port or without, as in \"orders\" or \"127.0.0.1:9001\"; there is no wildcard";

/// Asserts the one problem of a [[service]] that is good but for `line`.
#[track_caller]
fn service(line: &str, what: &str, hint: &str) {
    let needed = ["name = \"orders\"\n", "port = 8080\n"];
    let key = line.split(' ').next().unwrap();
    let rest: String = needed
        .into_iter()
        .filter(|other| !other.starts_with(key))
        .collect();
    check(
        &format!("[[service]]\n{line}\n{rest}"),
        &format!("2: {what}"),
        hint,
    );
}

/// The same for an [[upstream]].
#[track_caller]
fn upstream(line: &str, what: &str, hint: &str) {
    let needed = [
        "service = \"orders\"\n",
        "listen = \"127.0.0.1:9001\"\n",
        "as = \"web\"\n",
    ];
    let key = line.split(' ').next().unwrap();
    let rest: String = needed
        .into_iter()
        .filter(|other| !other.starts_with(key))
        .collect();
    check(
        &format!("[[upstream]]\n{line}\n{rest}"),
        &format!("2: {what}"),
        hint,
    );
}

fn read(text: &str) -> Config {
    Config::from_bytes(Path::new("starling.toml"), text.as_bytes()).unwrap()
}

const EVERYTHING: &str = r#"
listen = "10.0.0.1:7000"
advertise = "192.0.2.1:7000"
seeds = ["10.0.0.2:7400", "n3.example.org:7400", "[2001:db8::1]:7400"]
zone = "rack-1"
state = "/srv/starling"
[policy]
mode = "audit"
[groups]
batch = ["billing", "reports"]
[admin]
socket = "/srv/admin.sock"
listen = "[::1]:7401"
[log]
format = "json"
level = "info,starling_gossip=debug"
[limits]
connections = 10
streams_per_peer = 20
header_bytes = 30000
pending = 0
idle = "1h"
wait = "0s"
connect = "500ms"
drain = "1m 30s"
[issuer]
listen = "10.0.0.1:7002"
lifetime = "12h"
[[service]]
name = "orders"
address = "10.0.0.1"
port = 8080
protocol = "http"
http = "2"
allow = ["web", "group:batch"]
mode = "permissive"
plaintext = "192.0.2.1:8080"
labels = { version = "v2", track = "stable" }
weight = 1000
health = { kind = "http", path = "/healthz?deep=1", interval = "5s", timeout = "2s", up = 1, down = 3 }
[[service.grant]]
from = ["*"]
methods = ["GET", "HEAD"]
paths = ["/orders/**", "/orders/{id}/items"]
[[service.deny]]
from = ["guest"]
[[service]]
name = "db"
port = 5432
[service.health]
kind = "tcp"
[[upstream]]
service = "pay"
listen = "127.0.0.1:9001"
as = "orders"
protocol = "tcp"
"#;

#[test]
fn every_key_arrives() {
    let config = read(EVERYTHING);
    assert_eq!(config.listen, "10.0.0.1:7000".parse().unwrap());
    assert_eq!(config.advertise, Some("192.0.2.1:7000".parse().unwrap()));
    assert_eq!(
        config.seeds,
        ["10.0.0.2:7400", "n3.example.org:7400", "[2001:db8::1]:7400"]
    );
    assert_eq!(
        (config.zone.as_str(), config.state.to_str()),
        ("rack-1", Some("/srv/starling"))
    );
    assert_eq!(config.join_listen(), "10.0.0.1:7002".parse().unwrap());
    assert_eq!(config.issuer.lifetime, Duration::from_secs(12 * 3600));
    assert_eq!(
        config.admin,
        Admin {
            socket: "/srv/admin.sock".into(),
            listen: "[::1]:7401".parse().unwrap(),
            dashboard: true,
            remote: None,
        }
    );
    assert_eq!(
        config.log,
        Log {
            format: LogFormat::Json,
            level: "info,starling_gossip=debug".into(),
            access: AccessLog::default(),
        }
    );
    let limits = Limits {
        connections: 10,
        streams_per_peer: 20,
        header_bytes: 30000,
        pending: 0,
        idle: Duration::from_secs(3600),
        wait: Duration::ZERO,
        connect: Duration::from_millis(500),
        drain: Duration::from_secs(90),
    };
    assert_eq!(config.limits, limits);

    let [orders, db] = &config.services[..] else {
        panic!("two services")
    };
    assert_eq!(orders.name.as_str(), "orders");
    assert_eq!(orders.address, "10.0.0.1:8080".parse().unwrap());
    assert_eq!(
        (orders.protocol, orders.http, orders.weight),
        (Protocol::Http, HttpVersion::H2, 1000)
    );
    assert_eq!(
        orders
            .allow
            .iter()
            .map(|caller| caller.who.to_string())
            .collect::<Vec<_>>(),
        ["web", "group:batch"]
    );
    assert_eq!(orders.labels["version"], "v2");
    let health = orders.health.as_ref().unwrap();
    assert_eq!(
        health.kind,
        HealthKind::Http {
            path: "/healthz?deep=1".into()
        }
    );
    assert_eq!(
        (
            health.interval.as_secs(),
            health.timeout.as_secs(),
            health.up,
            health.down
        ),
        (5, 2, 1, 3)
    );
    assert_eq!(orders.declared.to_string(), "starling.toml:29");
    let [grant] = &orders.grants[..] else {
        panic!("one grant")
    };
    assert_eq!(
        (grant.methods.len(), grant.paths[1].to_string()),
        (2, "/orders/{id}/items".to_owned())
    );
    assert_eq!(grant.declared.to_string(), "starling.toml:41");
    assert_eq!(orders.denies[0].from[0].who.to_string(), "guest");
    assert_eq!(orders.plaintext, Some("192.0.2.1:8080".parse().unwrap()));
    let mode = |set: &Option<policy::Set>| set.as_ref().map(|set| set.mode);
    assert_eq!(mode(&orders.mode), Some(Mode::Permissive));
    assert_eq!(mode(&config.mode), Some(Mode::Audit));
    assert_eq!(config.groups["batch"].members.len(), 2);

    assert_eq!(db.address, "127.0.0.1:5432".parse().unwrap());
    assert_eq!(
        (db.protocol, db.http, db.weight),
        (Protocol::Tcp, HttpVersion::H1, 100)
    );
    assert!(db.allow.is_empty() && db.labels.is_empty());
    let health = db.health.as_ref().unwrap();
    assert_eq!(health.kind, HealthKind::Tcp);
    assert_eq!(
        (
            health.interval.as_secs(),
            health.timeout.as_secs(),
            health.up,
            health.down
        ),
        (2, 1, 2, 2)
    );

    let [pay] = &config.upstreams[..] else {
        panic!("one upstream")
    };
    assert_eq!(
        (pay.service.as_str(), pay.caller.as_str()),
        ("pay", "orders")
    );
    assert_eq!(
        (pay.listen, pay.protocol),
        ("127.0.0.1:9001".parse().unwrap(), Some(Protocol::Tcp))
    );
}

#[test]
fn nothing_declared_is_safe() {
    let config = read("");
    assert_eq!(config, Config::default());
    assert!(config.admin.listen.ip().is_loopback());
    assert!(config.services.is_empty() && config.upstreams.is_empty());
}

#[test]
fn keys() {
    check(
        "listne = \"0.0.0.0:1\"",
        "1: unknown key `listne`",
        "did you mean `listen`?",
    );
    check(
        "\n[[services]]\nname = \"a\"",
        "2: unknown key `services`",
        "did you mean `service`?",
    );
    check(
        "[limits]\nconections = 1",
        "2: unknown key `conections` in [limits]",
        "did you mean `connections`?",
    );
    check(
        "[log]\nseeds = [\"a:1\"]",
        "2: unknown key `seeds` in [log]",
        "`seeds` belongs at the top of the file, above the first [section]",
    );
    check(
        "level = \"info\"",
        "1: unknown key `level`",
        "`level` belongs in [log]",
    );
    check(
        "[log]\nfile = \"x\"",
        "2: unknown key `file` in [log]",
        "known here: `format`, `level`, `access`",
    );
    service(
        "prot = 1",
        "unknown key `prot` in [[service]]",
        "did you mean `port`?",
    );
    service(
        "health = { kind = \"tcp\", intervall = \"1s\" }",
        "unknown key `intervall` in health",
        "did you mean `interval`?",
    );
    upstream(
        "caller = \"web\"",
        "unknown key `caller` in [[upstream]]",
        "known here: `service`, `listen`, `as`, `protocol`, `hosts`, `balance`, `retry`, `timeout`, `limits`, `outlier`",
    );
    check(
        "\"a\\nerror: b\\u001b[0m\" = 1",
        "1: unknown key `a\\nerror: b\\u{1b}[0m`",
        "known here: `listen`, `advertise`, `seeds`, `zone`, `state`, `admin`, `log`, `trace`, `limits`, `policy`, `groups`, `issuer`, `service`, `upstream`, `route`",
    );
}

#[test]
fn names() {
    let what = |name: &str, why: &str| format!("`{name}` is not the name of a service: {why}");
    let bad = "a name holds only a-z, 0-9 and -, and neither begins nor ends with -";
    let length = "a name has 1 to 63 characters";
    service(
        "name = \"Orders\"",
        &what("Orders", bad),
        "`orders` would be a name",
    );
    service(
        "name = \"my_orders\"",
        &what("my_orders", bad),
        "`my-orders` would be a name",
    );
    service("name = \"\"", &what("", length), "");
    service("name = \"../etc\"", &what("../etc", bad), "");
    service("name = \"a\\\"b\"", &what("a\\\"b", bad), "");
    service("name = \"a\\nb\"", &what("a\\nb", bad), "");
    service("name = \"{{x}}\"", &what("{{x}}", bad), "");
    service("name = \"\\u043erders\"", &what("оrders", bad), "");
    upstream("as = \"Web\"", &what("Web", bad), "`web` would be a name");
    upstream("service = \"-\"", &what("-", bad), "");
}

#[test]
fn addresses() {
    let form = "an address is numbers and a port, as in \"127.0.0.1:9001\" or \"[::1]:9001\"";
    check(
        "listen = \"7400\"",
        "1: `listen` is not an address: `7400`",
        form,
    );
    check(
        "listen = \"10.0.0.1\"",
        "1: `listen` is not an address: `10.0.0.1`",
        "a port belongs behind it, as in \"10.0.0.1:7400\"",
    );
    check(
        "listen = \"10.0.0.1:0\"",
        "1: `listen` is not an address: `10.0.0.1:0`",
        "port 0 means any port, and nobody could be told which",
    );
    check(
        "advertise = \"0.0.0.0:7400\"",
        "1: nobody can reach `advertise = \"0.0.0.0:7400\"`",
        "name the address by which other hosts reach this one",
    );
    upstream(
        "listen = \"localhost:9001\"",
        "`listen` is not an address: `localhost:9001`",
        form,
    );
    service(
        "hosts = [\"orders\"]",
        "`hosts` is for services that speak http or grpc",
        "add `protocol = \"http\"`: what passes as bytes names no host",
    );
    service(
        "trust_headers = [\"x-remote-user\", \"accept\"]",
        "`accept` in `trust_headers` is no header that agents remove",
        "as in `trust_headers = [\"x-remote-user\"]`; the others pass",
    );
    upstream(
        "hosts = [\"orders\"]",
        "`hosts` is for upstreams that say `protocol = \"http\"` or `\"grpc\"`",
        "what passes as bytes names no host",
    );
    for (hosts, what, hint) in [
        (
            "[]",
            "`hosts` has 0 entries",
            "list 1 to 64, or leave `hosts` out to take any",
        ),
        (
            "[\"*.example\"]",
            "`*.example` in `hosts` is no host",
            NO_HOST,
        ),
        ("[\"user@a\"]", "`user@a` in `hosts` is no host", NO_HOST),
        ("[\"a:\"]", "`a:` in `hosts` is no host", NO_HOST),
        ("[\"a:70000\"]", "`a:70000` in `hosts` is no host", NO_HOST),
        (
            "[\"http://a\"]",
            "`http://a` in `hosts` is no host",
            NO_HOST,
        ),
    ] {
        check(
            &format!("[[service]]\nhosts = {hosts}\nprotocol = \"http\"\nname = \"a\"\nport = 1\n"),
            &format!("2: {what}"),
            hint,
        );
    }
    upstream(
        "listen = \"0.0.0.0:9001\"",
        "`listen` is open to every network of this host: `0.0.0.0:9001`",
        "whoever connects there speaks as this caller; name one address, best 127.0.0.1",
    );
    // The same address in the clothes of IPv6 bound every network.
    upstream(
        "listen = \"[::ffff:0.0.0.0]:9001\"",
        "`listen` is open to every network of this host: `0.0.0.0:9001`",
        "whoever connects there speaks as this caller; name one address, best 127.0.0.1",
    );
    service(
        "address = \"127.0.0.1:80\"",
        "`address` is not an IP address: `127.0.0.1:80`",
        "`address = \"127.0.0.1\"` and `port = 80`",
    );
    service(
        "address = \"localhost\"",
        "`address` is not an IP address: `localhost`",
        "numbers only, as in \"127.0.0.1\" or \"::1\"",
    );
    check(
        "[admin]\nlisten = \"10.0.0.1:7401\"",
        "2: `listen` of [admin] is not a loopback address: `10.0.0.1:7401`",
        "keep it on 127.0.0.1; to read it from elsewhere, offer it through the mesh: \
         [[service]] with `port = 7401`, and `allow` who may; for browsers there is `remote`",
    );
}

#[test]
fn remote() {
    let all = "[admin]\nremote = \"10.0.0.1:7443\"\nnames = [\"N1.example.org\"]\nallow = [\"ops\"]\n\
               certificate = \"/etc/ssl/n1.pem\"\nkey = \"/etc/ssl/private/n1.key\"";
    let remote = read(all).admin.remote.unwrap();
    assert_eq!(remote.listen.to_string(), "10.0.0.1:7443");
    assert_eq!(remote.names, ["n1.example.org"]);
    assert_eq!(remote.allow[0].as_str(), "ops");
    assert!(remote.certificate.is_some());
    check(
        "[admin]\nremote = \"10.0.0.1\"",
        "2: `remote` is not an address: `10.0.0.1`",
        "a port belongs behind it, as in \"10.0.0.1:7400\"",
    );
    check(
        "[admin]\nremote = \"10.0.0.1:7443\"\ndashboard = false",
        "2: `remote` of [admin] has nothing to show: `dashboard` is false",
        "remove one of the two",
    );
    check(
        "[admin]\nlisten = \"127.0.0.1:7443\"\nremote = \"127.0.0.1:7443\"",
        "3: `remote` and `listen` of [admin] are the same address",
        "`listen` is for this host and without TLS; choose another port for `remote`",
    );
    for (key, value) in [
        ("names", "[\"n1.example.org\"]"),
        ("allow", "[\"ops\"]"),
        ("certificate", "\"/a.pem\""),
        ("key", "\"/a.key\""),
    ] {
        check(
            &format!("[admin]\n{key} = {value}"),
            &format!(
                "2: `{key}` of [admin] is about the dashboard for other hosts, and there is none"
            ),
            "add `remote = \"10.0.0.1:7443\"` with an address of this host, or remove it",
        );
    }
    let with = |line: &str| format!("[admin]\nremote = \"10.0.0.1:7443\"\n{line}");
    check(
        &with("certificate = \"/a.pem\""),
        "3: `certificate` of [admin] has no `key`",
        "add `key` with the file of its private key",
    );
    check(
        &with("key = \"/a.key\""),
        "3: `key` of [admin] has no `certificate`",
        "add `certificate` with the file of its chain",
    );
    check(
        &with("names = [\"https://n1\"]"),
        "3: `https://n1` is not the name of a host",
        "without scheme and port, as in \"n1.example.org\"; addresses of this host need not be named",
    );
    check(
        &with("allow = [\"*\"]"),
        "3: `*` is not the name of a service: a name holds only a-z, 0-9 and -, and neither begins nor ends with -",
        "there is no wildcard: list the services that may call",
    );
}

#[test]
fn seeds() {
    let form = "a seed is a host and a port, as in \"10.0.0.2:7400\" or \"n2.example.org:7400\"";
    check(
        "seeds = [\"10.0.0.2\"]",
        "1: `10.0.0.2` is not a seed",
        "a port belongs behind it, as in \"10.0.0.2:7400\"",
    );
    check(
        "seeds = [\n\"a:1\",\n\"n2\",\n]",
        "3: `n2` is not a seed",
        "a port belongs behind it, as in \"n2:7400\"",
    );
    for bad in [
        "",
        ":",
        ":7400",
        "n2:",
        "n2:0",
        "n2:70000",
        "n 2:7400",
        "10.0.0.256:7400",
        "0.0.0.0:7400",
        "a..b:1",
        "http://n2:1",
    ] {
        check(
            &format!("seeds = [\"{bad}\"]"),
            &format!("1: `{bad}` is not a seed"),
            form,
        );
    }
    assert_eq!(read("seeds = [\"N2.example.org.:1\"]").seeds.len(), 1);
}

#[test]
fn paths_and_words() {
    let absolute = "begin it with `/`, so that it means the same wherever the agent is started";
    check(
        "state = \"state\"",
        "1: `state` is not an absolute path: `state`",
        absolute,
    );
    check(
        "[admin]\nsocket = \"a.sock\"",
        "2: `socket` is not an absolute path: `a.sock`",
        absolute,
    );
    let zone = "up to 63 characters of a-z A-Z 0-9 . _ / -, as in \"rack-1\"";
    check(
        "zone = \"rack 1\"",
        "1: `zone` is not a plain word: `rack 1`",
        zone,
    );
    check(
        "[log]\nformat = \"jsn\"",
        "2: `format` cannot be `jsn`",
        "did you mean \"json\"?",
    );
    let level = "one of error, warn, info, debug, trace, off; for parts of the program add `,starling_gossip=debug`";
    check(
        "[log]\nlevel = \"inof\"",
        "2: `level` is not a log level: `inof`",
        level,
    );
    check(
        "[log]\nlevel = \"info,a=loud\"",
        "2: `level` is not a log level: `info,a=loud`",
        level,
    );
    service(
        "protocol = \"htp\"",
        "`protocol` cannot be `htp`",
        "did you mean \"http\"?",
    );
    service(
        "protocol = \"quic\"",
        "`protocol` cannot be `quic`",
        "one of \"tcp\", \"http\", \"grpc\", \"auto\"",
    );
    check(
        "[[service]]\nname = \"a\"\nport = 1\nprotocol = \"grpc\"\nhttp = \"1\"",
        "5: `http` says nothing about a service that speaks grpc",
        "gRPC is HTTP/2: leave `http` out",
    );
    service(
        "http = \"2\"",
        "`http` says nothing about a service that speaks tcp",
        "add `protocol = \"http\"`, or leave `http` out",
    );
    check(
        "[[service]]\nname = \"a\"\nport = 1\nprotocol = \"http\"\nhttp = \"3\"",
        "5: `http` cannot be `3`",
        "one of \"1\", \"2\"",
    );
}

#[test]
fn numbers_and_times() {
    service(
        "port = 0",
        "`port` is 0, which is out of range",
        "it goes from 1 to 65535",
    );
    service(
        "port = 65536",
        "`port` is 65536, which is out of range",
        "it goes from 1 to 65535",
    );
    service(
        "weight = 0",
        "`weight` is 0, which is out of range",
        "it goes from 1 to 1000",
    );
    service(
        "weight = -1",
        "`weight` is -1, which is out of range",
        "it goes from 1 to 1000",
    );
    check(
        "[limits]\nidle = \"5 minuts\"",
        "2: `idle` is not a time: `5 minuts`",
        "a number and a unit, such as \"500ms\", \"30s\" or \"5m\"",
    );
    check(
        "[limits]\nidle = \"0s\"",
        "2: `idle` is 0s, which is out of range",
        "it goes from 1s to 1day",
    );
    check(
        "[limits]\nidle = 300",
        "2: invalid type: integer `300`, expected a time with its unit in quotes, such as \"30s\"",
        "",
    );
    check(
        "[limits]\nheader_bytes = 10",
        "2: `header_bytes` is 10, which is out of range",
        "it goes from 1024 to 1048576",
    );
}

#[test]
fn an_app_may_be_told_who_calls_or_be_called_either_way() {
    let text = "[[service]]\nname = \"a\"\nport = 1\nproxy_protocol = \"2\"\n\
                [[service]]\nname = \"b\"\nport = 2\nprotocol = \"auto\"\nhttp = \"2\"\n";
    let config = read(text);
    let [told, either] = &config.services[..] else {
        panic!("two services")
    };
    assert!(told.is_told && told.takes(Protocol::Tcp) && !told.takes(Protocol::Http));
    assert!(!either.is_told && either.takes(Protocol::Tcp) && either.takes(Protocol::Http));
    assert_eq!((told.speaks(), either.speaks()), ("tcp", "auto"));
    service(
        "proxy_protocol = \"1\"",
        "`proxy_protocol` cannot be `1`",
        "one of \"2\"",
    );
    check(
        "[[service]]\nname = \"a\"\nport = 1\nprotocol = \"http\"\nproxy_protocol = \"2\"",
        "5: `proxy_protocol` is for services that speak tcp",
        "over HTTP the app reads `starling-caller` in each request: leave it out",
    );
}

#[test]
fn what_speaks_grpc_is_called_in_http2_and_announced_as_such() {
    let text = "[[service]]\nname = \"a\"\nport = 1\nprotocol = \"grpc\"\n\
                health = { kind = \"grpc\", service = \"a.b.C\" }\n\
                [[service]]\nname = \"b\"\nport = 2\nhealth = { kind = \"exec\", command = [\"/bin/x\", \"-q\"] }\n\
                [[upstream]]\nservice = \"c\"\nlisten = \"127.0.0.1:3\"\nas = \"a\"\nprotocol = \"grpc\"\n";
    let config = read(text);
    let [grpc, other] = &config.services[..] else {
        panic!("two services")
    };
    assert_eq!(
        (grpc.protocol, grpc.http, grpc.speaks()),
        (Protocol::Http, HttpVersion::Grpc, "grpc")
    );
    assert_eq!(other.speaks(), "tcp");
    let kind = |service: &Service| service.health.clone().map(|health| health.kind);
    let grpc = HealthKind::Grpc {
        service: "a.b.C".into(),
    };
    assert_eq!(kind(&config.services[0]), Some(grpc));
    let exec = HealthKind::Exec {
        command: vec!["/bin/x".into(), "-q".into()],
    };
    assert_eq!(kind(other), Some(exec));
    assert_eq!(config.upstreams[0].protocol, Some(Protocol::Http));
}

#[test]
fn health() {
    let kind = "\"tcp\" (it accepts), \"http\" (it answers 2xx or 3xx), \"grpc\" (it says SERVING) or \"exec\" (a program ends well)";
    service("health = {}", "`kind` is missing", kind);
    service(
        "health = { kind = \"htpp\" }",
        "`kind` cannot be `htpp`",
        "did you mean \"http\"?",
    );
    let path = "it begins with `/` and is plain ASCII, percent-encoded where needed";
    service(
        "health = { kind = \"http\", path = \"x\" }",
        "`path` is not a path: `x`",
        path,
    );
    service(
        "health = { kind = \"http\", path = \"/ HTTP/1.1\" }",
        "`path` is not a path: `/ HTTP/1.1`",
        path,
    );
    service(
        "health = { kind = \"http\", path = \"/\\r\\nx: y\" }",
        "`path` is not a path: `/\\r\\nx: y`",
        path,
    );
    for (key, value, home) in [
        ("path", "\"/\"", "http"),
        ("service", "\"a\"", "grpc"),
        ("command", "[\"/bin/true\"]", "exec"),
    ] {
        service(
            &format!("health = {{ kind = \"tcp\", {key} = {value} }}"),
            &format!("`{key}` says nothing about a check of kind tcp"),
            &format!("`kind = \"{home}\"`, or leave `{key}` out"),
        );
    }
    service(
        "health = { kind = \"grpc\", service = \"a b\" }",
        "`service` is not a name of gRPC: `a b`",
        "such as \"shop.v1.Orders\"; empty means the whole server",
    );
    let command = "an absolute path and up to 31 arguments, no shell: `command = [\"/usr/bin/pg_isready\", \"-q\"]`";
    service(
        "health = { kind = \"exec\" }",
        "`command` is missing",
        command,
    );
    for words in ["[]", "[\"true\"]", "[\"/bin/true\", \"a\\u0000\"]"] {
        service(
            &format!("health = {{ kind = \"exec\", command = {words} }}"),
            "`command` is not a program that can be run",
            command,
        );
    }
    service(
        "health = { kind = \"tcp\", up = 0 }",
        "`up` is 0, which is out of range",
        "it goes from 1 to 100",
    );
}

#[test]
fn labels() {
    let hint = "at most 16; keys and values have up to 63 characters of a-z A-Z 0-9 . _ / -";
    service(
        "labels = { version = \"v 2\" }",
        "these `labels` cannot be announced",
        hint,
    );
    service(
        "labels = { \"\" = \"v\" }",
        "these `labels` cannot be announced",
        hint,
    );
}

#[test]
fn what_is_missing_is_named_where_it_is_missing() {
    check(
        "\n\n[[service]]\nport = 1",
        "3: `name` is missing",
        "callers use it: `name = \"orders\"`",
    );
    check(
        "[[service]]\nname = \"a\"",
        "1: `port` is missing",
        "where the app listens: `port = 8080`",
    );
    check(
        "[[upstream]]\nservice = \"a\"\nlisten = \"127.0.0.1:1\"",
        "1: `as` is missing",
        "the service that calls: `as = \"web\"`",
    );
}

#[test]
fn declared_twice() {
    check(
        "[[service]]\nname = \"a\"\nport = 1\n[[service]]\nname = \"a\"\nport = 2",
        "4: service `a` is declared twice",
        "one node runs one instance of a service; the other is at starling.toml:1",
    );
    let one = "[[upstream]]\nservice = \"a\"\nas = \"w\"\nlisten = \"127.0.0.1:1\"\n";
    check(
        &format!("{one}{}", one.replace("\"a\"", "\"b\"")),
        "5: upstream `b` listens on 127.0.0.1:1, which is taken",
        "choose another port; this is the upstream `a` at starling.toml:1",
    );
    check(
        &format!("{one}[[service]]\nname = \"app\"\nport = 1"),
        "1: upstream `a` listens on 127.0.0.1:1, which is taken",
        "choose another port; this is the app of service `app` at starling.toml:5",
    );
    check(
        &one.replace(":1\"", ":7401\""),
        "1: upstream `a` listens on 127.0.0.1:7401, which is taken",
        "choose another port; this is the admin listener ([admin] listen)",
    );
    // Metrics offered through the mesh, and two services of one app.
    assert_eq!(
        told("[[service]]\nname = \"m\"\nport = 7401\n[[service]]\nname = \"n\"\nport = 7401"),
        ""
    );
}

#[test]
fn syntax() {
    check(
        "a = \n",
        "1: string values must be quoted, expected literal string",
        "",
    );
    check(
        "listen = \"1.1.1.1:1\"\nlisten = \"1.1.1.1:1\"",
        "2: duplicate key",
        "",
    );
    check(
        "[[service]]\nport = \"80\"",
        "2: invalid type: string \"80\", expected a whole number without quotes",
        "",
    );
    check(
        "service = 3",
        "1: invalid type: integer `3`, expected a sequence",
        "",
    );
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for text in [
        "[".repeat(500_000),
        format!("{}a = 1", "a.".repeat(300_000)),
        format!("a = {}", "[".repeat(500_000)),
    ] {
        assert!(!told(&text).is_empty());
    }
}

/// A configuration directory with these files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("services.d")).unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn told_about(dir: &tempfile::TempDir) -> String {
    let prefix = format!("{}/", dir.path().display());
    Config::load(dir.path())
        .map_or_else(|problems| problems.to_string(), |_| String::new())
        .replace(&prefix, "")
}

#[test]
fn all_problems_of_all_files_come_at_once_and_in_order() {
    let dir = directory(&[
        ("starling.toml", "zone = \"a b\"\nlisten = \"x\"\n"),
        ("services.d/b.toml", "[[service]]\nname = \"a\"\nport = 1\n"),
        (
            "services.d/a.toml",
            "[[service]]\nname = \"a\"\nport = 0\nwieght = 1\n",
        ),
        ("services.d/c.toml", "= broken"),
        (
            "services.d/d.toml",
            "[[service]]\nname = \"a\"\nport = 1\nseeds = []\n",
        ),
        ("services.d/e.toml", "seeds = []\n[log]\n"),
        ("services.d/.hidden.toml", "= broken"),
        ("services.d/backup.toml~", "= broken"),
    ]);
    let told = told_about(&dir);
    let places: Vec<_> = told
        .lines()
        .filter_map(|line| line.strip_prefix("error: ")?.split(": ").next())
        .collect();
    let expected = [
        "services.d/a.toml:3",
        "services.d/a.toml:4",
        "services.d/c.toml:1",
        "services.d/d.toml:1",
        "services.d/d.toml:4",
        "services.d/e.toml:1",
        "services.d/e.toml:2",
        "starling.toml:1",
        "starling.toml:2",
    ];
    assert_eq!(places, expected, "{told}");
    assert!(
        told.contains("the other is at") && told.contains("services.d/b.toml:1"),
        "{told}"
    );
}

#[test]
fn node_settings_belong_in_one_file() {
    let dir = directory(&[("services.d/a.toml", "[limits]\npending = 1\n")]);
    assert_eq!(
        told_about(&dir),
        "error: services.d/a.toml:1: `limits` is a setting of the whole node\n  \
         hint: files in services.d hold [[service]], [[upstream]] and [[route]]; move it to starling.toml"
    );
}

#[test]
fn a_missing_file_is_fine_and_a_missing_directory_is_not() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Config::load(dir.path()).unwrap(), Config::default());
    let missing = dir.path().join("nowhere");
    let problems = Config::load(&missing).unwrap_err().to_string();
    assert!(
        problems.contains("nowhere: cannot be read: No such file"),
        "{problems}"
    );
}

#[test]
fn what_is_no_readable_file_is_named() {
    let dir = directory(&[("services.d/big.toml", &"#".repeat(1024 * 1024 + 1))]);
    fs::create_dir(dir.path().join("starling.toml")).unwrap();
    let fifo = dir.path().join("services.d/fifo.toml");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    std::os::unix::fs::symlink("/nowhere", dir.path().join("services.d/gone.toml")).unwrap();
    fs::write(dir.path().join("services.d/latin.toml"), b"\n# caf\xe9\n").unwrap();
    assert_eq!(
        told_about(&dir),
        "error: services.d/big.toml: cannot be read: it is larger than 1 MiB\n\
         error: services.d/fifo.toml: cannot be read: it is not a regular file\n\
         error: services.d/gone.toml: cannot be read: No such file or directory (os error 2)\n\
         error: services.d/latin.toml:2: this line is not UTF-8 text\n  hint: save the file as UTF-8\n\
         error: starling.toml: cannot be read: it is not a regular file"
    );
}

#[test]
fn a_fingerprint_follows_the_files_that_count() {
    let dir = directory(&[("starling.toml", ""), ("services.d/a.toml", "")]);
    let before = Config::fingerprint(dir.path());
    fs::write(dir.path().join("services.d/note.txt"), "x").unwrap();
    assert_eq!(Config::fingerprint(dir.path()), before);
    fs::write(dir.path().join("services.d/b.toml"), "").unwrap();
    let more = Config::fingerprint(dir.path());
    assert_ne!(more, before);
    fs::write(dir.path().join("services.d/a.toml"), "# x").unwrap();
    assert_ne!(Config::fingerprint(dir.path()), more);
}

proptest! {
    #[test]
    fn any_bytes_are_settings_or_problems(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        fuzz(&bytes);
    }

    #[test]
    fn any_text_is_settings_or_problems(text in "[\\[\\]{}=,.\"'#a-z0-9\\n ]{0,400}") {
        fuzz(text.as_bytes());
    }

    /// Good TOML with bytes replaced, removed and pieces repeated reaches further than noise does.
    #[test]
    fn mutated_settings_are_settings_or_problems(
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), 0..3, any::<u8>()), 1..12),
    ) {
        let mut bytes = EVERYTHING.as_bytes().to_vec();
        for (from, to, edit, byte) in edits {
            if bytes.is_empty() {
                break;
            }
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            match edit {
                0 => bytes[from] = byte,
                1 => drop(bytes.drain(from.min(to)..from.max(to).min(from.min(to) + 40))),
                _ => {
                    let piece = bytes[from.min(to)..from.max(to)].to_vec();
                    bytes.splice(to..to, piece);
                }
            }
            bytes.truncate(100_000);
        }
        fuzz(&bytes);
    }

    /// Values of the right shape with any content: this is where the checks themselves are reached.
    #[test]
    fn any_values_are_settings_or_problems(text in "\\PC{0,40}", number in any::<i64>(), time in "[0-9a-z. ]{0,20}") {
        let quoted = toml_quoted(&text);
        let time = toml_quoted(&time);
        fuzz(format!("listen = {quoted}\nseeds = [{quoted}]\nzone = {quoted}\nstate = {quoted}").as_bytes());
        fuzz(format!("[limits]\nidle = {time}\npending = {number}").as_bytes());
        fuzz(format!("[[service]]\nname = {quoted}\naddress = {quoted}\nport = {number}\nallow = [{quoted}]\n\
            labels = {{ {quoted} = {quoted} }}\nmode = {quoted}\nplaintext = {quoted}\nhealth = {{ kind = {quoted}, path = {quoted}, interval = {time} }}").as_bytes());
        fuzz(format!("[groups]\n{quoted} = [{quoted}]\n[[service]]\nname = 'a'\nport = 1\nprotocol = 'http'\n\
            [[service.grant]]\nfrom = [{quoted}]\nmethods = [{quoted}]\npaths = [{quoted}]").as_bytes());
        fuzz(format!("[[upstream]]\nservice = {quoted}\nlisten = {quoted}\nas = {quoted}").as_bytes());
    }
}

fn toml_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', ""))
}
