//! The login is not a superuser. Queries are prepared with its rights and executed with those of
//! the subscriber.

use rapport::change::RowChange;
use uuid::Uuid;

use super::bench::{Bench, identity, strict, user};
use crate::support::database::TestDatabase;

/// Returns `url` with a different user.
fn as_user(url: &str, user: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (_, address) = rest.split_once('@').unwrap();
    format!("{scheme}://{user}:secret@{address}")
}

#[tokio::test]
async fn a_login_without_superuser_executes_as_roles_granted_to_it() {
    let database = TestDatabase::bare().await;
    let login = format!("vis_login_{}", Uuid::new_v4().simple());
    let sql = format!(
        "create role {login} login noinherit password 'secret';
         grant anon, authenticated, service_role, rapport_request to {login};
         grant usage, create on schema private to {login};
         grant create on schema public to {login};
         create table secrets (team text, who uuid);
         set role {login};
         create table t (id int primary key, team text);
         alter table t enable row level security;
         grant select on t to authenticated;
         reset role;
         grant usage on schema private to {login};
         create function private.is_member(wanted text) returns boolean language sql stable security definer as
           $$ select exists (select from public.secrets s where s.team = wanted and s.who = auth.uid()) $$;
         create policy members on t for select to authenticated using (private.is_member(team));
         insert into secrets values ('a', '{}');
         alter publication supabase_realtime add table t;",
        user(2)
    );
    let bench = Bench::logged_in(
        database.url(),
        &as_user(database.url(), &login),
        strict(),
        &sql,
    )
    .await;
    for n in 1..=3 {
        bench.watch(n, &identity("authenticated", n), "t").await;
    }
    bench.watch(4, &identity("service_role", 4), "t").await;
    bench
        .run("grant select on t to service_role; insert into t values (1, 'a')")
        .await;
    let relation = bench.relation("t").await;
    let new = bench.images(&relation, "true").await.remove(0);
    let insert = || vec![RowChange::Insert { new: new.clone() }];
    let seen = bench.seen(&relation, insert()).await;
    assert_eq!(seen[0].rows, [2, 4].into());
    assert!(seen[0].unanswered.is_empty());

    // The login may no longer assume this role. The query must fail instead of running with other
    // rights.
    bench
        .run(&format!("revoke authenticated from {login}"))
        .await;
    let seen = bench.seen(&relation, insert()).await;
    assert_eq!(seen[0].rows, [4].into());
    assert_eq!(seen[0].unanswered.len(), 3);
    bench.run(&format!("grant authenticated to {login}")).await;
    let seen = bench.seen(&relation, insert()).await;
    assert_eq!(seen[0].rows, [2, 4].into());

    drop(bench);
    // Roles outlive their database, so the login is dropped here.
    let admin = database.connect().await;
    admin
        .batch_execute(&format!(
            "reassign owned by {login} to current_user; drop owned by {login} cascade; drop role {login}"
        ))
        .await
        .unwrap();
}
