//! The demonstration application of `sql/dev` and the people in it.

use tokio_postgres::Client;

use crate::schema::{self, DEV_HOST, DEV_PEOPLE, InstallOptions, SchemaError};

/// Somebody to try the chat as.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// How they are called here and in variables.
    pub name: &'static str,
    /// Their id, as in `sql/dev/people.sql`.
    pub id: &'static str,
    /// Their email address.
    pub email: &'static str,
    /// Who they are in the application.
    pub description: &'static str,
}

/// Everybody, in the order of `sql/dev/people.sql`.
pub const PEOPLE: [Person; 5] = [
    Person {
        name: "Ana",
        id: "00000000-0000-4000-8000-00000000000a",
        email: "ana@example.com",
        description: "user, team Support",
    },
    Person {
        name: "Ben",
        id: "00000000-0000-4000-8000-00000000000b",
        email: "ben@example.com",
        description: "user, team Support",
    },
    Person {
        name: "Zoe",
        id: "00000000-0000-4000-8000-00000000000c",
        email: "zoe@example.com",
        description: "user, team Sales",
    },
    Person {
        name: "Ada",
        id: "00000000-0000-4000-8000-00000000000d",
        email: "ada@example.com",
        description: "admin, team Support",
    },
    Person {
        name: "Sue",
        id: "00000000-0000-4000-8000-00000000000e",
        email: "sue@example.com",
        description: "super admin, team Operations",
    },
];

/// The login of people's requests: the role that PostgREST uses on Supabase. It may become the
/// roles of the API and is nothing by itself, so that no mistake of ours is made as a superuser.
pub const REQUEST_LOGIN: &str = "authenticator";

/// Brings an empty or an earlier demonstration database to the application, the schema and the
/// people.
///
/// # Errors
/// When a statement fails.
pub async fn install(client: &mut Client) -> Result<(), SchemaError> {
    let failed = |what| {
        move |source| SchemaError::Statement {
            what: String::from(what),
            source,
        }
    };
    let row = client
        .query_one("select to_regclass('public.users') is null", &[])
        .await
        .map_err(failed("Looking for the demonstration application"))?;
    if row
        .try_get(0)
        .map_err(failed("Looking for the demonstration application"))?
    {
        // Sent as one batch, which PostgreSQL runs as one transaction: all of it or nothing.
        client
            .batch_execute(DEV_HOST)
            .await
            .map_err(failed("dev/host.sql"))?;
    }
    schema::install(client, &InstallOptions::default()).await?;
    client
        .batch_execute(DEV_PEOPLE)
        .await
        .map_err(failed("dev/people.sql"))
}

/// Lets [`REQUEST_LOGIN`] log in with this password. For a database that [`install`] has been at.
///
/// # Errors
/// When a statement fails.
pub async fn allow_requests(client: &Client, password: &str) -> Result<(), SchemaError> {
    let failed = |source| SchemaError::Statement {
        what: String::from("Giving the requests' login its password"),
        source,
    };
    // A statement about roles takes no parameters; the server quotes what goes into it.
    let row = client
        .query_one(
            "select format('alter role %I with login password %L', $1::text, $2::text)",
            &[&REQUEST_LOGIN, &password],
        )
        .await
        .map_err(failed)?;
    let statement: String = row.try_get(0).map_err(failed)?;
    client.batch_execute(&statement).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_stands_in_the_sql_file() {
        for person in PEOPLE {
            assert!(DEV_PEOPLE.contains(&format!("('{}', '{}'", person.id, person.email)));
        }
    }
}
