//! `starling explain`: may this caller make that call, and who says so?

use clap::Args;

use super::ask::Ask;
use super::out;
use super::table::Table;
use crate::admin::view::{Explained, Judged, Routed};
use crate::policy::explain::Question;
use crate::said;

/// Say whether a service may call another, and which rule decides
///
/// Exits with 0 if every usable instance allows the call, with 3 if one denies it.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The service that calls, or its SPIFFE ID
    #[arg(value_name = "CALLER")]
    caller: String,
    /// The service that is called
    #[arg(value_name = "CALLEE")]
    callee: String,
    /// Method of the request, such as GET
    #[arg(value_name = "METHOD", requires = "path")]
    method: Option<String>,
    /// Path of the request
    #[arg(value_name = "PATH")]
    path: Option<String>,
    /// Header field of the request, such as 'x-beta: 1'; routes look at them
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// Node where the call would be made; this one unless told otherwise
    #[arg(long, value_name = "NODE")]
    from: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// The call would be denied; the answer is printed already.
#[derive(Debug, thiserror::Error)]
#[error("the call is denied")]
pub(super) struct Denied;

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let question = Question {
            caller: self.caller,
            callee: self.callee,
            method: self.method,
            path: self.path,
            headers: self.headers,
        };
        let path = format!("/v1/explain?{}", question.to_query(self.from.as_ref()));
        self.ask.repeat(|| {
            let explained: Explained = self.ask.answer(&path)?;
            if self.ask.wants_json() {
                out::say_json(&serde_json::to_string(&explained)?)?;
            } else {
                out::say(&render(&explained))?;
            }
            outcome(&explained)
        })
    }
}

/// An instance that gets no calls decides nothing, unless none gets any.
fn outcome(explained: &Explained) -> anyhow::Result<()> {
    if explained
        .route
        .as_ref()
        .is_some_and(|route| route.is_answered_here)
    {
        return Ok(());
    }
    let callee = &explained.question.callee;
    let is_used = explained.instances.iter().any(|one| one.used);
    let deciding = explained
        .instances
        .iter()
        .filter(|one| one.used || !is_used);
    let verdicts: Vec<_> = deciding.map(|one| &one.verdict).collect();
    anyhow::ensure!(!verdicts.is_empty(), "no node offers `{callee}`");
    if verdicts
        .iter()
        .copied()
        .flatten()
        .any(|verdict| !verdict.allowed)
    {
        return Err(Denied.into());
    }
    anyhow::ensure!(
        verdicts.iter().all(|verdict| verdict.is_some()),
        "not every instance of `{callee}` has said whether it allows the call"
    );
    Ok(())
}

fn render(explained: &Explained) -> String {
    let Question {
        caller,
        callee,
        method,
        path,
        ..
    } = &explained.question;
    let verdicts = explained
        .instances
        .iter()
        .filter_map(|one| one.verdict.as_ref());
    let identity = verdicts.map(|verdict| verdict.caller.as_str()).next();
    let request = [method, path].map(|part| part.as_deref().unwrap_or_default());
    let head = format!(
        "{} calls {callee} {} from {}",
        identity.unwrap_or(caller),
        request.join(" "),
        explained.node
    );
    let mut table = Table::new(["INSTANCE", "VERDICT", "RULE", "MODE", "USED"]);
    for one in &explained.instances {
        table.row(row(one));
    }
    let reasons = explained.instances.iter().map(reason);
    let reasons: Vec<_> = reasons.collect();
    let head = head.split_whitespace().collect::<Vec<_>>().join(" ");
    let route = explained.route.as_ref().map(route);
    let limits = (!explained.limits.is_empty()).then(|| {
        let limits = explained.limits.join("; ");
        said::line(&format!("limits: {limits}"))
    });
    let head = [Some(head), route, limits].into_iter().flatten();
    let head = head.collect::<Vec<_>>().join("\n");
    [head, table.render(), reasons.join("\n")].join("\n\n")
}

fn route(route: &Routed) -> String {
    let rule = match &route.rule {
        Some(rule) => format!("{rule} at {}", route.declared),
        None => route.declared.clone(),
    };
    // A user's calls go to one part of a split.
    let to = match &route.to[..] {
        [one] if !route.action.starts_with(one.as_str()) => format!("; this one to {one}"),
        _ => String::new(),
    };
    let path = route
        .path
        .as_ref()
        .map(|path| format!("; its app gets {path}"));
    let path = path.unwrap_or_default();
    // Another node may have said it.
    said::line(&format!("route: {rule}: {}{to}{path}", route.action))
}

fn row(one: &Judged) -> [String; 5] {
    let used = match one.used {
        true => format!("yes: {}", one.because),
        false => format!("no: {}", one.because),
    };
    let Some(verdict) = &one.verdict else {
        return [
            one.node.clone(),
            "unknown".into(),
            String::new(),
            String::new(),
            used,
        ];
    };
    let word = match (verdict.allowed, verdict.why.as_str()) {
        (true, "granted") => "allowed",
        (true, _) => "let through",
        (false, _) => "denied",
    };
    let mode = match &verdict.mode_declared {
        Some(declared) => format!("{} ({declared})", verdict.mode),
        None => verdict.mode.clone(),
    };
    let rule = verdict.rule.clone().unwrap_or_default();
    [one.node.clone(), word.into(), rule, mode, used]
}

fn reason(one: &Judged) -> String {
    let is_stale = one.verdict.as_ref().is_some_and(|verdict| verdict.is_stale);
    let stale = match is_stale {
        true => {
            "; the files there changed since and cannot be read, so what they say now is not in force (`starling check` there)"
        }
        false => "",
    };
    let text = match (&one.verdict, &one.problem) {
        (Some(verdict), _) => match &verdict.path {
            Some(path) => format!("{}; its app gets {path}", verdict.text),
            None => verdict.text.clone(),
        },
        (None, Some(problem)) => problem.clone(),
        (None, None) => "no answer".to_owned(),
    };
    said::line(&format!("{}: {text}{stale}", one.node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::explain::Answer;

    fn explained() -> Explained {
        let verdict = Answer {
            caller: "spiffe://example.org/svc/web".into(),
            allowed: true,
            why: "granted".into(),
            text: "a grant allows it".into(),
            rule: Some("services.d/orders.toml:5".into()),
            mode: "enforce".into(),
            mode_declared: None,
            path: Some("/cart".into()),
            is_stale: false,
        };
        let denied = Answer {
            allowed: false,
            why: "denied".into(),
            text: "a denial forbids it".into(),
            rule: Some("policy/base@3#12".into()),
            mode_declared: Some("policy/base@3#1".into()),
            path: None,
            ..verdict.clone()
        };
        let instance = |node: &str, used, because: &str, verdict| Judged {
            node: node.into(),
            used,
            because: because.into(),
            verdict,
            problem: None,
        };
        Explained {
            node: "n1".into(),
            question: Question {
                caller: "web".into(),
                callee: "orders".into(),
                method: Some("GET".into()),
                path: Some("/%63art".into()),
                headers: Vec::new(),
            },
            route: None,
            limits: vec![
                "whole call within 5s".into(),
                "at most 9 connections".into(),
            ],
            instances: vec![
                instance("n2", true, "healthy", Some(verdict)),
                instance("n3", false, "its node is dead", Some(denied)),
                Judged {
                    problem: Some("its node does not answer".into()),
                    ..instance("n4", false, "its node is dead", None)
                },
            ],
        }
    }

    #[test]
    fn what_an_operator_sees() {
        let expected = "\
spiffe://example.org/svc/web calls orders GET /%63art from n1
limits: whole call within 5s; at most 9 connections

INSTANCE  VERDICT  RULE                      MODE                       USED
n2        allowed  services.d/orders.toml:5  enforce                    yes: healthy
n3        denied   policy/base@3#12          enforce (policy/base@3#1)  no: its node is dead
n4        unknown  -                         -                          no: its node is dead

n2: a grant allows it; its app gets /cart
n3: a denial forbids it
n4: its node does not answer";
        assert_eq!(render(&explained()), expected);
    }

    #[test]
    fn what_gets_no_calls_decides_nothing() {
        let mut explained = explained();
        outcome(&explained).unwrap();
        explained.instances[1].used = true;
        assert!(outcome(&explained).unwrap_err().is::<Denied>());
        explained.instances.clear();
        assert_eq!(
            outcome(&explained).unwrap_err().to_string(),
            "no node offers `orders`"
        );
    }
    #[test]
    fn a_route_is_told_before_the_instances() {
        let mut explained = explained();
        let routed = Routed {
            rule: Some("rule \"users\"".into()),
            declared: "services.d/orders-route.toml:7".into(),
            action: "90% version=v1, 10% version=v2 by cookie id; path becomes /new".into(),
            to: vec!["version=v2".into()],
            path: Some("/new".into()),
            is_answered_here: false,
        };
        explained.route = Some(routed.clone());
        let shown = render(&explained);
        assert_eq!(
            shown.lines().nth(1),
            Some(
                "route: rule \"users\" at services.d/orders-route.toml:7: 90% version=v1, 10% version=v2 by cookie id; \
                 path becomes /new; this one to version=v2; its app gets /new"
            )
        );
        explained
            .instances
            .iter_mut()
            .for_each(|one| one.used = false);
        outcome(&explained).unwrap_err();
        explained.route = Some(Routed {
            is_answered_here: true,
            ..routed
        });
        outcome(&explained).unwrap();
    }
}
