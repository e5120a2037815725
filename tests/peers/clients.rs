//! A stock HTTP/3 client with a good certificate is a good peer.

use std::process::Command;

use harness::apps::Nginx;
use harness::peers::{answer, script};
use harness::{Host, Mesh, Need, need, process, program, turn};

/// `site` (nginx) and `echo` on n2. Callers are not agents: they come with the SVID of `web`, issued like a host's.
struct Callee {
    mesh: Mesh,
    nginx: Nginx,
    here: Host,
}

impl Callee {
    fn start() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site", "echo"])]);
        let n2 = mesh.node("n2");
        let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
        n2.serve("site", nginx.address(), "http", &["web"], "");
        n2.serve("echo", super::echo(n2), "tcp", &["web"], "");
        n2.start();
        n2.wait_ready();
        Self {
            mesh,
            nginx,
            here: Host::loopback("client"),
        }
    }

    fn aioquic(&self, service: &str) -> Command {
        let mut command = script(&self.here, "h3_client.py");
        command
            .arg("--to")
            .arg(self.address())
            .arg("--name")
            .arg(format!("{service}.svc.mesh.test"));
        for (option, file) in [
            ("--ca", "trust.pem"),
            ("--cert", "svc/web.pem"),
            ("--key", "svc/web.key"),
        ] {
            command.arg(option).arg(self.state(file));
        }
        command
    }

    fn address(&self) -> String {
        self.mesh.node("n2").mesh_address().to_string()
    }

    fn state(&self, file: &str) -> std::path::PathBuf {
        self.mesh.node("n1").state().join(file)
    }
}

#[test]
fn aioquic_gets_posts_and_connects() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();

    let mut get = callee.aioquic("site");
    get.args(["get", "/caller"]);
    let got = answer(get);
    assert_eq!(
        (&got["status"], &got["text"]),
        (&200.into(), &"spiffe://mesh.test/svc/web\n".into()),
        "{got}"
    );

    let mut post = callee.aioquic("site");
    post.args(["post", "/post/ten", &(10 << 20).to_string()]);
    let posted = answer(post);
    assert_eq!(posted["status"], 201, "{posted}");
    let mut hash = Command::new("sha256sum");
    hash.arg(callee.nginx.uploads().join("ten"));
    let stored = process::run(hash);
    assert_eq!(stored.split(' ').next(), posted["sent_sha256"].as_str());

    for authority in ["echo:443", "echo.svc.mesh.test:443"] {
        let mut connect = callee.aioquic("echo");
        connect.args(["connect", authority, &(1 << 20).to_string()]);
        let echoed = answer(connect);
        assert_eq!(echoed["status"], 200, "{echoed}");
        assert_eq!(
            (&echoed["bytes"], &echoed["sha256"]),
            (&(1 << 20).into(), &echoed["sent_sha256"]),
            "{echoed}"
        );
    }
}

#[test]
fn aioquic_names_another_port_than_the_services() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    for authority in [
        "echo:22",
        "echo:0",
        "echo:+443",
        "echo:65979",
        "echo.svc.mesh.test:1",
    ] {
        let mut connect = callee.aioquic("echo");
        connect.args(["connect", authority, "1"]);
        let refused = answer(connect);
        assert_eq!(
            (&refused["status"], &refused["reason"]),
            (&400.into(), &"bad-request".into()),
            "{authority}: {refused}"
        );
    }
}

#[test]
fn aioquic_cannot_reach_through_one_service_to_another() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    for authority in ["site:443", "127.0.0.1:22", "localhost:5432"] {
        let mut connect = callee.aioquic("echo");
        connect.args(["connect", authority, "1"]);
        let refused = answer(connect);
        assert_eq!(
            (&refused["status"], &refused["reason"]),
            (&403.into(), &"wrong-service".into()),
            "{authority}: {refused}"
        );
    }
}

#[test]
fn curl_cffi_gets() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    std::fs::write(callee.nginx.files().join("some"), vec![b'x'; 1 << 20]).expect("it is ours");
    for (path, bytes) in [("/caller", 27), ("/files/some", 1 << 20)] {
        let mut command = script(&callee.here, "curl_client.py");
        for file in ["svc/web.pem", "svc/web.key", "trust.pem"] {
            command.arg(callee.state(file));
        }
        command
            .arg(callee.address())
            .args(["site.svc.mesh.test", path]);
        let got = answer(command);
        assert_eq!(
            (&got["status"], &got["bytes"]),
            (&200.into(), &bytes.into()),
            "{got}"
        );
    }
}

#[test]
fn gtlsclient_gets() {
    need!(
        Need::Agent,
        Need::Root,
        Need::Program("gtlsclient"),
        Need::Program("nginx")
    );
    let _turn = turn::shared();
    let callee = Callee::start();
    std::fs::write(callee.nginx.files().join("some"), vec![b'x'; 1 << 20]).expect("it is ours");
    let out = callee.mesh.scratch().directory("out");
    let address = callee.mesh.node("n2").mesh_address();
    // It sends the name it connects to as SNI whatever its options say, so the name must lead to the agent: in a file
    // system of its own, /etc/hosts says so.
    let hosts = callee
        .mesh
        .scratch()
        .write("hosts", format!("{} site.svc.mesh.test\n", address.ip()));
    let mut command = callee.here.command("unshare");
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount --bind \"$0\" /etc/hosts && exec \"$@\"",
    ]);
    command.arg(hosts).arg(program::path("gtlsclient"));
    command
        .arg("--key")
        .arg(callee.state("svc/web.key"))
        .arg("--cert")
        .arg(callee.state("svc/web.pem"));
    command.args([
        "--quiet",
        "--exit-on-all-streams-close",
        "--timeout",
        "10s",
        "--download",
    ]);
    command
        .arg(&out)
        .args(["site.svc.mesh.test", &address.port().to_string()]);
    // Its exit code says nothing: what it got does.
    command.args([
        "https://site.svc.mesh.test/files/some",
        "https://site.svc.mesh.test/caller",
    ]);
    let output = command.output().expect("it runs");
    let got = |name: &str| std::fs::read(out.join(name)).unwrap_or_default();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        String::from_utf8_lossy(&got("caller")),
        "spiffe://mesh.test/svc/web\n",
        "{printed}"
    );
    assert!(
        got("some") == vec![b'x'; 1 << 20],
        "{} bytes\n{printed}",
        got("some").len()
    );
}

#[test]
fn openssl_does_not_trust_the_mesh_by_chance() {
    need!(Need::Agent, Need::Program("openssl"));
    let _turn = turn::shared();
    let callee = Callee::start();
    // What a stock client checks: the chain from the mesh's own root, and the DNS name of the service.
    let mut verify = Command::new(program::path("openssl"));
    verify.args([
        "verify",
        "-x509_strict",
        "-verify_hostname",
        "site.svc.mesh.test",
        "-CAfile",
    ]);
    let bundle = callee.mesh.node("n2").state();
    verify
        .arg(bundle.join("trust.pem"))
        .arg("-untrusted")
        .arg(bundle.join("svc/site.pem"))
        .arg(bundle.join("svc/site.pem"));
    assert!(process::run(verify).contains(": OK"));
}
