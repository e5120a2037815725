use crate::testing::{Counters, Memory, suite};

macro_rules! on_memory {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            suite::$name(&Memory::new(1)).await;
        }
    )*};
}

on_memory!(
    three_nodes_find_each_other,
    a_change_reaches_all,
    who_leaves_is_gone_at_once,
    a_restart_replaces_at_once,
    a_service_needs_proof,
);

#[tokio::test(start_paused = true)]
async fn forgeries_have_no_effect_but_a_counter() {
    let counters = Counters::default();
    let _guard = counters.install();
    suite::forgeries_have_no_effect(&Memory::new(1), Some(&counters)).await;
}
