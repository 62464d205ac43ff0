//! What the checks share: the connection, the configuration, and the form of a check.

use std::future::Future;
use std::pin::Pin;

use tokio_postgres::{Client, Error};

use super::report::Verdict;
use crate::config::DoctorConfig;
use crate::db::connect::{ConnectError, Connector};
use crate::shutdown::Tasks;

/// The id of the first finding: whether the login of `database.url` can connect.
pub(super) const CHECKED: &str = "db.reachable";

/// One check. A query that fails makes the check incomplete.
pub(super) struct Check {
    /// The id of its finding.
    pub(super) id: &'static str,
    /// Runs the check.
    pub(super) run: for<'a> fn(&'a mut Inspection<'_>) -> Answer<'a>,
}

/// The future of a check.
pub(super) type Answer<'a> = Pin<Box<dyn Future<Output = Result<Verdict, Error>> + Send + 'a>>;

/// Makes a [`Check`] from an asynchronous function.
macro_rules! check {
    ($id:literal, $function:path) => {
        Check {
            id: $id,
            run: |inspection| Box::pin($function(inspection)),
        }
    };
}
pub(super) use check;

/// The database under inspection.
pub(super) struct Inspection<'a> {
    /// A connection with the login of `database.url`.
    pub(super) client: Client,
    pub(super) config: &'a DoctorConfig,
    tasks: Tasks,
}

impl<'a> Inspection<'a> {
    /// Connects with the login of `database.url`. The outer error means that the URL is invalid,
    /// the inner one that the database is not reachable.
    pub(super) async fn start(
        config: &'a DoctorConfig,
    ) -> Result<Result<Self, ConnectError>, ConnectError> {
        let tasks = Tasks::new();
        let owner = Connector::new(config.database.url.expose())?;
        Ok(match owner.connect("rapport doctor", &tasks).await {
            Ok(client) => Ok(Self {
                client,
                config,
                tasks,
            }),
            Err(error) => Err(error),
        })
    }

    /// Connects with the login of `database.request_url`.
    pub(super) async fn connect_for_requests(&self) -> Result<Client, ConnectError> {
        let requests = Connector::new(self.config.database.request_url.expose())?;
        requests.connect("rapport doctor", &self.tasks).await
    }

    /// Returns whether a function exists and the login may execute it. `signature` contains the
    /// argument types. Checks that call a function are skipped if this returns false.
    pub(super) async fn has_function(&self, signature: &str) -> Result<bool, Error> {
        const SQL: &str = "
            select coalesce(pg_catalog.has_function_privilege(pg_catalog.to_regprocedure($1), 'EXECUTE'), false)";
        self.client.query_one(SQL, &[&signature]).await?.try_get(0)
    }
}
