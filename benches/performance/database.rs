//! A private PostgreSQL with the demonstration application and the schema.

use std::path::Path;

use rapport::dev::binaries::Binaries;
use rapport::dev::demonstration::{self, REQUEST_LOGIN};
use rapport::dev::directory::scratch_root;
use rapport::dev::keys::Keys;
use rapport::dev::postgres::{Cluster, ClusterOptions, SUPERUSER, Storage, effective_user};
use rapport::shutdown::Tasks;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::Failure;

/// The database that all benchmarks use.
const DATABASE: &str = "postgres";

/// Lifetime of tokens: longer than any benchmark.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// A private cluster, which is removed when this value is dropped.
pub(crate) struct Database {
    cluster: Cluster,
    /// The keys that sign tokens.
    pub(crate) keys: Keys,
    runtime: Runtime,
    client: Client,
}

impl Database {
    /// Starts the cluster and installs the application and the schema.
    pub(crate) fn start() -> Result<Self, Failure> {
        let cluster = Cluster::start(ClusterOptions {
            binaries: Binaries::find(None)?,
            superuser: SUPERUSER,
            storage: Storage::Scratch(scratch_root("bench", effective_user())),
            port: None,
            // A commit still waits until the WAL is written, but not until it is flushed to disk,
            // because the disk is not being measured.
            settings: vec![("fsync", "off")],
        })?;
        let keys = Keys::load(cluster.directory())?;
        let runtime = current_thread()?;
        let client = runtime.block_on(async {
            let mut client = connect(&cluster.url_for(DATABASE)).await?;
            demonstration::install(&mut client).await?;
            demonstration::allow_requests(&client, &keys.request_password).await?;
            Ok::<_, Failure>(client)
        })?;
        Ok(Self {
            cluster,
            keys,
            runtime,
            client,
        })
    }

    /// Returns the superuser's connection string.
    pub(crate) fn url(&self) -> String {
        self.cluster.url_for(DATABASE)
    }

    /// Returns the connection string for user requests.
    pub(crate) fn request_url(&self) -> String {
        let password = &self.keys.request_password;
        let port = self.cluster.port();
        format!("postgresql://{REQUEST_LOGIN}:{password}@127.0.0.1:{port}/{DATABASE}")
    }

    /// Returns a directory that is removed with the cluster.
    pub(crate) fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// Runs statements as the superuser.
    pub(crate) fn execute(&self, statements: &str) -> Result<(), Failure> {
        Ok(self
            .runtime
            .block_on(self.client.batch_execute(statements))?)
    }

    /// Returns the single number that a query selects.
    pub(crate) fn number(&self, query: &str) -> Result<i64, Failure> {
        let row = self.runtime.block_on(self.client.query_one(query, &[]))?;
        Ok(row.try_get(0)?)
    }

    /// Returns a token for the user with this number.
    pub(crate) fn token(&self, person: usize) -> Result<String, Failure> {
        let claims = json!({
            "sub": person_id(person), "role": "authenticated", "aud": "authenticated",
            "exp": jiff::Timestamp::now().as_second() + TOKEN_SECONDS,
        });
        Ok(rapport::auth::mint(&self.keys.jwt_secret, &claims)?)
    }
}

/// Returns the id of the user with this number. SQL computes it in the same way.
pub(crate) fn person_id(number: usize) -> Uuid {
    Uuid::from_u64_pair(0x5000_0000_0000_4000, 0x8000_0000_0000_0000 | number as u64)
}

/// Opens a connection on the current runtime. The connection lives as long as its client.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The connection ends with its client. The client's calls also return its errors.
    Tasks::new().spawn("benchmark connection", async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// Creates a runtime for statements, which the calling thread drives.
pub(crate) fn current_thread() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
