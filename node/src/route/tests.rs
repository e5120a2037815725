//! Rules against calls, in a notation of one line each, and the laws of shares.

mod notation;
mod shares;
mod warnings;
mod words;

use notation::{Case, decided, route};

/// Every line of `cases.txt`.
#[test]
fn calls_go_where_the_table_says() {
    let table = include_str!("tests/cases.txt");
    let mut rules = None;
    let (mut cases, mut wrong) = (0, Vec::new());
    for (number, line) in table.lines().enumerate() {
        match Case::read(line) {
            Case::Nothing => {}
            Case::Rules(text) => rules = Some(route(text)),
            Case::Call(call, expected) => {
                let found = decided(rules.as_ref().expect("rules come first"), call);
                cases += 1;
                if found != expected {
                    wrong.push(format!("cases.txt:{}: {line}: goes to {found}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(cases >= 300, "only {cases} cases");
}
