//! An agent starts, reloads, hears from its apps, and ends.

use std::io::{Read, Write};
use std::process::Command;

use harness::apps::Nginx;
use harness::http::{self, Client};
use harness::process::{Signal, run};
use harness::{Mesh, Need, need, program, stream, turn, wait_until};

/// `web` on n1 calls `site`, which is nginx on n2.
fn site(mesh: &Mesh, more: &str) -> (Nginx, std::net::SocketAddr) {
    let nginx = Nginx::start(
        mesh.node("n2").host(),
        &mesh.scratch().directory("nginx"),
        "n2",
    );
    mesh.node("n2")
        .serve("site", nginx.address(), "http", &["web"], more);
    let address = mesh.node("n1").call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2"], crate::SEEN);
    (nginx, address)
}

fn two() -> Mesh {
    Mesh::loopback(&[("n1", &["web"]), ("n2", &["site", "extra"])])
}

#[test]
fn an_agent_asked_to_end_lets_calls_finish_and_leaves_the_mesh() {
    need!(Need::Agent, Need::Program("nginx"), Need::Program("curl"));
    let _turn = turn::shared();
    let mesh = two();
    let (nginx, address) = site(&mesh, "");
    // Takes nginx about two seconds at its own pace.
    std::fs::write(nginx.files().join("half"), vec![b'x'; 512 << 10]).expect("it is ours");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| {
            let mut curl = Command::new(program::path("curl"));
            curl.args([
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "30",
                &format!("http://{address}/slow/half"),
            ]);
            run(curl).len()
        });
        let open = || {
            mesh.node("n2")
                .metrics()
                .sum("starling_calls_open", &[("side", "callee")])
        };
        wait_until(crate::PATIENCE, "the call to be under way", || {
            open() == 1.0
        });
        mesh.node("n2").stop();
        assert_eq!(call.join().expect("no panic"), 512 << 10);
    });
    // It said that it leaves: nobody has to find out.
    wait_until(crate::SEEN, "n1 to know that n2 has left", || {
        mesh.node("n1").healthy("site").is_empty()
    });
    mesh.node("n1").stop();
}

#[test]
fn an_idle_agent_ends_at_once() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    mesh.start();
    let began = std::time::Instant::now();
    mesh.node("n1").stop();
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_changed_file_is_taken_up_without_touching_what_runs() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = two();
    let (nginx, address) = site(&mesh, "");
    let mut kept = Client::new(address);
    assert_eq!(kept.get("/").expect("an answer").status, 200);

    mesh.node("n2")
        .serve("extra", nginx.address(), "http", &["web"], "");
    mesh.node("n2").signal(Signal::HUP);
    mesh.wait_healthy("extra", &["n2"], crate::PATIENCE);
    let extra = mesh.node("n1").call("extra", "web");
    mesh.node("n1").signal(Signal::HUP);
    wait_until(crate::PATIENCE, "the new upstream to answer", || {
        http::get(extra, "/").is_ok_and(|answer| answer.status == 200)
    });
    assert_eq!(
        kept.get("/")
            .expect("the kept connection still works")
            .status,
        200
    );

    mesh.node("n2").remove("extra.toml");
    mesh.node("n2").signal(Signal::HUP);
    wait_until(crate::PATIENCE, "the service to be gone", || {
        mesh.node("n1").instances("extra").is_empty()
    });
    assert_eq!(
        kept.get("/")
            .expect("the kept connection still works")
            .status,
        200
    );
}

#[test]
fn files_are_watched_without_a_signal() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = two();
    let (nginx, _address) = site(&mesh, "");
    mesh.node("n2")
        .serve("extra", nginx.address(), "http", &["web"], "");
    mesh.wait_healthy("extra", &["n2"], crate::PATIENCE);
}

#[test]
fn a_broken_file_changes_nothing_but_a_counter() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::shared();
    let mesh = two();
    let (_nginx, address) = site(&mesh, "");
    let node = mesh.node("n2");
    let refused = || {
        node.metrics()
            .sum("starling_config_reloads_total", &[("outcome", "refused")])
    };
    node.write(
        "site.toml",
        "[[service]]\nname = \"site\"\nport = 0\nprotokol = \"http\"\n",
    );
    node.signal(Signal::HUP);
    wait_until(crate::PATIENCE, "the reload to be refused", || {
        refused() >= 1.0
    });
    assert_eq!(http::get(address, "/").expect("an answer").status, 200);
    assert_eq!(mesh.node("n1").healthy("site"), ["n2"]);
    let error = node.ask("status").expect("an answer")["config"]["last_error"].to_string();
    assert!(error.contains("site.toml:4"), "{error}");
}

#[test]
fn a_sick_app_gets_no_calls_until_it_is_well() {
    need!(Need::Agent, Need::Program("nginx"));
    let _turn = turn::alone();
    let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"]), ("n3", &["site"])]);
    let health = "health = { kind = \"http\", path = \"/healthz\", interval = \"200ms\", timeout = \"200ms\", up = 1, down = 1 }";
    let apps = ["n2", "n3"].map(|name| {
        let node = mesh.node(name);
        let nginx = Nginx::start(
            node.host(),
            &mesh.scratch().directory(&format!("nginx-{name}")),
            name,
        );
        node.serve("site", nginx.address(), "http", &["web"], health);
        nginx
    });
    let address = mesh.node("n1").call("site", "web");
    mesh.start();
    mesh.wait_healthy("site", &["n2", "n3"], crate::PATIENCE);
    let mut client = Client::new(address);
    let mut get = || client.get("/").expect("an answer").text();

    apps[0].set_sick(true);
    mesh.wait_healthy("site", &["n3"], crate::SEEN);
    for _ in 0..50 {
        assert_eq!(get(), "n3\n");
    }
    apps[0].set_sick(false);
    mesh.wait_healthy("site", &["n2", "n3"], crate::SEEN);
    wait_until(crate::PATIENCE, "n2 to get calls again", || get() == "n2\n");
}

#[test]
fn new_certificates_are_taken_up_and_live_traffic_goes_on() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let mesh = Mesh::loopback(&[("n1", &["app"]), ("n2", &["echo"])]);
    let echo = stream::serve(mesh.node("n2").host(), |mut stream| {
        let mut back = stream.try_clone().expect("a socket can be shared");
        // Ends with its caller.
        let _ = std::io::copy(&mut stream, &mut back);
    });
    mesh.node("n2").serve("echo", echo, "tcp", &["app"], "");
    let address = mesh.node("n1").call("echo", "app");
    mesh.start();
    mesh.wait_healthy("echo", &["n2"], crate::SEEN);
    let mut connection = stream::connect(mesh.node("n1").host(), address);
    let mut says = |text: &[u8]| {
        let mut back = vec![0; text.len()];
        connection
            .write_all(text)
            .and_then(|()| connection.read_exact(&mut back))
            .expect("it echoes");
        assert_eq!(back, text);
    };
    says(b"before");
    let left = || {
        let status = mesh.node("n2").ask("status").expect("an answer");
        let svids = status["svids"].as_array().cloned().unwrap_or_default();
        svids
            .iter()
            .filter_map(|svid| svid["seconds_left"].as_i64())
            .min()
            .expect("it has some")
    };
    assert!(left() < 25 * 3600, "{}", left());
    mesh.issue(mesh.node("n2"), &["echo"], &["--lifetime", "48h"]);
    wait_until(
        crate::PATIENCE,
        "the agent to hold the new certificates",
        || left() > 47 * 3600,
    );
    says(b"after");
    let again = stream::connect(mesh.node("n1").host(), address);
    drop(again);
}

#[test]
fn a_state_directory_open_to_others_is_refused() {
    need!(Need::Agent);
    use std::os::unix::fs::PermissionsExt;
    let mesh = Mesh::loopback(&[("n1", &["web"])]);
    let node = mesh.node("n1");
    std::fs::set_permissions(node.state(), std::fs::Permissions::from_mode(0o755))
        .expect("it is ours");
    node.start();
    wait_until(crate::PATIENCE, "the agent to give up", || {
        !node.is_running()
    });
    assert!(node.log().contains("open to other users"), "{}", node.log());
    node.kill();
}
