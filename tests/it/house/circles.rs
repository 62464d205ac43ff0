//! No circles of files inside a module of `src`: files that need each other cannot be read, tested
//! or moved one at a time, and a `mod.rs` in a circle is no longer a map of its module.
//!
//! A file needs another if its code names a path that leads there: `crate::a::b`, `super::b`,
//! `self::b`, or `use b` for a child module. Declarations (`mod b;`), comments, visibilities and
//! code for tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{files, root};

/// Modules that still have circles, and the reason. A circle belongs to the innermost module that
/// contains all its files.
const ALLOWED: &[(&str, &str)] = &[
    (
        "chat::reference",
        "mod.rs lists the routes and holds what they share",
    ),
    (
        "realtime",
        "mod.rs and the hub hold types that their parts need",
    ),
    (
        "realtime::channel::authorize",
        "mod.rs is the queue of questions and its parts need the questions",
    ),
    (
        "realtime::protocol",
        "mod.rs holds types that the messages need",
    ),
    (
        "realtime::session",
        "mod.rs is the session and its parts need the session",
    ),
];

#[test]
fn no_module_has_a_circle_of_files() {
    let sources = Sources::read();
    let edges = sources.edges();
    let mut wrong = Vec::new();
    let mut found = BTreeSet::new();
    for circle in circles(&edges) {
        let module = common_module(&circle);
        if !ALLOWED.iter().any(|(allowed, _)| *allowed == module) {
            let files: Vec<String> = circle.iter().map(|path| path.join("::")).collect();
            wrong.push(format!("{module} has a circle: {}", files.join(", ")));
        }
        found.insert(module);
    }
    for (module, _) in ALLOWED {
        if !found.contains(*module) {
            wrong.push(format!("{module} no longer has a circle: remove its entry"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_circle_is_found_by_any_form_of_path() {
    let forms = [
        ("use super::b::B;", "use crate::m::a::{A, C};"),
        ("fn f() { super::b::f() }", "use super::{a, c::d};"),
        ("use crate::m::{b::{self, B}, c};", "type A = super::a::A;"),
    ];
    for (a, b) in forms {
        let sources = Sources::new([("m/mod.rs", "mod a;\nmod b;"), ("m/a.rs", a), ("m/b.rs", b)]);
        let expected = [vec![path("m::a"), path("m::b")]];
        assert_eq!(circles(&sources.edges()), expected, "{a} {b}");
    }
    let map = [
        ("m/mod.rs", "mod a;\npub use a::A;"),
        ("m/a.rs", "use super::B;"),
    ];
    assert_eq!(
        circles(&Sources::new(map).edges()),
        [vec![path("m"), path("m::a")]],
        "a mod.rs that is both a map and a module"
    );
}

#[test]
fn declarations_comments_visibilities_and_tests_make_no_circle() {
    let sources = Sources::new([
        ("m/mod.rs", "//! See [`a`].\nmod a;\nmod b;\npub use a::A;"),
        (
            "m/a.rs",
            "pub(in crate::m) struct A;\n// use super::b::B;\n#[cfg(test)]\nmod tests { use super::super::b::B; }",
        ),
        (
            "m/b.rs",
            "use super::a::A;\nconst TEXT: &str = \"super::c::D\";",
        ),
    ]);
    assert_eq!(circles(&sources.edges()), Vec::<Vec<Module>>::new());
}

/// The path of a module, which is that of its file.
type Module = Vec<String>;

fn path(text: &str) -> Module {
    text.split("::").map(str::to_owned).collect()
}

/// The source files by the path of their module.
struct Sources(BTreeMap<Module, String>);

impl Sources {
    fn read() -> Self {
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

    fn new<const N: usize>(files: [(&str, &str); N]) -> Self {
        let files = files.map(|(file, text)| (module(file).unwrap(), text.to_owned()));
        Self(files.into_iter().collect())
    }

    /// The files that each file needs, within its top-level module.
    fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
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

    /// The file to which a path in the file `from` leads.
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
            // A child module; any other first segment is a crate or a name in scope.
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

/// The module of a file below `src`; none for the root of the crate and for files of tests.
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

/// The words and signs of code, without comments, texts and characters.
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
            // A character, or the quote of a lifetime.
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

/// The paths that lead to other files, one for each name of a group.
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

/// Whether a `cfg(…)` that begins here names `test`.
fn is_test_cfg(tokens: &[String], place: usize) -> bool {
    let inside = tokens[place..].iter().take_while(|token| *token != "]");
    inside.into_iter().any(|token| token == "test")
}

/// The place behind the item whose first attribute is here: a block, a semicolon or a comma ends
/// it.
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

/// Reads a path and adds it, or all paths of its groups, to `found`. Returns the place behind it.
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
        // `self` in a group is the module before it.
        if word(place) != "self" || path.is_empty() {
            path.push(word(place).to_owned());
        }
        place += 1;
        if word(place) != "::" {
            found.push(path);
            // What follows is a new name (`as x`) or belongs to no path.
            while word(place) == "as" {
                place += 2;
            }
            return place;
        }
        place += 1;
    }
}

/// Groups of files that can all reach each other, each group and the list in path order.
fn circles(edges: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<Vec<Module>> {
    let reached = |from: &Module| {
        let mut reached: BTreeSet<&Module> = BTreeSet::new();
        let mut open: Vec<&Module> = edges.get(from).into_iter().flatten().collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        reached
    };
    let reach: BTreeMap<&Module, BTreeSet<&Module>> =
        edges.keys().map(|from| (from, reached(from))).collect();
    let mut circles: BTreeSet<Vec<Module>> = BTreeSet::new();
    for (from, reached) in &reach {
        if reached.contains(*from) {
            let back = |to: &&&Module| reach.get(**to).is_some_and(|reach| reach.contains(*from));
            circles.insert(
                reached
                    .iter()
                    .filter(back)
                    .map(|to| (*to).clone())
                    .collect(),
            );
        }
    }
    circles.into_iter().collect()
}

/// The innermost module that contains all these files.
fn common_module(circle: &[Module]) -> String {
    let first = circle[0].clone();
    let length = (1..=first.len())
        .rev()
        .find(|length| {
            circle
                .iter()
                .all(|path| path.starts_with(&first[..*length]))
        })
        .unwrap_or(1);
    first[..length].join("::")
}
