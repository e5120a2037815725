//! Requests made to be read in two ways. Whatever an app's caller sends, the app gets the requests that were judged, and
//! nobody gets an answer to somebody else's.

mod app;
mod cases;
mod h2;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use harness::http::Client;
use harness::{Mesh, Need, need, stream, turn};

use app::App;
use cases::{ANSWERS, Case, REQUESTS};

/// `web` on n1 calls `site` on n2, an app that believes nothing it is told.
struct Site {
    mesh: Mesh,
    app: App,
    upstream: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let mesh = Mesh::loopback(&[("n1", &["web"]), ("n2", &["site"])]);
        let app = App::start(mesh.node("n2").host());
        mesh.node("n2")
            .serve("site", app.address(), "http", &["web"], "");
        let upstream = mesh.node("n1").call("site", "web");
        mesh.start();
        mesh.wait_healthy("site", &["n2"], crate::SEEN);
        Self {
            mesh,
            app,
            upstream,
        }
    }

    fn connect(&self) -> TcpStream {
        stream::connect(self.mesh.node("n1").host(), self.upstream)
    }

    /// Sends `bytes` and reads until the agent has closed the connection.
    fn send(&self, bytes: &[u8], truncated: bool) -> String {
        let mut stream = self.connect();
        // It may close while we still write: that is one of the answers.
        let _sent = stream.write_all(bytes);
        if truncated {
            let _half = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => answer.extend_from_slice(&buffer[..bytes]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&answer)),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Another caller, over the same connections to the app: it must get the answer to what it asked.
    fn victim(&self, client: &mut Client, number: usize, after: &str) {
        let path = format!("/victim/{number}");
        let answer = client
            .get(&path)
            .unwrap_or_else(|error| panic!("the victim after {after}: {error}"));
        assert_eq!(
            (answer.status, answer.text()),
            (200, format!("GET {path} ")),
            "the victim after {after}"
        );
        assert_eq!(self.app.taken().last(), Some(&format!("GET {path} ")));
    }

    /// All that was judged and passed on well, and all that the app got, are the same.
    fn compare(&self, got: &[String]) {
        let wanted = |line: &&str| line.contains("side=callee") && line.contains("status_code=200");
        let word = |line: &str, key: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(key));
            found.unwrap_or_default().to_owned()
        };
        let judged = || {
            let log = self.mesh.node("n2").log();
            let lines = log.lines().filter(wanted);
            let mut judged: Vec<_> = lines
                .map(|line| {
                    format!(
                        "{} {}",
                        word(line, "http.request.method="),
                        word(line, "url.path=")
                    )
                })
                .collect();
            judged.sort();
            judged
        };
        let mut got: Vec<_> = got
            .iter()
            .map(|request| {
                let mut words = request.split([' ', '?']);
                let method = words.next().unwrap_or_default();
                format!("{method} {}", words.next().unwrap_or_default())
            })
            .collect();
        got.sort();
        harness::wait_until(crate::PATIENCE, "the lines of all", || {
            judged().len() >= got.len()
        });
        assert_eq!(judged(), got, "what was judged, and what the app got");
    }
}

#[test]
fn what_is_judged_is_what_the_app_gets() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let site = Site::start();
    let mut victim = Client::new(site.upstream);
    let mut failed = Vec::new();
    let mut all = Vec::new();
    for (number, case) in REQUESTS.iter().enumerate() {
        let Case { name, bytes, gets } = case;
        let answer = site.send(bytes.as_bytes(), name.ends_with("…"));
        let got = site.app.take();
        all.extend(got.clone());
        if got != *gets {
            failed.push(format!(
                "{name}: {bytes:?}\n  gets {got:?}\n  not {gets:?}\n  {answer:?}"
            ));
        }
        let first: Vec<_> = answer.lines().take(1).collect();
        if gets.is_empty()
            && !(answer.is_empty() || first[0].contains(" 4") || first[0].contains(" 501"))
        {
            failed.push(format!(
                "{name}: nothing was passed on, yet the answer is {answer:?}"
            ));
        }
        site.victim(&mut victim, number, name);
        all.extend(site.app.take());
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert_eq!(site.app.complaints(), Vec::<String>::new());
    site.compare(&all);
    assert!(REQUESTS.len() + ANSWERS.len() + h2::CASES.len() >= 60);
}

#[test]
fn http2_cannot_say_what_http1_would_read_otherwise() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let site = Site::start();
    let mut victim = Client::new(site.upstream);
    let mut all = Vec::new();
    for (number, (name, fields, body, gets)) in h2::CASES.iter().enumerate() {
        let mut stream = site.connect();
        h2::ask(&mut stream, fields, body);
        let got = site.app.take();
        assert_eq!(got, *gets, "{name}");
        all.extend(got);
        site.victim(&mut victim, number, name);
        all.extend(site.app.take());
    }
    assert_eq!(site.app.complaints(), Vec::<String>::new());
    site.compare(&all);
}

/// An app that sends more than its answer, or two answers in one, spoils its own connection only.
#[test]
fn an_answer_goes_to_whom_it_is_for() {
    need!(Need::Agent);
    let _turn = turn::shared();
    let site = Site::start();
    let mut victim = Client::new(site.upstream);
    for (number, (name, answer, status, body)) in ANSWERS.iter().enumerate() {
        site.app.answer_next(answer);
        // Not a GET, which would be tried again.
        match Client::new(site.upstream).send("POST", "/odd", &[]) {
            Ok(got) if *status == 0 => assert_eq!(got.status, 502, "{name}"),
            Ok(got) => assert_eq!(
                (got.status, got.text().as_str()),
                (*status, *body),
                "{name}"
            ),
            // Cut off in the middle.
            Err(error) => assert_eq!(*status, 0, "{name}: {error}"),
        }
        site.app.take();
        site.victim(&mut victim, number, name);
    }
}
