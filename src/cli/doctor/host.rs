//! `host.*`: the application's users and teams, on which the rights of the chat depend.

use serde_json::json;
use tokio_postgres::Error;

use super::database::is_standby;
use super::inspection::Inspection;
use super::report::Verdict;
use crate::schema::{self, HostChoice};

/// Time limits of the attempts: 2 s for all of them together, and 200 ms for each wait for a lock.
/// Longer attempts would keep rows of the application locked.
const ATTEMPTS: &str = "set local statement_timeout = '2s'; set local lock_timeout = '200ms'";

/// The function whose presence shows that the schema has the presets of this program.
const PRESETS: &str = "chat.host_candidates()";

/// Returns the verdict of a database without the schema.
fn without_schema() -> Verdict {
    Verdict::skip("the schema is not installed, or older than this program")
}

/// The subquery that returns what the preset in force reads from the application, as one row of
/// type `chat.host_source`.
const IN_FORCE: &str = "
    (select s.* from chat.recorded_host() as r, chat.host_source_of(r ->> 'preset', r) as s)";

/// Whether the preset in force fits the tables of the application and the configuration.
pub(super) async fn preset(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let sql = format!(
        "select chat.recorded_host() ->> 'preset', s.directory is not null and s.problem is null, s.problem
           from {IN_FORCE} as s"
    );
    let Some(row) = inspection.client.query_opt(&sql, &[]).await? else {
        return Ok(Verdict::fail("no source of users and teams is installed")
            .because("Run `rapport migrate`."));
    };
    let (preset, fits): (String, bool) = (row.try_get(0)?, row.try_get(1)?);
    let problem: Option<String> = row.try_get(2)?;
    let configured = inspection.config.chat.host_preset.as_str();
    let verdict = if !fits {
        Verdict::fail(format!(
            "preset {preset} no longer fits the tables of the application"
        ))
        .because(format!(
            "{}. `rapport host` lists the presets that do.",
            problem.unwrap_or_else(|| "Its tables are missing".to_owned())
        ))
    } else if configured != "auto" && configured != preset {
        Verdict::warn(format!(
            "preset {preset} is in force, but chat.host_preset is {configured}"
        ))
        .because("`rapport migrate` puts the configured preset into force.")
    } else {
        Verdict::ok(format!("users and teams are found by preset {preset}"))
    };
    Ok(verdict
        .fact("preset", preset)
        .fact("configured", configured))
}

/// Whether an installation would have to ask the operator for a preset.
pub(super) async fn ambiguous(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let transaction = inspection.client.transaction().await?;
    let choice = schema::host_choice(&transaction).await?;
    transaction.rollback().await?;
    Ok(match choice {
        HostChoice::Preset(preset) => {
            Verdict::ok("no choice of a preset is needed").fact("preset", preset)
        }
        HostChoice::Undecided(problem) => Verdict::fail("a preset must be chosen")
            .because(format!(
                "{problem} `rapport host` shows the choices, and `rapport host --use NAME` chooses."
            ))
            .choice(),
    })
}

/// Whether the application has users.
pub(super) async fn nobody(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let row = inspection
        .client
        .query_one("select exists (select from chat.directory)", &[])
        .await?;
    Ok(if row.try_get(0)? {
        Verdict::ok("the application has users").fact("has_users", true)
    } else {
        Verdict::warn("the application has no users")
            .because("If accounts exist, another preset may find them: see `rapport host`.")
            .fact("has_users", false)
    })
}

/// Whether at least one user has a team. Otherwise, no user may write to another.
pub(super) async fn no_team(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const SQL: &str =
        "select exists (select from chat.directory), exists (select from chat.memberships)";
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (has_users, has_teams): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    let verdict = if has_teams {
        Verdict::ok("users have teams")
    } else if has_users {
        Verdict::warn("no user has a team, so no user may write to another")
            .because("Assign users to teams, or choose another preset: see `rapport host`.")
    } else {
        Verdict::skip("the application has no users")
    };
    Ok(verdict.fact("has_teams", has_teams))
}

/// Whether the ids of users are ids of accounts, because a token contains the id of an account.
pub(super) async fn ids(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    // A sample suffices, because a wrong column is wrong for almost all users.
    const SQL: &str = "
        select count(*), count(*) filter (where not exists (select from auth.users as a where a.id = s.user_id))
          from (select d.user_id from chat.directory as d limit 1000) as s";
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let row = inspection
        .client
        .query_one("select chat.has_accounts_of_supabase()", &[])
        .await?;
    if !row.try_get::<_, bool>(0)? {
        return Ok(Verdict::skip("the accounts are not those of Supabase Auth"));
    }
    let row = inspection.client.query_one(SQL, &[]).await?;
    let (sampled, unknown): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let verdict = if unknown * 100 > sampled {
        Verdict::warn(format!("{unknown} of {sampled} ids of users are not accounts in auth.users"))
            .because("A token contains the id of an account, so these users cannot use the chat. See `rapport host`.")
    } else {
        Verdict::ok("the ids of users are accounts in auth.users")
    };
    Ok(verdict.fact("sampled", sampled).fact("unknown", unknown))
}

/// Whether only trusted roles own the tables that decide who has which team and role, and whether
/// the chat sees all of their rows.
pub(super) async fn owner(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    let sql = format!(
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
              , pg_catalog.pg_get_userbyid(c.relowner)::text
              , chat.is_trusted_host(t.relation)
              , chat.sees_all_rows(v.relowner, t.relation)
              , t.view::text
           from {IN_FORCE} as s
          cross join lateral (
             select 'chat.directory'::regclass as view, unnest(s.directory_tables) as relation
             union all
             select 'chat.memberships'::regclass, unnest(s.memberships_tables)
           ) as t
           join pg_catalog.pg_class as c on c.oid = t.relation
           join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
           join pg_catalog.pg_class as v on v.oid = t.view
          order by 1, 5"
    );
    let (mut untrusted, mut hidden) = (Vec::new(), Vec::new());
    for row in inspection.client.query(&sql, &[]).await? {
        let (table, owner): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        if !row.try_get::<_, bool>(2)? {
            untrusted.push(format!("{table} of {owner}"));
        }
        if !row.try_get::<_, bool>(3)? {
            let view: String = row.try_get(4)?;
            hidden.push(format!("{table} in {view}"));
        }
    }
    untrusted.dedup();
    let verdict = if !untrusted.is_empty() {
        Verdict::fail(format!(
            "users of the API could own tables that decide about teams and roles: {}",
            untrusted.join(", ")
        ))
        .because("Give these tables to the login of database.url, or revoke CREATE on their schema from public.")
    } else if !hidden.is_empty() {
        Verdict::fail(format!("row-level security hides users or teams from the chat: {}", hidden.join(", ")))
            .because("Let the owner of the view also own the table, or bypass row-level security. Then run `rapport migrate`.")
    } else {
        Verdict::ok("trusted roles own the tables of users and teams")
    };
    Ok(verdict
        .fact("untrusted", json!(untrusted))
        .fact("hidden", json!(hidden)))
}

/// Whether users are unable to change their own team or role, because a user who succeeds could
/// message everyone.
pub(super) async fn self_promotion(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    attempts(
        inspection,
        &["update", "insert_membership"],
        "users cannot change their own team or role",
        "users can change their own team or role",
        "Such a user can message everyone. Revoke the right, and grant UPDATE only on the columns that users \
         may write. Or let a policy or trigger compare the new row with the old one.",
    )
    .await
}

/// Whether new accounts are unable to insert themselves as users with a team or role of their
/// choice.
pub(super) async fn open_insert(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    attempts(
        inspection,
        &["insert_account"],
        "new accounts cannot choose their own team or role",
        "new accounts can choose their own team or role",
        "Anyone who can sign up can join any team. Revoke INSERT on the table, and let a trigger or the \
         application's server create the rows.",
    )
    .await
}

/// Tries to gain rights as a user of the application, in a transaction that is rolled back.
async fn attempts(
    inspection: &mut Inspection<'_>,
    kinds: &[&str],
    good: &str,
    bad: &str,
    why: &str,
) -> Result<Verdict, Error> {
    const SQL: &str = "
        select a.attempt, a.relation, a.column_name, a.outcome, a.detail
          from chat.attempt_self_promotion() as a
         where a.attempt = any ($1)";
    if !inspection
        .has_function("chat.attempt_self_promotion()")
        .await?
    {
        return Ok(without_schema());
    }
    if is_standby(inspection).await? {
        return Ok(Verdict::skip("a standby accepts no attempts"));
    }
    let transaction = inspection.client.transaction().await?;
    transaction.batch_execute(ATTEMPTS).await?;
    let tried = transaction.query(SQL, &[&kinds]).await;
    transaction.rollback().await?;
    let rows = match tried {
        Ok(rows) => rows,
        Err(error) => match error.as_db_error() {
            Some(refusal) => {
                return Ok(
                    Verdict::warn("whether users can gain rights could not be tried")
                        .because(format!("PostgreSQL reports: {}.", refusal.message())),
                );
            }
            None => return Err(error),
        },
    };
    if rows.is_empty() {
        return Ok(Verdict::skip(
            "there is no ordinary user to try it as, or no table to try it on",
        ));
    }
    let (mut allowed, mut unknown, mut remedies) = (Vec::new(), Vec::new(), Vec::new());
    let mut facts = Vec::new();
    for row in rows {
        let (attempt, table): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        let (column, outcome): (String, String) = (row.try_get(2)?, row.try_get(3)?);
        let detail: Option<String> = row.try_get(4)?;
        let (right, target) = match attempt.as_str() {
            "update" => ("update", format!("{table}.{column}")),
            _ => ("insert", table.clone()),
        };
        match outcome.as_str() {
            "allowed" => {
                allowed.push(format!("{right} on {target}"));
                remedies.push(format!(
                    "revoke {right} on {table} from anon, authenticated;"
                ));
            }
            "unknown" => unknown.push(format!(
                "{right} on {target}: {}",
                detail.as_deref().unwrap_or_default()
            )),
            _ => {}
        }
        facts.push(json!({
            "attempt": attempt, "table": table, "column": column, "outcome": outcome, "detail": detail,
        }));
    }
    remedies.dedup();
    let verdict = if !allowed.is_empty() {
        Verdict::warn(format!("{bad} ({})", allowed.join(", ")))
            .because(why)
            .remedy(remedies.join("\n"))
    } else if !unknown.is_empty() {
        Verdict::warn("whether users can gain rights could not be tried")
            .because(format!("{}.", unknown.join("; ")))
    } else {
        Verdict::ok(good)
    };
    Ok(verdict.fact("attempts", facts))
}

/// Whether guests (anonymous sign-ins) are in teams, and can therefore write messages.
pub(super) async fn anonymous(inspection: &mut Inspection<'_>) -> Result<Verdict, Error> {
    const HAS_GUESTS: &str = "
        select exists (select from pg_catalog.pg_attribute
                        where attrelid = pg_catalog.to_regclass('auth.users') and attname = 'is_anonymous')";
    const SQL: &str = "
        select count(*)
          from chat.directory as d
          join auth.users as u on u.id = d.user_id
         where u.is_anonymous and d.is_active and exists (select from chat.memberships as m where m.user_id = d.user_id)";
    if !inspection.has_function(PRESETS).await? {
        return Ok(without_schema());
    }
    if !inspection
        .client
        .query_one(HAS_GUESTS, &[])
        .await?
        .try_get::<_, bool>(0)?
    {
        return Ok(Verdict::skip("the accounts have no guests"));
    }
    let guests: i64 = inspection.client.query_one(SQL, &[]).await?.try_get(0)?;
    let verdict = if guests == 0 {
        Verdict::ok("no guest is in a team")
    } else {
        Verdict::warn(format!("{guests} guests are in a team"))
            .because("Guests (anonymous sign-ins) can message the members of their teams. Remove them from the application's table of users, or from the teams, if this is not intended.")
    };
    Ok(verdict.fact("guests", guests))
}
