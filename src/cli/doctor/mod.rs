//! `rapport doctor`: checks that the configured database has what the server needs, and prints a
//! remedy for each problem. It changes nothing.
//!
//! `CHECKS` lists the checks. Each has an id that never changes, and answers one question. The
//! report is a list of the answers, which is printed as text or as JSON.

mod database;
mod host;
mod inspection;
mod log;
mod messages;
mod publications;
mod report;
mod roles;
mod schema;

use clap::Args;

use super::{CliError, print, runtime, with_source};
use crate::config::{DoctorConfig, Inputs};
use inspection::{CHECKED, Check, Inspection, check};
use report::{Outcome, Report, Verdict};

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// The checks, in the order of the report. `db.reachable` precedes them and is not in this list,
/// because it is the connection itself.
const CHECKS: &[Check] = &[
    check!("db.version", database::version),
    check!("db.standby", database::standby),
    check!("db.tls", database::tls),
    check!("db.connections", database::connections),
    check!("log.level", log::level),
    check!("log.slots", log::slots),
    check!("log.senders", log::senders),
    check!("log.held", log::held),
    check!("log.right", log::right),
    check!("pub.changes", publications::changes),
    check!("pub.tables", publications::tables),
    check!("pub.identity", publications::identity),
    check!("pub.generated_columns", publications::generated_columns),
    check!("pub.functions", publications::functions),
    check!("pub.messages", publications::messages),
    check!("role.parked", roles::parked),
    check!("role.anon", roles::anon),
    check!("role.authenticated", roles::authenticated),
    check!("role.service", roles::service),
    check!("role.bypassrls", roles::bypassrls),
    check!("role.requests", roles::requests),
    check!("role.temporary", roles::temporary),
    check!("role.create", roles::create),
    check!("schema.version", schema::version),
    check!("schema.foreign_tables", schema::foreign_tables),
    check!("schema.exposed", schema::exposed),
    check!("schema.policies", schema::policies),
    check!("messages.table", messages::table),
    check!("messages.rights", messages::rights),
    check!("messages.policies", messages::policies),
    check!("messages.partitions", messages::partitions),
    check!("host.preset", host::preset),
    check!("host.ambiguous", host::ambiguous),
    check!("host.nobody", host::nobody),
    check!("host.no_team", host::no_team),
    check!("host.ids", host::ids),
    check!("host.owner", host::owner),
    check!("host.self_promotion", host::self_promotion),
    check!("host.open_insert", host::open_insert),
    check!("host.anonymous", host::anonymous),
    check!("run.two_realtimes", log::two_realtimes),
];

/// Runs all checks and prints the report.
pub(super) fn run(arguments: &DoctorArguments, inputs: &Inputs<'_>) -> Result<(), CliError> {
    let config = DoctorConfig::load(inputs)?;
    let report = runtime()?.block_on(examine(&config))?;
    print(&if arguments.json {
        report.json()
    } else {
        report.to_string()
    })?;
    match report.outcome() {
        Outcome::Good => Ok(()),
        Outcome::Failed(checks) => Err(CliError::ChecksFailed(checks)),
        Outcome::Incomplete => Err(CliError::ChecksIncomplete),
        Outcome::NeedsChoice => Err(CliError::ChoiceNeeded),
    }
}

async fn examine(config: &DoctorConfig) -> Result<Report, CliError> {
    let mut report = Report::default();
    let mut inspection = match Inspection::start(config).await? {
        Ok(inspection) => inspection,
        Err(error) => {
            let verdict = Verdict::fail("the database is not reachable").because(format!(
                "{}. Check database.url, and that PostgreSQL is running and accepts this login.",
                with_source(&error)
            ));
            report.add(CHECKED, verdict.incomplete());
            return Ok(report);
        }
    };
    report.add(CHECKED, Verdict::ok("the database is reachable"));
    for check in CHECKS {
        let verdict = match (check.run)(&mut inspection).await {
            Ok(verdict) => verdict,
            Err(error) => {
                let cause = error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |cause| cause.message().to_owned());
                Verdict::fail("the check could not be made")
                    .because(format!("A query failed: {cause}."))
                    .incomplete()
            }
        };
        report.add(check.id, verdict);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_id_is_unique_and_has_a_prefix() {
        let ids: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
        let distinct: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), ids.len());
        for id in ids {
            let (prefix, name) = id.split_once('.').unwrap();
            let is_name = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(is_name(prefix) && is_name(name), "{id}");
        }
    }

    #[test]
    fn every_check_is_documented() {
        let guide = include_str!("../../../docs/operations.md");
        for id in CHECKS.iter().map(|check| check.id).chain([CHECKED]) {
            let rows = guide.lines().filter(|line| line.starts_with("| `"));
            let mut cells = rows.filter_map(|row| row.split('|').nth(1));
            assert!(cells.any(|cell| cell.contains(&format!("`{id}`"))), "{id}");
        }
    }
}
