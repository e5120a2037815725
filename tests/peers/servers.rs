//! Servers that are not ours stand where an agent stood: ours must call them as HTTP/3 says, and only if they prove the
//! service that is called.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::path::Path;
use std::time::Duration;

use harness::apps::Nginx;
use harness::http::{self, Client};
use harness::process::Process;
use harness::{Mesh, Need, need, peers, stream, turn, wait_until};

/// n1 knows `site` and `echo` on n2 from gossip; then n2's agent is gone and something else has its port.
struct Stand {
    server: Process,
    mesh: Mesh,
    nginx: Nginx,
    site: SocketAddr,
    echo: SocketAddr,
}

impl Stand {
    fn start(server: impl FnOnce(&Mesh, &Nginx, SocketAddr) -> Process, ready: &str) -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site", "echo"])]);
        let (n1, n2) = (mesh.node("n1"), mesh.node("n2"));
        let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
        let app = super::echo(n2);
        n2.serve("site", nginx.address(), "http", &["web"], "");
        n2.serve("echo", app, "tcp", &["web"], "");
        let (site, echo) = (n1.call("site", "web"), n1.call("echo", "web"));
        mesh.start();
        mesh.wait_healthy("site", &["n2"], super::SEEN);
        mesh.wait_healthy("echo", &["n2"], super::SEEN);
        n2.kill();
        let mut server = server(&mesh, &nginx, app);
        wait_until(super::PATIENCE, "the other server", || {
            server.check();
            server.log().contains(ready)
        });
        Self {
            server,
            mesh,
            nginx,
            site,
            echo,
        }
    }
}

/// Envoy with the certificate at `chain` and `key`.
fn envoy(mesh: &Mesh, nginx: &Nginx, echo: SocketAddr, chain: &Path, key: &Path) -> Process {
    let n2 = mesh.node("n2");
    let (mesh_address, site) = (n2.mesh_address(), nginx.address());
    let values = [
        ("ip", mesh_address.ip().to_string()),
        ("port", mesh_address.port().to_string()),
        ("cert", chain.display().to_string()),
        ("key", key.display().to_string()),
        ("ca", n2.state().join("trust.pem").display().to_string()),
        ("site_ip", site.ip().to_string()),
        ("site_port", site.port().to_string()),
        ("echo_ip", echo.ip().to_string()),
        ("echo_port", echo.port().to_string()),
    ];
    let mut text = std::fs::read_to_string(peers::file("envoy.yaml")).expect("it is there");
    for (name, value) in values {
        text = text.replace(&format!("@{name}@"), &value);
    }
    let file = mesh.scratch().write("envoy.yaml", text);
    let mut command = n2.host().command(peers::bundled("envoy"));
    command
        .arg("-c")
        .arg(file)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info"]);
    Process::spawn("envoy", command, &mesh.scratch().path().join("envoy.log"))
}

fn service(mesh: &Mesh, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let state = mesh.node("n2").state().join("svc");
    (
        state.join(format!("{name}.pem")),
        state.join(format!("{name}.key")),
    )
}

const ENVOY_READY: &str = "starting main dispatch loop";

#[test]
fn our_agent_fetches_from_envoy() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let stand = Stand::start(
        |mesh, nginx, echo| {
            let (chain, key) = service(mesh, "site");
            envoy(mesh, nginx, echo, &chain, &key)
        },
        ENVOY_READY,
    );
    let mut client = Client::new(stand.site);
    let answer = client.get("/").expect("an answer");
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "n2\n"),
        "{answer:?}"
    );
    std::fs::write(stand.nginx.files().join("some"), vec![b'x'; 3 << 20]).expect("it is ours");
    let answer = client.get("/files/some").expect("an answer");
    assert!(
        answer.body == vec![b'x'; 3 << 20],
        "{} bytes",
        answer.body.len()
    );
    let answer = client
        .send("PUT", "/uploads/some", &vec![b'y'; 3 << 20])
        .expect("an answer");
    assert_eq!(answer.status, 201);
    assert!(
        std::fs::read(stand.nginx.uploads().join("some")).expect("it is there")
            == vec![b'y'; 3 << 20]
    );
    assert_eq!(client.get("/status/204").expect("an answer").status, 204);
    drop(stand.server);
}

#[test]
fn our_agent_tunnels_through_envoy() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let stand = Stand::start(
        |mesh, nginx, echo| {
            let (chain, key) = service(mesh, "echo");
            envoy(mesh, nginx, echo, &chain, &key)
        },
        ENVOY_READY,
    );
    let mut stream = stream::connect(stand.mesh.node("n1").host(), stand.echo);
    let sent = vec![b'z'; 200_000];
    stream
        .write_all(&sent)
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .expect("it is connected");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("it echoes");
    assert!(
        back == sent,
        "{} of {} bytes came back",
        back.len(),
        sent.len()
    );
}

#[test]
fn a_server_that_proves_another_service_gets_nothing() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let stand = Stand::start(
        |mesh, _nginx, _echo| {
            // Good, and of this mesh, but not of the service that is called.
            let (chain, key) = service(mesh, "echo");
            let n2 = mesh.node("n2");
            let mut command = peers::script(n2.host(), "h3_server.py");
            command
                .arg(chain)
                .arg(key)
                .arg(n2.mesh_address().to_string());
            Process::spawn(
                "aioquic",
                command,
                &mesh.scratch().path().join("aioquic.log"),
            )
        },
        "listening",
    );
    let answer = http::get(stand.site, "/").expect("an answer");
    assert_eq!(
        (answer.status, answer.mesh_error()),
        (502, Some("wrong-identity")),
        "{answer:?}"
    );
    let counted = || {
        let metrics = stand.mesh.node("n1").metrics();
        metrics.sum(
            "starling_handshakes_refused_total",
            &[("reason", "wrong_identity")],
        )
    };
    assert!(counted() >= 1.0);
}

#[test]
fn our_agent_fetches_from_aioquic() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let stand = Stand::start(
        |mesh, _nginx, _echo| {
            let (chain, key) = service(mesh, "site");
            let n2 = mesh.node("n2");
            let mut command = peers::script(n2.host(), "h3_server.py");
            command
                .arg(chain)
                .arg(key)
                .arg(n2.mesh_address().to_string());
            Process::spawn(
                "aioquic",
                command,
                &mesh.scratch().path().join("aioquic.log"),
            )
        },
        "listening",
    );
    let mut client = Client::new(stand.site);
    for _ in 0..20 {
        let answer = client.get("/").expect("an answer");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "aioquic\n"),
            "{answer:?}"
        );
    }
    wait_until(Duration::from_secs(20), "every call to be counted", || {
        let metrics = stand.mesh.node("n1").metrics();
        metrics.sum(
            "starling_requests_total",
            &[("side", "caller"), ("status", "2xx")],
        ) == 20.0
    });
}
