//! The demonstration application of `sql/dev` and its users.

use tokio_postgres::Client;

use crate::schema::{self, DEV_HOST, DEV_PEOPLE, DEV_SIGN_IN, InstallOptions, SchemaError};

/// A user of the demonstration application.
#[derive(Clone, Copy, Debug)]
pub struct Person {
    /// First name, also used in variable names.
    pub name: &'static str,
    /// The user's id, as in `sql/dev/people.sql`.
    pub id: &'static str,
    /// The user's email address.
    pub email: &'static str,
    /// The user's role and team.
    pub description: &'static str,
}

/// The password of every account at the development sign-in. It protects nothing: a client that
/// reaches a development server may sign in as any user.
pub const PASSWORD: &str = "rapport-dev";

/// All users, in the order of `sql/dev/people.sql`.
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

/// The login role for user requests, as PostgREST uses it on Supabase. It may switch to the API
/// roles and has no rights of its own, so a faulty request never runs as a superuser.
pub const REQUEST_LOGIN: &str = "authenticator";

/// Installs the application, the schema and the users into an empty database, or updates an earlier
/// demonstration database.
///
/// # Errors
/// Fails if a statement fails.
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
        // PostgreSQL runs a batch as one transaction, so the script is applied completely or not at
        // all.
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

/// Creates the table for the sessions of the development sign-in. The database must have been
/// prepared by [`install`].
///
/// # Errors
/// Fails if a statement fails.
pub async fn allow_sign_in(client: &Client) -> Result<(), SchemaError> {
    let executed = client.batch_execute(DEV_SIGN_IN).await;
    executed.map_err(|source| SchemaError::Statement {
        what: String::from("dev/sign_in.sql"),
        source,
    })
}

/// Sets the password of [`REQUEST_LOGIN`] and lets it log in. The database must have been prepared
/// by [`install`].
///
/// # Errors
/// Fails if a statement fails.
pub async fn allow_requests(client: &Client, password: &str) -> Result<(), SchemaError> {
    let failed = |source| SchemaError::Statement {
        what: String::from("Setting the password of the request login"),
        source,
    };
    // `ALTER ROLE` takes no parameters, so PostgreSQL first quotes the values with `format`.
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
    fn every_user_is_in_the_sql_file() {
        for person in PEOPLE {
            assert!(DEV_PEOPLE.contains(&format!("('{}', '{}'", person.id, person.email)));
        }
    }
}
