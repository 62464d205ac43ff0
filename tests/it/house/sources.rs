//! The source files of `src`, and which of them need each other.
//!
//! A file needs another file if its code names a path that leads to it: `crate::a::b`, `super::b`,
//! `self::b`, or `use b` for a child module. Declarations (`mod b;`), comments, visibilities and
//! code for tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{files, root};

/// The path of a module, derived from the path of its file.
pub(super) type Module = Vec<String>;

pub(super) fn path(text: &str) -> Module {
    text.split("::").map(str::to_owned).collect()
}

/// The source files by the path of their module.
pub(super) struct Sources(BTreeMap<Module, String>);

impl Sources {
    /// Reads all files below `src`.
    pub(super) fn read() -> Self {
        let source = root().join("src");
        Self(
            files("src", ".rs")
                .iter()
                .filter_map(|file| {
                    let relative = file.strip_prefix(&source).unwrap().to_str().unwrap();
                    Some((module(relative)?, fs::read_to_string(file).unwrap()))
                })
                .collect(),
        )
    }

    /// Creates sources from pairs of a path below `src` and a text.
    pub(super) fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        let files = files.map(|(file, text)| (module(file).unwrap(), text.to_owned()));
        Self(files.into_iter().collect())
    }

    /// Returns the files that each file needs within its top-level module.
    pub(super) fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
        for (from, text) in &self.0 {
            let needed = edges.entry(from.clone()).or_default();
            for path in paths(&tokens(text)) {
                let to = self.target(from, &path);
                needed.extend(to.filter(|to| to != from && to.first() == from.first()));
            }
        }
        edges
    }

    /// Returns the file to which a path in the file `from` leads.
    fn target(&self, from: &Module, path: &[String]) -> Option<Module> {
        let mut base = from.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            // A child module. Any other first segment is a crate or a name in scope.
            child => {
                let mut module = base.clone();
                module.push(child.to_owned());
                self.0.get(&module)?;
            }
        }
        base.extend(rest.iter().cloned());
        while !base.is_empty() {
            if self.0.contains_key(&base) {
                return Some(base);
            }
            base.pop();
        }
        None
    }
}

/// Returns the module of a file below `src`, or `None` for the root of the crate and for test
/// files.
fn module(file: &str) -> Option<Module> {
    let mut path: Module = file
        .trim_end_matches(".rs")
        .split('/')
        .map(str::to_owned)
        .collect();
    let name = path.last()?.clone();
    if name == "mod" {
        path.pop();
    }
    let is_other = matches!(path.first()?.as_str(), "lib" | "main") || name.ends_with("tests");
    (!is_other).then_some(path)
}

/// Splits code into words and signs, without comments, string literals and character literals.
fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let at = |place: usize| characters.get(place).copied().unwrap_or('\0');
    let mut tokens: Vec<String> = Vec::new();
    let mut place = 0;
    while place < characters.len() {
        match (at(place), at(place + 1)) {
            ('/', '/') => {
                while place < characters.len() && at(place) != '\n' {
                    place += 1;
                }
            }
            ('/', '*') => {
                while place < characters.len() && (at(place), at(place + 1)) != ('*', '/') {
                    place += 1;
                }
                place += 2;
            }
            ('r', '"' | '#') if !is_word(at(place.wrapping_sub(1))) => {
                let hashes = (place + 1..).take_while(|place| at(*place) == '#').count();
                place += 1 + hashes;
                if at(place) != '"' {
                    continue;
                }
                place += 1;
                let is_end = |place: usize| {
                    at(place) == '"' && (1..=hashes).all(|hash| at(place + hash) == '#')
                };
                while place < characters.len() && !is_end(place) {
                    place += 1;
                }
                place += 1 + hashes;
            }
            ('"', _) => {
                place += 1;
                while place < characters.len() && at(place) != '"' {
                    place += if at(place) == '\\' { 2 } else { 1 };
                }
                place += 1;
            }
            // A character literal, or the quote of a lifetime.
            ('\'', '\\') => {
                place += 3;
                while place < characters.len() && at(place) != '\'' {
                    place += 1;
                }
                place += 1;
            }
            ('\'', _) => place += if at(place + 2) == '\'' { 3 } else { 1 },
            (':', ':') => {
                tokens.push("::".to_owned());
                place += 2;
            }
            (character, _) if is_word(character) => {
                let word: String = characters[place..]
                    .iter()
                    .take_while(|character| is_word(**character))
                    .collect();
                place += word.chars().count();
                tokens.push(word);
            }
            (character, _) => {
                if !character.is_whitespace() {
                    tokens.push(character.to_string());
                }
                place += 1;
            }
        }
    }
    tokens
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Returns the paths that lead to other files. A group yields one path for each of its names.
fn paths(tokens: &[String]) -> Vec<Vec<String>> {
    let word = |place: usize| tokens.get(place).map_or("", String::as_str);
    let mut found = Vec::new();
    let mut place = 0;
    while place < tokens.len() {
        let is_for_tests =
            word(place) == "#" && word(place + 2) == "cfg" && is_test_cfg(tokens, place + 3);
        let is_start = match word(place) {
            "crate" | "self" | "super" => word(place.wrapping_sub(1)) != "::",
            _ => word(place.wrapping_sub(1)) == "use",
        };
        let is_visibility =
            word(place.wrapping_sub(1)) == "in" && word(place.wrapping_sub(2)) == "(";
        if is_for_tests {
            place = end_of_item(tokens, place);
        } else if is_start && word(place + 1) == "::" && !is_visibility {
            place = read_path(tokens, place, Vec::new(), &mut found);
        } else {
            place += 1;
        }
    }
    found
}

/// Returns whether a `cfg(…)` that begins here names `test`.
fn is_test_cfg(tokens: &[String], place: usize) -> bool {
    let inside = tokens[place..].iter().take_while(|token| *token != "]");
    inside.into_iter().any(|token| token == "test")
}

/// Returns the place after the item whose first attribute is here. The item ends with a block, a
/// semicolon or a comma.
fn end_of_item(tokens: &[String], mut place: usize) -> usize {
    let mut depth = 0;
    while place < tokens.len() {
        match tokens[place].as_str() {
            "{" | "[" | "(" => depth += 1,
            "}" if depth <= 1 => return place + 1,
            "}" | "]" | ")" => depth -= 1,
            ";" | "," if depth == 0 => return place + 1,
            _ => {}
        }
        place += 1;
    }
    place
}

/// Reads a path, or all paths of its groups, into `found`. Returns the place after it.
fn read_path(
    tokens: &[String],
    mut place: usize,
    mut path: Vec<String>,
    found: &mut Vec<Vec<String>>,
) -> usize {
    let word = |place: usize| tokens.get(place).map_or("", String::as_str);
    loop {
        if word(place) == "{" {
            place += 1;
            while place < tokens.len() && word(place) != "}" {
                if word(place) == "," {
                    place += 1;
                } else {
                    place = read_path(tokens, place, path.clone(), found);
                }
            }
            return place + 1;
        }
        // In a group, `self` refers to the module before the group.
        if word(place) != "self" || path.is_empty() {
            path.push(word(place).to_owned());
        }
        place += 1;
        if word(place) != "::" {
            found.push(path);
            // The rest is either a new name (`as x`) or not part of a path.
            while word(place) == "as" {
                place += 2;
            }
            return place;
        }
        place += 1;
    }
}
