//! The behaviour of the private PostgreSQL that the tests and `rapport dev` rely on.

use pgwire_replication::{ReplicationClient, ReplicationConfig};
use rapport::dev::postgres::{Cluster, ClusterError, ClusterOptions, SUPERUSER, Storage};

use crate::support::database::{TestDatabase, binaries, connect, own_cluster};

fn kept(directory: &std::path::Path) -> ClusterOptions {
    ClusterOptions {
        binaries: binaries(),
        superuser: SUPERUSER,
        storage: Storage::Persistent(directory.to_owned()),
        port: None,
        settings: vec![("fsync", "off")],
    }
}

async fn start(options: ClusterOptions) -> Result<Cluster, ClusterError> {
    tokio::task::spawn_blocking(|| Cluster::start(options))
        .await
        .unwrap()
}

#[tokio::test]
async fn two_tests_do_not_see_each_others_tables() {
    let (left, right) = tokio::join!(TestDatabase::new(), TestDatabase::new());
    left.connect()
        .await
        .batch_execute("create table mine ()")
        .await
        .unwrap();
    assert!(
        right
            .connect()
            .await
            .batch_execute("select from mine")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_database_with_a_slot_in_use_is_dropped() {
    let database = TestDatabase::new().await;
    let setup = database.connect().await;
    setup
        .batch_execute("create publication everything for all tables")
        .await
        .unwrap();
    // A separate transaction, because a transaction that has written cannot create a slot.
    setup
        .batch_execute("select pg_create_logical_replication_slot('in_use', 'pgoutput')")
        .await
        .unwrap();
    let login: tokio_postgres::Config = database.url().parse().unwrap();
    let password = String::from_utf8(login.get_password().unwrap_or_default().to_vec()).unwrap();
    let reader = ReplicationConfig::new(
        "127.0.0.1",
        login.get_user().unwrap(),
        password,
        database.name(),
        "in_use",
        "everything",
    )
    .with_port(login.get_ports()[0]);
    let mut reader = ReplicationClient::connect_gated(reader).await.unwrap();
    reader.start().await.unwrap();
    reader.wait_started().await.unwrap();

    drop(database);
    let other = TestDatabase::new().await;
    let slots = other
        .connect()
        .await
        .query(
            "select from pg_replication_slots where slot_name = 'in_use'",
            &[],
        )
        .await
        .unwrap();
    assert!(slots.is_empty());
}

#[tokio::test]
async fn a_restart_keeps_the_port_and_cuts_the_sessions() {
    let cluster = own_cluster().await;
    let url = cluster.url_for("postgres");
    let before = connect(&url).await;
    before.batch_execute("create table kept ()").await.unwrap();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    assert_eq!(url, cluster.url_for("postgres"));
    assert!(before.batch_execute("select 1").await.is_err());
    connect(&url)
        .await
        .batch_execute("select from kept")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_kept_directory_is_locked_by_one_process_and_survives_a_stop() {
    // The data directory is inside a directory that the server's user can enter.
    let parent = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let directory = parent.path().join("data");
    let first = start(kept(&directory)).await.unwrap();
    let url = first.url_for("postgres");
    connect(&url)
        .await
        .batch_execute("create table kept ()")
        .await
        .unwrap();

    let second = start(kept(&directory)).await;
    assert!(
        matches!(second, Err(ClusterError::InUse { .. })),
        "{second:?}"
    );

    tokio::task::spawn_blocking(|| drop(first)).await.unwrap();
    let again = start(kept(&directory)).await.unwrap();
    assert_eq!(again.url_for("postgres"), url, "password and port are kept");
    connect(&url)
        .await
        .batch_execute("select from kept")
        .await
        .unwrap();
    tokio::task::spawn_blocking(|| drop(again)).await.unwrap();
}

#[tokio::test]
async fn an_invalid_setting_is_reported_with_the_message_of_the_server() {
    let parent = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let mut options = kept(&parent.path().join("data"));
    options.settings.push(("max_connections", "minus one"));
    let error = start(options).await.unwrap_err();
    assert!(error.to_string().contains("max_connections"), "{error}");
}
