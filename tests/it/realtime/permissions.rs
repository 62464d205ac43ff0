//! Tests with random policies, grants and callers. The permissions of a private channel must equal
//! what PostgreSQL allows for messages that are inserted, selected and rolled back.

use std::cell::Cell;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rapport::auth::Claims;
use rapport::db::connect::Connector;
use rapport::observability::metrics::{PermissionLabels, PermissionWay, RealtimeMetrics};
use rapport::realtime::channel::authorize::{AuthorizeError, Authorizer, CheckKind};
use rapport::realtime::permissions::Permissions;
use rapport::shutdown::Tasks;
use serde_json::json;
use tokio_postgres::Client;
use uuid::Uuid;

use super::private_channels::create_messages;
use crate::support::database::TestDatabase;
use crate::support::supabase::create_roles;
use crate::visibility::bench::{cases, combined};

/// Roles to which the random policies and grants refer.
const APPLICATION_ROLES: &[(&str, &str)] = &[
    ("permission_editor", ""),
    ("permission_heir", "in role permission_editor"),
    ("permission_owner", ""),
    ("permission_owner_heir", "in role permission_owner"),
];

/// Objects that the random policies refer to.
const SURROUNDINGS: &str = r"
create schema auth;
create function auth.uid() returns uuid language sql stable as
  $$ select nullif(current_setting('request.jwt.claim.sub', true), '')::uuid $$;
create function auth.jwt() returns jsonb language sql stable as
  $$ select nullif(current_setting('request.jwt.claims', true), '')::jsonb $$;
grant usage on schema auth to public;
create schema private;
grant usage on schema private to permission_owner;
create table public.rooms (topic text, member uuid);
insert into public.rooms values ('lobby', '00000000-0000-0000-0000-000000000001'),
  ('room', '00000000-0000-0000-0000-000000000002');
alter table public.rooms enable row level security;
create policy own on public.rooms using (member = auth.uid());
grant select on public.rooms to authenticated, permission_editor;
create table private.hidden (topic text);
create function public.is_member(wanted text) returns boolean language plpgsql stable security definer as
  $$ begin return exists (select from public.rooms r where r.topic = wanted and r.member = auth.uid()); end $$;
create function public.messages_there(wanted text) returns bigint language sql stable security definer as
  $$ select count(*) from realtime.messages m where m.topic = wanted $$;
create function public.says_immutable(wanted text) returns boolean language plpgsql immutable as
  $$ begin return current_setting('request.jwt.claim.sub', true) like '%' || wanted; end $$;
create function public.not_for_all() returns boolean language sql stable as $$ select true $$;
revoke execute on function public.not_for_all() from public;
grant execute on function public.not_for_all() to authenticated;
create function public.fails_on(value text, bad text) returns boolean language plpgsql as
  $$ begin if value = bad then raise exception 'bad'; end if; return true; end $$;
create function public.writes() returns boolean language plpgsql security definer as
  $$ begin insert into private.hidden values ('x'); return true; end $$;
create function public.remembers() returns boolean language plpgsql as
  $$ declare before text := nullif(current_setting('remembered.who', true), '');
  begin perform set_config('remembered.who', auth.jwt()::text, false);
  return coalesce(before, auth.jwt()::text) = auth.jwt()::text; end $$;
";

const ATOMS: &[&str] = &[
    "true",
    "false",
    "null::boolean",
    "extension = 'broadcast'",
    "extension = 'presence'",
    "extension in ('broadcast', 'presence')",
    "messages.extension <> 'presence'",
    "realtime.topic() = 'lobby'",
    "(select realtime.topic()) like 'r%'",
    "topic = realtime.topic()",
    "topic = 'lobby'",
    "(select auth.uid()) is not null",
    "auth.uid()::text = topic",
    "auth.uid() = topic::uuid",
    "(select auth.jwt()) ->> 'team' = 'red'",
    "current_setting('request.headers')::json ->> 'x-floor' = '2'",
    "private",
    "not private",
    "private is not null",
    "payload is null",
    "event is null",
    "length(note) = 3",
    "score > 1",
    "inserted_at > now() - interval '1 hour'",
    "inserted_at = updated_at",
    "id is not null",
    "made_by is null",
    "current_user = 'authenticated'",
    "session_user = current_user",
    "exists (select 1 from rooms r where r.topic = realtime.topic() and r.member = (select auth.uid()))",
    "topic in (select r.topic from rooms r)",
    "exists (select from private.hidden)",
    "is_member(topic)",
    "is_member((select realtime.topic()))",
    "says_immutable('1')",
    "not_for_all()",
    "fails_on(extension, 'presence')",
    "fails_on(topic, 'room')",
    "writes()",
    "remembers()",
    "1 / length(topic) >= 0",
];

/// Expressions that can be evaluated only if the message is in the table.
const STORED: &[&str] = &[
    "messages_there(topic) > 0",
    "exists (select 1 from realtime.messages m where m.topic = messages.topic)",
    "messages is not null",
    "to_jsonb(messages) ->> 'extension' = 'broadcast'",
    "tableoid = 'realtime.messages'::regclass",
];

fn expression() -> impl Strategy<Value = String> {
    let atoms = prop_oneof![30 => prop::sample::select(ATOMS), 1 => prop::sample::select(STORED)];
    combined(atoms, 2, 6)
}

#[derive(Clone, Debug)]
struct PolicyCase {
    is_permissive: bool,
    command: &'static str,
    roles: &'static str,
    using: String,
    with_check: Option<String>,
}

#[derive(Clone, Debug)]
struct Case {
    policies: Vec<PolicyCase>,
    security: &'static str,
    grants: &'static str,
    more: &'static str,
}

fn case() -> impl Strategy<Value = Case> {
    let policy = (
        prop::bool::weighted(0.75),
        prop::sample::select(vec!["select", "insert", "all", "update"]),
        prop::sample::select(vec![
            "public",
            "authenticated",
            "authenticated",
            "anon, authenticated",
            "permission_editor",
            "permission_owner",
        ]),
        expression(),
        prop::option::of(expression()),
    )
        .prop_map(
            |(is_permissive, command, roles, using, with_check)| PolicyCase {
                is_permissive,
                command,
                roles,
                using,
                with_check,
            },
        );
    (
        prop::collection::vec(policy, 1..5),
        prop::sample::select(vec![
            "enable row level security",
            "enable row level security",
            "enable row level security",
            "enable row level security",
            "enable row level security",
            "disable row level security",
            "force row level security",
        ]),
        prop::sample::select(vec![
            "grant select, insert on realtime.messages to public",
            "grant select, insert on realtime.messages to authenticated, anon, service_role",
            "grant select on realtime.messages to authenticated; grant insert on realtime.messages to anon",
            "grant select (id), insert (id, topic, extension, inserted_at, updated_at) on realtime.messages to authenticated, anon",
            "grant select (topic), insert (id, topic) on realtime.messages to authenticated, permission_editor",
            "grant select, insert on realtime.messages to public; revoke usage on schema realtime from authenticated",
        ]),
        prop_oneof![3 => Just(""), 1 => prop::sample::select(vec![
            "alter table realtime.messages add check (topic <> 'lobby')",
            "alter table realtime.messages add column must text not null",
            "alter table realtime.messages add unique (topic)",
            "alter table realtime.messages add column twice text generated always as (topic || topic) stored",
            "create function public.shouts() returns trigger language plpgsql as \
               $$ begin new.topic := upper(new.topic); return new; end $$; \
             create trigger shouts before insert on realtime.messages for each row execute function public.shouts()",
            "alter table realtime.messages alter topic type varchar(4)",
        ])],
    )
        .prop_map(|(policies, security, grants, more)| Case {
            policies,
            security,
            grants,
            more,
        })
}

impl Case {
    fn sql(&self) -> String {
        let there = if self.more.contains("must") {
            ""
        } else {
            "insert into realtime.messages (topic, extension) values ('room', 'broadcast');"
        };
        let mut sql = format!(
            "drop table if exists realtime.messages cascade; drop function if exists public.shouts();
             grant usage on schema realtime, public to public; grant usage on schema realtime to authenticated;
             create table realtime.messages (
               topic text not null, extension text not null, payload jsonb, event text,
               private boolean default false, updated_at timestamp not null default now(),
               inserted_at timestamp not null default now(), id uuid not null default gen_random_uuid(),
               note text default 'abc', score int default 2, made_by uuid, primary key (id, inserted_at)
             );
             {}; {}
             alter table realtime.messages owner to permission_owner;
             alter table realtime.messages {}; revoke usage on schema realtime from public;
             grant usage on schema realtime to anon, authenticated, service_role, permission_editor, permission_owner;
             {};",
            self.more, there, self.security, self.grants
        );
        for (number, policy) in (1..).zip(&self.policies) {
            let kind = if policy.is_permissive {
                "permissive"
            } else {
                "restrictive"
            };
            let clauses = match (policy.command, &policy.with_check) {
                ("select", _) => format!("using ({})", policy.using),
                ("insert", _) => format!("with check ({})", policy.using),
                // "update" stands for `for all with check`, a policy for writing only, which has no
                // USING.
                ("update", _) => format!("with check ({})", policy.using),
                (_, None) => format!("using ({})", policy.using),
                (_, Some(with_check)) => {
                    format!("using ({}) with check ({with_check})", policy.using)
                }
            };
            let command = match policy.command {
                "update" => "all",
                command => command,
            };
            sql.push_str(&format!(
                "create policy p{number} on realtime.messages as {kind} for {command} to {} {clauses};",
                policy.roles
            ));
        }
        sql
    }
}

fn claims(role: &str, n: u32) -> Claims {
    let subject = (n > 0).then(|| format!("00000000-0000-0000-0000-{n:012}"));
    let team = if n == 1 { "red" } else { "blue" };
    Claims {
        json: json!({"role": role, "sub": subject, "team": team})
            .to_string()
            .into(),
        role: role.to_owned(),
        subject,
        expires_at: i64::MAX,
        signer: None,
    }
}

/// Determines the permissions with the statements of Supabase Realtime.
async fn inserted(
    admin: &Client,
    kind: CheckKind,
    topic: &str,
    claims: &Claims,
    headers: &str,
) -> Result<Permissions, String> {
    admin.batch_execute("begin").await.unwrap();
    let answer = match kind {
        CheckKind::Read { presence } => read(admin, presence, topic, claims, headers).await,
        CheckKind::Write => write(admin, topic, claims, headers).await,
    };
    admin.batch_execute("rollback").await.unwrap();
    answer
}

const INSERT: &str = "insert into realtime.messages (id, topic, extension, inserted_at, updated_at) \
                      values ($1, $2, $3, now(), now())";

async fn read(
    admin: &Client,
    presence: bool,
    topic: &str,
    claims: &Claims,
    headers: &str,
) -> Result<Permissions, String> {
    let ids = [Uuid::new_v4(), Uuid::new_v4()];
    for (id, extension) in ids.iter().zip(["broadcast", "presence"]) {
        if presence || extension == "broadcast" {
            admin
                .execute(INSERT, &[id, &topic, &extension])
                .await
                .map_err(|error| sqlstate(&error))?;
        }
    }
    assume_role(admin, topic, claims, headers).await?;
    let rows = admin
        .query(
            "select id from realtime.messages where id = any ($1)",
            &[&ids.as_slice()],
        )
        .await
        .map_err(|error| sqlstate(&error))?;
    let is_there = |id: Uuid| rows.iter().any(|row| row.get::<_, Uuid>(0) == id);
    Ok(Permissions {
        broadcast: is_there(ids[0]),
        presence: is_there(ids[1]),
    })
}

async fn write(
    admin: &Client,
    topic: &str,
    claims: &Claims,
    headers: &str,
) -> Result<Permissions, String> {
    assume_role(admin, topic, claims, headers).await?;
    let mut answers = [false; 2];
    for (answer, extension) in answers.iter_mut().zip(["broadcast", "presence"]) {
        admin.batch_execute("savepoint extension").await.unwrap();
        let result = admin
            .execute(INSERT, &[&Uuid::new_v4(), &topic, &extension])
            .await;
        *answer = match result {
            Ok(_) => true,
            Err(error) if sqlstate(&error) == "42501" => false,
            Err(error) => return Err(sqlstate(&error)),
        };
        admin
            .batch_execute("rollback to savepoint extension")
            .await
            .unwrap();
    }
    Ok(Permissions {
        broadcast: answers[0],
        presence: answers[1],
    })
}

async fn assume_role(
    admin: &Client,
    topic: &str,
    claims: &Claims,
    headers: &str,
) -> Result<(), String> {
    admin
        .query(
            "select set_config('realtime.topic', $1, true), set_config('request.jwt.claims', $2, true),
               set_config('request.jwt.claim.sub', $3, true), set_config('request.jwt.claim.role', $4, true),
               set_config('request.headers', $5, true), set_config('role', $4, true)",
            &[
                &topic,
                &&*claims.json,
                &claims.subject.as_deref().unwrap_or_default(),
                &claims.role,
                &headers,
            ],
        )
        .await
        .map(drop)
        .map_err(|error| sqlstate(&error))
}

fn sqlstate(error: &tokio_postgres::Error) -> String {
    error.code().unwrap().code().to_owned()
}

/// Returns the number of checks that were decided in this way.
fn count(metrics: &RealtimeMetrics, way: PermissionWay) -> u64 {
    let labels = PermissionLabels { way };
    metrics.permissions_asked.get_or_create(&labels).get()
}

/// After a schema has been created, PostgreSQL replans statements under the role that happens to
/// run them. A role without usage rights on a schema cannot resolve the names in it.
#[tokio::test]
async fn creating_a_schema_does_not_cause_checks_by_insert() {
    let database = TestDatabase::bare().await;
    let admin = database.connect().await;
    create_messages(&admin).await;
    admin
        .batch_execute(
            "create schema private;
             create function private.lobby() returns text language plpgsql stable as $$ begin return 'lobby'; end $$;
             create policy named on realtime.messages for select to authenticated
               using (realtime.topic() = private.lobby());",
        )
        .await
        .unwrap();
    let (metrics, tasks) = (RealtimeMetrics::default(), Tasks::new());
    let connector = Connector::new(database.url()).unwrap();
    let authorizer = Authorizer::new(connector, metrics.clone(), &tasks);
    let kind = CheckKind::Read { presence: false };
    let caller = claims("authenticated", 1);
    for round in 1..4 {
        let answer = authorizer.check(kind, "lobby", &caller, &"{}".into()).await;
        assert!(answer.unwrap().broadcast);
        assert_eq!(count(&metrics, PermissionWay::Evaluated), round);
        admin
            .batch_execute("create schema passing; drop schema passing")
            .await
            .unwrap();
    }
    assert_eq!(count(&metrics, PermissionWay::Inserted), 0);
    tasks.stop();
}

#[test]
fn permissions_equal_the_result_of_inserting_and_selecting() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (database, admin) = runtime.block_on(async {
        let database = TestDatabase::bare().await;
        let admin = database.connect().await;
        create_messages(&admin).await;
        create_roles(&admin, APPLICATION_ROLES).await;
        admin.batch_execute(SURROUNDINGS).await.unwrap();
        (database, admin)
    });
    let (metrics, tasks) = (RealtimeMetrics::default(), Tasks::new());
    let connector = Connector::new(database.url()).unwrap();
    let authorizer = Authorizer::new(connector, metrics.clone(), &tasks);
    let own = "00000000-0000-0000-0000-000000000001";
    let mut checks = Vec::new();
    for claims in [
        claims("authenticated", 1),
        claims("authenticated", 2),
        claims("anon", 0),
        claims("anon", 1),
        claims("service_role", 1),
        claims("permission_heir", 2),
        claims("permission_owner", 1),
        claims("permission_owner_heir", 1),
        claims("no_such_role", 1),
        claims("none", 1),
    ] {
        for (topic, headers) in [
            ("lobby", r#"{"x-floor":"2"}"#),
            ("room", "{}"),
            (own, "{}"),
            ("", "{}"),
        ] {
            for kind in [
                CheckKind::Read { presence: true },
                CheckKind::Read { presence: false },
                CheckKind::Write,
            ] {
                checks.push((kind, topic, claims.clone(), Arc::from(headers)));
            }
        }
    }
    let (allowed, refused, failed) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(cases(25));
    let result = runner.run(&case(), |case| {
        runtime.block_on(async {
            admin.batch_execute(&case.sql()).await.unwrap();
            // The checks start simultaneously, so that a pipeline contains those of several
            // callers.
            let answers = futures_util::future::join_all(checks.iter().map(
                |(kind, topic, claims, headers)| authorizer.check(*kind, topic, claims, headers),
            ))
            .await;
            for ((kind, topic, claims, headers), answer) in checks.iter().zip(answers) {
                if claims.role == "none" {
                    // PostgreSQL would treat this role as the login's own role.
                    prop_assert!(answer.is_err());
                    continue;
                }
                let context = format!(
                    "{kind:?} of {topic} by {} {:?}",
                    claims.role, claims.subject
                );
                match inserted(&admin, *kind, topic, claims, headers).await {
                    Ok(expected) => {
                        prop_assert_eq!(&answer, &Ok(expected), "{}", context);
                        let count = if expected.any() { &allowed } else { &refused };
                        count.set(count.get() + 1);
                    }
                    // If there are several errors, a different one may be reported. The order of
                    // evaluation may also skip a failing condition. In both cases nothing is
                    // allowed.
                    Err(sqlstate) => {
                        prop_assert!(
                            matches!(answer, Err(AuthorizeError::Policy { .. }))
                                || answer == Ok(Permissions::default()),
                            "{context}: {answer:?} where an insertion fails with {sqlstate}"
                        );
                        failed.set(failed.get() + 1);
                    }
                }
            }
            Ok(())
        })
    });
    result.unwrap();
    let count = |way| count(&metrics, way);
    let ways = [
        count(PermissionWay::Known),
        count(PermissionWay::Evaluated),
        count(PermissionWay::Inserted),
    ];
    assert!(ways.iter().all(|count| *count > 100), "{ways:?}");
    assert!(
        allowed.get() > 300 && refused.get() > 300 && failed.get() > 50,
        "{allowed:?} {refused:?} {failed:?}"
    );
    drop(database);
}
