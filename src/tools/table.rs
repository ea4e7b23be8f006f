//! Text tables and paragraphs that fit the terminal.

use std::env;
use std::io::stdout;

/// The longest line of a paragraph, and of a table that goes to no terminal, in characters.
const WIDTH: usize = 100;
/// Separates two columns.
const GAP: &str = "  ";
/// Indents the notes of a row.
const NOTE: &str = "    ";

/// The width of the terminal, in characters. Where standard output is none: `COLUMNS`, which watch(1)
/// sets, or else [`WIDTH`].
pub(crate) fn width() -> usize {
    let terminal = terminal_size::terminal_size_of(stdout()).map(|(width, _)| width.0.into());
    let columns = || env::var("COLUMNS").ok()?.parse().ok();
    terminal.or_else(columns).filter(|width| *width > 0).unwrap_or(WIDTH)
}

/// A table: a heading and rows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// How many columns, from the left, are a name. They are never cut: a cut name identifies
    /// nothing.
    names: usize,
    width: usize,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The heading.
    pub(crate) head: &'static str,
    /// The width of the column when the table does not fit, in characters. A longer text is cut. A
    /// longer name gets a line of its own instead.
    pub(crate) max_width: usize,
}

/// A row: cells of one or more lines, with notes below them.
#[derive(Debug, Default)]
pub(crate) struct Row {
    cells: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    /// The first column is a name.
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new(), names: 1, width: width() }
    }

    /// The first columns are the namespace and the name of a Secret.
    pub(crate) fn of_secrets(name: usize, columns: impl IntoIterator<Item = Column>) -> Self {
        let secret =
            [Column { head: "NAMESPACE", max_width: 11 }, Column { head: "NAME", max_width: name }];
        Self { names: 2, ..Self::new(secret.into_iter().chain(columns).collect()) }
    }

    /// If it is wide, cuts nothing.
    pub(crate) fn wide(self, is_wide: bool) -> Self {
        if is_wide { Self { width: usize::MAX, ..self } } else { self }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The whole table, with a newline after each line.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        let mut text = self.head(&widths);
        for row in &self.rows {
            row.render(&mut text, &widths, self.names);
        }
        text
    }

    /// The heading of a table whose rows come one by one.
    pub(crate) fn stream_head(&self) -> String {
        self.head(&self.stream_widths())
    }

    /// A row of a table whose rows come one by one.
    pub(crate) fn stream_row(&self, row: &Row) -> String {
        let mut text = String::new();
        row.render(&mut text, &self.stream_widths(), self.names);
        text
    }

    fn head(&self, widths: &[usize]) -> String {
        let mut text = String::new();
        let heads: Vec<_> = self.columns.iter().map(|c| c.head.to_owned()).collect();
        line(&mut text, &heads, widths);
        text
    }

    /// The widths when the rows are not known: the columns of texts share what is left.
    fn stream_widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.max_width).collect();
        let left = self.width.min(WIDTH).saturating_sub(total(&widths));
        let texts: Vec<usize> = (0..widths.len()).filter(|it| widths[*it] >= TEXT).collect();
        for index in texts.into_iter().cycle().take(left) {
            widths[index] += 1;
        }
        widths
    }

    /// The widths of the columns: as wide as their texts, or less if the table does not fit. Then texts
    /// are cut first, and what is left is for the names.
    fn widths(&self) -> Vec<usize> {
        let most = |index: usize| self.columns[index].max_width;
        let mut longest = vec![usize::MAX; self.names];
        let mut widths = loop {
            let is_short =
                |index: usize, length| longest.get(index).is_none_or(|most| length <= *most);
            let widths = self.fitting(is_short);
            let texts = widths.iter().enumerate().skip(self.names);
            let texts = texts.map(|(index, width)| (*width).min(most(index)));
            let least: Vec<_> = widths.iter().take(self.names).copied().chain(texts).collect();
            let room = |index: &usize| widths[*index].saturating_sub(most(*index));
            match (0..self.names).max_by_key(room) {
                Some(widest) if total(&least) > self.width && room(&widest) > 0 => {
                    longest[widest] = widths[widest] - 1;
                }
                _ => break widths,
            }
        };
        while total(&widths) > self.width {
            let room = |index: &usize| widths[*index].saturating_sub(most(*index));
            match (self.names..widths.len()).max_by_key(room) {
                Some(widest) if room(&widest) > 0 => widths[widest] -= 1,
                _ => break,
            }
        }
        widths
    }

    /// As wide as those texts that count.
    fn fitting(&self, counts: impl Fn(usize, usize) -> bool) -> Vec<usize> {
        let width = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(index)).flatten();
            let lengths = cells.map(|cell| length(cell)).filter(|length| counts(index, *length));
            lengths.max().unwrap_or(0).max(length(column.head))
        };
        self.columns.iter().enumerate().map(width).collect()
    }
}

/// A column that is at least so wide holds texts, which can be longer.
const TEXT: usize = 10;

/// The width of a table with columns of these widths.
fn total(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
}

impl Row {
    pub(crate) fn new(cells: Vec<Vec<String>>) -> Self {
        Self { cells, notes: Vec::new() }
    }

    /// Adds a note below the row. Long notes are wrapped.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn render(&self, text: &mut String, widths: &[usize], names: usize) {
        let height = self.cells.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..height {
            let cell = |cells: &Vec<String>| cells.get(number).cloned().unwrap_or_default();
            let mut cells: Vec<_> = self.cells.iter().map(cell).collect();
            let secret = &mut cells[..names];
            if secret.iter().zip(widths).any(|(name, width)| length(name) > *width) {
                text.push_str(secret.join(GAP).trim_end());
                text.push('\n');
                secret.iter_mut().for_each(String::clear);
            }
            line(text, &cells, widths);
        }
        for note in &self.notes {
            paragraph(text, NOTE, note);
        }
    }
}

/// Appends one line of the table, without trailing spaces.
fn line(text: &mut String, cells: &[String], widths: &[usize]) {
    let padded = |(cell, &width): (&String, &usize)| format!("{:<width$}", cut(cell, width));
    let cells: Vec<_> = cells.iter().zip(widths).map(padded).collect();
    text.push_str(cells.join(GAP).trim_end());
    text.push('\n');
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Cuts the middle out of a long text, because names often differ at their end.
fn cut(text: &str, width: usize) -> String {
    let whole = length(text);
    if whole <= width {
        return text.to_owned();
    }
    let end = width.saturating_sub(1) / 2;
    let begin: String = text.chars().take(width.saturating_sub(1 + end)).collect();
    let end: String = text.chars().skip(whole - end).collect();
    format!("{begin}…{end}")
}

/// Appends a text after `head`. Wraps it and indents the next lines by the width of `head`.
pub(crate) fn paragraph(out: &mut String, head: &str, text: &str) {
    let width = line_width(head.len());
    for (number, part) in wrapped(text, width).iter().enumerate() {
        let head = if number == 0 { head } else { &" ".repeat(head.len()) };
        out.push_str(head);
        out.push_str(&cut(part, width));
        out.push('\n');
    }
}

/// How many characters a line of a paragraph has after an indentation.
pub(crate) fn line_width(indent: usize) -> usize {
    width().min(WIDTH).saturating_sub(indent).max(NARROW)
}

/// The fewest characters of a paragraph's line, however narrow the terminal is.
const NARROW: usize = 20;

/// Wraps a text between words. A word that is longer than a line gets its own line.
pub(crate) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if length(line) + 1 + length(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let columns =
            vec![Column { head: "NAME", max_width: 8 }, Column { head: "WHAT", max_width: 6 }];
        Table { width: 16, ..Table::new(columns) }
    }

    fn row(name: &str, what: &[&str]) -> Row {
        Row::new(vec![vec![name.to_owned()], what.iter().map(ToString::to_string).collect()])
    }

    #[test]
    fn columns_are_as_wide_as_their_texts() {
        let mut table = table();
        table.push(row("a/b", &["one", "two"]));
        assert_eq!(table.render(), "NAME  WHAT\na/b   one\n      two\n");
        assert_eq!(table.stream_head(), "NAME      WHAT\n");
        assert_eq!(table.stream_row(&row("a/b", &["one"])), "a/b       one\n");
    }

    #[test]
    fn a_long_name_gets_its_own_line_and_other_long_texts_are_cut() {
        let mut table = table();
        table.push(row("space/long", &["all it"]));
        table.push(row("a/b", &["x"]));
        assert_eq!(table.render(), "NAME  WHAT\nspace/long\n      all it\na/b   x\n");
        assert_eq!(table.stream_row(&row("a/b", &["all of it"])), "a/b       all…it\n");
        table.push(row("c/d", &["0123456789ab"]));
        let text = table.render();
        assert_eq!(text.lines().last(), Some("c/d   01234…89ab"));
        let text = table.wide(true).render();
        assert_eq!(text.lines().nth(1), Some("space/long  all it"), "there is room");
        assert_eq!(text.lines().last(), Some("c/d         0123456789ab"));
    }

    #[test]
    fn the_names_of_a_secret_stay_together() {
        let what = [Column { head: "WHAT", max_width: 4 }];
        let mut table = Table { width: 30, ..Table::of_secrets(8, what) };
        let row = |cells: [&str; 3]| Row::new(cells.map(|cell| vec![cell.to_owned()]).to_vec());
        table.push(row(["n", "a", "x"]));
        table.push(row(["n", "a-name-that-is-long", "y"]));
        let expected = "NAMESPACE  NAME  WHAT\nn          a     x\n\
                        n  a-name-that-is-long\n                 y\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn notes_are_wrapped_between_words() {
        let mut table = table();
        let mut noted = row("a/b", &["x"]);
        noted.note("word ".repeat(30));
        table.push(noted);
        let text = table.render();
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert_eq!(text.matches("word").count(), 30);
        assert_eq!(wrapped("", 10), Vec::<String>::new());
    }
}
