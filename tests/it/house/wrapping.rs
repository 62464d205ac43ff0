//! Comments and Markdown prose end at 100 columns, so that a diff can be read line by line.
//!
//! Tables, code blocks, lines with a link, and generated files are exempt.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{files, root};

/// The languages whose comments or prose are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Markdown,
    Rust,
    Sql,
}

impl Language {
    fn of(file: &str) -> Self {
        match file.rsplit('.').next() {
            Some("md") => Self::Markdown,
            Some("sql") => Self::Sql,
            _ => Self::Rust,
        }
    }
}

/// Maximum number of columns of a line.
const COLUMNS: usize = 100;

/// Files that a program generates.
const GENERATED: &[&str] = &["docs/schema.md"];

/// Folders that still have longer lines. They are wrapped when their wording is revised, because
/// wrapping alone would hide changes to the text.
const ALLOWED: &[&str] = &[];

/// The checked folders, with the extensions of their files. The Markdown files of the root are
/// checked too. Released migrations are never edited, so they are not checked.
const FOLDERS: &[(&str, &str)] = &[
    ("src", ".rs"),
    ("tests/it", ".rs"),
    ("fuzz/targets", ".rs"),
    ("docs", ".md"),
    ("sql", ".md"),
    ("sql/definitions", ".sql"),
];

#[test]
fn comments_and_prose_end_at_100_columns() {
    let mut long: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in checked_files() {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if GENERATED.contains(&name.as_str()) {
            continue;
        }
        let folder = Path::new(&name).parent().unwrap().display().to_string();
        for line in long_lines(&text, Language::of(&name)) {
            let place = format!("{name}:{line}");
            long.entry(folder.clone()).or_default().push(place);
        }
    }
    let mut wrong: Vec<String> = Vec::new();
    for (folder, places) in &long {
        if !ALLOWED.contains(&folder.as_str()) {
            wrong.extend(places.iter().cloned());
        }
    }
    for folder in ALLOWED {
        if !long.contains_key(*folder) {
            wrong.push(format!(
                "{folder} no longer has a long line: remove its entry"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "longer than {COLUMNS} columns:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_long_line_is_found_only_in_comments_and_prose() {
    let long = "word ".repeat(COLUMNS / 5);
    let cases = [
        (format!("    /// {long}"), Language::Rust, 1),
        (format!("    // {long}"), Language::Rust, 1),
        (format!("-- {long}"), Language::Sql, 1),
        (format!("let text = \"{long}\";"), Language::Rust, 0),
        (format!("// https://example.test/{long}"), Language::Rust, 0),
        (format!("{long} word"), Language::Markdown, 1),
        (format!("| {long} |"), Language::Markdown, 0),
        (
            format!("```\n{long} word\n```\nshort"),
            Language::Markdown,
            0,
        ),
        (
            format!("//! ```text\n//! {long}\n//! ```\n//! {long}"),
            Language::Rust,
            1,
        ),
        (format!("[{long}](there.md)"), Language::Markdown, 0),
        // A character is one column, however many bytes it has.
        ("ü".repeat(COLUMNS), Language::Markdown, 0),
    ];
    for (text, language, count) in cases {
        assert_eq!(long_lines(&text, language).len(), count, "{text}");
    }
}

fn checked_files() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = FOLDERS
        .iter()
        .flat_map(|(folder, ending)| files(folder, ending))
        .collect();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Returns the line numbers of prose that is too long.
fn long_lines(text: &str, language: Language) -> Vec<usize> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let prose = match language {
            Language::Markdown => Some(trimmed),
            Language::Rust => trimmed.strip_prefix("//"),
            Language::Sql => trimmed.strip_prefix("--"),
        };
        let Some(prose) = prose else {
            is_code = false;
            continue;
        };
        let prose = prose.trim_start_matches(['/', '!']).trim_start();
        if prose.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let is_indented_code =
            language == Language::Markdown && line.starts_with("    ") && !prose.starts_with('-');
        let is_excepted = is_code
            || is_indented_code
            || prose.starts_with('|')
            || prose.contains("](")
            || prose.contains("://");
        if line.chars().count() > COLUMNS && !is_excepted {
            found.push(index + 1);
        }
    }
    found
}
