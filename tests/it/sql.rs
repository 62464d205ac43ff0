//! The behaviour of the schema. Runs each file of `tests/sql` in a database with the users of the
//! demonstration. Runs the attacks again where the owner of the schema is not a superuser.

use std::path::{Path, PathBuf};

use rapport::dev::demonstration;
use tokio::process::Command;

use crate::support::database::{Login, TestDatabase, client_program};

/// The file that all other files include. It contains no tests.
const SUPPORT: &str = "support.sql";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

/// Runs one file with psql, because the files use psql's meta-commands. Each file rolls its
/// transaction back.
async fn run(file: &str) {
    let database = TestDatabase::bare().await;
    demonstration::install(&mut database.connect().await)
        .await
        .unwrap();
    run_in(&database, file).await;
}

/// Runs one file as the owner of a database. That owner is not a superuser.
async fn run_without_superuser(file: &str) {
    let database = TestDatabase::installed_by(Login::Owner).await;
    run_in(&database, file).await;
}

async fn run_in(database: &TestDatabase, file: &str) {
    let output = Command::new(client_program("psql"))
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d", database.url(), "-f"])
        .arg(folder().join(file))
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{file}:\n{said}");
}

/// Defines a test for each file, and a test that no file is missing from the list.
macro_rules! files {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                run(concat!(stringify!($name), ".sql")).await;
            }
        )*

        #[test]
        fn every_file_is_run() {
            let run = [$(concat!(stringify!($name), ".sql")),*];
            let mut there: Vec<String> = std::fs::read_dir(folder())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.ends_with(".sql") && name != SUPPORT)
                .collect();
            there.sort();
            assert_eq!(there, run);
        }
    };
}

files!(
    access_grid,
    access_rules,
    blocks_teams_and_suspension,
    chat_topics,
    composing,
    data_api,
    database_broadcasts,
    editing_and_deleting,
    erasing_people,
    history_pages,
    host_attempts,
    host_mapping,
    house_rules,
    idempotency_keys,
    listing,
    many_at_once,
    opening_conversations,
    planner,
    preferences,
    presence_and_typing,
    reactions,
    reading,
    search_keys,
    searching_messages,
    searching_people,
    sending_messages,
    session_types,
    standings,
    strangers,
    temporary_objects,
    unseen,
);

/// Defines tests of attacks, in which users try to read, write or learn more than they may.
macro_rules! attacks {
    ($($name:ident),* $(,)?) => {
        mod without_superuser {
            $(
                #[tokio::test]
                async fn $name() {
                    super::run_without_superuser(concat!(stringify!($name), ".sql")).await;
                }
            )*
        }
    };
}

attacks!(
    access_grid,
    access_rules,
    blocks_teams_and_suspension,
    chat_topics,
    database_broadcasts,
    house_rules,
    planner,
    presence_and_typing,
    session_types,
    standings,
    strangers,
    temporary_objects,
    unseen,
);
