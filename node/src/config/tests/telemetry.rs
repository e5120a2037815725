//! `[trace]` and `[log.access]`.

use super::*;
use crate::route::split::Share;
use crate::telemetry::access::{Field, Fields};

#[test]
fn nothing_written_means_no_spans_and_all_lines() {
    for text in [
        "",
        "[trace]\n[log]\n",
        "[trace]\nprotocol = \"grpc\"\n[log.access]\n",
    ] {
        let config = read(text);
        assert_eq!(config.trace.collector, None);
        assert_eq!(config.log.access, AccessLog::default());
        assert_eq!(config.log.access.fields, Fields::ALL);
    }
}

#[test]
fn spans_go_where_the_endpoint_says() {
    let uri = |lines: &str| {
        let config = read(&format!("[trace]\n{lines}"));
        config.trace.collector.unwrap().uri().to_string()
    };
    for (endpoint, expected) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://localhost:4318/", "http://localhost:4318/v1/traces"),
        ("http://[::1]:4318/otlp", "http://[::1]:4318/otlp/v1/traces"),
    ] {
        assert_eq!(uri(&format!("endpoint = \"{endpoint}\"")), expected);
    }
    assert_eq!(
        uri("endpoint = \"http://127.0.0.1:4317\"\nprotocol = \"grpc\""),
        "http://127.0.0.1:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    );
    let config = read("[trace]\nendpoint = \"http://127.0.0.1:4318\"\nsample = 0\n");
    assert_eq!(config.trace.sample, 0);
}

#[test]
fn an_endpoint_that_cannot_be_is_refused() {
    let endpoint = |text: &str, what: &str, hint: &str| {
        let text = format!("[trace]\nendpoint = \"{text}\"");
        let told = told(&text);
        assert!(told.starts_with("error: starling.toml:2: "), "{told}");
        assert!(told.contains(what) && told.contains(hint), "{told}");
    };
    let example = "as in \"http://127.0.0.1:4318\"";
    endpoint("not a url", "is not a URL: `not a url`", example);
    endpoint("127.0.0.1:4318", "with scheme, host and port", example);
    endpoint("/v1/traces", "with scheme, host and port", example);
    endpoint(
        "http://user@127.0.0.1:4318",
        "with scheme, host and port",
        example,
    );
    endpoint(
        "https://collector.example.org:4318",
        "another scheme than http",
        "[[upstream]]",
    );
    endpoint("http://127.0.0.1", "names no port", "4318");
    endpoint("http://127.0.0.1:0", "names no port", "4318");
    endpoint(
        "http://collector.example.org:4318",
        "is not on this host",
        "[[upstream]]",
    );
    endpoint("http://10.0.0.1:4318", "is not on this host", "plain text");
    endpoint(
        "http://127.0.0.1:4318/v1/traces",
        "says too much",
        "leave out",
    );
    endpoint("http://127.0.0.1:4318?a=b", "says too much", "leave out");
    check(
        "[trace]\nendpoint = \"http://127.0.0.1:4317/x\"\nprotocol = \"grpc\"",
        "2: `endpoint` has a path, which gRPC has no use for: `http://127.0.0.1:4317/x`",
        "host and port are enough",
    );
    check(
        "[trace]\nprotocol = \"grcp\"",
        "2: `protocol` cannot be `grcp`",
        "did you mean \"grpc\"?",
    );
    check(
        "[trace]\nsample = 1001",
        "2: `sample` is 1001, which is out of range",
        "it goes from 0 to 1000",
    );
    check(
        "[trace]\nendpint = \"\"",
        "2: unknown key `endpint` in [trace]",
        "did you mean `endpoint`?",
    );
}

/// Ports, settings and fields that the example for a collector names are those of the code.
#[test]
fn the_collector_that_we_ship_fits() {
    let shipped = include_str!("../../../../deploy/otel/collector.yaml");
    let toml: Vec<_> = shipped
        .lines()
        .filter_map(|line| line.strip_prefix("#   "))
        .collect();
    let config = read(&toml.join("\n"));
    assert_eq!(config.log.format, LogFormat::Json);
    let uri = config.trace.collector.unwrap().uri();
    let listens = format!("http:\n        endpoint: {}\n", uri.authority().unwrap());
    assert!(shipped.contains(&listens), "{listens}");
    let scraped = format!("targets: [\"{}\"]", Config::default().admin.listen);
    assert!(shipped.contains(&scraped), "{scraped}");
    let mut fields = shipped
        .split("parse_from: attributes.")
        .skip(1)
        .map(|rest| rest.lines().next().unwrap());
    let always = ["level", "target", "time", "message"];
    let is_said =
        |name: &str| always.contains(&name) || Field::ALL.map(Field::as_str).contains(&name);
    assert!(fields.clone().count() >= 3 && fields.all(is_said));
}

/// The page for operators lists what there is.
#[test]
fn every_field_of_access_lines_is_documented_and_nothing_else() {
    let page = include_str!("../../../../docs/traces.md");
    let table = page.split("| field | meaning |").nth(1).unwrap();
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).unwrap());
    let names: Vec<_> = cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert_eq!(names, Field::ALL.map(Field::as_str));
}

#[test]
fn access_lines_say_what_is_listed() {
    let config = read("[log.access]\nfields = [\"callee\", \"url.path\"]\nsample = 0.5");
    let AccessLog { fields, sample } = config.log.access;
    assert!(fields.has(Field::Callee) && fields.has(Field::Path) && !fields.has(Field::Status));
    assert_eq!(sample, Share(50));
}

#[test]
fn other_fields_are_refused() {
    check(
        "[log.access]\nfields = [\"url.pth\"]",
        "2: access lines have no field `url.pth`",
        "did you mean \"url.path\"?",
    );
    let told = told("[log.access]\nfields = [\n\"status\",\n]");
    assert!(
        told.starts_with("error: starling.toml:3: access lines have no field `status`"),
        "{told}"
    );
    assert!(told.contains("http.response.status_code"), "{told}");
    check(
        "[log.access]\nsample = 101",
        "2: `sample` is 101, which is no share",
        "it goes from 0 to 100, in steps of 0.01",
    );
    check(
        "[log.access]\nsampel = 1",
        "2: unknown key `sampel` in [log.access]",
        "did you mean `sample`?",
    );
}
