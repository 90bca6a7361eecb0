//! One Rust source file as the tidy checks see it: comments and literals blanked, test-only code told apart.

use std::ops::Range;

/// A source file of `src/`.
pub(crate) struct Source {
    /// Relative to the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// `text` with comments, strings and character literals replaced by spaces: same length, same lines.
    pub(crate) code: String,
    /// Bytes of `code` under `#[cfg(test)]`.
    test_only: Vec<Range<usize>>,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let code = blank(&text);
        let test_only = test_items(&code);
        Self {
            path: path.into(),
            text,
            code,
            test_only,
        }
    }

    /// The module directly below the crate root that this file belongs to: `coffer` for `src/coffer/haystack/index.rs`.
    pub(crate) fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let end = inside.find(['/', '.']).unwrap_or(inside.len());
        &inside[..end]
    }

    /// How many modules lie between this file's own module and the crate root: 0 for `src/lib.rs`, 1 for `src/coffer.rs`.
    fn depth(&self) -> usize {
        match self.module() {
            "lib" | "main" => 0,
            _ => self.path.matches('/').count(),
        }
    }

    /// 1-based line of a byte of `code`.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.code[..at].matches('\n').count() + 1
    }

    /// Whether this byte of `code` is compiled for tests only.
    pub(crate) fn is_test_only(&self, at: usize) -> bool {
        self.test_only.iter().any(|range| range.contains(&at))
    }

    /// Every place where `word` stands in the code as a whole word.
    pub(crate) fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.code
            .match_indices(word)
            .map(|(at, _)| at)
            .filter(move |&at| {
                let before = self.code[..at].chars().next_back();
                let after = self.code[at + word.len()..].chars().next();
                !before.is_some_and(is_identifier) && !after.is_some_and(is_identifier)
            })
    }

    /// The modules directly below the crate root that this file names, with the byte where it does: `crate::x`,
    /// `crate::{x, y::z}`, `refuge::x` in the binary, and `super::` chains long enough to reach the root.
    pub(crate) fn imports(&self) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        let root = if self.module() == "main" {
            "refuge"
        } else {
            "crate"
        };
        for at in self.words(root) {
            names_after(&self.code, at + root.len(), at, &mut found);
        }
        for at in self.words("super") {
            if self.code[..at].trim_end().ends_with("::") {
                continue;
            }
            let mut end = at + "super".len();
            let mut ups = 1;
            while let Some(rest) = self.code[end..].strip_prefix("::super") {
                end = self.code.len() - rest.len();
                ups += 1;
            }
            if ups == self.depth() + self.inline_depth(at) && ups > 0 {
                names_after(&self.code, end, at, &mut found);
            }
        }
        found
    }

    /// Files of modules declared test-only here, relative to the root of the repository.
    pub(crate) fn test_only_files(&self) -> Vec<String> {
        let folder = match self.module() {
            "lib" | "main" => "src".to_owned(),
            _ => self.path.trim_end_matches(".rs").to_owned(),
        };
        let declared = self
            .words("mod")
            .filter(|&at| self.is_test_only(at))
            .filter_map(|at| {
                let name = identifier(self.code[at + "mod".len()..].trim_start());
                let after = self.code[at..].split_once(name)?.1.trim_start();
                after.starts_with(';').then(|| format!("{folder}/{name}"))
            });
        declared.collect()
    }

    /// How many `mod name { … }` blocks of this file are open at this byte.
    fn inline_depth(&self, at: usize) -> usize {
        let opened = self.words("mod").filter(|&start| start < at).filter(|&start| {
            let open = start + self.code[start..].find(['{', ';']).unwrap_or(0);
            self.code[open..].starts_with('{') && block_end(&self.code, open) > at
        });
        opened.count()
    }
}

fn is_identifier(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn identifier(code: &str) -> &str {
    &code[..code.find(|c| !is_identifier(c)).unwrap_or(code.len())]
}

/// Reads what follows a root: `::name` or `::{name, name::more, …}`.
fn names_after(code: &str, end: usize, at: usize, found: &mut Vec<(usize, String)>) {
    let Some(rest) = code[end..].trim_start().strip_prefix("::") else {
        return;
    };
    let rest = rest.trim_start();
    if !rest.starts_with('{') {
        found.push((at, identifier(rest).to_owned()));
        return;
    }
    let mut depth = 0;
    let mut expects_name = false;
    for (offset, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ if depth == 1 && expects_name && is_identifier(c) => {
                found.push((at, identifier(&rest[offset..]).to_owned()));
                expects_name = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
        expects_name = depth == 1 && (c == ',' || c == '{' || (expects_name && c.is_whitespace()));
    }
}

/// The byte after the brace that closes the one at `open`.
fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (offset, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + offset + 1;
        }
    }
    code.len()
}

/// The items under `#[cfg(test)]` or `#[test]`: from the attribute to the closing brace or semicolon.
fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    for mark in [
        "#[cfg(test)]",
        "#[cfg(all(test",
        "#[cfg(any(test",
        "#[test]",
        "#![cfg(test)]",
    ] {
        for (start, _) in code.match_indices(mark) {
            let end = match code[start..].find(['{', ';']).map(|offset| start + offset) {
                _ if mark.starts_with("#!") => code.len(),
                Some(open) if code[open..].starts_with('{') => block_end(code, open),
                Some(semicolon) => semicolon + 1,
                None => code.len(),
            };
            ranges.push(start..end);
        }
    }
    ranges
}

/// Replaces comments, strings and character literals by spaces of the same length; newlines stay.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(c) = rest.chars().next() {
        let length = if is_identifier(previous) && !matches!(c, '"' | '\'' | '/') {
            0
        } else {
            literal_or_comment(rest, is_identifier(previous))
        };
        if length == 0 {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            previous = c;
        } else {
            out.extend(
                rest[..length]
                    .bytes()
                    .map(|byte| if byte == b'\n' { '\n' } else { ' ' }),
            );
            rest = &rest[length..];
            previous = ' ';
        }
    }
    out
}

/// The length of the comment or literal that `rest` begins with, or 0.
fn literal_or_comment(rest: &str, after_identifier: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, 1);
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    if after_identifier {
        return 0;
    }
    let prefix = ["br", "cr", "b", "c", "r"].into_iter().find(|prefix| {
        let after = rest.strip_prefix(prefix);
        after.is_some_and(|after| after.starts_with(['"', '#', '\'']))
    });
    let Some(prefix) = prefix else { return 0 };
    let after = &rest[prefix.len()..];
    if prefix.ends_with('r') {
        return raw(rest, prefix.len());
    }
    match after.chars().next() {
        Some('"') => quoted(rest, prefix.len() + 1),
        Some('\'') if prefix == "b" => prefix.len() + character(after),
        _ => 0,
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str, start: usize) -> usize {
    let mut escaped = false;
    for (offset, c) in rest[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return start + offset + 1,
            _ => {}
        }
    }
    rest.len()
}

fn raw(rest: &str, start: usize) -> usize {
    let hashes = rest[start..].chars().take_while(|&c| c == '#').count();
    let Some(body) = rest[start + hashes..].strip_prefix('"') else {
        return 0;
    };
    let close = format!("\"{}", "#".repeat(hashes));
    match body.find(&close) {
        Some(end) => start + hashes + 1 + end + close.len(),
        None => rest.len(),
    }
}

/// A character literal, but not a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest[1..].chars();
    match (inside.next(), inside.next()) {
        (Some('\\'), _) => rest[3..].find('\'').map_or(0, |end| 3 + end + 1),
        (Some(c), Some('\'')) => 1 + c.len_utf8() + 1,
        _ => 0,
    }
}

#[test]
fn comments_and_literals_are_blanked_and_lifetimes_are_not() {
    let blanked = |text: &str| Source::new("src/id.rs", text).code;
    assert_eq!(blanked("a // crate::b\nc"), "a            \nc");
    assert_eq!(blanked("a /* x /* y */ z */ b"), "a                   b");
    assert_eq!(
        blanked(r#"f("a \" b", 'x', '\'', b'"')"#),
        "f(        ,    ,     ,     )"
    );
    assert_eq!(
        blanked("r#\"say \"x\" crate::b\"# y"),
        format!("{} y", " ".repeat(21))
    );
    assert_eq!(blanked("fn f<'a>(x: &'a str)"), "fn f<'a>(x: &'a str)");
    assert_eq!(blanked("r#type"), "r#type");
}

#[test]
fn imports_are_found_in_every_form() {
    let imports = |path: &str, text: &str| -> Vec<String> {
        let mut names: Vec<_> = Source::new(path, text)
            .imports()
            .into_iter()
            .map(|(_, name)| name)
            .collect();
        names.sort();
        names
    };
    assert_eq!(imports("src/api.rs", "use crate::coffer::Store;"), ["coffer"]);
    assert_eq!(
        imports(
            "src/api.rs",
            "use crate::{\n    files::{Tree, Ref},\n    id::BlobId,\n    node,\n};"
        ),
        ["files", "id", "node"]
    );
    assert_eq!(
        imports("src/api.rs", "fn f() -> super::node::Node { crate::db::open() }"),
        ["db", "node"]
    );
    assert_eq!(
        imports(
            "src/api/blobs.rs",
            "use super::extract; use super::super::coffer;"
        ),
        ["coffer"]
    );
    assert_eq!(
        imports(
            "src/api.rs",
            "mod tests { use super::*; use super::super::files; }"
        ),
        ["files"]
    );
    assert_eq!(
        imports("src/main.rs", "fn main() { refuge::cli::run() }"),
        ["cli"]
    );
    assert_eq!(
        imports("src/api.rs", "// crate::files\nlet a = \"crate::files\";"),
        Vec::<String>::new()
    );
}

#[test]
fn test_only_code_is_told_apart() {
    let source = Source::new(
        "src/id.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests { fn b() {} }\nfn c() {}\n#[cfg(test)]\nmod model;",
    );
    let is_test = |word| source.words(word).all(|at| source.is_test_only(at));
    assert!(!is_test("a"));
    assert!(is_test("b"));
    assert!(!is_test("c"));
    assert_eq!(source.test_only_files(), ["src/id/model"]);
}
