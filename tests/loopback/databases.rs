//! PostgreSQL and Redis through `tcp`, with the clients that come with them.

use std::process::Command;

use harness::apps::{Postgres, Redis};
use harness::process::run;
use harness::{Mesh, Need, need, program, turn};

/// `app` on n1 calls the tcp service `db`, which runs on n2.
fn mesh() -> Mesh {
    Mesh::loopback(&[("n1", &["app"]), ("n2", &["db"])])
}

fn start(mesh: &Mesh, database: std::net::SocketAddr) -> std::net::SocketAddr {
    mesh.node("n2").serve(
        "db",
        database,
        "tcp",
        &["app"],
        "health = { kind = \"tcp\" }",
    );
    let address = mesh.node("n1").call("db", "app");
    mesh.start();
    mesh.wait_healthy("db", &["n2"], crate::SEEN);
    address
}

#[test]
fn pgbench_runs_its_transactions_on_postgresql() {
    need!(
        Need::Agent,
        Need::Program("postgres"),
        Need::Program("pgbench"),
        Need::Program("psql")
    );
    let _turn = turn::shared();
    let mesh = mesh();
    let postgres = Postgres::start(mesh.node("n2").host(), mesh.scratch().path());
    let address = start(&mesh, postgres.address());
    let client = |program: &str, options: &[&str]| {
        let mut command = Command::new(program::path(program));
        command.args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
            "-U",
            "postgres",
        ]);
        command.args(options).env("PGCONNECT_TIMEOUT", "20");
        run(command)
    };
    client(
        "pgbench",
        &["--initialize", "--scale=1", "--quiet", "postgres"],
    );
    let report = client(
        "pgbench",
        &[
            "--client=8",
            "--jobs=2",
            "--transactions=250",
            "--no-vacuum",
            "postgres",
        ],
    );
    assert!(
        report.contains("number of transactions actually processed: 2000/2000"),
        "{report}"
    );
    assert!(
        report.contains("number of failed transactions: 0 "),
        "{report}"
    );
    // Each connection anew: set-up and end count here.
    let report = client(
        "pgbench",
        &[
            "--connect",
            "--select-only",
            "--client=4",
            "--transactions=25",
            "--no-vacuum",
            "postgres",
        ],
    );
    assert!(report.contains("actually processed: 100/100"), "{report}");
    // What one statement returns is larger than any window on the way.
    let rows = client(
        "psql",
        &[
            "-At",
            "-c",
            "select sum(length(x)) from (select repeat('x', 1000) x from generate_series(1, 40000)) t",
            "postgres",
        ],
    );
    assert_eq!(rows.trim(), "40000000");
    let copied = client(
        "psql",
        &[
            "-At",
            "-c",
            "copy (select repeat('x', 999) from generate_series(1, 40000)) to stdout",
            "postgres",
        ],
    );
    assert_eq!(copied.len(), 40_000_000);
}

#[test]
fn redis_cli_and_redis_benchmark_talk_to_redis() {
    need!(
        Need::Agent,
        Need::Program("redis-server"),
        Need::Program("redis-cli"),
        Need::Program("redis-benchmark")
    );
    let _turn = turn::shared();
    let mesh = mesh();
    let redis = Redis::start(mesh.node("n2").host(), mesh.scratch().path());
    let address = start(&mesh, redis.address());
    let client = |program: &str, options: &[&str]| {
        let mut command = Command::new(program::path(program));
        command
            .args([
                "-h",
                &address.ip().to_string(),
                "-p",
                &address.port().to_string(),
            ])
            .args(options);
        run(command)
    };
    assert_eq!(client("redis-cli", &["ping"]), "PONG\n");
    assert_eq!(client("redis-cli", &["set", "bird", "starling"]), "OK\n");
    assert_eq!(client("redis-cli", &["get", "bird"]), "starling\n");
    let report = client(
        "redis-benchmark",
        &["-c", "50", "-n", "10000", "-t", "set,get", "-q", "--csv"],
    );
    assert!(
        report.contains("\"SET\"") && report.contains("\"GET\""),
        "{report}"
    );
    client(
        "redis-benchmark",
        &[
            "-c", "4", "-n", "200", "-P", "16", "-d", "65536", "-t", "set", "-q",
        ],
    );
    let errors = client("redis-cli", &["info", "errorstats"]);
    assert!(!errors.contains("errorstat_"), "{errors}");
}
