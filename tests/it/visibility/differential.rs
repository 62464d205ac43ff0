//! For random tables, policies, grants and users, the visible rows equal the result of `select`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rapport::change::RowChange;
use rapport::visibility::Identity;
use serde_json::json;

use super::bench::{Bench, cases, claims, combined, identity, user};

/// The objects that the random policies refer to.
const SURROUNDINGS: &str = "
create type kind as enum ('note', 'task');
create table members (team text, who uuid, is_admin boolean);
alter table members enable row level security;
create policy own on members using (who = auth.uid());
grant select on members to authenticated, vis_owner, vis_editor;
insert into members values
  ('team1', '00000000-0000-0000-0000-000000000001', true), ('team2', '00000000-0000-0000-0000-000000000001', false),
  ('team2', '00000000-0000-0000-0000-000000000002', null), ('team3', '00000000-0000-0000-0000-000000000003', true);
create function private.is_member(wanted text) returns boolean language sql stable security definer set search_path = '' as
  $$ select exists (select from public.members m where m.team = wanted and m.who = auth.uid()) $$;
create function private.longer_than(t text, n int) returns boolean language plpgsql stable as $$ begin return length(t) > n; end $$;
grant execute on all functions in schema private to public;
grant usage on schema public to vis_owner, vis_editor;
";

const TABLE: &str = "
create table docs (
  id int primary key, owner uuid, team text, n int, flag boolean, amount numeric(8,2), at timestamptz,
  tags text[], kind kind, \"Mixed \"\"Name\" text collate \"C\", extra jsonb
);
";

fn policy_expression() -> impl Strategy<Value = String> {
    let atoms = prop::sample::select(vec![
        "true",
        "false",
        "null::boolean",
        "owner = auth.uid()",
        "owner = (select auth.uid())",
        "owner is not distinct from auth.uid()",
        "team = auth.jwt() ->> 'team'",
        "team = ((select auth.jwt()) ->> 'team')",
        "team in ('team1', 'team3', null)",
        "n > 1",
        "n between -1 and 2",
        "flag",
        "flag is not true",
        "flag is null",
        "amount >= 1.5",
        "at < '2026-06-01 00:00+00'",
        "at::date = '2026-01-02'",
        "'a' = any (tags)",
        "tags @> array['b']",
        "cardinality(tags) > n",
        "kind = 'note'",
        "kind >= 'task'",
        "\"Mixed \"\"Name\" > 'M'",
        "extra ->> 'who' = auth.uid()::text",
        "(extra -> 'n')::int = n",
        "exists (select from members m where m.team = docs.team and m.who = auth.uid())",
        "team in (select m.team from members m where m.is_admin)",
        "team in (select team from members)",
        "private.is_member(team)",
        "private.longer_than(team, n)",
        "current_user = 'authenticated'",
        "coalesce(auth.jwt() ->> 'role', 'none') = 'anon'",
        "id in (select d.n from docs d)",
        "(docs.*) is null",
        "to_jsonb(docs) ->> 'team' = 'team2'",
        "current_setting('request.jwt.claim.sub', true) = owner::text",
    ]);
    combined(atoms, 3, 12)
}

#[derive(Clone, Debug)]
struct Case {
    policies: Vec<(bool, &'static str, &'static str, String)>,
    rows: Vec<String>,
    is_enabled: bool,
    is_forced: bool,
    grants: &'static str,
    owner: &'static str,
}

fn case() -> impl Strategy<Value = Case> {
    let policy = (
        prop::bool::weighted(0.7),
        prop::sample::select(vec!["select", "select", "all", "update"]),
        prop::sample::select(vec![
            "public",
            "authenticated",
            "anon, authenticated",
            "vis_editor",
            "vis_owner",
        ]),
        policy_expression(),
    );
    let or_null = |values: &'static [&'static str]| prop::sample::select(values);
    let row = (
        or_null(&[
            "null",
            "'00000000-0000-0000-0000-000000000001'",
            "'00000000-0000-0000-0000-000000000002'",
        ]),
        or_null(&["null", "'team1'", "'team2'", "'team3'", "''"]),
        or_null(&["null", "-1", "0", "1", "2", "5"]),
        or_null(&["null", "true", "false"]),
        or_null(&["null", "1.5", "1.50", "-2", "'NaN'"]),
        or_null(&[
            "null",
            "'2026-01-02 03:04:05.678+00'",
            "'infinity'",
            "'2026-12-01 00:00+05'",
        ]),
        or_null(&[
            "null",
            "'{}'",
            "'{a}'",
            "'{a,b,NULL}'",
            "array['x\"y', 'z,w']",
        ]),
        or_null(&["null", "'note'", "'task'"]),
        or_null(&["null", "'abc'", "'ABC'", "'Zoë \"q\" \\ (x), y'"]),
        or_null(&[
            "null",
            "'{}'",
            "'{\"who\": \"00000000-0000-0000-0000-000000000001\", \"n\": 1}'",
            "'{\"n\": 2}'",
        ]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j)| [a, b, c, d, e, f, g, h, i, j].join(", "));
    (
        prop::collection::vec(policy, 0..4),
        prop::collection::vec(row, 1..8),
        prop::bool::weighted(0.9),
        any::<bool>(),
        prop::sample::select(vec![
            "grant select on docs to anon, authenticated, service_role, vis_owner, vis_editor",
            "grant select on docs to authenticated; grant select (id, team) on docs to anon, vis_editor",
            "grant select on docs to public; revoke usage on schema public from public; grant usage on schema public to authenticated, vis_owner",
            "grant select (id, owner) on docs to authenticated; grant select (owner) on docs to anon",
        ]),
        prop::sample::select(vec!["postgres", "postgres", "vis_owner"]),
    )
        .prop_map(|(policies, rows, is_enabled, is_forced, grants, owner)| Case {
            policies,
            rows,
            is_enabled,
            is_forced,
            grants,
            owner,
        })
}

impl Case {
    fn sql(&self, login: &str) -> String {
        let mut sql = format!(
            "drop table if exists docs; grant usage on schema public to public; {TABLE}
             alter publication supabase_realtime add table docs; {};",
            self.grants
        );
        for (id, row) in (1..).zip(&self.rows) {
            sql.push_str(&format!("insert into docs values ({id}, {row});"));
        }
        let mut at = 0;
        for (is_permissive, command, roles, expression) in &self.policies {
            at += 1;
            let kind = if *is_permissive {
                "permissive"
            } else {
                "restrictive"
            };
            // "update" stands for `for all with check`, a policy for writing only, which has no
            // USING.
            let (command, clause) = match *command {
                "update" => ("all", "with check"),
                command => (command, "using"),
            };
            sql.push_str(&format!(
                "create policy p{at} on docs as {kind} for {command} to {roles} {clause} ({expression});"
            ));
        }
        if self.is_enabled {
            sql.push_str("alter table docs enable row level security;");
        }
        if self.is_forced {
            sql.push_str("alter table docs force row level security;");
        }
        let owner = if self.owner == "postgres" {
            login
        } else {
            self.owner
        };
        sql.push_str(&format!("alter table docs owner to {owner};"));
        sql
    }
}

/// Returns the result of `select`, or its error.
async fn selected(bench: &Bench, who: &Identity) -> Result<BTreeSet<i32>, String> {
    let subject: serde_json::Value = serde_json::from_str(&who.claims).unwrap();
    bench.admin.batch_execute("begin").await.unwrap();
    bench
        .admin
        .query(
            "select set_config('request.jwt.claims', $1, true), set_config('request.jwt.claim.sub', $2, true),
               set_config('request.jwt.claim.role', $3, true), set_config('role', $3, true)",
            &[&&*who.claims, &subject["sub"].as_str().unwrap_or_default(), &who.role],
        )
        .await
        .unwrap();
    let rows = bench.admin.query("select id from docs", &[]).await;
    bench.admin.batch_execute("rollback").await.unwrap();
    rows.map(|rows| rows.iter().map(|row| row.get(0)).collect())
        .map_err(|error| {
            error
                .code()
                .map(|code| code.code().to_owned())
                .unwrap_or_default()
        })
}

#[test]
fn decisions_equal_select() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new(SURROUNDINGS));
    let people = [
        identity("authenticated", 1),
        identity("authenticated", 2),
        identity("authenticated", 3),
        identity("anon", 1),
        claims("anon", &json!({"role": "anon"})),
        identity("service_role", 1),
        identity("vis_owner", 1),
        identity("vis_heir", 2),
        identity("vis_editor", 1),
        identity("vis_editor_member", 2),
        // So many identities of one role that they are checked in one call, and a few of other
        // roles that are checked one by one.
        identity("authenticated", 4),
        claims(
            "authenticated",
            &json!({"role": "authenticated", "team": "team2"}),
        ),
        identity("authenticated", 5),
    ];
    assert_eq!(user(1), "00000000-0000-0000-0000-000000000001");
    let login: String = runtime.block_on(async {
        bench
            .admin
            .query_one("select current_user::text", &[])
            .await
            .unwrap()
            .get(0)
    });
    let (seen_rows, hidden_rows) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let mut runner = TestRunner::new(cases(300));
    let result = runner.run(&case(), |case| {
        runtime.block_on(async {
            bench.run(&case.sql(&login)).await;
            for (n, who) in (1..).zip(&people) {
                bench.watch(n, who, "docs").await;
            }
            let relation = bench.relation("docs").await;
            let images = bench.images(&relation, "true").await;
            let changes = images
                .into_iter()
                .map(|new| RowChange::Insert { new })
                .collect();
            let seen = bench.seen(&relation, changes).await;
            for (n, who) in (1..).zip(&people) {
                let own: BTreeSet<i32> = (1..)
                    .zip(&seen)
                    .filter(|(_, seen)| seen.rows.contains(&n))
                    .map(|(id, _)| id)
                    .collect();
                let unanswered = seen
                    .iter()
                    .filter(|seen| seen.unanswered.contains_key(&n))
                    .count();
                match selected(&bench, who).await {
                    Ok(expected) => {
                        prop_assert_eq!(&own, &expected, "{:?}", who);
                        prop_assert_eq!(unanswered, 0, "{:?}", who);
                        seen_rows.set(seen_rows.get() + own.len());
                        hidden_rows.set(hidden_rows.get() + seen.len() - own.len());
                    }
                    // If `select` fails, it returns nothing. A subscriber may still receive those
                    // rows whose own check does not fail.
                    Err(sqlstate) => {
                        let is_refused = seen.iter().all(|seen| seen.refused.contains_key(&n));
                        prop_assert!(
                            is_refused || unanswered > 0 || own.is_empty(),
                            "{who:?} got {own:?} where select fails with {sqlstate}"
                        );
                    }
                }
            }
            Ok(())
        })
    });
    result.unwrap();
    assert!(
        seen_rows.get() > 500 && hidden_rows.get() > 500,
        "{seen_rows:?} {hidden_rows:?}"
    );
}
