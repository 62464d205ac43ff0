//! Row-level security gives the same result as `select`, case by case.

use std::time::Duration;

use rapport::change::{ColumnValue, RowChange};
use rapport::config::VisibilityConfig;
use serde_json::json;

use super::bench::{Bench, Seen, claims, identity, rows, strict, user};

const DOCUMENTS: &str = "
create table documents (id int primary key, owner uuid, team text, body text, is_draft boolean default false);
alter table documents enable row level security;
grant select on documents to anon, authenticated, service_role, vis_owner, vis_editor;
alter publication supabase_realtime add table documents;
";

async fn documents(policies: &str) -> Bench {
    let bench = Bench::new(&format!("{DOCUMENTS}{policies}")).await;
    bench
        .watch(1, &identity("authenticated", 1), "documents")
        .await;
    bench
        .watch(2, &identity("authenticated", 2), "documents")
        .await;
    bench.watch(3, &identity("anon", 1), "documents").await;
    bench
        .watch(4, &identity("service_role", 4), "documents")
        .await;
    bench
}

fn insert(id: u32, owner: u32) -> String {
    format!(
        "insert into documents values ({id}, '{}', 'team{owner}', 'text')",
        user(owner)
    )
}

/// Returns the channels that receive a new document of this owner. None of the channels may receive
/// an error.
async fn readers(bench: &Bench, id: u32, owner: u32) -> Vec<u32> {
    let condition = format!("id = {id}");
    let seen = bench
        .insert("documents", &insert(id, owner), &condition)
        .await;
    let readers: Vec<u32> = seen[0].rows.iter().copied().collect();
    assert_eq!(seen, [rows(&readers)]);
    readers
}

#[tokio::test]
async fn without_any_policy_only_roles_that_bypass_row_security_see_rows() {
    let bench = documents("").await;
    assert_eq!(readers(&bench, 1, 1).await, [4]);
}

#[tokio::test]
async fn permissive_policies_add_rows_and_restrictive_ones_remove_them() {
    let bench = documents(
        "create policy own on documents for select to authenticated using (owner = auth.uid());
         create policy team on documents using (team = auth.jwt() ->> 'team');
         create policy never_secret on documents as restrictive using (body is distinct from 'secret');
         create policy writers on documents for insert to anon with check (true);",
    )
    .await;
    // The claims of anon contain the subject and team of user 1, but only the second policy applies
    // to anon.
    assert_eq!(readers(&bench, 1, 1).await, [1, 3, 4]);
    assert_eq!(readers(&bench, 2, 2).await, [2, 4]);
    let secret = insert(3, 1).replace("'text'", "'secret'");
    assert_eq!(
        bench.insert("documents", &secret, "id = 3").await,
        [rows(&[4])]
    );
}

#[tokio::test]
async fn owners_bypass_unless_forced_and_memberships_count() {
    let bench = documents(
        "create policy editors on documents to vis_editor using (true);
         alter table documents owner to vis_owner;",
    )
    .await;
    for (n, role) in [
        (5, "vis_owner"),
        (6, "vis_heir"),
        (7, "vis_editor"),
        (8, "vis_editor_member"),
    ] {
        bench.watch(n, &identity(role, n), "documents").await;
    }
    assert_eq!(readers(&bench, 1, 1).await, [4, 5, 6, 7, 8]);
    bench
        .run("alter table documents force row level security")
        .await;
    assert_eq!(readers(&bench, 2, 1).await, [4, 7, 8]);
}

#[tokio::test]
async fn a_table_without_row_security_is_visible_to_all_who_may_select() {
    let bench = Bench::new(
        "create table open (id int primary key, a text, b text);
         grant select on open to authenticated; grant select (id, a) on open to anon;
         alter publication supabase_realtime add table open;",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "open").await;
    bench.watch(2, &identity("anon", 1), "open").await;
    bench.watch(3, &identity("vis_editor", 1), "open").await;
    let seen = bench
        .insert("open", "insert into open values (1, 'a', 'b')", "true")
        .await;
    assert_eq!(seen[0].rows, [1, 2].into());
    assert_eq!(seen[0].refused, [(3, "Error 401: Unauthorized")].into());
}

#[tokio::test]
async fn a_setting_hides_changes_from_roles_that_may_select_nothing() {
    const SCHEMA: &str = "create table closed (id int primary key);
         grant select on closed to authenticated;
         alter publication supabase_realtime add table closed;
         create table keyless (id int);
         grant select on keyless to authenticated;
         alter publication supabase_realtime add table keyless;";
    for tell_unauthorized in [true, false] {
        let config = VisibilityConfig {
            tell_unauthorized,
            ..strict()
        };
        let bench = Bench::with(config, SCHEMA).await;
        for table in ["closed", "keyless"] {
            let base = if table == "closed" { 0 } else { 10 };
            bench
                .watch(base + 1, &identity("authenticated", 1), table)
                .await;
            bench.watch(base + 2, &identity("anon", 1), table).await;
        }
        let seen = bench
            .insert("closed", "insert into closed values (1)", "true")
            .await;
        assert_eq!(seen[0].rows, [1].into());
        let told: &[_] = match tell_unauthorized {
            true => &[(2, "Error 401: Unauthorized")],
            false => &[],
        };
        assert_eq!(seen[0].refused, told.iter().copied().collect());
        // The setting concerns only rights. The error for a table without a primary key is still
        // sent.
        let seen = bench
            .insert("keyless", "insert into keyless values (1)", "true")
            .await;
        let why = "Error 400: Bad Request, no primary key";
        assert_eq!(seen[0].refused, [(11, why), (12, why)].into());
    }
}

#[tokio::test]
async fn without_usage_on_the_schema_nothing_is_visible() {
    let bench = Bench::new(
        "create schema hidden; create table hidden.t (id int primary key);
         grant select on hidden.t to authenticated;
         alter publication supabase_realtime add table hidden.t;
         insert into hidden.t values (1);",
    )
    .await;
    bench
        .subscribe(
            1,
            &identity("authenticated", 1),
            json!({"schema": "hidden", "table": "t"}),
        )
        .await
        .unwrap();
    let relation = bench.relation_in("hidden", "t").await;
    let new = bench.images(&relation, "true").await.remove(0);
    let seen = bench.seen(&relation, vec![RowChange::Insert { new }]).await;
    assert_eq!(seen[0].refused, [(1, "Error 401: Unauthorized")].into());
}

#[tokio::test]
async fn membership_through_a_function_in_a_schema_without_usage() {
    let bench = documents(
        "create table private.members (team text, who uuid);
         create function private.is_member(team text) returns boolean language sql security definer stable
           set search_path = '' as
           $$ select exists (select from private.members m where m.team = $1 and m.who = auth.uid()) $$;
         create policy members on documents for select to authenticated using (private.is_member(team));",
    )
    .await;
    bench
        .run(&format!(
            "insert into private.members values ('team1', '{}')",
            user(2)
        ))
        .await;
    assert_eq!(readers(&bench, 1, 1).await, [2, 4]);
    // The role has lost a right that `select` needs, so the rows are hidden.
    bench
        .run("revoke execute on function private.is_member from public")
        .await;
    let seen = bench.insert("documents", &insert(2, 1), "id = 2").await;
    assert_eq!(seen[0].rows, [4].into());
    assert_eq!(
        seen[0].unanswered.keys().copied().collect::<Vec<_>>(),
        [1, 2]
    );
}

#[tokio::test]
async fn a_sub_select_sees_what_the_caller_may_see() {
    let bench = documents(
        "create table members (team text, who uuid);
         alter table members enable row level security;
         grant select on members to authenticated;
         create policy own on members using (who = auth.uid());
         create policy members on documents for select to authenticated
           using (exists (select 1 from members m where m.team = documents.team));",
    )
    .await;
    bench
        .run(&format!(
            "insert into members values ('team1', '{}')",
            user(2)
        ))
        .await;
    assert_eq!(readers(&bench, 1, 1).await, [2, 4]);
}

#[tokio::test]
async fn a_sub_select_under_row_security_together_with_a_function_out_of_reach() {
    let bench = documents(
        "create table members (team text, who uuid);
         alter table members enable row level security;
         grant select on members to authenticated;
         create policy own on members using (who = auth.uid());
         create function private.is_open(body text) returns boolean language sql stable as $$ select body <> 'closed' $$;
         create policy members on documents for select to authenticated
           using (private.is_open(body) and team in (select m.team from members m));",
    )
    .await;
    bench
        .run(&format!(
            "insert into members values ('team1', '{}')",
            user(2)
        ))
        .await;
    assert_eq!(readers(&bench, 1, 1).await, [2, 4]);
}

#[tokio::test]
async fn whole_rows_and_system_columns_in_policies() {
    let bench = documents(
        "create function private.may_see(d documents) returns boolean language sql stable as
           $$ select d.owner = auth.uid() and d.body = 'a \"q\" \\, (text)' $$;
         create policy whole on documents for select to authenticated using (private.may_see(documents));",
    )
    .await;
    let quoted = insert(1, 2).replace("'text'", "'a \"q\" \\, (text)'");
    assert_eq!(
        bench.insert("documents", &quoted, "id = 1").await,
        [rows(&[2, 4])]
    );
    bench
        .run(
            "drop policy whole on documents;
             create policy system on documents for select to authenticated
               using (owner = auth.uid() and tableoid = 'public.documents'::regclass);",
        )
        .await;
    assert_eq!(readers(&bench, 2, 2).await, [2, 4]);
}

#[tokio::test]
async fn a_draft_is_never_shown_even_if_it_is_published_before_the_check() {
    let bench = documents(
        "create policy published on documents for select to authenticated using (not is_draft);",
    )
    .await;
    let relation = bench.relation("documents").await;
    bench
        .run("insert into documents values (1, null, 'team1', 'draft', true)")
        .await;
    let draft = bench.images(&relation, "id = 1").await.remove(0);
    bench
        .run("update documents set is_draft = false, body = 'final'")
        .await;
    let published = bench.images(&relation, "id = 1").await.remove(0);
    bench.run("delete from documents").await;
    let seen = bench
        .seen(
            &relation,
            vec![
                RowChange::Insert { new: draft },
                RowChange::Update {
                    old: None,
                    new: published,
                },
            ],
        )
        .await;
    assert_eq!(seen, [rows(&[4]), rows(&[1, 2, 4])]);
}

#[tokio::test]
async fn a_failing_row_does_not_affect_others() {
    let bench = documents(
        "create policy number on documents for select to authenticated using (body::int > 0);",
    )
    .await;
    let values: Vec<_> = (1..=20)
        .map(|id| {
            format!(
                "({id}, null, 't', '{}')",
                if id == 13 {
                    "poison".to_owned()
                } else {
                    (id % 2).to_string()
                }
            )
        })
        .collect();
    let seen = bench
        .insert(
            "documents",
            &format!("insert into documents values {}", values.join(",")),
            "true",
        )
        .await;
    for (id, seen) in (1..).zip(seen) {
        if id == 13 {
            assert_eq!(seen.rows, [4].into());
            assert_eq!(seen.unanswered.keys().copied().collect::<Vec<_>>(), [1, 2]);
            assert!(
                seen.unanswered[&1].contains("22P02") && !seen.unanswered[&1].contains("poison")
            );
        } else {
            assert_eq!(
                seen,
                if id % 2 == 1 {
                    rows(&[1, 2, 4])
                } else {
                    rows(&[4])
                },
                "row {id}"
            );
        }
    }
    assert_eq!(bench.metrics.unanswered.get(), 2);
}

#[tokio::test]
async fn a_failing_policy_does_not_show_which_filters_a_hidden_row_satisfies() {
    let bench = documents(
        "create policy members on documents for select to authenticated
           using (team = ((current_setting('request.jwt.claims')::json ->> 'team')::int)::text);",
    )
    .await;
    // With the claims of channels 1, 2 and 3, the policy fails. Those of channel 5 are valid.
    let failing = identity("authenticated", 1);
    let valid = claims("authenticated", &json!({"sub": user(5), "team": "7"}));
    let filters = [
        (1, &failing, "body=eq.secret,id=gt.0"),
        (2, &failing, "body=like.sec%"),
        (5, &valid, "body=eq.secret"),
    ];
    for (n, who, filter) in filters {
        let params = json!({"schema": "public", "table": "documents", "filter": filter});
        bench.subscribe(n, who, params).await.unwrap();
    }
    let insert =
        |id: u32, body: &str| format!("insert into documents values ({id}, null, '7', '{body}')");
    let seen = bench
        .insert("documents", &insert(10, "secret"), "id = 10")
        .await;
    assert_eq!(seen, [rows(&[4, 5])], "only filters");
    // A subscription without a filter receives the error for every row.
    bench.watch(3, &failing, "documents").await;
    for (id, body, readers) in [(11, "secret", &[4, 5][..]), (12, "other", &[4])] {
        let seen = bench
            .insert("documents", &insert(id, body), &format!("id = {id}"))
            .await;
        assert_eq!(seen[0].rows, readers.iter().copied().collect(), "{body}");
        assert_eq!(
            seen[0].unanswered.keys().copied().collect::<Vec<_>>(),
            [3],
            "{body}"
        );
        assert!(seen[0].unanswered[&3].contains("22P02"));
    }
}

#[tokio::test]
async fn a_policy_that_always_fails_costs_few_executions() {
    let bench = documents(
        "create policy number on documents for select to authenticated using (body::int > 0);",
    )
    .await;
    let seen = bench
        .insert(
            "documents",
            "insert into documents select n, null, 't', 'poison ' || n from generate_series(1, 400) n",
            "true",
        )
        .await;
    for seen in seen {
        assert_eq!(seen.unanswered.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }
    let halvings = bench.metrics.bisections.get();
    assert!(halvings <= 2 * 64, "{halvings}");
}

#[tokio::test]
async fn a_policy_that_never_ends_is_cancelled() {
    let config = VisibilityConfig {
        statement_timeout: Duration::from_millis(200),
        ..strict()
    };
    let bench = Bench::with(
        config,
        &format!(
            "{DOCUMENTS} create policy slow on documents for select to authenticated
           using (case when body = 'slow' then pg_sleep(60) is not null else true end);"
        ),
    )
    .await;
    bench
        .watch(1, &identity("authenticated", 1), "documents")
        .await;
    let seen = bench
        .insert(
            "documents",
            "insert into documents values (1, null, 't', 'slow'), (2, null, 't', 'fast')",
            "true",
        )
        .await;
    assert!(seen[0].unanswered[&1].contains("57014"));
    assert_eq!(seen[1], rows(&[1]));
}

#[tokio::test]
async fn settings_made_by_a_policy_do_not_reach_the_next_identity() {
    let bench = documents(
        "create function private.cached_uid() returns uuid language plpgsql as $$
         begin
           if coalesce(current_setting('app.uid', true), '') = '' then
             perform set_config('app.uid', auth.uid()::text, false);
           end if;
           return current_setting('app.uid')::uuid;
         end $$;
         create policy own on documents for select to authenticated using (owner = private.cached_uid());",
    )
    .await;
    for n in 10..60 {
        bench
            .watch(n, &identity("authenticated", n), "documents")
            .await;
    }
    assert_eq!(readers(&bench, 1, 33).await, [4, 33]);
}

#[tokio::test]
async fn a_function_wrongly_declared_immutable_does_not_mix_callers() {
    let bench = documents(
        "create function private.uid() returns uuid language sql immutable as
           $$ select (current_setting('request.jwt.claims')::jsonb ->> 'sub')::uuid $$;
         create policy own on documents for select to authenticated using (owner = private.uid());",
    )
    .await;
    for n in 10..40 {
        bench
            .watch(n, &identity("authenticated", n), "documents")
            .await;
    }
    assert_eq!(readers(&bench, 1, 33).await, [4, 33]);
    assert_eq!(readers(&bench, 2, 12).await, [4, 12]);
}

#[tokio::test]
async fn unchanged_toast_comes_from_the_old_image_or_the_stored_row() {
    let bench = documents(
        "create policy long on documents for select to authenticated using (body = repeat('x', 10));",
    )
    .await;
    bench
        .run("insert into documents values (1, null, 't', repeat('x', 10))")
        .await;
    let relation = bench.relation("documents").await;
    let full = bench.images(&relation, "id = 1").await.remove(0);
    let mut partial = full.clone();
    partial.0[3] = ColumnValue::Unchanged;
    let before = bench.metrics.asked_by_key.get();
    let with_old = RowChange::Update {
        old: Some(rapport::change::OldRow::Full(full)),
        new: partial.clone(),
    };
    assert_eq!(
        bench.seen(&relation, vec![with_old]).await,
        [rows(&[1, 2, 4])]
    );
    assert_eq!(bench.metrics.asked_by_key.get(), before);
    let alone = RowChange::Update {
        old: None,
        new: partial,
    };
    assert_eq!(
        bench.seen(&relation, vec![alone.clone()]).await,
        [rows(&[1, 2, 4])]
    );
    assert!(bench.metrics.asked_by_key.get() > before);
    bench.run("delete from documents").await;
    assert_eq!(bench.seen(&relation, vec![alone]).await, [rows(&[4])]);
}

#[tokio::test]
async fn generated_columns_that_cannot_be_computed_are_checked_by_key() {
    let bench = Bench::new(
        "create table g (id int primary key, a int, doubled int generated always as (a * 2) stored);
         alter table g enable row level security; grant select on g to authenticated;
         create policy p on g using (doubled > 10);
         alter publication supabase_realtime add table g;",
    )
    .await;
    bench.watch(1, &identity("authenticated", 1), "g").await;
    let seen = bench
        .insert("g", "insert into g values (1, 5), (2, 6)", "true")
        .await;
    assert_eq!(seen, [Seen::default(), rows(&[1])]);
}

#[tokio::test]
async fn settings_exist_in_both_conventions() {
    let bench = documents(
        "create policy old_style on documents for select to authenticated using (
           owner::text = current_setting('request.jwt.claim.sub', true)
           and current_setting('request.jwt.claim.role', true) = current_user);",
    )
    .await;
    assert_eq!(readers(&bench, 1, 2).await, [2, 4]);
    let odd = claims(
        "authenticated",
        &json!({"sub": 5, "x": "a'b\"\\ü\u{1f600}"}),
    );
    bench.watch(9, &odd, "documents").await;
    assert_eq!(readers(&bench, 2, 1).await, [1, 4]);
}

#[tokio::test]
async fn a_policy_without_using_shows_nothing() {
    let bench = documents("create policy writers on documents with check (true);").await;
    assert_eq!(readers(&bench, 1, 1).await, [4]);
}
