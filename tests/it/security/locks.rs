//! Locks that users can take and hold do not stop any task of the server.

use rapport::schema::{self, InstallOptions, SchemaError};
use tokio_postgres::Client;

use super::database;
use crate::support::chat_server::Person::{self, Ana, Zoe};
use crate::support::database::{TestDatabase, connect};

/// Takes the advisory locks that the server used in the past, and the one that a first installation
/// uses.
const TAKE_ALL: &str = "
    select pg_advisory_lock(hashtextextended('rapport presence', 0)),
           pg_advisory_lock(hashtext('chat.maintain_message_partitions')),
           pg_advisory_lock(32195282895598196)";

/// Makes the connection act as a user.
async fn act_as(client: &Client, person: Person) {
    let claims = format!(r#"{{"sub":"{}","role":"authenticated"}}"#, person.id());
    client
        .batch_execute(&format!(
            "set role authenticated; set request.jwt.claims = '{claims}'"
        ))
        .await
        .unwrap();
}

#[tokio::test]
async fn advisory_locks_of_users_stop_neither_maintenance_nor_installation() {
    let database = database().await;
    let (owner, ana, zoe) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    act_as(&ana, Ana).await;
    ana.batch_execute("select chat.set_presence('online', session_id => 'a')")
        .await
        .unwrap();
    owner
        .batch_execute(
            "set lock_timeout = '5s';
             update chat.presence_reports set expires_at = now() - interval '1 second';
             update chat.presence_report_sessions set expires_at = now() - interval '1 second'",
        )
        .await
        .unwrap();
    act_as(&zoe, Zoe).await;
    zoe.batch_execute(TAKE_ALL).await.unwrap();

    let changed = owner.query("select chat.expire_presence()", &[]).await;
    let changed: Vec<uuid::Uuid> = changed.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(changed, [Ana.id()]);
    owner
        .batch_execute("select chat.maintain_message_partitions()")
        .await
        .unwrap();
    let installed = schema::install(
        &mut connect(database.url()).await,
        &InstallOptions::default(),
    )
    .await;
    assert!(installed.is_ok(), "{installed:?}");

    for statement in [
        "select from chat.locks for update",
        "select from chat.locks for key share",
        "lock table chat.locks in row share mode",
        "lock table public.user_notification_preferences in access exclusive mode",
        "lock table realtime.messages in access exclusive mode",
    ] {
        let refused = zoe.batch_execute(&format!("begin; {statement}")).await;
        let refused = refused.map_err(|error| error.code().map(|code| code.code().to_owned()));
        assert_eq!(refused, Err(Some("42501".to_owned())), "{statement}");
        zoe.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test]
async fn only_one_process_at_a_time_maintains_presence() {
    let database = database().await;
    let (owner, other) = (database.connect().await, database.connect().await);
    other
        .batch_execute("begin; select chat.expire_presence()")
        .await
        .unwrap();
    let free = "select count(*) from (select purpose from chat.locks for update skip locked) l";
    let row = owner.query_one(free, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 2, "all but the lock for presence");
    other.batch_execute("commit").await.unwrap();
    let row = owner.query_one(free, &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 3);
}

/// Before the schema exists, there is no row to lock, so the first installation uses an advisory
/// lock.
#[tokio::test]
async fn the_first_installation_reports_the_holder_of_its_lock() {
    let database = TestDatabase::bare().await;
    let holder = database.connect().await;
    let row = holder
        .query_one(
            "select pg_backend_pid(), pg_advisory_lock(32195282895598196) is null",
            &[],
        )
        .await
        .unwrap();
    let process: i32 = row.get(0);
    let mut client = database.connect().await;
    let refused = schema::install(&mut client, &InstallOptions::default()).await;
    let Err(SchemaError::Locked(message)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        message.contains(&format!("process {process} (user ")),
        "{message}"
    );
    holder
        .batch_execute("select pg_advisory_unlock_all()")
        .await
        .unwrap();
    schema::install(&mut client, &InstallOptions::default())
        .await
        .unwrap();
}
