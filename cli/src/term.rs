//! What a terminal needs: its width, tables, progress bars, and text that cannot command it.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use unicode_width::UnicodeWidthChar as _;

use crate::error::CliError;

/// Writes a line to standard output.
pub fn line(text: impl std::fmt::Display) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Writes a value as one line of JSON.
pub fn json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(|error| CliError::Failed(error.to_string()))?;
    line(text)
}

/// Tells something beside the output, on standard error.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", printable(&text.to_string()));
}

/// The columns of the output: the terminal's, or those that `COLUMNS` says; `None` where there is no limit.
pub fn width() -> Option<usize> {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked.or_else(|| Table::new().width().map(usize::from)).filter(|columns| *columns > 0)
}

/// A table without lines, its header bold on terminals. Cells are made printable.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    match width() {
        Some(columns) => {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(u16::try_from(columns).unwrap_or(u16::MAX));
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    table.set_header(header.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines without the spaces at their ends.
pub fn show(table: &Table) -> Result<(), CliError> {
    let text = table.to_string();
    line(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"))
}

/// One line without control characters: what comes from a log or a service may hold any.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Cuts a text to so many columns, with an ellipsis; white space becomes single spaces.
pub fn fit(text: &str, columns: usize) -> String {
    let (mut out, mut used, mut space) = (String::new(), 0, false);
    let limit = columns.saturating_sub(1);
    // Where the text is cut if it turns out to be too long.
    let mut cut = 0;
    for c in text.chars() {
        if c.is_whitespace() || c.is_control() {
            space = !out.is_empty();
            continue;
        }
        let wide = c.width().unwrap_or(0) + usize::from(space);
        if used + wide > columns {
            out.truncate(cut);
            if columns > 0 {
                out.push('…');
            }
            return out;
        }
        if space {
            out.push(' ');
            space = false;
        }
        out.push(c);
        used += wide;
        if used <= limit {
            cut = out.len();
        }
    }
    out
}

/// The columns that a text takes.
pub fn columns(text: &str) -> usize {
    text.chars().filter_map(|c| c.width()).sum()
}

/// Standard error where it is a terminal.
pub fn draw_target() -> ProgressDrawTarget {
    match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    }
}

/// A progress bar on standard error; hidden where that is no terminal. Without a length it is a spinner.
pub fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, draw_target());
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

/// `1234567` as `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_columns() {
        assert_eq!(fit("short", 10), "short");
        assert_eq!(fit("exactly ten", 11), "exactly ten");
        assert_eq!(fit("exactly ten", 10), "exactly t…");
        assert_eq!(fit("  a\n\t b  ", 10), "a b");
        assert_eq!(fit("日本語", 6), "日本語");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("日本語", 4), "日…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(fit("abc", 1), "…");
    }

    #[test]
    fn nothing_printed_can_command_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mred\u{7}\u{9b}x"), "a [31mred  x");
        assert_eq!(fit("a\u{1b}[2Jb", 20), "a [2Jb");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    proptest::proptest! {
        #[test]
        fn a_cut_text_never_exceeds_its_columns(text in ".{0,60}", limit in 0usize..40) {
            proptest::prop_assert!(columns(&fit(&text, limit)) <= limit);
        }
    }
}
