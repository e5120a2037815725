//! What is looked at, and what keys make of it. Pure.

use clap::ValueEnum;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::rows::{COLUMNS_EDGES, COLUMNS_NODES, COLUMNS_SERVICES, Column};
use crate::cli::edges::Window;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Table {
    Edges,
    Services,
    Nodes,
}

/// Which table, how sorted and filtered, and where in it.
#[derive(Debug, Clone)]
pub(super) struct Look {
    pub(super) table: Table,
    pub(super) window: Window,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) is_typing: bool,
    /// The selected row.
    pub(super) row: usize,
    sorts: [Sort; 3],
}

/// A column, and whether its order is turned round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sort {
    pub(super) column: usize,
    pub(super) is_reversed: bool,
}

/// What a key leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Wait,
    Redraw,
    Fetch,
    End,
}

impl Table {
    const ALL: [Self; 3] = [Self::Edges, Self::Services, Self::Nodes];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Edges => "edges",
            Self::Services => "services",
            Self::Nodes => "nodes",
        }
    }

    pub(super) fn columns(self) -> &'static [Column] {
        match self {
            Self::Edges => &COLUMNS_EDGES,
            Self::Services => &COLUMNS_SERVICES,
            Self::Nodes => &COLUMNS_NODES,
        }
    }

    fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// Where to look first: what is busy; of nodes, their names.
    fn first_sort(self) -> Sort {
        let wanted = if self == Self::Nodes { "NODE" } else { "RATE" };
        let mut columns = self.columns().iter();
        Sort {
            column: columns
                .position(|column| column.title == wanted)
                .unwrap_or_default(),
            is_reversed: false,
        }
    }
}

impl Look {
    pub(super) fn new(table: Table, window: Window, filter: String) -> Self {
        Self {
            table,
            window,
            filter,
            is_typing: false,
            row: 0,
            sorts: Table::ALL.map(Table::first_sort),
        }
    }

    pub(super) fn sort(&self) -> Sort {
        self.sorts[self.table as usize]
    }

    /// Sorts the table by the column of this title.
    pub(super) fn sort_by(&mut self, title: &str) -> Result<(), String> {
        let columns = self.table.columns();
        let is_it = |column: &Column| column.title.eq_ignore_ascii_case(title);
        let column = columns.iter().position(is_it).ok_or_else(|| {
            let titles: Vec<_> = columns
                .iter()
                .map(|column| column.title.to_lowercase())
                .collect();
            format!("no column `{title}` here; there are {}", titles.join(", "))
        })?;
        self.sorts[self.table as usize].column = column;
        Ok(())
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c' | 'd') => Next::End,
                _ => Next::Wait,
            };
        }
        if self.is_typing {
            return self.type_filter(key.code);
        }
        match key.code {
            KeyCode::Char('q') => return Next::End,
            KeyCode::Tab => self.turn_to(self.table.next()),
            KeyCode::Char('1') => self.turn_to(Table::Edges),
            KeyCode::Char('2') => self.turn_to(Table::Services),
            KeyCode::Char('3') => self.turn_to(Table::Nodes),
            KeyCode::Char('s') => self.step_sort(1),
            KeyCode::Char('S') => self.step_sort(self.table.columns().len() - 1),
            KeyCode::Char('r') => {
                let sort = &mut self.sorts[self.table as usize];
                sort.is_reversed = !sort.is_reversed;
            }
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('w') => {
                self.window = self.window.next();
                return Next::Fetch;
            }
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Up | KeyCode::Char('k') => self.row = self.row.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.row += 1,
            KeyCode::PageUp => self.row = self.row.saturating_sub(PAGE),
            KeyCode::PageDown => self.row += PAGE,
            KeyCode::Home => self.row = 0,
            KeyCode::End => self.row = usize::MAX - PAGE,
            _ => return Next::Wait,
        }
        Next::Redraw
    }

    fn type_filter(&mut self, code: KeyCode) -> Next {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(c) if self.filter.len() < FILTER_BYTES_MAX => self.filter.push(c),
            _ => return Next::Wait,
        }
        self.row = 0;
        Next::Redraw
    }

    fn turn_to(&mut self, table: Table) {
        self.table = table;
        self.row = 0;
    }

    fn step_sort(&mut self, by: usize) {
        let sort = &mut self.sorts[self.table as usize];
        sort.column = (sort.column + by) % self.table.columns().len();
    }
}

/// Rows that a page key moves.
const PAGE: usize = 10;

/// Longer than any name.
const FILTER_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(keys: &str) -> (Look, Next) {
        let mut look = Look::new(Table::Edges, Window::Minute, String::new());
        let mut next = Next::Wait;
        for c in keys.chars() {
            let code = match c {
                '\t' => KeyCode::Tab,
                '\n' => KeyCode::Enter,
                '\u{8}' => KeyCode::Backspace,
                '\u{1b}' => KeyCode::Esc,
                c => KeyCode::Char(c),
            };
            next = look.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        (look, next)
    }

    #[test]
    fn keys_choose_table_window_and_row() {
        assert_eq!(after("\t").0.table, Table::Services);
        assert_eq!(after("\t\t\t").0.table, Table::Edges);
        assert_eq!(after("3").0.table, Table::Nodes);
        assert_eq!((after("jjk").0.row, after("jj2").0.row), (1, 0));
        assert_eq!(
            (after("w").1, after("q").1, after("x").1),
            (Next::Fetch, Next::End, Next::Wait)
        );
        assert_eq!(after("www").0.window, Window::Minute);
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        assert_eq!(after("/qrs\u{8}\n").0.filter, "qr");
        assert!(after("/q").0.is_typing && !after("/q\n").0.is_typing);
        assert_eq!(after("/web\n\u{1b}").0.filter, "");
    }

    #[test]
    fn each_table_keeps_its_order() {
        let title = |look: &Look| look.table.columns()[look.sort().column].title;
        assert_eq!(title(&after("").0), "RATE");
        assert_eq!(title(&after("S").0), "PROTOCOL");
        assert_eq!(title(&after("sS").0), "RATE");
        assert_eq!(title(&after("s3").0), "NODE");
        assert!(after("r").0.sort().is_reversed && !after("r2").0.sort().is_reversed);
        let mut look = after("").0;
        look.sort_by("p99").unwrap();
        assert_eq!(title(&look), "P99");
        assert!(look.sort_by("p98").unwrap_err().contains("p90, p99"));
    }
}
