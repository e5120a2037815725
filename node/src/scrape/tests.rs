use super::*;
use crate::control::Control;
use crate::testing::{Ca, all_know_all};

#[tokio::test]
async fn any_agent_has_the_metrics_of_all() {
    let ca = Ca::new();
    let control = || Control::new(vec![handler()]);
    let one = ca.agent("n1", "web", &[], control());
    let two = ca.agent("n2", "orders", &[one.addr], control());
    all_know_all(&[&one, &two]).await;

    for node in ["n1", "n2"] {
        let page = of(one.host.clone(), node.to_owned(), Format::OpenMetrics).await;
        let page = page.unwrap();
        assert!(page.ends_with("# EOF\n"), "{page}");
    }
    let unknown = of(one.host.clone(), "n9".to_owned(), Format::Text).await;
    assert!(unknown.unwrap_err().contains("n9"));
    let invalid = of(one.host.clone(), "../n1".to_owned(), Format::Text).await;
    assert!(invalid.is_err());

    let targets = targets(&one.host, "127.0.0.1:7401");
    let told: Vec<_> = targets
        .iter()
        .map(|target| {
            let label = |name: &str| target.labels[name].as_str();
            (label("instance"), label("__metrics_path__"))
        })
        .collect();
    assert_eq!(told, [("n1", "/metrics"), ("n2", "/v1/nodes/n2/metrics")]);
    assert!(
        targets
            .iter()
            .all(|target| target.targets == ["127.0.0.1:7401"])
    );
}
