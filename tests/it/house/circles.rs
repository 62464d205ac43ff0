//! The files inside a module of `src` must not depend on each other in a circle. Such files cannot
//! be read, tested or moved one at a time, and a `mod.rs` in a circle is no longer a map of its
//! module.
//!
//! `sources.rs` defines when a file needs another one.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Module, Sources, path};

#[test]
fn no_module_has_a_circle_of_files() {
    let sources = Sources::read();
    let found: Vec<String> = circles(&sources.edges())
        .iter()
        .map(|circle| circle.iter().map(|path| path.join("::")).collect())
        .map(|files: Vec<String>| files.join(", "))
        .collect();
    assert!(found.is_empty(), "circles of files:\n{}", found.join("\n"));
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

/// Returns the groups of files that can all reach each other. Each group, and the list of groups,
/// is in path order.
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
