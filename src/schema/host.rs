//! Where the chat finds the users and teams of the application: what each preset would find, and
//! what `auto` stands for.

use serde_json::Value;
use tokio_postgres::{Client, Error, Transaction};

use super::error::{HOST_UNDECIDED, SchemaError};
use super::install::{apply_pending, begin};

/// What the host preset `auto` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChoice {
    /// The only safe choice, or the preset in force.
    Preset(String),
    /// The operator must choose a preset. Contains the reason.
    Undecided(String),
}

/// What the presets find in a database.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The preset in force, if the schema is installed.
    pub in_force: Option<String>,
    /// The preset that `auto` stands for.
    pub auto: HostChoice,
    /// The presets whose tables exist, as objects with counts, the queries of `chat.directory` and
    /// `chat.memberships`, and the command that chooses the preset.
    pub candidates: Value,
    /// The same candidates as text.
    pub description: String,
}

/// Examines the presets as an installation would, and changes nothing. If files are pending, they
/// are applied and rolled back, because the functions that examine the presets are among them.
///
/// # Errors
/// See [`SchemaError`].
pub async fn host_report(client: &mut Client) -> Result<HostReport, SchemaError> {
    const SQL: &str = "
        select chat.recorded_host() ->> 'preset'
             , coalesce((select pg_catalog.jsonb_agg(pg_catalog.to_jsonb(c)
                           || pg_catalog.jsonb_build_object('command', 'rapport host --use ' || c.preset))
                           from chat.host_candidates() as c), '[]')
             , chat.describe_host_candidates()";
    let failed = |error| SchemaError::statement("Examining the host presets", error);
    let tx = begin(client).await?;
    apply_pending(&tx).await?;
    let row = tx.query_one(SQL, &[]).await.map_err(failed)?;
    let report = HostReport {
        in_force: row.try_get(0).map_err(failed)?,
        candidates: row.try_get(1).map_err(failed)?,
        description: row.try_get(2).map_err(failed)?,
        // The last statement, because an undecided choice aborts the transaction.
        auto: host_choice(&tx).await.map_err(failed)?,
    };
    tx.rollback().await.map_err(failed)?;
    Ok(report)
}

/// Returns the preset that `auto` stands for. If the choice is undecided, the transaction is
/// aborted afterwards.
///
/// # Errors
/// Any error of PostgreSQL except the one that means [`HostChoice::Undecided`].
pub async fn host_choice(tx: &Transaction<'_>) -> Result<HostChoice, Error> {
    const SQL: &str = "select c.preset from chat.choose_host_preset() as c";
    match tx.query_one(SQL, &[]).await {
        Ok(row) => Ok(HostChoice::Preset(row.try_get(0)?)),
        Err(error) => match error.as_db_error() {
            // The other lines list the candidates.
            Some(refusal) if refusal.code().code() == HOST_UNDECIDED => {
                let reason = refusal.message().lines().next().unwrap_or_default();
                Ok(HostChoice::Undecided(reason.to_owned()))
            }
            _ => Err(error),
        },
    }
}
