//! Compares the files that were applied to a database with the files of this program.

use std::collections::BTreeMap;

use tokio_postgres::Transaction;

use super::error::{SchemaError, is_denied};
use super::files::{Definition, Migration, definitions, migrations};

/// The content of the two ledger tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// The checksum of each applied migration, by version.
    pub(super) migrations: BTreeMap<i32, String>,
    /// The checksum of each applied definition, by path.
    pub(super) definitions: BTreeMap<String, String>,
}

/// The files to apply, in this order.
#[derive(Debug)]
pub(super) struct Pending {
    /// Whether one of the ledger's tables is missing.
    pub(super) ledger: bool,
    pub(super) migrations: Vec<Migration>,
    pub(super) definitions: Vec<Definition>,
}

impl Pending {
    /// Compares a database with this program.
    pub(super) async fn read(tx: &Transaction<'_>) -> Result<Self, SchemaError> {
        let ledger = Ledger::read(tx).await?;
        let missing = ledger.is_none();
        let (migrations, definitions) =
            pending(&ledger.unwrap_or_default(), migrations()?, definitions())?;
        Ok(Self {
            ledger: missing,
            migrations,
            definitions,
        })
    }
}

impl Ledger {
    /// Reads the ledger. `None` if one of its tables is missing. Existence is read from the
    /// catalogue, which every login may read. A ledger that exists but is not readable is an error.
    async fn read(tx: &Transaction<'_>) -> Result<Option<Self>, SchemaError> {
        let reading = |error| SchemaError::statement("Reading the catalogue", error);
        let row = tx
            .query_one(
                "select count(*) = 2
                 from pg_catalog.pg_class c
                 join pg_catalog.pg_namespace n on n.oid = c.relnamespace
                 where n.nspname = 'chat' and c.relname in ('schema_migrations', 'schema_definitions')",
                &[],
            )
            .await
            .map_err(reading)?;
        if !row.try_get::<_, bool>(0).map_err(reading)? {
            return Ok(None);
        }
        let failed = |error| {
            if is_denied(&error) {
                SchemaError::LedgerUnreadable
            } else {
                SchemaError::statement("Reading the ledger", error)
            }
        };
        let mut ledger = Self::default();
        for row in tx
            .query("select version, checksum from chat.schema_migrations", &[])
            .await
            .map_err(failed)?
        {
            let version = row.try_get(0).map_err(failed)?;
            ledger
                .migrations
                .insert(version, row.try_get(1).map_err(failed)?);
        }
        for row in tx
            .query("select path, checksum from chat.schema_definitions", &[])
            .await
            .map_err(failed)?
        {
            let path = row.try_get(0).map_err(failed)?;
            ledger
                .definitions
                .insert(path, row.try_get(1).map_err(failed)?);
        }
        Ok(Some(ledger))
    }
}

/// Returns the files that are not in the ledger, after checking that ledger and files otherwise
/// agree.
fn pending(
    ledger: &Ledger,
    migrations: Vec<Migration>,
    definitions: Vec<Definition>,
) -> Result<(Vec<Migration>, Vec<Definition>), SchemaError> {
    let known = migrations.last().map_or(0, |migration| migration.version);
    let found = ledger.migrations.keys().next_back().copied().unwrap_or(0);
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    if let Some(missing) = (1..found).find(|version| !ledger.migrations.contains_key(version)) {
        return Err(SchemaError::Gap { missing });
    }
    let mut pending = Vec::new();
    for migration in migrations {
        match ledger.migrations.get(&migration.version) {
            None => pending.push(migration),
            Some(applied) if *applied == migration.checksum => {}
            Some(_) => {
                let Migration { version, name, .. } = migration;
                return Err(SchemaError::Edited { version, name });
            }
        }
    }
    let changed = definitions
        .into_iter()
        .filter(|file| ledger.definitions.get(&file.name) != Some(&file.checksum))
        .collect();
    Ok((pending, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(version: i32) -> Migration {
        Migration {
            version,
            name: format!("m{version}"),
            text: "",
            checksum: format!("sum {version}"),
        }
    }

    fn ledger(versions: &[i32]) -> Ledger {
        let migrations = versions
            .iter()
            .map(|version| (*version, format!("sum {version}")))
            .collect();
        Ledger {
            migrations,
            definitions: BTreeMap::new(),
        }
    }

    #[test]
    fn files_missing_from_the_ledger_are_pending() {
        for (applied, expected) in [
            (vec![], vec![1, 2, 3]),
            (vec![1, 2], vec![3]),
            (vec![1, 2, 3], vec![]),
        ] {
            let files = (1..=3).map(migration).collect();
            let (found, _) = pending(&ledger(&applied), files, vec![]).unwrap();
            let versions: Vec<i32> = found.iter().map(|migration| migration.version).collect();
            assert_eq!(versions, expected);
        }
    }

    #[test]
    fn an_inconsistent_ledger_is_refused() {
        let files = || (1..=3).map(migration).collect::<Vec<_>>();
        let newer = pending(&ledger(&[1, 2, 3, 4]), files(), vec![]);
        assert!(
            matches!(newer, Err(SchemaError::Newer { found: 4, known: 3 })),
            "{newer:?}"
        );
        let gap = pending(&ledger(&[1, 3]), files(), vec![]);
        assert!(
            matches!(gap, Err(SchemaError::Gap { missing: 2 })),
            "{gap:?}"
        );
        let mut edited = ledger(&[1, 2]);
        edited.migrations.insert(2, "another".to_owned());
        let edited = pending(&edited, files(), vec![]);
        assert!(
            matches!(edited, Err(SchemaError::Edited { version: 2, .. })),
            "{edited:?}"
        );
    }

    #[test]
    fn only_changed_definitions_are_applied_again() {
        let file = |name: &str, checksum: &str| Definition {
            name: name.to_owned(),
            text: "",
            checksum: checksum.to_owned(),
        };
        let mut ledger = ledger(&[]);
        ledger.definitions.insert("a".to_owned(), "1".to_owned());
        ledger.definitions.insert("b".to_owned(), "1".to_owned());
        let files = vec![file("a", "1"), file("b", "2"), file("c", "1")];
        let (_, changed) = pending(&ledger, vec![], files).unwrap();
        let names: Vec<&str> = changed.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["b", "c"]);
    }
}
