//! One PostgreSQL per test process, one database per test.
//!
//! Slots and publications belong to a database, so a schema per test would not keep tests apart.
//! `TEST_DATABASE_URL` (a superuser's) replaces the private cluster.

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

/// Nothing a test writes has to survive a power failure.
const FAST_SETTINGS: &[(&str, &str)] = &[
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
];

/// The login that owns databases without being a superuser, with the attributes that the operations guide demands.
const OWNER: &str = "rapport_owner";
const OWNER_PASSWORD: &str = "secret";

/// A database of this test's own, dropped when this value is.
pub(crate) struct TestDatabase {
    name: String,
    url: String,
    superuser_url: String,
    keeper: &'static Keeper,
}

/// The login that installs the schema and runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// A superuser.
    Superuser,
    /// An owner of the database who is not a superuser, in a cluster of its own.
    Owner,
}

impl TestDatabase {
    /// A fresh database with the demonstration application, its people and the schema.
    pub(crate) async fn new() -> Self {
        Self::create(Login::Superuser, Origin::Template).await
    }

    /// The same, installed by this login.
    pub(crate) async fn installed_by(login: Login) -> Self {
        Self::create(login, Origin::Template).await
    }

    /// A fresh database without anything of ours in it.
    pub(crate) async fn bare() -> Self {
        Self::create(Login::Superuser, Origin::Bare).await
    }

    async fn create(login: Login, origin: Origin) -> Self {
        let keeper = keeper(login);
        let name = format!("rapport_test_{}", Uuid::new_v4().simple());
        let (done, created) = oneshot::channel();
        keeper.ask(Request::Create {
            name: name.clone(),
            origin,
            done,
        });
        created
            .await
            .expect("the keeper of test databases has failed; its panic is printed above");
        Self {
            url: with_database(&keeper.login_url, &name),
            superuser_url: with_database(&keeper.admin_url, &name),
            name,
            keeper,
        }
    }

    /// The database's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The connection string of the login that installed it: as a rule a superuser's.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A new connection as superuser. It ends when the client is dropped.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.superuser_url).await
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Nobody waits for it: that would stop this test's runtime, perhaps in the middle of a login, and PostgreSQL
        // drops no database until every backend, one that waits for a password too, has taken notice. What the last
        // test leaves behind is gone with the cluster, or dropped by the next run.
        self.keeper.ask(Request::Drop {
            name: self.name.clone(),
        });
    }
}

/// A cluster for one test alone, for tests that stop the database.
pub(crate) async fn own_cluster() -> Cluster {
    own_cluster_with(&[]).await
}

/// A cluster for one test alone, with these settings of PostgreSQL.
pub(crate) async fn own_cluster_with(settings: &'static [(&'static str, &'static str)]) -> Cluster {
    tokio::task::spawn_blocking(|| start_cluster_with(SUPERUSER, settings))
        .await
        .unwrap()
}

/// A cluster for one test alone, whose superuser has this name.
pub(crate) async fn own_cluster_of(superuser: &'static str) -> Cluster {
    tokio::task::spawn_blocking(|| start_cluster_with(superuser, &[]))
        .await
        .unwrap()
}

/// Makes the demonstration application, the schema and the demonstration's people in an empty database.
pub(crate) async fn install_demonstration(url: &str) {
    let mut client = connect(url).await;
    client.batch_execute(schema::DEV_HOST).await.unwrap();
    if let Err(error) = schema::install(&mut client, &InstallOptions::default()).await {
        panic!("{error}");
    }
    client.batch_execute(schema::DEV_PEOPLE).await.unwrap();
}

/// A connection to any database by its connection string.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // The connection ends with its client; an error of its own reaches the client's caller.
    Tasks::new().spawn("test connection", async move {
        let _ = connection.await;
    });
    client
}

/// The programs of the PostgreSQL that tests run on.
pub(crate) fn binaries() -> Binaries {
    let configured = ProcessEnvironment
        .get("RAPPORT_DEV_POSTGRES_BIN")
        .map(PathBuf::from);
    Binaries::find(configured.as_deref()).unwrap()
}

/// A client program of PostgreSQL's: the one beside the server, or the installed one, which may be of another
/// version. Some distributions have only the server.
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
        // A killed run's is taken over, so leftovers do not pile up.
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

/// Creates and drops databases over one connection, on a thread that outlives every test's own
/// runtime.
struct Keeper {
    requests: tokio::sync::mpsc::Sender<Request>,
    admin_url: String,
    /// The URL of the login that owns the databases.
    login_url: String,
}

impl Keeper {
    fn ask(&self, request: Request) {
        // Many more places than tests run at once, so this fails only if the keeper has.
        self.requests
            .try_send(request)
            .expect("the keeper of test databases runs");
    }
}

fn keeper(login: Login) -> &'static Keeper {
    static SUPERUSER: OnceLock<Keeper> = OnceLock::new();
    static OWNER: OnceLock<Keeper> = OnceLock::new();
    let keeper = match login {
        Login::Superuser => &SUPERUSER,
        Login::Owner => &OWNER,
    };
    keeper.get_or_init(|| start_keeper(login))
}

fn start_keeper(login: Login) -> Keeper {
    let (requests, queue) = tokio::sync::mpsc::channel(1024);
    let (ready, url) = mpsc::channel();
    thread::Builder::new()
        .name("test-databases".to_owned())
        .spawn(move || {
            // Lives as long as this thread, which is as long as the process.
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
                .block_on(keep(login, &admin_url, &login_url, queue));
        })
        .unwrap();
    let (admin_url, login_url) = url
        .recv()
        .expect("the private PostgreSQL of the tests did not start");
    Keeper {
        requests,
        admin_url,
        login_url,
    }
}

async fn keep(
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
                unclaim(&admin, &name).await;
            }
        }
    }
}

/// A slot in use keeps even `drop database … with (force)` from working, so its reader is ended
/// first; it cannot come back, because the database takes no connections any more.
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

/// Makes the database that [`TestDatabase::new`] copies: the demonstration application, the
/// schema, and the demonstration's people.
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
    // The installation asks for this where its login may not do it.
    admin
        .batch_execute("alter role service_role bypassrls")
        .await
        .unwrap();
    // A database can be copied only while nobody is connected to it.
    eventually("nobody is connected to the template", async || {
        let connected = admin
            .query("select from pg_stat_activity where datname = $1", &[&name])
            .await
            .unwrap();
        connected.is_empty().then_some(())
    })
    .await;
    name
}

/// Others leave a database alone as long as this process holds this lock.
async fn claim(admin: &Client, name: &str) {
    admin
        .query("select pg_advisory_lock(hashtext($1))", &[&name])
        .await
        .unwrap();
}

async fn unclaim(admin: &Client, name: &str) {
    admin
        .query("select pg_advisory_unlock(hashtext($1))", &[&name])
        .await
        .unwrap();
}

/// On a server that `TEST_DATABASE_URL` names, databases may outlive the processes that made them.
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
        unclaim(admin, &name).await;
    }
}

/// `url` with another database in it; parameters behind the `?` stay.
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
