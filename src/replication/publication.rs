//! The publication: which tables are streamed.
//!
//! It must exist before the slot does. A slot reads the catalogs as they were when a change was
//! written, so that one made earlier fails for ever at the first change.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::error::SessionError;
use crate::change::{ReplicaIdentity, TableName};

/// Makes sure that the publication exists, creating it empty where the role may.
pub(super) async fn ensure(client: &Client, name: &str) -> Result<(), SessionError> {
    let exists = client
        .query_opt(
            "select 1 from pg_catalog.pg_publication where pubname = $1::text",
            &[&name],
        )
        .await?
        .is_some();
    if exists {
        return Ok(());
    }
    let create = format!("create publication {}", quote_identifier(name));
    match client.batch_execute(&create).await {
        Ok(()) => {
            tracing::info!(publication = name, "publication created, without tables");
            Ok(())
        }
        // Somebody else was faster.
        Err(error)
            if matches!(
                error.code(),
                Some(&SqlState::DUPLICATE_OBJECT | &SqlState::UNIQUE_VIOLATION)
            ) =>
        {
            Ok(())
        }
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            Err(SessionError::PublicationMissing(name.to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}

/// A table of the publication and what its old images hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    /// Schema and name.
    pub table: TableName,
    /// Its `REPLICA IDENTITY`.
    pub identity: ReplicaIdentity,
    /// Whether UPDATE and DELETE carry something that names the row: without it PostgreSQL refuses
    /// them on a published table.
    pub can_update: bool,
    /// Whether row level security is on.
    pub has_row_security: bool,
}

/// The tables of a publication, partitions included as PostgreSQL lists them.
///
/// # Errors
/// Whatever the statement fails with; a publication that does not exist has no tables.
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

/// `name` as an SQL identifier.
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier("a\"b C"), "\"a\"\"b C\"");
    }
}
