//! One PostgreSQL per test process, one database per test.
//!
//! Slots and publications belong to a database, so a schema per test would not isolate tests.
//! `TEST_DATABASE_URL` (of a superuser) replaces the private cluster.

use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};
use std::thread;

use rapport::config::source::{ProcessEnvironment, Source as _};
use rapport::dev::binaries::Binaries;
use rapport::dev::directory::scratch_root;
use rapport::dev::postgres::{Cluster, ClusterOptions, SUPERUSER, Storage, effective_user};
use rapport::schema::{self, InstallOptions};
use rapport::shutdown::Tasks;
use tokio::sync::oneshot;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::eventually::eventually;

/// Settings for speed. The data of a test need not survive a power failure.
const FAST_SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
];

/// A login that owns databases without being a superuser. It has the attributes that the operations
/// guide requires.
const OWNER: &str = "rapport_owner";
const OWNER_PASSWORD: &str = "secret";

/// A database for one test, which is dropped with this value.
pub(crate) struct TestDatabase {
    name: String,
    url: String,
    superuser_url: String,
    thread: &'static DatabaseThread,
}

/// The login that installs the schema and runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// A superuser.
    Superuser,
    /// The owner of a database in a separate cluster, who is not a superuser.
    Owner,
}

impl TestDatabase {
    /// Creates a database with the demonstration application, its users and the schema.
    pub(crate) async fn new() -> Self {
        Self::create(Login::Superuser, Origin::Template).await
    }

    /// Like [`TestDatabase::new`], but this login installs everything.
    pub(crate) async fn installed_by(login: Login) -> Self {
        Self::create(login, Origin::Template).await
    }

    /// Creates a database without the schema of Rapport.
    pub(crate) async fn bare() -> Self {
        Self::create(Login::Superuser, Origin::Bare).await
    }

    async fn create(login: Login, origin: Origin) -> Self {
        let thread = database_thread(login);
        let name = format!("rapport_test_{}", Uuid::new_v4().simple());
        let (done, created) = oneshot::channel();
        thread.send(Request::Create {
            name: name.clone(),
            origin,
            done,
        });
        created
            .await
            .expect("the thread for test databases has failed; its panic is printed above");
        Self {
            url: with_database(&thread.login_url, &name),
            superuser_url: with_database(&thread.admin_url, &name),
            name,
            thread,
        }
    }

    /// Returns the name of the database.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the connection string of the login that installed the schema, by default a
    /// superuser.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Opens a new connection as superuser. It ends when the client is dropped.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.superuser_url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Nothing waits for the drop. Waiting would block the test's runtime, perhaps during a
        // login. PostgreSQL drops a database only after every backend of the cluster has responded
        // to a signal. A backend that waits for a password responds only when its login has ended.
        // Leftovers of the last test are removed with the cluster, or by the next run.
        self.thread.send(Request::Drop {
            name: self.name.clone(),
        });
    }
}

/// Starts a separate cluster for tests that stop the database.
pub(crate) async fn own_cluster() -> Cluster {
    own_cluster_with(&[]).await
}

/// Starts a separate cluster with these PostgreSQL settings.
pub(crate) async fn own_cluster_with(settings: &'static [(&'static str, &'static str)]) -> Cluster {
    tokio::task::spawn_blocking(|| start_cluster_with(SUPERUSER, settings))
        .await
        .unwrap()
}

/// Starts a separate cluster whose superuser has this name.
pub(crate) async fn own_cluster_of(superuser: &'static str) -> Cluster {
    tokio::task::spawn_blocking(|| start_cluster_with(superuser, &[]))
        .await
        .unwrap()
}

/// Installs the demonstration application, the schema and the demonstration's users in an empty
/// database.
pub(crate) async fn install_demonstration(url: &str) {
    let mut client = connect(url).await;
    client.batch_execute(schema::DEV_HOST).await.unwrap();
    if let Err(error) = schema::install(&mut client, &InstallOptions::default()).await {
        panic!("{error}");
    }
    client.batch_execute(schema::DEV_PEOPLE).await.unwrap();
}

/// Connects with a connection string.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // The connection ends with its client. The client's caller also receives its errors.
    Tasks::new().spawn("test connection", async move {
        let _ = connection.await;
    });
    client
}

/// Returns the programs of the PostgreSQL installation that the tests use.
pub(crate) fn binaries() -> Binaries {
    let configured = ProcessEnvironment
        .get("RAPPORT_DEV_POSTGRES_BIN")
        .map(PathBuf::from);
    Binaries::find(configured.as_deref()).unwrap()
}

/// Returns the path of a client program of PostgreSQL. Some distributions contain only the server.
/// In that case, the program is the installed one, whose version may differ.
pub(crate) fn client_program(name: &str) -> PathBuf {
    let beside = binaries().program(name);
    if beside.exists() { beside } else { name.into() }
}

fn start_cluster() -> Cluster {
    start_cluster_with(SUPERUSER, &[])
}

fn start_cluster_with(
    superuser: &'static str,
    settings: &[(&'static str, &'static str)],
) -> Cluster {
    Cluster::start(ClusterOptions {
        binaries: binaries(),
        superuser,
        // The cluster of a killed run is reused, so that leftovers do not accumulate.
        storage: Storage::Scratch(scratch_root("tests", effective_user())),
        port: None,
        settings: [FAST_SETTINGS, settings].concat(),
    })
    .unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Template,
    Bare,
}

#[derive(Debug)]
enum Request {
    Create {
        name: String,
        origin: Origin,
        done: oneshot::Sender<()>,
    },
    Drop {
        name: String,
    },
}

/// Creates and drops databases over one connection, on a thread that outlives the runtime of every
/// test.
struct DatabaseThread {
    requests: tokio::sync::mpsc::Sender<Request>,
    admin_url: String,
    /// The URL of the login that owns the databases.
    login_url: String,
}

impl DatabaseThread {
    fn send(&self, request: Request) {
        // The queue has many more slots than there are parallel tests, so this fails only if the
        // thread has ended.
        self.requests
            .try_send(request)
            .expect("the thread for test databases runs");
    }
}

fn database_thread(login: Login) -> &'static DatabaseThread {
    static SUPERUSER: OnceLock<DatabaseThread> = OnceLock::new();
    static OWNER: OnceLock<DatabaseThread> = OnceLock::new();
    let thread = match login {
        Login::Superuser => &SUPERUSER,
        Login::Owner => &OWNER,
    };
    thread.get_or_init(|| start_database_thread(login))
}

fn start_database_thread(login: Login) -> DatabaseThread {
    let (requests, queue) = tokio::sync::mpsc::channel(1024);
    let (ready, url) = mpsc::channel();
    thread::Builder::new()
        .name("test-databases".to_owned())
        .spawn(move || {
            // Runs as long as this thread, which runs as long as the process.
            let mut cluster = None;
            let given = ProcessEnvironment.get("TEST_DATABASE_URL");
            let admin_url = match given.filter(|_| login == Login::Superuser) {
                Some(url) => url,
                None => cluster.insert(start_cluster()).url_for("postgres"),
            };
            let login_url = match (login, &cluster) {
                (Login::Owner, Some(cluster)) => format!(
                    "postgresql://{OWNER}:{OWNER_PASSWORD}@127.0.0.1:{}/postgres",
                    cluster.port()
                ),
                _ => admin_url.clone(),
            };
            ready.send((admin_url.clone(), login_url.clone())).unwrap();
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(run_database_thread(login, &admin_url, &login_url, queue));
        })
        .unwrap();
    let (admin_url, login_url) = url
        .recv()
        .expect("the private PostgreSQL of the tests did not start");
    DatabaseThread {
        requests,
        admin_url,
        login_url,
    }
}

async fn run_database_thread(
    login: Login,
    admin_url: &str,
    login_url: &str,
    mut queue: tokio::sync::mpsc::Receiver<Request>,
) {
    let admin = connect(admin_url).await;
    drop_orphans(&admin).await;
    let owned = match login {
        Login::Superuser => String::new(),
        Login::Owner => {
            let create = format!(
                "create role {OWNER} login createrole replication password '{OWNER_PASSWORD}'"
            );
            admin.batch_execute(&create).await.unwrap();
            format!("owner {OWNER}")
        }
    };
    let mut template = None;
    while let Some(request) = queue.recv().await {
        match request {
            Request::Create { name, origin, done } => {
                let from = match origin {
                    Origin::Bare => "template0",
                    Origin::Template => {
                        if template.is_none() {
                            template = Some(make_template(&admin, login_url, &owned).await);
                        }
                        template.as_deref().unwrap_or_default()
                    }
                };
                claim(&admin, &name).await;
                admin
                    .batch_execute(&format!("create database {name} template {from} {owned}"))
                    .await
                    .unwrap();
                let _ = done.send(());
            }
            Request::Drop { name } => {
                drop_database(&admin, &name).await;
                release(&admin, &name).await;
            }
        }
    }
}

/// Drops a database. A slot in use prevents even `drop database … with (force)`, so its reader is
/// terminated first. The reader cannot reconnect, because the database no longer accepts
/// connections.
async fn drop_database(admin: &Client, name: &str) {
    admin
        .batch_execute(&format!(
            "alter database {name} with allow_connections false"
        ))
        .await
        .unwrap();
    eventually("no slot of the database is in use", async || {
        let active = admin
            .query(
                "select pg_terminate_backend(active_pid) from pg_replication_slots
                 where database = $1 and active_pid is not null",
                &[&name],
            )
            .await
            .unwrap();
        active.is_empty().then_some(())
    })
    .await;
    admin
        .batch_execute(&format!("drop database {name} with (force)"))
        .await
        .unwrap();
}

/// Creates the database that [`TestDatabase::new`] copies. It contains the demonstration
/// application, the schema and the demonstration's users.
async fn make_template(admin: &Client, login_url: &str, owned: &str) -> String {
    let name = format!("rapport_template_{}", Uuid::new_v4().simple());
    claim(admin, &name).await;
    admin
        .batch_execute(&format!(
            "create database {name} template template0 {owned}"
        ))
        .await
        .unwrap();
    install_demonstration(&with_database(login_url, &name)).await;
    // The installation asks for this statement if its login may not run it.
    admin
        .batch_execute("alter role service_role bypassrls")
        .await
        .unwrap();
    // A database can be copied only while it has no connections.
    eventually("the template has no connections", async || {
        let connected = admin
            .query("select from pg_stat_activity where datname = $1", &[&name])
            .await
            .unwrap();
        connected.is_empty().then_some(())
    })
    .await;
    name
}

/// Takes a lock on this database. Other processes do not touch the database while this process
/// holds the lock.
async fn claim(admin: &Client, name: &str) {
    admin
        .query("select pg_advisory_lock(hashtext($1))", &[&name])
        .await
        .unwrap();
}

async fn release(admin: &Client, name: &str) {
    admin
        .query("select pg_advisory_unlock(hashtext($1))", &[&name])
        .await
        .unwrap();
}

/// Drops databases that have outlived the processes that created them. This happens on a server
/// given by `TEST_DATABASE_URL`.
async fn drop_orphans(admin: &Client) {
    let orphans = admin
        .query(
            "select datname::text from pg_database
             where datname ~ '^rapport_(template|test)_' and pg_try_advisory_lock(hashtext(datname))",
            &[],
        )
        .await
        .unwrap();
    for row in orphans {
        let name: String = row.get(0);
        drop_database(admin, &name).await;
        release(admin, &name).await;
    }
}

/// Returns `url` with a different database. The parameters after the `?` are kept.
fn with_database(url: &str, database: &str) -> String {
    let (address, parameters) = match url.split_once('?') {
        Some((address, parameters)) => (address, format!("?{parameters}")),
        None => (url, String::new()),
    };
    let (scheme, rest) = address
        .split_once("://")
        .expect("a connection string with a scheme");
    let authority = rest.split('/').next().unwrap_or_default();
    format!("{scheme}://{authority}/{database}{parameters}")
}
