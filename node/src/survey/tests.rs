use http::{Method, StatusCode};

use super::*;
use crate::config::Protocol;
use crate::control::{self, Control};
use crate::telemetry::access::AccessLine;
use crate::telemetry::series::Side;
use crate::testing::{Agent, Ca, all_know_all};

async fn three() -> (Ca, [Agent; 3]) {
    let ca = Ca::new();
    let control = || Control::new(control::handlers());
    let a = ca.agent("a", "web", &[], control());
    let b = ca.agent("b", "orders", &[a.addr], control());
    let c = ca.agent("c", "orders", &[a.addr], control());
    all_know_all(&[&a, &b, &c]).await;
    (ca, [a, b, c])
}

fn calls(agent: &Agent, side: Side, count: usize) {
    let series = agent.host.series(side, "web", "orders", Protocol::Http);
    for _ in 0..count {
        let mut line = AccessLine::request(&series, &Method::GET, "/");
        line.set_status(StatusCode::OK);
        line.finish();
    }
}

/// What web's calls to orders come to: at the callers, at the callees, and who told of it.
fn told(edges: &view::Edges) -> (u64, u64, Vec<(&str, &str)>) {
    let edge = &edges.edges[0];
    assert_eq!((&*edge.caller, &*edge.callee), ("web", "orders"));
    let calls = |side: &Option<view::Signals>| side.as_ref().map_or(0, |signals| signals.calls);
    let ends = edge.ends.iter();
    (
        calls(&edge.caller_side),
        calls(&edge.callee_side),
        ends.map(|end| (&*end.node, &*end.source)).collect(),
    )
}

#[tokio::test]
async fn any_node_tells_of_all_and_what_a_dead_one_said_stays() {
    let (_ca, [a, b, mut c]) = three().await;
    calls(&a, Side::Caller, 30);
    calls(&b, Side::Callee, 10);
    calls(&c, Side::Callee, 20);
    let seen = asked(b.host.clone(), Window::Minute).await;
    let everybody = vec![("b", "live"), ("a", "asked"), ("c", "asked")];
    assert_eq!(
        (told(&seen), &*seen.gaps),
        ((30, 30, everybody.clone()), &[][..])
    );

    c.close().await;
    let seen = async {
        loop {
            let seen = asked(b.host.clone(), Window::Minute).await;
            if !seen.gaps.is_empty() {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), seen)
        .await
        .unwrap();
    assert_eq!(told(&seen), (30, 30, everybody));
    assert_eq!(seen.gaps[0].node, "c");
    assert!(
        seen.gaps[0].age_s.is_some() && !seen.gaps[0].why.is_empty(),
        "{:?}",
        seen.gaps
    );
}

#[tokio::test]
async fn others_are_asked_only_while_somebody_watches() {
    let (_ca, [a, b, _c]) = three().await;
    calls(&a, Side::Caller, 3);
    calls(&b, Side::Callee, 3);
    let keep = tokio::spawn(Survey::keep(a.host.clone()));
    assert!(a.host.survey.answers(Window::Minute).is_empty());
    let seen = async {
        loop {
            let seen = watched(&a.host, Window::Minute);
            if told(&seen).1 == 3 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen)
        .await
        .unwrap();
    assert!(a.host.survey.answers(Window::Hour).is_empty());
    keep.abort();
}
