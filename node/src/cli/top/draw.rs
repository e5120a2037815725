//! From rows to cells of a terminal, or to plain text.

use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row as Cells, Table as Grid, TableState};
use ratatui::{Frame, Terminal};

use super::look::{Look, Table};
use super::picture::Picture;
use super::rows::{self, Column, Row, Tone};
use crate::admin::view::{Edge, End};
use crate::cli::ask::span;
use crate::cli::edges::gap;
use crate::cli::units::{micros, percent, rate};
use crate::said;

/// One frame with all rows as text, for pipes and scripts.
pub(super) fn text(look: &Look, picture: &Picture, width: u16) -> anyhow::Result<String> {
    let rows = rows::rows(look, picture).len() + picture.edges.gaps.len();
    let height = u16::try_from(rows + 2).unwrap_or(u16::MAX);
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    let drawn = terminal.draw(|frame| {
        let [head, table, gaps] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(gap_lines(picture)),
        ])
        .areas(frame.area());
        frame.render_widget(head_line(look, picture), head);
        let rows = rows::rows(look, picture);
        frame.render_widget(grid(look, &rows, table.width), table);
        frame.render_widget(gap_text(picture), gaps);
    })?;
    Ok(lines(drawn.buffer))
}

fn lines(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let lines = buffer.content.chunks(width.max(1)).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All of the screen.
pub(super) fn frame(
    frame: &mut Frame<'_>,
    look: &mut Look,
    picture: &Picture,
    trouble: Option<&str>,
) {
    let rows = rows::rows(look, picture);
    look.row = look.row.min(rows.len().saturating_sub(1));
    let ends = rows.get(look.row).and_then(|row| edge(picture, row));
    let ends = ends.map(ends_of).unwrap_or_default();
    let roomy = frame.area().height >= HEIGHT_FOR_ENDS;
    let ends_lines = if roomy { ends.len().min(ENDS_SHOWN) } else { 0 };
    let [head, table, below, gaps, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(u16::try_from(ends_lines).unwrap_or_default()),
        Constraint::Length(gap_lines(picture).min(GAPS_SHOWN)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(head_line(look, picture), head);
    let mut state = TableState::new().with_selected(look.row);
    frame.render_stateful_widget(grid(look, &rows, table.width), table, &mut state);
    if rows.is_empty() {
        frame.render_widget(Paragraph::new(nothing(look)), under_head(table));
    }
    frame.render_widget(Paragraph::new(ends), below);
    frame.render_widget(gap_text(picture), gaps);
    frame.render_widget(foot_line(look, trouble), foot);
}

/// Tables by name, the one that is shown standing out; what is shown of it, and how old.
fn head_line(look: &Look, picture: &Picture) -> Paragraph<'static> {
    let mut spans = vec![Span::raw("starling top ")];
    for (nth, table) in [Table::Edges, Table::Services, Table::Nodes]
        .into_iter()
        .enumerate()
    {
        let name = format!(" {} {} ", nth + 1, table.name());
        let is_shown = table == look.table;
        spans.push(if is_shown {
            Span::styled(name, STANDS_OUT)
        } else {
            Span::raw(name)
        });
    }
    let own = picture.nodes.iter().find(|node| node.is_self);
    let alive = picture.nodes.iter().filter(|node| node.liveness == "alive");
    spans.push(Span::raw(format!(
        "  last {}, as {} sees it, {} of {} nodes alive, {} old",
        look.window.as_str(),
        own.map_or("the agent", |node| &node.node),
        alive.count(),
        picture.nodes.len(),
        span(picture.taken.elapsed().as_secs()),
    )));
    Paragraph::new(Line::from(spans))
}

fn foot_line(look: &Look, trouble: Option<&str>) -> Paragraph<'static> {
    if look.is_typing {
        return Paragraph::new(format!(
            "filter: {}_   Enter keeps it, Esc drops it",
            look.filter
        ));
    }
    if let Some(trouble) = trouble {
        let line = said::line(&format!("no news: {trouble}"));
        return Paragraph::new(line).style(style(Tone::Bad));
    }
    let filter = match look.filter.as_str() {
        "" => String::new(),
        filter => format!("   [rows with `{filter}`, Esc: all]"),
    };
    Paragraph::new(format!("{KEYS}{filter}")).style(Modifier::DIM)
}

fn grid<'r>(look: &Look, rows: &'r [Row], width: u16) -> Grid<'r> {
    let columns = look.table.columns();
    let titles = titles(look);
    let shown = fitting(columns, &titles, rows, usize::from(width));
    let widths = shown.iter().map(|(_, width)| Constraint::Length(*width));
    let align = |at: usize| {
        if columns[at].is_number {
            Alignment::Right
        } else {
            Alignment::Left
        }
    };
    let header = shown
        .iter()
        .map(|(at, _)| Line::from(titles[*at].clone()).alignment(align(*at)));
    let header = Cells::new(header.collect::<Vec<_>>()).style(Modifier::BOLD);
    let lines = rows.iter().map(|row| {
        let cells = shown
            .iter()
            .map(|(at, _)| Line::from(row.cells[*at].as_str()).alignment(align(*at)));
        Cells::new(cells.collect::<Vec<_>>()).style(style(row.tone))
    });
    Grid::new(lines.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(header)
        .column_spacing(SPACING as u16)
        .row_highlight_style(Modifier::REVERSED)
}

/// The titles, with a mark at the one that rows are sorted by.
fn titles(look: &Look) -> Vec<String> {
    let sort = look.sort();
    let mark = if sort.is_reversed { "▲" } else { "▼" };
    let titles = look.table.columns().iter().enumerate();
    titles
        .map(|(at, column)| match at == sort.column {
            true => format!("{}{mark}", column.title),
            false => column.title.to_owned(),
        })
        .collect()
}

/// Which columns there is room for, with the width of each: those that are missed least go first.
fn fitting(columns: &[Column], titles: &[String], rows: &[Row], room: usize) -> Vec<(usize, u16)> {
    let wide = |at: usize| {
        let cells = rows.iter().map(|row| row.cells[at].chars().count());
        let widest = cells.max().unwrap_or_default();
        widest.max(titles[at].chars().count()).min(CELL_CHARS_MAX)
    };
    let mut shown: Vec<(usize, usize)> = (0..columns.len()).map(|at| (at, wide(at))).collect();
    let takes = |shown: &[(usize, usize)]| -> usize {
        shown.iter().map(|(_, width)| width + SPACING).sum()
    };
    while takes(&shown) > room + SPACING {
        let least = shown.iter().enumerate();
        let least = least.max_by_key(|(_, (at, _))| columns[*at].rank);
        match least {
            Some((nth, (at, _))) if columns[*at].rank > 0 => drop(shown.remove(nth)),
            _ => break,
        }
    }
    let shown = shown.into_iter();
    shown
        .map(|(at, width)| (at, u16::try_from(width).unwrap_or(u16::MAX)))
        .collect()
}

fn edge<'p>(picture: &'p Picture, row: &Row) -> Option<&'p Edge> {
    let (caller, callee, protocol) = row.edge.as_ref()?;
    let mut edges = picture.edges.edges.iter();
    edges.find(|edge| (&edge.caller, &edge.callee, &edge.protocol) == (caller, callee, protocol))
}

/// What each node says of an edge.
fn ends_of(edge: &Edge) -> Vec<Line<'static>> {
    let title = format!("{} calls {}, by node:", edge.caller, edge.callee);
    let title = Line::from(Span::styled(title, Modifier::BOLD));
    let ends = edge.ends.iter().map(|end| Line::from(end_text(end)));
    std::iter::once(title).chain(ends).collect()
}

fn end_text(end: &End) -> String {
    let signals = &end.signals;
    let failed = percent(signals.failed, signals.calls);
    let times = match signals.p50_us {
        Some(_) => format!(
            "p50 {:>6}  p99 {:>6}",
            micros(signals.p50_us),
            micros(signals.p99_us)
        ),
        None => String::new(),
    };
    let seen = match end.source.as_str() {
        "live" => "now".to_owned(),
        _ => format!("{} ago", span(end.age_s)),
    };
    let note = end.note.as_deref().unwrap_or_default();
    format!(
        "  {:<6}  {:<16}  {:>6}/s  {failed:>5} failed  {times:<24}  {seen:<8}  {note}",
        end.side,
        end.node,
        rate(signals.rate),
    )
}

fn gap_lines(picture: &Picture) -> u16 {
    u16::try_from(picture.edges.gaps.len()).unwrap_or(u16::MAX)
}

fn gap_text(picture: &Picture) -> Paragraph<'static> {
    let gaps = picture.edges.gaps.iter();
    let lines: Vec<_> = gaps.map(|one| Line::from(gap(one))).collect();
    Paragraph::new(lines).style(style(Tone::Odd))
}

fn nothing(look: &Look) -> &'static str {
    match (look.table, look.filter.is_empty()) {
        (_, false) => "no row holds what the filter wants; Esc shows all",
        (Table::Edges, true) => "nobody called anybody in this time; w looks further back",
        (Table::Services, true) => "no service is offered or called",
        (Table::Nodes, true) => "no node is known",
    }
}

/// Where the first row would stand.
fn under_head(table: Rect) -> Rect {
    Rect {
        y: table.y + 1,
        height: table.height.saturating_sub(1).min(1),
        ..table
    }
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Fine => Style::new(),
        Tone::Odd => Style::new().fg(Color::Yellow),
        Tone::Bad => Style::new().fg(Color::Red).add_modifier(Modifier::BOLD),
    }
}

const STANDS_OUT: Style = Style::new().add_modifier(Modifier::REVERSED);

const KEYS: &str = "Tab table  ↑↓ row  s sort  r reverse  / filter  w window  q quit";

/// Between two columns.
const SPACING: usize = 2;

/// A cell that is wider is cut: reasons and lists of services.
const CELL_CHARS_MAX: usize = 48;

/// From this many lines on there is room for what single nodes say.
const HEIGHT_FOR_ENDS: u16 = 16;

/// The title, and lines of nodes below the table.
const ENDS_SHOWN: usize = 8;

/// The first few say what is wrong; all of them are in `starling edges`.
const GAPS_SHOWN: u16 = 3;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::admin::view::{Edges, Gap, Signals};
    use crate::cli::edges::Window;

    fn edge(caller: &str, rate: f64, failed: u64) -> Edge {
        let signals = Signals {
            calls: (60.0 * rate) as u64,
            failed,
            rate,
            p50_us: Some(1_500),
            p90_us: Some(9_000),
            p99_us: Some(250_000),
            open: 1,
            reasons: [("timeout".into(), failed)].into(),
            ..Signals::default()
        };
        let end = |node: &str, side: &str, p50_us| End {
            node: node.into(),
            side: side.into(),
            source: "asked".into(),
            age_s: 4,
            signals: Signals {
                p50_us: Some(p50_us),
                ..signals.clone()
            },
            ..End::default()
        };
        Edge {
            caller: caller.into(),
            callee: "orders".into(),
            protocol: "http".into(),
            ends: vec![
                end("n1", "caller", 1_500),
                end("n2", "callee", 1_000),
                end("n3", "callee", 90_000),
            ],
            caller_side: Some(signals),
            ..Edge::default()
        }
    }

    fn picture() -> Picture {
        Picture {
            taken: Instant::now(),
            edges: Edges {
                window_s: 60,
                edges: vec![edge("shop", 2.0, 0), edge("web", 100.0, 300)],
                gaps: vec![Gap {
                    node: "n3".into(),
                    why: "it is dead".into(),
                    age_s: Some(4),
                }],
            },
            services: Vec::new(),
            nodes: Vec::new(),
        }
    }

    fn look(table: Table) -> Look {
        Look::new(table, Window::Minute, String::new())
    }

    #[test]
    fn the_busiest_edge_stands_first_and_gaps_below() {
        let expected = "\
starling top  1 edges  2 services  3 nodes   last 1m, as the agent sees it, 0 of 0 nodes alive, 0s old
CALLER  CALLEE  PROTOCOL  RATE▼  CALLS  FAILED  DENIED    P50    P90    P99  OPEN  REASONS
web     orders  http        100   6000    5.0%          1.5ms  9.0ms  250ms     1  timeout=300
shop    orders  http        2.0    120                  1.5ms  9.0ms  250ms     1  timeout=0
n3: it is dead; its numbers are 4s old";
        assert_eq!(
            text(&look(Table::Edges), &picture(), 120).unwrap(),
            expected
        );
    }

    #[test]
    fn a_narrow_terminal_keeps_what_matters() {
        let shown = text(&look(Table::Edges), &picture(), 60).unwrap();
        let header = shown.lines().nth(1).unwrap();
        let expected = "CALLER  CALLEE  RATE▼  FAILED  DENIED    P50    P99  OPEN";
        assert_eq!(header, expected, "{shown}");
    }

    #[test]
    fn a_service_that_nobody_offers_is_there_with_its_slowest_instance() {
        let shown = text(&look(Table::Services), &picture(), 120).unwrap();
        let row = shown.lines().nth(2).unwrap();
        assert!(
            row.starts_with("orders   0/0") && row.ends_with("n3 (p50 90ms)"),
            "{shown}"
        );
    }

    #[test]
    fn the_screen_shows_what_nodes_say_of_the_selected_edge() {
        let mut terminal = Terminal::new(TestBackend::new(120, 24)).unwrap();
        let mut look = look(Table::Edges);
        look.row = 7;
        let drawn = terminal
            .draw(|all| frame(all, &mut look, &picture(), None))
            .unwrap();
        let shown = lines(drawn.buffer);
        assert_eq!(look.row, 1, "there are two rows");
        for line in [
            "shop calls orders, by node:",
            "  callee  n3  ",
            "q quit",
            "n3: it is dead",
        ] {
            assert!(shown.contains(line), "no {line} in\n{shown}");
        }
        look.filter = "nobody".into();
        let trouble = Some("no agent answers");
        let drawn = terminal
            .draw(|all| frame(all, &mut look, &picture(), trouble))
            .unwrap();
        let shown = lines(drawn.buffer);
        assert!(
            shown.contains("Esc shows all") && shown.contains("no news: no agent answers"),
            "{shown}"
        );
    }
}
