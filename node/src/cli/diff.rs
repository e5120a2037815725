//! What changes between two texts, line by line.

use crate::visible;

/// The lines that go (`-`) and come (`+`), with three around them. Invisible characters are shown as escapes.
pub(super) fn show(before: &str, after: &str) -> String {
    let before: Vec<&str> = before.lines().collect();
    let after: Vec<&str> = after.lines().collect();
    let lines = compare(&before, &after);
    let is_change = |at: usize| lines[at].0 != ' ';
    let near = |at: usize| {
        let from = at.saturating_sub(AROUND);
        (from..(at + AROUND + 1).min(lines.len())).any(is_change)
    };
    let mut shown = Vec::new();
    let mut is_gap = false;
    for (at, (mark, line)) in lines.iter().enumerate() {
        if near(at) {
            let text = format!("  {mark} {}", visible::escape(line));
            shown.push(text.trim_end().to_owned());
        } else if !is_gap {
            shown.push("    …".to_owned());
        }
        is_gap = !near(at);
    }
    shown.join("\n")
}

/// The longest common part stays; what is equal at both ends is not looked at, which makes most changes cheap.
fn compare<'t>(before: &[&'t str], after: &[&'t str]) -> Vec<(char, &'t str)> {
    let head = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (before_rest, after_rest) = (&before[head..], &after[head..]);
    let tail = before_rest
        .iter()
        .rev()
        .zip(after_rest.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (old, old_tail) = before_rest.split_at(before_rest.len() - tail);
    let new = &after_rest[..after_rest.len() - tail];
    let same = |lines: &[&'t str]| lines.iter().map(|line| (' ', *line)).collect::<Vec<_>>();
    let mut lines = same(&before[..head]);
    if old.len() * new.len() <= CELLS_MAX {
        lines.extend(align(old, new));
    } else {
        lines.extend(old.iter().map(|line| ('-', *line)));
        lines.extend(new.iter().map(|line| ('+', *line)));
    }
    lines.extend(same(old_tail));
    lines
}

/// Longest common subsequence by the usual table.
fn align<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<(char, &'t str)> {
    let width = new.len() + 1;
    let mut longest = vec![0u32; (old.len() + 1) * width];
    for (i, a) in old.iter().enumerate().rev() {
        for (j, b) in new.iter().enumerate().rev() {
            longest[i * width + j] = if a == b {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1])
        {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    lines
}

/// Lines shown around a change.
const AROUND: usize = 3;

/// 2,000 lines against as many: 16 MiB. Past it all old lines go and all new ones come.
const CELLS_MAX: usize = 4_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_and_what_comes() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\ni";
        let after = "a\nb\nc\nd\nE\nf\ng\nh\ni";
        assert_eq!(
            show(before, after),
            "    …\n    b\n    c\n    d\n  - e\n  + E\n    f\n    g\n    h\n    …"
        );
        assert_eq!(show("", "x\n"), "  + x");
        assert_eq!(show("x", ""), "  - x");
        assert_eq!(show("x\ny\nz", "y\nq\nz"), "  - x\n    y\n  + q\n    z");
    }

    #[test]
    fn a_line_cannot_steer_the_terminal() {
        assert_eq!(show("", "\u{1b}[2J\u{202e}"), "  + \\u001B[2J\\u202E");
    }
}
