use crate::testing::{Counters, Memory, suite};

macro_rules! on_memory {
    ($from:path; $($name:ident),* $(,)?) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            use $from as suite;
            suite::$name(&Memory::new(1)).await;
        }
    )*};
}

on_memory!(
    suite;
    three_nodes_find_each_other,
    a_change_reaches_all,
    who_leaves_is_gone_at_once,
    a_restart_replaces_at_once,
    a_service_needs_proof,
);

on_memory!(
    suite::documents;
    documents_reach_all,
    older_documents_are_refused,
    a_fork_is_the_same_for_all,
    a_newcomer_gets_all_documents,
);

#[tokio::test(start_paused = true)]
async fn documents_that_prove_nothing_have_no_effect_but_a_counter() {
    let counters = Counters::default();
    let _guard = counters.install();
    let network = Memory::new(1);
    suite::documents::documents_that_prove_nothing_are_refused(&network, Some(&counters)).await;
}

#[tokio::test(start_paused = true)]
async fn forgeries_have_no_effect_but_a_counter() {
    let counters = Counters::default();
    let _guard = counters.install();
    suite::forgeries_have_no_effect(&Memory::new(1), Some(&counters)).await;
}
