//! The publications: which tables are streamed as row changes, and `realtime.messages`.
//!
//! One must exist before the slot does. A slot reads the catalogs as they were when a change was
//! written, so that one made earlier fails for ever at the first change (before PostgreSQL 18).

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::names::MESSAGES_PUBLICATION;
use super::session_error::SessionError;
use crate::change::{ReplicaIdentity, TableName};

/// Which of the two publications there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Publications {
    /// The configured one, for row changes.
    pub changes: bool,
    /// [`MESSAGES_PUBLICATION`], in a form that can be read together with the other.
    pub messages: bool,
}

impl Publications {
    /// Whether one is in `self` and not in `read`.
    pub(super) fn exceed(self, read: Self) -> bool {
        self.changes && !read.changes || self.messages && !read.messages
    }

    /// Their names as pgoutput wants them: it folds names that are not quoted to lower case.
    pub(super) fn names(self, changes: &str) -> Vec<String> {
        let changes = self.changes.then(|| quote_identifier(changes));
        let messages = self
            .messages
            .then(|| quote_identifier(MESSAGES_PUBLICATION));
        changes.into_iter().chain(messages).collect()
    }
}

/// Looks which publications there are.
///
/// One table must not have different column lists in the publications of a stream (PostgreSQL
/// manual, 31.4): where row changes of `realtime.messages` are published with one, it counts for
/// the whole stream to go on, and the messages' publication as absent.
pub(super) async fn look(
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
            "realtime.messages is published with a column list: broadcasts from the database are \
             not read until it is taken out"
        );
    }
    Ok(Publications {
        changes: row.try_get(0)?,
        messages: has_messages && !conflicts,
    })
}

/// Makes sure that the publication for row changes exists, creating it empty where the role may,
/// and tells which there are.
///
/// # Errors
/// [`SessionError::PublicationMissing`] when there is nothing to read at all; one publication that
/// is missing does not stop the reading of the other.
pub(super) async fn ensure(client: &Client, name: &str) -> Result<Publications, SessionError> {
    let mut found = look(client, name).await?;
    if !found.changes {
        found.changes = create(client, name).await?;
        if !found.changes && !found.messages {
            return Err(SessionError::PublicationMissing(name.to_owned()));
        }
        if !found.changes {
            tracing::warn!(
                publication = name,
                "the publication is missing and may not be created by this role: row changes do \
                 not reach subscribers"
            );
        }
    }
    Ok(found)
}

/// Creates the publication for row changes; `false` where the role may not.
async fn create(client: &Client, name: &str) -> Result<bool, SessionError> {
    let create = format!("create publication {}", quote_identifier(name));
    match client.batch_execute(&create).await {
        Ok(()) => {
            tracing::info!(publication = name, "publication created, without tables");
            Ok(true)
        }
        // Somebody else was faster.
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
    fn only_publications_that_are_there_are_named() {
        let cases = [
            (true, true, 2),
            (true, false, 1),
            (false, true, 1),
            (false, false, 0),
        ];
        for (changes, messages, count) in cases {
            let found = Publications { changes, messages };
            assert_eq!(found.names("P").len(), count);
            assert!(!found.exceed(found));
            assert_eq!(found.exceed(Publications::default()), count > 0);
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
