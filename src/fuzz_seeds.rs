//! Checks the fuzzing properties on all inputs in `fuzz/seeds`.
//!
//! These tests are not integration tests, because the properties are not part of the published
//! library.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::{auth, realtime, replication, upstream, visibility};

/// The check of a fuzz target on arbitrary bytes. It panics on failure.
type Property = fn(&[u8]);

/// The targets and their properties. The names match `fuzz/targets` and `fuzz/seeds`.
const TARGETS: &[(&str, Property)] = &[
    ("filter", visibility::fuzz::filter),
    ("forwarded_headers", upstream::fuzz::forwarded_headers),
    ("forwarded_path", upstream::fuzz::forwarded_path),
    ("frames", realtime::fuzz::frames),
    ("join", realtime::fuzz::join),
    ("joined", realtime::fuzz::joined),
    ("key_set", auth::fuzz::key_set),
    ("messages", realtime::fuzz::messages),
    ("pgoutput", replication::fuzz::pgoutput),
    ("record", visibility::fuzz::record),
    ("request", realtime::fuzz::request),
    ("session", realtime::fuzz::session),
    ("stream", replication::fuzz::stream),
    ("subscription", visibility::fuzz::subscription),
    ("token", auth::fuzz::token),
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Returns the file names in a folder, without extensions.
fn names(folder: &Path) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries(folder).into_iter().map(name).collect()
}

#[test]
fn targets_and_seeds_match() {
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&folder("targets")), known);
    assert_eq!(names(&folder("seeds")), known);
}

#[test]
fn the_properties_hold_for_all_seeds() {
    let mut broken = Vec::new();
    for (target, property) in TARGETS {
        let seeds = entries(&folder("seeds").join(target));
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in seeds {
            let data = fs::read(&seed).unwrap();
            if catch_unwind(|| property(&data)).is_err() {
                broken.push(seed);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}
