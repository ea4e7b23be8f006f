//! Text tables that are at most 100 characters wide.

/// The longest line, in characters.
pub(crate) const WIDTH: usize = 100;
/// Separates two columns.
const GAP: &str = "  ";
/// Indents the notes of a row.
const NOTE: &str = "    ";

/// A table: a heading and rows.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// The heading.
    pub(crate) head: &'static str,
    /// The width of the column when the table does not fit, in characters. A longer text is cut. In
    /// the first column it gets a line of its own instead, because a cut name identifies nothing.
    pub(crate) max_width: usize,
}

/// A row: cells of one or more lines, with notes below them.
#[derive(Debug, Default)]
pub(crate) struct Row {
    cells: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The whole table, with a newline after each line.
    pub(crate) fn render(&self) -> String {
        let widths = self.widths();
        let mut text = self.head(&widths);
        for row in &self.rows {
            row.render(&mut text, &widths);
        }
        text
    }

    /// The heading of a table whose rows come one by one.
    pub(crate) fn stream_head(&self) -> String {
        self.head(&self.max_widths())
    }

    /// A row of a table whose rows come one by one.
    pub(crate) fn stream_row(&self, row: &Row) -> String {
        let mut text = String::new();
        row.render(&mut text, &self.max_widths());
        text
    }

    fn head(&self, widths: &[usize]) -> String {
        let mut text = String::new();
        let heads: Vec<_> = self.columns.iter().map(|c| c.head.to_owned()).collect();
        line(&mut text, &heads, widths);
        text
    }

    fn max_widths(&self) -> Vec<usize> {
        self.columns.iter().map(|column| column.max_width).collect()
    }

    /// The widths of the columns: as wide as their texts, or less if the table does not fit.
    fn widths(&self) -> Vec<usize> {
        let width = |(index, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.cells.get(index)).flatten();
            let lengths = cells.map(|cell| length(cell));
            // A name that is too long for the first column gets its own line.
            let fitting = lengths.filter(|length| index > 0 || *length <= column.max_width);
            fitting.max().unwrap_or(0).max(length(column.head))
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(width).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > WIDTH {
            let room = |index: usize| widths[index].saturating_sub(self.columns[index].max_width);
            let Some(widest) = (0..widths.len()).max_by_key(|index| room(*index)) else { break };
            if room(widest) == 0 {
                break;
            }
            widths[widest] -= 1;
        }
        widths
    }
}

impl Row {
    pub(crate) fn new(cells: Vec<Vec<String>>) -> Self {
        Self { cells, notes: Vec::new() }
    }

    /// Adds a note below the row. Long notes are wrapped.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn render(&self, text: &mut String, widths: &[usize]) {
        let height = self.cells.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..height {
            let cell = |cells: &Vec<String>| cells.get(number).cloned().unwrap_or_default();
            let mut cells: Vec<_> = self.cells.iter().map(cell).collect();
            if let (Some(name), Some(&width)) = (cells.first_mut(), widths.first())
                && length(name) > width
            {
                text.push_str(name);
                text.push('\n');
                name.clear();
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
    let width = WIDTH - head.len();
    for (number, part) in wrapped(text, width).iter().enumerate() {
        let head = if number == 0 { head } else { &" ".repeat(head.len()) };
        out.push_str(head);
        out.push_str(&cut(part, width));
        out.push('\n');
    }
}

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
        Table::new(vec![
            Column { head: "NAME", max_width: 8 },
            Column { head: "WHAT", max_width: 6 },
        ])
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
        table.push(row("space/long-name", &["all of it"]));
        table.push(row("a/b", &["x"]));
        let expected = "NAME  WHAT\nspace/long-name\n      all of it\na/b   x\n";
        assert_eq!(table.render(), expected, "there is room");
        assert_eq!(table.stream_row(&row("a/b", &["all of it"])), "a/b       all…it\n");
        table.push(row("c/d", &[&"0123456789".repeat(10)]));
        let text = table.render();
        let last = text.lines().last().unwrap();
        assert_eq!(length(last), WIDTH, "{text}");
        assert!(last.starts_with("c/d   01234567") && last.ends_with("456789"), "{text}");
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
