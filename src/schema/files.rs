//! The embedded SQL files: migrations in numerical order, definitions in path order.

use include_dir::{Dir, include_dir};
use sha2::{Digest as _, Sha256};

use super::error::SchemaError;

/// Creates the two tables that record which files were applied.
pub(super) const LEDGER: &str = include_str!("../../sql/ledger.sql");

static MIGRATIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sql/migrations");
static DEFINITIONS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sql/definitions");

/// A file that is applied only once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) name: String,
    pub(super) text: &'static str,
    pub(super) checksum: String,
}

impl Migration {
    /// Returns the path below `sql/`.
    pub(super) fn path(&self) -> String {
        format!("migrations/{:04}_{}.sql", self.version, self.name)
    }
}

/// A file that is applied again whenever its text changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// The path below `sql/definitions/`, which is also its name in the ledger.
    pub(super) name: String,
    pub(super) text: &'static str,
    pub(super) checksum: String,
}

impl Definition {
    /// Returns the path below `sql/`.
    pub(super) fn path(&self) -> String {
        format!("definitions/{}", self.name)
    }
}

/// Returns all migrations, numbered from 1 without gaps.
pub(super) fn migrations() -> Result<Vec<Migration>, SchemaError> {
    let mut migrations = Vec::new();
    for (path, text) in sql_files(&MIGRATIONS) {
        let parsed = path
            .strip_suffix(".sql")
            .and_then(|stem| stem.split_once('_'))
            .filter(|(number, _)| number.len() == 4)
            .and_then(|(number, name)| Some((number.parse().ok()?, name.to_owned())));
        let Some((version, name)) = parsed else {
            return Err(SchemaError::Files(format!("`{path}` is not NNNN_name.sql")));
        };
        migrations.push(Migration {
            version,
            name,
            text,
            checksum: checksum(text),
        });
    }
    for (expected, migration) in (1..).zip(&migrations) {
        if migration.version != expected {
            return Err(SchemaError::Files(format!(
                "{} found where number {expected} was expected",
                migration.path()
            )));
        }
    }
    Ok(migrations)
}

/// Returns all definitions.
pub(super) fn definitions() -> Vec<Definition> {
    sql_files(&DEFINITIONS)
        .into_iter()
        .map(|(name, text)| Definition {
            name,
            text,
            checksum: checksum(text),
        })
        .collect()
}

/// A policy that the definitions create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The table with its schema.
    pub table: String,
    /// The name of the policy.
    pub name: String,
}

/// Returns the policies on the tables of the chat.
pub fn policies() -> Vec<Policy> {
    let lines = definitions().into_iter().flat_map(|file| file.text.lines());
    lines
        .filter_map(|line| {
            let rest = line.strip_prefix("create policy \"")?;
            let (name, table) = rest.split_once("\" on ")?;
            table.starts_with("public.").then(|| Policy {
                table: table.to_owned(),
                name: name.to_owned(),
            })
        })
        .collect()
}

/// Returns all SQL files below `folder`, sorted by path.
fn sql_files(folder: &'static Dir<'static>) -> Vec<(String, &'static str)> {
    fn walk(folder: &'static Dir<'static>, found: &mut Vec<(String, &'static str)>) {
        for file in folder.files() {
            let path = file.path().to_string_lossy().replace('\\', "/");
            if let (true, Some(text)) = (path.ends_with(".sql"), file.contents_utf8()) {
                found.push((path, text));
            }
        }
        for inner in folder.dirs() {
            walk(inner, found);
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    found.sort();
    found
}

/// Returns the SHA-256 of a text as lower-case hexadecimal.
fn checksum(text: &str) -> String {
    Sha256::digest(text)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_are_numbered_and_sorted() {
        assert!(!migrations().unwrap().is_empty());
        let names: Vec<String> = definitions().into_iter().map(|file| file.name).collect();
        assert!(names.iter().any(|name| name.starts_with("chat/")));
        assert!(names.is_sorted());
    }

    #[test]
    fn every_policy_on_a_table_of_the_chat_is_found() {
        let texts = definitions()
            .into_iter()
            .map(|file| file.text.matches("on public."));
        let written = definitions()
            .iter()
            .map(|file| file.text.matches("\ncreate policy").count())
            .sum::<usize>();
        let on_messages = definitions()
            .iter()
            .filter(|file| file.name.starts_with("realtime/"))
            .map(|file| file.text.matches("\ncreate policy").count())
            .sum::<usize>();
        assert!(texts.count() > 0);
        assert_eq!(policies().len(), written - on_messages);
    }

    #[test]
    fn the_checksum_is_sha_256() {
        assert_eq!(
            checksum("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
