//! What commands print: tables for people, one JSON object a line for machines.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;
use time::OffsetDateTime;
use time::macros::format_description;

/// Where a command's results go. Notes and errors go to standard error.
pub(super) struct Output {
    out: BufWriter<Stdout>,
    is_json: bool,
}

impl Output {
    pub(super) fn new(is_json: bool) -> Output {
        Output {
            out: BufWriter::new(io::stdout()),
            is_json,
        }
    }

    /// Whether machines read this.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// One result: `text` for people, `value` for machines.
    pub(super) fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.is_json {
            true => {
                serde_json::to_writer(&mut self.out, value)?;
                self.out.write_all(b"\n")
            }
            false => writeln!(self.out, "{}", text()),
        }
    }

    /// Rows for people, aligned under their headings.
    pub(super) fn table(&mut self, headings: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let widths: Vec<usize> = headings
            .iter()
            .enumerate()
            .map(|(column, heading)| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
                widest.max(heading.chars().count())
            })
            .collect();
        let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(rows) {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, &width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            writeln!(self.out, "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Bytes as they are.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Everything is on its way.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A sentence for people beside the result; nothing for machines.
pub(super) fn note(text: &str) {
    eprintln!("{text}");
}

/// Whether a person watches standard error, so that progress is worth drawing.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal()
}

/// A number of bytes for people: `1.2 MiB`.
pub(super) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A time for people and machines: `2026-01-31T12:00:00Z`, from seconds since 1970.
pub(super) fn time(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(format).ok())
        .unwrap_or_else(|| format!("@{seconds}"))
}
