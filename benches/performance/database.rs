//! A private PostgreSQL with the demonstration application and the schema.

use std::path::Path;

use rapport::dev::binaries::Binaries;
use rapport::dev::demonstration::{self, REQUEST_LOGIN};
use rapport::dev::directory::scratch_root;
use rapport::dev::keys::Keys;
use rapport::dev::postgres::{Cluster, ClusterOptions, Storage, effective_user};
use rapport::shutdown::Tasks;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::Failure;

/// The database everything is in.
const DATABASE: &str = "postgres";

/// How long tokens are good: longer than any benchmark.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// A cluster of its own, gone at the end.
pub(crate) struct Database {
    cluster: Cluster,
    /// What tokens are signed with.
    pub(crate) keys: Keys,
    runtime: Runtime,
    client: Client,
}

impl Database {
    /// Starts the cluster and installs everything.
    pub(crate) fn start() -> Result<Self, Failure> {
        let cluster = Cluster::start(ClusterOptions {
            binaries: Binaries::find(None)?,
            storage: Storage::Scratch(scratch_root("bench", effective_user())),
            port: None,
            // A commit still waits for the log to be written, but not for the disk, which is not
            // what is measured.
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

    /// The superuser's connection string.
    pub(crate) fn url(&self) -> String {
        self.cluster.url_for(DATABASE)
    }

    /// The connection string of people's requests.
    pub(crate) fn request_url(&self) -> String {
        let password = &self.keys.request_password;
        let port = self.cluster.port();
        format!("postgresql://{REQUEST_LOGIN}:{password}@127.0.0.1:{port}/{DATABASE}")
    }

    /// A directory that goes with the cluster.
    pub(crate) fn directory(&self) -> &Path {
        self.cluster.directory()
    }

    /// Runs statements as the superuser.
    pub(crate) fn execute(&self, statements: &str) -> Result<(), Failure> {
        Ok(self
            .runtime
            .block_on(self.client.batch_execute(statements))?)
    }

    /// The one number that a query returns.
    pub(crate) fn number(&self, query: &str) -> Result<i64, Failure> {
        let row = self.runtime.block_on(self.client.query_one(query, &[]))?;
        Ok(row.try_get(0)?)
    }

    /// A token for the person of this number.
    pub(crate) fn token(&self, person: usize) -> Result<String, Failure> {
        let claims = json!({
            "sub": person_id(person), "role": "authenticated", "aud": "authenticated",
            "exp": jiff::Timestamp::now().as_second() + TOKEN_SECONDS,
        });
        Ok(rapport::auth::mint(&self.keys.jwt_secret, &claims)?)
    }
}

/// The id of the person of this number, as SQL can compute it, too.
pub(crate) fn person_id(number: usize) -> Uuid {
    Uuid::from_u64_pair(0x5000_0000_0000_4000, 0x8000_0000_0000_0000 | number as u64)
}

/// A connection that lives as long as its client, on the current runtime.
pub(crate) async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // The connection ends with its client; an error of its own reaches the client's caller.
    Tasks::new().spawn("benchmark connection", async move {
        let _ = connection.await;
    });
    Ok(client)
}

/// A runtime for statements, which the calling thread drives.
pub(crate) fn current_thread() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
