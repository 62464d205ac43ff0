//! Checks that Supabase's Security and Performance Advisor reports nothing that Rapport installs. A
//! control for each lint shows that the lint finds a violation.

use rapport::schema::{self, InstallOptions};
use tokio_postgres::Client;

use super::{ACCOUNTS, PRIVATE_CHANNELS, Project};
use crate::support::database::{TestDatabase, connect};

/// The advisor's lints in Rapport's own wording, one view each.
const LINTS: &str = include_str!("lints.sql");

/// A violation that a lint must report.
struct Control {
    lint: &'static str,
    violation: &'static str,
    /// The object that the lint reports for the violation.
    culprit: &'static str,
}

const CONTROLS: &[Control] = &[
    Control {
        lint: "0001_unindexed_foreign_keys",
        violation: "create table public.a (x int, y int, primary key (x, y));
            create table public.b (y int, x int, constraint pair foreign key (x, y) references public.a);
            create index on public.b (y, x);
            create index on public.b (x);
            create index on public.b (x, y) where x > 0",
        culprit: "b: pair",
    },
    Control {
        lint: "0002_auth_users_exposed",
        violation: "create view public.a with (security_invoker) as select email from auth.users",
        culprit: "a",
    },
    Control {
        lint: "0003_auth_rls_initplan",
        violation: "create table public.a (who uuid);
            create policy fast on public.a using (who = (select auth.uid()) and (select auth.jwt() ->> 'a') = 'b');
            create policy slow on public.a using (who = (select auth.uid()) or who = auth.uid())",
        culprit: "a: slow",
    },
    Control {
        lint: "0003_auth_rls_initplan",
        violation: "create policy setting on public.user_messages as restrictive for insert
              with check (content <> current_setting('app.word', true))",
        culprit: "user_messages: setting",
    },
    Control {
        lint: "0004_no_primary_key",
        violation: "create table chat.a (x int)",
        culprit: "chat.a",
    },
    Control {
        lint: "0006_multiple_permissive_policies",
        violation: "create table public.a (x int);
            create policy one on public.a for all using (x = 1);
            create policy two on public.a for select to anon using (x = 2);
            create policy three on public.a for update to authenticated using (x = 3)",
        culprit: "a: anon, r; a: authenticated, w",
    },
    Control {
        lint: "0006_multiple_permissive_policies",
        violation: "create policy more on realtime.messages for select to authenticated using (extension = 'x')",
        culprit: "realtime.messages: authenticated, r",
    },
    Control {
        lint: "0007_policy_exists_rls_disabled",
        violation: "alter table public.user_blocks disable row level security",
        culprit: "user_blocks: %",
    },
    Control {
        lint: "0008_rls_enabled_no_policy",
        violation: "create table public.a (x int); alter table public.a enable row level security",
        culprit: "a",
    },
    Control {
        lint: "0009_duplicate_index",
        violation: "create table public.a (x int, y int);
            create index one on public.a (x, y);
            create index two on public.a (x, y);
            create index three on public.a (y, x)",
        culprit: "a: one, two",
    },
    Control {
        lint: "0010_security_definer_view",
        violation: "create view public.a as select 1 as x; create view public.b with (security_invoker = on) as select 1 as x",
        culprit: "a",
    },
    Control {
        lint: "0011_function_search_path_mutable",
        violation: "create function chat.a() returns int language sql set work_mem = '1MB' as 'select 1'",
        culprit: "chat.a()",
    },
    Control {
        lint: "0013_rls_disabled_in_public",
        violation: "create table public.a (x int)",
        culprit: "a",
    },
    Control {
        lint: "0014_extension_in_public",
        violation: "create extension citext schema public",
        culprit: "citext",
    },
    Control {
        lint: "0015_rls_references_user_metadata",
        violation: "create policy meta on public.user_messages as restrictive
              using ((select auth.jwt() -> 'user_metadata' ->> 'team') = content)",
        culprit: "user_messages: meta",
    },
    Control {
        lint: "0016_materialized_view_in_api",
        violation: "create materialized view public.a as select 1 as x; grant select (x) on public.a to anon",
        culprit: "a",
    },
    Control {
        lint: "0017_foreign_table_in_api",
        violation: "create foreign data wrapper w; create server s foreign data wrapper w;
            create foreign table public.a (x int) server s; grant select on public.a to authenticated",
        culprit: "a",
    },
    Control {
        lint: "0018_unsupported_reg_types",
        violation: "create table chat.a (x regclass, y regprocedure, z regconfig[])",
        culprit: "chat.a: y; chat.a: z",
    },
    Control {
        lint: "0019_insecure_queue_exposed_in_api",
        violation: "create schema pgmq; create schema pgmq_public; create table pgmq.q_jobs (x int)",
        culprit: "pgmq.q_jobs",
    },
    Control {
        lint: "0021_fkey_to_auth_unique",
        violation: "create unique index by_email on auth.users (email);
            create table public.a (email text references auth.users (email), id uuid references auth.users (id))",
        culprit: "a: a_email_fkey",
    },
    Control {
        lint: "0022_extension_versions_outdated",
        violation: "create extension citext schema chat version '1.4'",
        culprit: "citext",
    },
    Control {
        lint: "0023_sensitive_columns_exposed",
        violation: "create table public.a (id int, password_hash text)",
        culprit: "a: password_hash",
    },
    Control {
        lint: "0024_rls_policy_always_true",
        violation: "create policy all_rows on public.user_messages for select to anon using (true);
            create policy one_is_one on public.user_messages for insert to authenticated with check (1 = 1);
            create policy closed on public.user_messages as restrictive using (true)",
        culprit: "user_messages: all_rows; user_messages: one_is_one",
    },
    Control {
        lint: "0025_public_bucket_allows_listing",
        violation: "create schema if not exists storage;
            create table if not exists storage.objects (bucket_id text, name text, owner_id text);
            create policy listing on storage.objects for select using (bucket_id = 'pictures');
            create policy own on storage.objects for select using (bucket_id = 'pictures' and owner_id = 'x')",
        culprit: "listing",
    },
    Control {
        lint: "0026_pg_graphql_anon_table_exposed",
        violation: "grant select (id) on public.user_messages to anon",
        culprit: "user_messages",
    },
    Control {
        lint: "0028_anon_security_definer_function_executable",
        violation: "create function public.a() returns int language sql security definer as 'select 1'",
        culprit: "a()",
    },
    Control {
        lint: "0029_authenticated_security_definer_function_executable",
        violation: "create function public.a() returns int language sql security definer as 'select 1';
            create function public.b() returns int language sql as 'select 1';
            revoke all on function public.a() from public, anon; grant execute on function public.a() to authenticated",
        culprit: "a()",
    },
];

/// Returns the objects that a lint reports.
async fn culprits(client: &Client, lint: &str) -> Vec<String> {
    let sql = format!("select culprit::text from lints.\"{lint}\" order by 1");
    let rows = client.query(&sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Runs every lint on the installation, which must be clean, and then on the lint's control.
async fn assert_clean(url: &str) {
    let client = connect(url).await;
    client.batch_execute("begin").await.unwrap();
    client.batch_execute(LINTS).await.unwrap();
    let lints = client
        .query(
            "select viewname::text from pg_views where schemaname = 'lints' and viewname ~ '^\\d' order by 1",
            &[],
        )
        .await
        .unwrap();
    let lints: Vec<String> = lints.iter().map(|row| row.get(0)).collect();
    let mut findings = Vec::new();
    for lint in &lints {
        findings.extend(
            culprits(&client, lint)
                .await
                .iter()
                .map(|culprit| format!("{lint}: {culprit}")),
        );
    }
    assert!(findings.is_empty(), "{findings:#?}");

    let controlled: Vec<_> = CONTROLS.iter().map(|control| control.lint).collect();
    let without: Vec<_> = lints
        .iter()
        .filter(|lint| !controlled.contains(&lint.as_str()))
        .collect();
    assert!(without.is_empty(), "lints without a control: {without:?}");
    for control in CONTROLS {
        client.batch_execute("savepoint clean").await.unwrap();
        client.batch_execute(control.violation).await.unwrap();
        let found = culprits(&client, control.lint).await.join("; ");
        let is_expected = match control.culprit.strip_suffix('%') {
            Some(beginning) => found.starts_with(beginning),
            None => found == control.culprit,
        };
        assert!(
            is_expected,
            "{}: {found:?} instead of {:?}",
            control.lint, control.culprit
        );
        client.batch_execute("rollback to clean").await.unwrap();
    }
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn the_advisor_reports_nothing_on_hosted_supabase() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    project.migrate().await;
    project.run_as_superuser(PRIVATE_CHANNELS).await;
    assert_clean(&project.admin_url()).await;
    project.end().await;
}

#[tokio::test]
async fn the_advisor_reports_nothing_on_a_plain_database() {
    let database = TestDatabase::bare().await;
    let mut client = database.connect().await;
    if let Err(error) = schema::install(&mut client, &InstallOptions::default()).await {
        panic!("{error}");
    }
    assert_clean(database.url()).await;
}
