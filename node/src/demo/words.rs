//! What the demo tells.

use std::path::Path;

use super::directory::Directory;
use super::plan::{App, Node, Plan, SLOW_MS};

/// Where to look first, what there is to find, and lines to try.
pub(super) fn running(plan: &Plan, directory: &Directory, program: &Path) -> String {
    let program = quoted(program);
    let at = |caller, callee| plan.call(caller, callee).listen;
    let (admin, socket) = (plan.nodes[0].admin, quoted(&plan.nodes[0].socket()));
    let fate = if directory.is_kept() {
        "kept at the end"
    } else {
        "removed at the end"
    };
    format!(
        "\nDashboard of n1: http://{admin}/\n\n\
         Some 17 calls a second go through this mesh. To find:\n\n  \
         - orders takes {slow} ms for every third call of web. Whose fault is it?\n    \
         docs/find-a-slow-service.md\n  \
         - guest is refused, once a second. By whom, and why?\n    \
         docs/why-refused.md\n\n\
         {table}\n\n\
         Their TOML, keys and logs: {dir} ({fate}); addresses for a shell: {env}\n\n\
         Try, in another terminal:\n\n  \
         # web calls hello through the mesh: v1 and v2 both answer\n  \
         for i in 1 2 3 4; do curl -s http://{hello}/; done\n\n  \
         # web calls orders, which asks stock\n  \
         curl -s http://{orders}/orders/17\n\n  \
         # guest calls hello, which does not allow it: see starling-error\n  \
         curl -i http://{denied}/\n\n  \
         # web calls echo, plain TCP through the same mesh\n  \
         (echo over the mesh; sleep 1) | curl -s --max-time 2 telnet://{echo}\n\n  \
         # what the agent n1 knows, and what it counts\n  \
         {program} status --socket {socket}\n  \
         {program} services --socket {socket}\n  \
         curl -s http://{admin}/metrics | grep ^starling_\n\n\
         Ctrl-C ends it.",
        slow = SLOW_MS,
        table = table(plan),
        dir = directory.path().display(),
        env = directory.path().join("env").display(),
        hello = at("web", "hello"),
        orders = at("web", "orders"),
        denied = at("guest", "hello"),
        echo = at("web", "echo"),
    )
}

pub(super) fn ended(directory: &Directory) -> String {
    if directory.is_kept() {
        return format!("All ended; {} is kept.", directory.path().display());
    }
    "All ended, nothing is left.".to_owned()
}

fn table(plan: &Plan) -> String {
    let row = |node: &str, mesh: &str, admin: &str, apps: &str| {
        format!("{node:<6}{mesh:<19}{admin:<19}{apps}")
    };
    let mut lines = vec![row("NODE", "MESH (UDP)", "ADMIN (HTTP)", "APPS")];
    for node in &plan.nodes {
        lines.push(row(
            node.name,
            &node.mesh.to_string(),
            &node.admin.to_string(),
            &apps(node, &plan.apps),
        ));
    }
    lines.join("\n")
}

fn apps(node: &Node, apps: &[App]) -> String {
    let here = apps.iter().filter(|app| app.node == node.name);
    let names: Vec<_> = here
        .map(|app| {
            format!("{} {}", app.service, app.version)
                .trim_end()
                .to_owned()
        })
        .collect();
    if names.is_empty() {
        "web and guest, who only call".to_owned()
    } else {
        names.join(", ")
    }
}

/// A path that a shell takes as one word.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._-+=:@%".contains(&b));
    if is_plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_can_be_pasted() {
        for (path, word) in [
            ("/tmp/a-b_1", "/tmp/a-b_1"),
            ("/tmp/a b", "'/tmp/a b'"),
            ("/it's", r"'/it'\''s'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }
}
