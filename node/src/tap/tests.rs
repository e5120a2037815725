use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use proptest::prelude::*;
use starling_gossip::NodeName;

use super::watch::Watcher;
use super::*;
use crate::config::Protocol;
use crate::reason::Reason;
use crate::telemetry::{AccessLine, Series, Side};

/// A node whose calls are looked at.
struct Desk {
    taps: Arc<Taps>,
    asker: NodeName,
}

impl Desk {
    fn new() -> Self {
        Self {
            taps: Arc::default(),
            asker: NodeName::parse("n1").unwrap(),
        }
    }

    fn open(&self, tap: &str, wanted: &Wanted) -> Option<Arc<Watcher>> {
        let filter = Filter::parse(wanted).unwrap();
        let opened = self.taps.open(&self.asker, tap, wanted, filter);
        opened.ok().map(|(watcher, _)| watcher)
    }

    fn series(&self, side: Side, caller: &str, callee: &str) -> Arc<Series> {
        let (edge, taps) = (Arc::default(), self.taps.clone());
        Series::tapped(side, caller, callee, Protocol::Http, edge, taps)
    }

    /// A request that ended.
    fn call(&self, method: &Method, path: &str, status: u16) {
        let series = self.series(Side::Callee, "web", "orders");
        let mut line = AccessLine::request(&series, method, path);
        line.set_status(StatusCode::from_u16(status).unwrap());
        line.finish();
    }
}

fn orders() -> Wanted {
    Wanted {
        callee: "orders".to_owned(),
        ..Wanted::default()
    }
}

async fn paths(watcher: &Watcher) -> Vec<String> {
    let batch = watcher.fetch().await.unwrap();
    let calls = batch.calls.into_iter();
    calls.map(|call| call.path.unwrap_or_default()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_tap_gets_what_it_asked_for() {
    let check = async |wanted: Wanted, expected: &[&str]| {
        let desk = Desk::new();
        let watcher = desk.open("one", &wanted).unwrap();
        desk.call(&Method::GET, "/cart", 200);
        desk.call(&Method::POST, "/cart/7", 201);
        desk.call(&Method::GET, "/stock", 503);
        desk.call(&Method::GET, "/none", 404);
        let other = desk.series(Side::Callee, "web", "stock");
        AccessLine::request(&other, &Method::GET, "/other").finish();
        let here = desk.series(Side::Caller, "batch", "orders");
        let mut denied = AccessLine::request(&here, &Method::GET, "/denied");
        denied.fail(Reason::Denied);
        denied.finish();
        assert_eq!(paths(&watcher).await, expected, "{wanted}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(
        orders(),
        &["/cart", "/cart/7", "/stock", "/none", "/denied"],
    )
    .await;
    let errors = Wanted {
        errors: true,
        ..orders()
    };
    check(errors, &["/stock", "/denied"]).await;
    let path = Wanted {
        path: text("/cart/**"),
        ..orders()
    };
    check(path, &["/cart", "/cart/7"]).await;
    let status = Wanted {
        status: text("4xx"),
        ..orders()
    };
    check(status, &["/none"]).await;
    let status = Wanted {
        status: text("201"),
        ..orders()
    };
    check(status, &["/cart/7"]).await;
    let method = Wanted {
        method: text("POST"),
        ..orders()
    };
    check(method, &["/cart/7"]).await;
    let caller = Wanted {
        caller: text("batch"),
        ..orders()
    };
    check(caller, &["/denied"]).await;
    let side = Wanted {
        side: text("caller"),
        ..orders()
    };
    check(side, &["/denied"]).await;
}

/// A caller whom nobody knows is named by its certificate.
#[tokio::test(start_paused = true)]
async fn a_stranger_is_found_by_the_name_of_its_service() {
    let desk = Desk::new();
    let wanted = Wanted {
        caller: Some("eve".to_owned()),
        ..orders()
    };
    let watcher = desk.open("one", &wanted).unwrap();
    let series = desk.series(Side::Callee, "other", "orders");
    for (caller, path) in [
        ("spiffe://mesh.test/svc/eve", "/eve"),
        ("spiffe://mesh.test/svc/bob", "/bob"),
        ("spiffe://mesh.test/node/eve", "/node"),
    ] {
        let mut line = AccessLine::request(&series, &Method::GET, path);
        line.set_caller(caller);
        line.finish();
    }
    assert_eq!(paths(&watcher).await, ["/eve"]);
}

#[tokio::test(start_paused = true)]
async fn header_fields_are_kept_only_while_somebody_wants_them() {
    let desk = Desk::new();
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", "acme".parse().unwrap());
    headers.insert("cookie", "s3cret".parse().unwrap());
    let call = || {
        let series = desk.series(Side::Callee, "web", "orders");
        let mut line = AccessLine::request(&series, &Method::GET, "/");
        line.see(&headers);
        line.finish();
    };
    assert!(desk.taps.fields("orders", &headers).is_none());
    let bare = desk.open("bare", &orders()).unwrap();
    assert!(desk.taps.fields("orders", &headers).is_none());
    let names = Wanted {
        headers: true,
        ..orders()
    };
    let names = desk.open("names", &names).unwrap();
    let values = Wanted {
        show: vec!["x-tenant".to_owned()],
        ..orders()
    };
    let values = desk.open("values", &values).unwrap();
    assert!(desk.taps.fields("stock", &headers).is_none());
    call();
    let seen = async |watcher: &Watcher| watcher.fetch().await.unwrap().calls.remove(0).headers;
    assert!(seen(&bare).await.is_empty());
    let hidden = |name: &str| Field {
        name: name.to_owned(),
        value: None,
    };
    assert_eq!(seen(&names).await, [hidden("x-tenant"), hidden("cookie")]);
    let shown = Field {
        value: Some("acme".to_owned()),
        ..hidden("x-tenant")
    };
    assert_eq!(seen(&values).await, [shown, hidden("cookie")]);
}

#[tokio::test(start_paused = true)]
async fn what_the_rate_leaves_out_and_what_has_no_room_is_counted() {
    let desk = Desk::new();
    let slow = Wanted {
        rate: Some(5),
        ..orders()
    };
    let slow = desk.open("slow", &slow).unwrap();
    let fast = Wanted {
        rate: Some(1000),
        ..orders()
    };
    let fast = desk.open("fast", &fast).unwrap();
    let long = "/".to_owned() + &"x".repeat(2000);
    let all = 3000;
    for second in 0..3 {
        if second > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for _ in 0..all / 3 {
            desk.call(&Method::GET, &long, 200);
        }
    }
    let batch = slow.fetch().await.unwrap();
    assert_eq!(
        (batch.calls.len(), batch.left_out, batch.lost),
        (15, all - 15, 0)
    );
    let first = fast.fetch().await.unwrap();
    assert!(first.lost > 0, "the queue is bounded");
    let json = serde_json::to_vec(&first).unwrap();
    assert!(
        json.len() < 56 * 1024 && first.calls.len() > 50,
        "{}",
        json.len()
    );
    let mut shown = first.calls.len() as u64;
    loop {
        let batch = fast.fetch().await.unwrap();
        if batch.calls.is_empty() {
            break;
        }
        shown += batch.calls.len() as u64;
    }
    assert_eq!(shown + first.lost + first.left_out, all);
    assert!(shown <= 1024);
}

#[tokio::test(start_paused = true)]
async fn taps_are_few_and_end() {
    let desk = Desk::new();
    let all: Vec<_> = (0..8).map(|name| name.to_string()).collect();
    for name in &all {
        assert!(desk.open(name, &orders()).is_some());
    }
    assert!(desk.open("another", &orders()).is_none());
    let again = desk.open("0", &orders()).unwrap();
    assert!(desk.taps.close(&desk.asker, "0"));
    assert!(!desk.taps.close(&desk.asker, "0"));
    assert!(again.closed.is_cancelled());
    // Whoever waits is let go at once.
    assert!(again.fetch().await.unwrap().calls.is_empty());
    assert!(desk.open("another", &orders()).is_some());
    for name in all.iter().skip(1).map(String::as_str).chain(["another"]) {
        assert!(desk.taps.close(&desk.asker, name));
    }
    // Nobody looks: nothing is kept.
    desk.call(&Method::GET, "/", 200);
}

#[tokio::test(start_paused = true)]
async fn one_fetches_at_a_time() {
    let desk = Desk::new();
    let watcher = desk.open("one", &orders()).unwrap();
    let (first, second) = tokio::join!(watcher.fetch(), watcher.fetch());
    assert!(first.is_some() && second.is_none());
}

#[test]
fn what_cannot_be_looked_for_is_told() {
    let check = |wanted: Wanted, expected: &str| {
        let error = Filter::parse(&wanted).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let text = |text: &str| Some(text.to_owned());
    check(Wanted::default(), "is not the name of a service");
    let wanted = |change: fn(&mut Wanted, Option<String>), value: &str| {
        let mut wanted = orders();
        change(&mut wanted, text(value));
        wanted
    };
    check(
        wanted(|all, one| all.caller = one, "Web"),
        "`Web` is not the name of a service",
    );
    check(
        wanted(|all, one| all.method = one, "G T"),
        "is not a method",
    );
    check(
        wanted(|all, one| all.path = one, "cart"),
        "is no pattern of paths",
    );
    check(
        wanted(|all, one| all.status = one, "6xx"),
        "`6xx` is neither",
    );
    check(wanted(|all, one| all.status = one, "ok"), "`ok` is neither");
    check(
        wanted(|all, one| all.side = one, "both"),
        "`both` is neither",
    );
    check(
        wanted(|all, one| all.show.extend(one), "x y"),
        "is not the name of a header",
    );
    check(
        wanted(|all, one| all.show.extend(one), "Authorization"),
        "values of `authorization` are never shown",
    );
    for rate in [0, 1001] {
        let rate = Wanted {
            rate: Some(rate),
            ..orders()
        };
        check(rate, "a rate is between");
    }
}

#[test]
fn a_condition_that_is_not_known_is_not_left_out() {
    let later = r#"{"callee":"orders","tenant":"acme"}"#;
    assert!(serde_json::from_str::<Wanted>(later).is_err());
    assert!(Wanted::from_query("callee=orders&tenant=acme").is_none());
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    let text = || prop::option::of("[ -~ä]{1,20}");
    let texts = (text(), text(), text(), text(), text());
    let show = prop::collection::vec("[a-z-]{1,10}", 0..4);
    let rest = (
        any::<bool>(),
        any::<bool>(),
        show,
        prop::option::of(any::<u32>()),
    );
    ("[a-z]{1,10}", texts, rest).prop_map(
        |(callee, (caller, method, path, status, side), (errors, headers, show, rate))| Wanted {
            callee,
            caller,
            method,
            path,
            status,
            side,
            errors,
            headers,
            show,
            rate,
        },
    )
}

proptest! {
    #[test]
    fn what_is_wanted_survives_a_query(wanted in any_wanted(), node in "[a-z0-9]{1,8}") {
        let query = format!("{}&node={node}", wanted.to_query());
        prop_assert_eq!(Wanted::from_query(&query), Some((wanted, vec![node])));
    }
}

/// Two agents over QUIC, the second of which is called.
mod between_nodes {
    use std::time::SystemTime;

    use starling_gossip::ServiceName;

    use super::*;
    use crate::ca::RootKey;
    use crate::config::{Config, Place, Upstream};
    use crate::control::{self, Control, ControlError};
    use crate::mesh::unix_s;
    use crate::operator::Operator;
    use crate::pass::{LIFETIME_MAX, Pass, Serial, Taps as Callees};
    use crate::testing::{Agent, Ca, all_know_all};

    struct Mesh {
        a: Agent,
        b: Agent,
        alice: Operator,
    }

    impl Mesh {
        async fn new() -> Self {
            let ca = Ca::new();
            let control = || Control::new(control::handlers());
            let a = ca.agent("a", "web", &[], control());
            let b = ca.agent("b", "orders", &[a.addr], control());
            all_know_all(&[&a, &b]).await;
            b.host.config.store(Arc::new(calls_orders()));
            let root = RootKey::load(&ca.state).unwrap();
            let alice = Operator::make(|key| -> anyhow::Result<_> {
                let kinds = ["tap".parse()?].into();
                Ok(root.grant("alice".parse()?, key, kinds, 1, LIFETIME_MAX)?)
            });
            Self {
                a,
                b,
                alice: alice.unwrap(),
            }
        }

        fn question(&self, change: impl FnOnce(&mut Pass)) -> Question {
            let now = unix_s(SystemTime::now());
            let mut pass = Pass {
                node: NodeName::parse("a").unwrap(),
                sees: false,
                taps: Callees::Only([ServiceName::parse("orders").unwrap()].into()),
                headers: Vec::new(),
                not_before: now,
                not_after: now + 60,
                serial: Serial([1; 8]),
            };
            change(&mut pass);
            Question {
                pass: pass.sign(&self.alice).unwrap(),
                tap: "0123456789abcdef0123456789abcdef".to_owned(),
                wanted: orders(),
                done: false,
            }
        }

        /// What b says to a: how many calls, or the word for why not.
        async fn ask(&self, question: &Question) -> Result<usize, String> {
            let b = &self.b.host.node;
            let asked = self.a.host.control().ask::<Batch>(b, PATH, question).await;
            told(asked)
        }

        fn call(&self) {
            let series = self
                .b
                .host
                .series(Side::Caller, "web", "orders", Protocol::Http);
            AccessLine::request(&series, &Method::GET, "/cart").finish();
        }
    }

    fn told(asked: Result<Batch, ControlError>) -> Result<usize, String> {
        asked.map(|batch| batch.calls.len()).map_err(|error| {
            let refused = error.refused().unwrap_or_else(|| panic!("{error}"));
            refused.reason.clone()
        })
    }

    fn calls_orders() -> Config {
        let upstream = Upstream {
            service: ServiceName::parse("orders").unwrap(),
            listen: ([127, 0, 0, 1], 0).into(),
            caller: ServiceName::parse("web").unwrap(),
            protocol: None,
            hosts: crate::config::Hosts::default(),
            calls: Arc::default(),
            declared: Place {
                file: std::path::Path::new("n.toml").into(),
                line: 1,
            },
        };
        Config {
            upstreams: vec![upstream],
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn an_ordinary_node_sees_nothing_without_a_pass_for_itself() {
        let mesh = Mesh::new().await;
        let good = mesh.question(|_| {});
        let check = async |question: Question, reason: &str| {
            assert_eq!(mesh.ask(&question).await, Err(reason.to_owned()));
        };
        let none = Question {
            pass: String::new(),
            ..good.clone()
        };
        check(none, "malformed").await;
        let name = |name: &str| ServiceName::parse(name).unwrap();
        let others = mesh.question(|pass| pass.taps = Callees::Only([name("stock")].into()));
        check(others, "callee").await;
        let elsewhere = mesh.question(|pass| pass.node = NodeName::parse("b").unwrap());
        check(elsewhere, "node").await;
        let ended = mesh.question(|pass| {
            pass.not_before -= 3600;
            pass.not_after -= 3600;
        });
        check(ended, "ended").await;
        let early = mesh.question(|pass| {
            pass.not_before += 3600;
            pass.not_after += 3600;
        });
        check(early, "early").await;
        let nameless = Question {
            tap: "x".to_owned(),
            ..good.clone()
        };
        check(nameless, "bad_question").await;
        assert!(!mesh.b.host.taps.is_watched());
    }

    #[tokio::test]
    async fn a_node_with_a_pass_gets_what_ends_and_nobody_ends_it_for_it() {
        let mesh = Mesh::new().await;
        let question = mesh.question(|_| {});
        // The first question opens it.
        assert_eq!(mesh.ask(&question).await, Ok(0));
        mesh.call();
        // b itself is another node: neither may it look with this pass, nor end a's tap.
        let itself = &mesh.b.host.node;
        let asked = mesh
            .b
            .host
            .control()
            .ask::<Batch>(itself, PATH, &question)
            .await;
        assert_eq!(told(asked), Err("node".to_owned()));
        let done = Question {
            done: true,
            ..question.clone()
        };
        let asked = mesh
            .b
            .host
            .control()
            .ask::<Batch>(itself, PATH, &done)
            .await;
        assert_eq!(told(asked), Ok(0));
        assert_eq!(mesh.ask(&question).await, Ok(1));
        let other = Question {
            wanted: Wanted {
                errors: true,
                ..orders()
            },
            ..question.clone()
        };
        assert_eq!(mesh.ask(&other).await, Err("bad_question".to_owned()));
        assert_eq!(mesh.ask(&done).await, Ok(0));
        mesh.call();
        assert!(!mesh.b.host.taps.close(&mesh.a.host.node, &question.tap));
    }

    #[tokio::test]
    async fn a_node_that_has_nothing_to_do_with_it_says_so() {
        let mesh = Mesh::new().await;
        mesh.b.host.config.store(Arc::new(Config::default()));
        let asked = mesh.ask(&mesh.question(|_| {})).await;
        assert_eq!(asked, Err("not_here".to_owned()));
    }
}
