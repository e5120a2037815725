//! Columns of text for people. Programs use `--json`.

use crate::visible;

/// Rows under a header, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(header: [&str; N]) -> Self {
        Self {
            rows: vec![header.map(str::to_owned)],
        }
    }

    /// Cells may come from other hosts: what a terminal would act on is shown escaped.
    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| plain(&cell)));
    }

    /// The lines, without spaces at their ends.
    pub(super) fn render(&self) -> String {
        let mut widths = [0; N];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let line = |row: &[String; N]| {
            let cells = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// A text that may come from another host, as a terminal may get it.
pub(super) fn plain(cell: &str) -> String {
    match cell {
        "" => "-".to_owned(),
        _ if cell.chars().any(char::is_control) => cell.escape_debug().to_string(),
        // Before its width is counted.
        _ => visible::escape(cell).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["NODE", "ZONE", "SEEN"]);
        table.row(["n1".into(), "rack-1".into(), "2s".into()]);
        table.row(["a-long-name".into(), String::new(), String::new()]);
        assert_eq!(
            table.render(),
            "NODE         ZONE    SEEN\nn1           rack-1  2s\na-long-name  -       -"
        );
    }

    #[test]
    fn a_cell_cannot_steer_the_terminal() {
        let mut table = Table::new(["X"]);
        table.row(["\u{1b}[2J\nb".into()]);
        assert_eq!(table.render(), "X\n\\u{1b}[2J\\nb");
    }
}
