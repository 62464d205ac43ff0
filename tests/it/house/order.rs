//! The parts of `realtime` and `visibility` have an order, and each part uses only the parts before
//! it.
//!
//! A part is a file or a folder directly inside the module. `ARCHITECTURE.md` lists the parts of
//! each module in a table whose head begins with "part of `module`". The module's own `mod.rs` may
//! use every part, and no part may use it.

use std::collections::BTreeSet;
use std::fs;

use super::root;
use super::sources::Sources;

/// The modules whose parts are listed.
const ORDERED: [&str; 2] = ["realtime", "visibility"];

#[test]
fn each_part_uses_only_the_parts_before_it() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources = Sources::read();
    let wrong: Vec<String> = ORDERED
        .iter()
        .flat_map(|module| violations(module, &parts(&text, module), &sources))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_order_and_a_wrong_list_are_found() {
    let sources = Sources::new([
        ("m/mod.rs", "mod a; mod b; mod c; pub use c::C;"),
        ("m/a.rs", ""),
        ("m/b/mod.rs", "mod inner;"),
        ("m/b/inner.rs", "use super::super::a::A;"),
        ("m/c.rs", "use super::{a::A, b};"),
    ]);
    let found = |parts: &[&str]| violations("m", &owned(parts), &sources);
    assert_eq!(found(&["a", "b", "c"]), Vec::<String>::new());
    assert_eq!(
        found(&["b", "a", "c"]),
        ["m::b::inner uses m::a, which is not before it"]
    );
    assert_eq!(
        found(&["a", "c", "b"]),
        ["m::c uses m::b, which is not before it"]
    );
    assert_eq!(found(&["a", "b"]), ["m::c is missing from the table"]);
    assert_eq!(
        found(&["a", "b", "c", "d"]),
        ["m::d is in the table and does not exist"]
    );

    let through_the_map = Sources::new([
        ("m/mod.rs", "mod a; mod b; pub use a::A;"),
        ("m/a.rs", ""),
        ("m/b.rs", "use super::A;"),
    ]);
    assert_eq!(
        violations("m", &owned(&["a", "b"]), &through_the_map),
        ["m::b uses m, which is not before it"],
        "a re-export would hide what is used"
    );
}

#[test]
fn the_table_is_read_in_the_order_of_its_rows_and_names() {
    let text = "| part of `m` | contents |\n| --- | --- |\n| `b` | uses `x` |\n| `a`, `c` | |\n\n| `d` | |";
    assert_eq!(parts(text, "m"), ["b", "a", "c"]);
}

fn owned(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

/// Returns the parts of a module in order: the names in the first cell of each row of its table.
fn parts(text: &str, module: &str) -> Vec<String> {
    let head = format!("| part of `{module}` |");
    let parts: Vec<String> = text
        .lines()
        .skip_while(|line| !line.starts_with(&head))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .flat_map(|row| {
            let cell = row.trim_start_matches('|').split('|').next().unwrap();
            cell.split('`').skip(1).step_by(2)
        })
        .map(str::to_owned)
        .collect();
    assert!(parts.len() > 1, "ARCHITECTURE.md has no table for {module}");
    parts
}

/// Returns the uses of parts that do not come before the using part, and the parts that are only in
/// the table or only in the sources.
fn violations(module: &str, parts: &[String], sources: &Sources) -> Vec<String> {
    let place_of = |part: &str| parts.iter().position(|listed| listed == part);
    let mut wrong = Vec::new();
    let mut existing = BTreeSet::new();
    for (file, needed) in sources.edges() {
        let [top, part, ..] = file.as_slice() else {
            continue;
        };
        if top != module {
            continue;
        }
        let is_first_file = existing.insert(part.clone());
        let Some(place) = place_of(part) else {
            if is_first_file {
                wrong.push(format!("{module}::{part} is missing from the table"));
            }
            continue;
        };
        for needed in needed {
            let is_before = match needed.get(1) {
                Some(other) if other == part => true,
                // A part that is not listed is reported as missing.
                Some(other) => place_of(other).is_none_or(|other| other < place),
                None => false,
            };
            if !is_before {
                let (file, needed) = (file.join("::"), needed[..needed.len().min(2)].join("::"));
                wrong.push(format!("{file} uses {needed}, which is not before it"));
            }
        }
    }
    for part in parts.iter().filter(|part| !existing.contains(*part)) {
        wrong.push(format!(
            "{module}::{part} is in the table and does not exist"
        ));
    }
    wrong
}
