//! The publications: the configured one for row changes, and the one for `realtime.messages`.
//!
//! A publication must exist before the slot. A slot reads the catalogue as it was at each change.
//! If the slot is older than its publication, decoding the first change therefore always fails
//! (before PostgreSQL 18).

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection_error::ConnectionError;
use super::names::MESSAGES_PUBLICATION;
use crate::change::{ReplicaIdentity, TableName};

/// Which of the two publications exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Publications {
    /// Whether the configured publication, the one for row changes, exists.
    pub changes: bool,
    /// Whether [`MESSAGES_PUBLICATION`] exists and can be read together with the other one.
    pub messages: bool,
}

impl Publications {
    /// Returns whether this contains a publication that is not in `read`.
    pub(super) fn has_more_than(self, read: Self) -> bool {
        self.changes && !read.changes || self.messages && !read.messages
    }

    /// Returns the names for pgoutput. They are quoted, because pgoutput folds unquoted names to
    /// lower case.
    pub(super) fn names(self, changes: &str) -> Vec<String> {
        let changes = self.changes.then(|| quote_identifier(changes));
        let messages = self
            .messages
            .then(|| quote_identifier(MESSAGES_PUBLICATION));
        changes.into_iter().chain(messages).collect()
    }
}

/// Returns which publications exist.
///
/// The publications of a stream must not have different column lists for the same table (PostgreSQL
/// manual, 31.4). If the configured publication contains `realtime.messages` with a column list,
/// the publication of messages counts as missing, so that the stream can continue.
pub(super) async fn inspect(
    client: &Client,
    changes: &str,
) -> Result<Publications, tokio_postgres::Error> {
    const SQL: &str = "
        select exists (select from pg_catalog.pg_publication where pubname = $1::text)
             , exists (select from pg_catalog.pg_publication where pubname = $2::text)
             , exists (select from pg_catalog.pg_publication_rel as member
                         join pg_catalog.pg_publication as publication
                           on publication.oid = member.prpubid
                         join pg_catalog.pg_class as class on class.oid = member.prrelid
                        where publication.pubname = $1::text
                          and member.prattrs is not null
                          and class.relname like 'messages%'
                          and class.relnamespace = pg_catalog.to_regnamespace('realtime'))";
    let row = client
        .query_one(SQL, &[&changes, &MESSAGES_PUBLICATION])
        .await?;
    let (has_messages, conflicts) = (row.try_get::<_, bool>(1)?, row.try_get::<_, bool>(2)?);
    if has_messages && conflicts {
        tracing::warn!(
            publication = changes,
            "realtime.messages is published with a column list; broadcasts from the database are \
             not read until the table is removed from this publication"
        );
    }
    Ok(Publications {
        changes: row.try_get(0)?,
        messages: has_messages && !conflicts,
    })
}

/// Creates the publication for row changes, without tables, if it does not exist and the role may
/// create it. Returns which publications exist.
///
/// # Errors
/// [`ConnectionError::PublicationMissing`] if neither publication exists afterwards. If only one is
/// missing, the other is read.
pub(super) async fn ensure(client: &Client, name: &str) -> Result<Publications, ConnectionError> {
    let mut found = inspect(client, name).await?;
    if !found.changes {
        found.changes = create(client, name).await?;
        if !found.changes && !found.messages {
            return Err(ConnectionError::PublicationMissing(name.to_owned()));
        }
        if !found.changes {
            tracing::warn!(
                publication = name,
                "publication is missing and this role may not create it; row changes do not \
                 reach subscribers"
            );
        }
    }
    Ok(found)
}

/// Creates the publication for row changes. Returns false if the role may not do so.
async fn create(client: &Client, name: &str) -> Result<bool, ConnectionError> {
    let create = format!("create publication {}", quote_identifier(name));
    match client.batch_execute(&create).await {
        Ok(()) => {
            tracing::info!(publication = name, "created publication without tables");
            Ok(true)
        }
        // Another process created the publication first.
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)
            ) =>
        {
            Ok(true)
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A table of a publication, with the properties that determine what subscribers receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Schema and name.
    pub table: TableName,
    /// The table's `REPLICA IDENTITY`.
    pub identity: ReplicaIdentity,
    /// Whether the replica identity identifies the row of an UPDATE or DELETE. Otherwise PostgreSQL
    /// refuses these statements on a published table.
    pub can_update: bool,
    /// Whether row-level security is enabled.
    pub has_row_security: bool,
}

/// Returns the tables of a publication, as `pg_publication_tables` lists them.
///
/// # Errors
/// The error of the statement. A publication that does not exist has no tables.
pub async fn published_tables(
    client: &Client,
    publication: &str,
) -> Result<Vec<PublishedTable>, tokio_postgres::Error> {
    const SQL: &str = "
        select published.schemaname::text
             , published.tablename::text
             , class.relreplident::text
             , exists (select
                         from pg_catalog.pg_index as index
                        where index.indrelid = class.oid
                          and (class.relreplident = 'd' and index.indisprimary
                               or class.relreplident = 'i' and index.indisreplident))
             , class.relrowsecurity
          from pg_catalog.pg_publication_tables as published
          join pg_catalog.pg_namespace as namespace
            on namespace.nspname = published.schemaname
          join pg_catalog.pg_class as class
            on class.relnamespace = namespace.oid and class.relname = published.tablename
         where published.pubname = $1::text
         order by 1, 2";
    let rows = client.query(SQL, &[&publication]).await?;
    rows.iter()
        .map(|row| {
            let identity = match row.try_get::<_, &str>(2)? {
                "f" => ReplicaIdentity::Full,
                "i" => ReplicaIdentity::Index,
                "n" => ReplicaIdentity::Nothing,
                _ => ReplicaIdentity::Default,
            };
            Ok(PublishedTable {
                table: TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?),
                identity,
                can_update: identity == ReplicaIdentity::Full || row.try_get(3)?,
                has_row_security: row.try_get(4)?,
            })
        })
        .collect()
}

/// Returns `name` as an SQL identifier.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_existing_publications_are_named() {
        let cases = [
            (true, true, 2),
            (true, false, 1),
            (false, true, 1),
            (false, false, 0),
        ];
        for (changes, messages, count) in cases {
            let found = Publications { changes, messages };
            assert_eq!(found.names("P").len(), count);
            assert!(!found.has_more_than(found));
            assert_eq!(found.has_more_than(Publications::default()), count > 0);
        }
        let both = Publications {
            changes: true,
            messages: true,
        };
        assert_eq!(both.names("My Changes")[0], "\"My Changes\"");
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier("a\"b C"), "\"a\"\"b C\"");
    }
}
