//! House rules that the compiler does not check: layers, the order of parts, dependency cycles,
//! line width, file headers, SQL conventions, licences.

mod circles;
mod order;
mod sources;
mod wrapping;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every file below `folder` with this extension, in path order.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, ending, found);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(folder), ending, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no {ending} below {folder}");
    found
}

/// The table "Dependencies between modules" of `ARCHITECTURE.md`, as a map from each module to the
/// modules that it may use. All modules above the layers `vocabulary` and `base` may use the
/// modules in these two layers.
struct Layers {
    allowed: BTreeMap<String, BTreeSet<String>>,
    free: BTreeSet<String>,
}

impl Layers {
    fn read() -> Self {
        let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
        let (mut allowed, mut free) = (BTreeMap::new(), BTreeSet::new());
        let names = |cell: &str| -> BTreeSet<String> {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        };
        let rows = text
            .lines()
            .skip_while(|line| !line.starts_with("| layer |"))
            .skip(2)
            .take_while(|line| line.starts_with('|'));
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            for module in names(cells[1]) {
                if cells[0].contains("vocabulary") || cells[0].contains("base") {
                    free.insert(module.clone());
                }
                allowed.insert(module, names(cells[2]));
            }
        }
        assert!(
            allowed.len() > 10,
            "the layer table of ARCHITECTURE.md was not found"
        );
        Self { allowed, free }
    }

    fn permits(&self, from: &str, to: &str) -> bool {
        let Some(listed) = self.allowed.get(from) else {
            return false;
        };
        from == to || listed.contains(to) || (self.free.contains(to) && !self.free.contains(from))
    }
}

/// Returns the top-level module that a file belongs to.
fn module_of(file: &Path) -> String {
    let relative = file.strip_prefix(root().join("src")).unwrap();
    let first = relative.components().next().unwrap();
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_owned()
}

/// Returns every module that code names after `crate::`. Comments and documentation are ignored.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for (at, _) in line
            .match_indices("crate::")
            .chain(line.match_indices("rapport::"))
        {
            let rest = line[at..].split_once("::").map_or("", |(_, rest)| rest);
            if let Some(group) = rest.strip_prefix('{') {
                for part in group.split(',') {
                    found.extend(identifier(part.trim()));
                }
            } else {
                found.extend(identifier(rest));
            }
        }
    }
    found
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn modules_use_only_what_the_layer_table_allows() {
    let layers = Layers::read();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files("src", ".rs") {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        for used in uses(&fs::read_to_string(&file).unwrap()) {
            seen.insert((module.clone(), used.clone()));
            if layers.allowed.contains_key(&used) && !layers.permits(&module, &used) {
                let file = file.display();
                wrong.push(format!(
                    "{file} uses {used}, which the table does not allow to {module}"
                ));
            }
        }
        if !layers.allowed.contains_key(&module) {
            wrong.push(format!("{module} is missing from the table"));
        }
    }
    // An unused permission would allow a new dependency without a decision.
    for (module, allowed) in &layers.allowed {
        for used in allowed {
            if !seen.contains(&(module.clone(), used.clone())) {
                wrong.push(format!("{module} does not use {used}, as the table says"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_root_re_exports_nothing() {
    let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(
        !text.contains("pub use"),
        "a re-export at the root hides an edge from the layer test"
    );
}

#[test]
fn every_source_file_opens_with_its_purpose() {
    let without: Vec<_> = ["src", "tests/it"]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//! "))
        .collect();
    assert!(without.is_empty(), "no header in {without:?}");
}

/// A function without a fixed search path resolves names in schemas that its caller chooses. If the
/// path does not end in `pg_temp`, PostgreSQL searches the caller's temporary types and relations
/// first.
#[test]
fn every_sql_function_fixes_its_search_path() {
    let mut wrong = Vec::new();
    for file in files("sql/definitions", ".sql") {
        let text = fs::read_to_string(&file).unwrap().to_lowercase();
        for (at, _) in text.match_indices("create or replace function ") {
            let rest = &text[at..];
            let end = rest.find("as $").or_else(|| rest.find("begin atomic"));
            let head = &rest[..end.unwrap_or(rest.len())];
            // Supabase's own functions do not fix the path. Rapport's functions in these schemas
            // equal Supabase's functions.
            let is_supabase =
                head.contains("function auth.") || head.contains("function realtime.");
            if !head.contains("set search_path = pg_catalog, pg_temp") && !is_supabase {
                let name = head.split_whitespace().nth(4).unwrap_or("?");
                wrong.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "without `set search_path = pg_catalog, pg_temp`: {}",
        wrong.join(", ")
    );
}

/// Every crate in the build must have a licence that permits distributing the whole program under
/// Apache-2.0. `deny.toml` lists those licences. `cargo deny` also checks them, but is rarely
/// installed and takes minutes to build.
#[test]
fn licences_of_all_dependencies_are_permissive() {
    let rules = fs::read_to_string(root().join("deny.toml")).unwrap();
    let rules: toml::Table = rules.parse().unwrap();
    let allowed: Vec<&str> = rules["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        let licence = package["license"].as_str().unwrap_or("none");
        // In `(A OR B) AND C`, every operand of AND needs one allowed alternative.
        let permitted = licence.replace(['(', ')'], "").split(" AND ").all(|part| {
            part.split(" OR ")
                .flat_map(|part| part.split('/'))
                .any(|name| allowed.contains(&name.trim()))
        });
        if !permitted {
            wrong.push(format!("{}: {licence}", package["name"]));
        }
    }
    assert!(wrong.is_empty(), "not permitted: {}", wrong.join(", "));
}

/// The release notes are the section of the changelog for that version. A tag without such a
/// section must not become a release.
#[test]
fn a_release_has_a_section_in_the_changelog() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("scripts/release-notes");
    fs::create_dir(directory.path().join("scripts")).unwrap();
    fs::copy(root().join("scripts/release-notes"), &script).unwrap();
    let cargo = "[package]\nname = \"x\"\nversion = \"1.2.0\"\n\n[dependencies]\ny = \"1\"\n";
    fs::write(directory.path().join("Cargo.toml"), cargo).unwrap();
    let notes_of = |version: &str, changelog: &str| {
        fs::write(directory.path().join("CHANGELOG.md"), changelog).unwrap();
        let output = Command::new(&script).arg(version).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(printed)
    };

    let changelog = "# Changelog\n\n## [Unreleased]\n\n- Later\n\n## [1.2.0] - 2026-01-31\n\n### Added\n\n- One\n\n## [1.1.0]\n\n- Old\n";
    assert_eq!(
        notes_of("1.2.0", changelog).as_deref(),
        Some("\n### Added\n\n- One\n")
    );
    // `Cargo.toml` contains another version.
    assert_eq!(notes_of("1.1.0", changelog), None);
    let unreleased = changelog.replace("## [1.2.0] - 2026-01-31", "");
    assert_eq!(notes_of("1.2.0", &unreleased), None);
}
