//! Comments and Markdown prose end at 100 columns, so that a difference is read line by line.
//!
//! Excepted are tables, code blocks, lines that hold a link, and generated files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{files, root};

/// Columns of a line.
const COLUMNS: usize = 100;

/// Files that a program writes.
const GENERATED: &[&str] = &["docs/schema.md"];

/// Folders that have longer lines, and the reason.
const ALLOWED: &[(&str, &str)] = &[];

/// Where comments and prose are checked. Dependencies of the tests with Node.js are not ours.
const FOLDERS: &[&str] = &["src", "tests/it", "docs", "sql", "fuzz/targets"];

#[test]
fn comments_and_prose_end_at_100_columns() {
    let mut long: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in checked_files() {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        if GENERATED.contains(&name.as_str()) {
            continue;
        }
        let is_markdown = name.ends_with(".md");
        let folder = Path::new(&name).parent().unwrap().display().to_string();
        for line in long_lines(&text, is_markdown) {
            let place = format!("{name}:{line}");
            long.entry(folder.clone()).or_default().push(place);
        }
    }
    let allowed: BTreeSet<&str> = ALLOWED.iter().map(|(folder, _)| *folder).collect();
    let mut wrong: Vec<String> = Vec::new();
    for (folder, places) in &long {
        if !allowed.contains(folder.as_str()) {
            wrong.extend(places.iter().cloned());
        }
    }
    for folder in allowed {
        if !long.contains_key(folder) {
            wrong.push(format!(
                "{folder} has no long line any more: remove its entry"
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
fn a_long_line_is_found_in_comments_and_prose_alone() {
    let long = "word ".repeat(COLUMNS / 5);
    let cases = [
        (format!("    /// {long}"), false, 1),
        (format!("    // {long}"), false, 1),
        (format!("let text = \"{long}\";"), false, 0),
        (format!("// https://example.test/{long}"), false, 0),
        (format!("{long} word"), true, 1),
        (format!("| {long} |"), true, 0),
        (format!("```\n{long} word\n```\nshort"), true, 0),
        (
            format!("//! ```text\n//! {long}\n//! ```\n//! {long}"),
            false,
            1,
        ),
        (format!("[{long}](there.md)"), true, 0),
        // A character is one column, however many bytes it has.
        ("ü".repeat(COLUMNS), true, 0),
    ];
    for (text, is_markdown, count) in cases {
        assert_eq!(long_lines(&text, is_markdown).len(), count, "{text}");
    }
}

fn checked_files() -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = FOLDERS
        .iter()
        .flat_map(|folder| [".rs", ".md"].map(|ending| (*folder, ending)))
        .filter(|(folder, ending)| (*ending == ".md") == matches!(*folder, "docs" | "sql"))
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

/// The numbers of the lines of prose that are too long.
fn long_lines(text: &str, is_markdown: bool) -> Vec<usize> {
    let mut found = Vec::new();
    let mut is_code = false;
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let prose = if is_markdown {
            trimmed
        } else {
            let Some(comment) = trimmed.strip_prefix("//") else {
                is_code = false;
                continue;
            };
            comment.trim_start_matches(['/', '!']).trim_start()
        };
        if prose.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let is_indented_code = is_markdown && line.starts_with("    ") && !prose.starts_with('-');
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
