//! Who gets no connection, or no answer, and which counter says so.

use std::process::Command;

use harness::apps::Nginx;
use harness::peers::{answer, script};
use harness::{Host, Mesh, Need, need, turn, wait_until};
use serde_json::Value;

const REFUSED: &str = "starling_handshakes_refused_total";

/// `site` on n2, which allows `web`; and certificates that are wrong in one way each.
struct Callee {
    mesh: Mesh,
    forged: std::path::PathBuf,
    here: Host,
    _nginx: Nginx,
}

impl Callee {
    fn start() -> Self {
        let mesh = Mesh::loopback(&[("n2", &["site"])]);
        let n2 = mesh.node("n2");
        let nginx = Nginx::start(n2.host(), &mesh.scratch().directory("nginx"), "n2");
        n2.serve("site", nginx.address(), "http", &["web"], "");
        mesh.start();
        let forged = super::forge(&mesh);
        Self {
            mesh,
            forged,
            here: Host::loopback("client"),
            _nginx: nginx,
        }
    }

    /// aioquic's GET with the certificate of `case`, or none.
    fn get(&self, case: Option<&str>, name: &str, alpn: &str) -> Value {
        let n2 = self.mesh.node("n2");
        let mut command: Command = script(&self.here, "h3_client.py");
        command.args([
            "--to",
            &n2.mesh_address().to_string(),
            "--name",
            name,
            "--alpn",
            alpn,
        ]);
        command.arg("--ca").arg(n2.state().join("trust.pem"));
        if let Some(case) = case {
            command
                .arg("--cert")
                .arg(self.forged.join(format!("{case}.pem")));
            command
                .arg("--key")
                .arg(self.forged.join(format!("{case}.key")));
        }
        command.args(["get", "/"]);
        answer(command)
    }

    fn counted(&self, metric: &str, reason: &str) -> f64 {
        self.mesh
            .node("n2")
            .metrics()
            .sum(metric, &[("reason", reason)])
    }
}

const SITE: &str = "site.svc.mesh.test";

#[test]
fn certificates_that_are_wrong_in_one_way_are_refused_with_that_reason() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    let good = callee.get(Some("good"), SITE, "h3");
    assert_eq!(good["status"], 200, "the control: {good}");

    let check = |case: Option<&str>, reason: &str| {
        let all = || callee.mesh.node("n2").metrics().sum(REFUSED, &[]);
        let (before, all_before) = (callee.counted(REFUSED, reason), all());
        let outcome = callee.get(case, SITE, "h3");
        assert!(
            outcome["status"].is_null(),
            "{case:?} got an answer: {outcome}"
        );
        assert!(outcome.get("closed").is_some(), "{case:?}: {outcome}");
        wait_until(
            super::PATIENCE,
            &format!("{case:?} to be counted as {reason}"),
            || callee.counted(REFUSED, reason) == before + 1.0,
        );
        assert_eq!(
            all(),
            all_before + 1.0,
            "{case:?} is counted once and as nothing else"
        );
    };
    check(None, "no_certificate");
    check(Some("foreign"), "unknown_issuer");
    check(Some("expired"), "expired");
    check(Some("not_yet_valid"), "not_yet_valid");
    check(Some("two_uris"), "several_uri_names");
    check(Some("cn_only"), "no_uri_name");
    check(Some("ca_as_leaf"), "ca_as_leaf");
    check(Some("other_domain"), "other_trust_domain");
    let still = callee.get(Some("good"), SITE, "h3");
    assert_eq!(still["status"], 200, "the control, again: {still}");
}

#[test]
fn an_unknown_protocol_or_name_is_refused_with_its_reason() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    for (name, alpn, reason) in [
        (SITE, "hq-interop", "unknown_protocol"),
        ("else.svc.mesh.test", "h3", "unknown_name"),
    ] {
        let outcome = callee.get(Some("good"), name, alpn);
        assert!(outcome["status"].is_null(), "{name} {alpn}: {outcome}");
        wait_until(
            super::PATIENCE,
            &format!("{name} {alpn} to be counted as {reason}"),
            || callee.counted(REFUSED, reason) == 1.0,
        );
    }
}

#[test]
fn a_good_certificate_of_a_service_not_in_allow_gets_403_and_is_counted() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    let outcome = callee.get(Some("other_service"), SITE, "h3");
    assert_eq!(
        (&outcome["status"], &outcome["reason"]),
        (&403.into(), &"denied".into()),
        "{outcome}"
    );
    wait_until(super::PATIENCE, "it to be counted", || {
        callee.counted("starling_requests_total", "denied") == 1.0
    });
    assert_eq!(callee.counted(REFUSED, "wrong_identity"), 0.0);
}

#[test]
fn what_a_refused_peer_is_told_holds_no_dates_and_no_names() {
    need!(Need::Agent, Need::Python, Need::Program("nginx"));
    let _turn = turn::shared();
    let callee = Callee::start();
    for case in ["expired", "foreign", "two_uris"] {
        let outcome = callee.get(Some(case), SITE, "h3");
        let why = outcome["why"].as_str().unwrap_or_default();
        assert!(
            !why.contains("mesh.test") && !why.contains(|letter: char| letter.is_ascii_digit()),
            "{case}: {why}"
        );
    }
}
