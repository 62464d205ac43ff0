//! Presence reports of hidden users must leave no trace in rows that other users read. Even a lock
//! would change `xmax`.
//!
//! Each statement is a separate transaction, because within one transaction, an earlier lock on a
//! row would hide a later one.

use tokio_postgres::Client;

use super::database;
use crate::support::chat_server::Person::{self, Ana, Ben, Zoe};

/// Returns the rows of users and their presence, with the system columns.
const TRACES: &str = "
    select 'presence of ' || u.full_name, (p.xmin, p.xmax, p.ctid, p.*)::text
    from public.user_presence p join public.users u on u.id = p.user_id
    union all
    select 'user ' || u.full_name, (u.xmin, u.xmax, u.ctid, u.*)::text from public.users u
    order by 1";

async fn traces(owner: &Client) -> Vec<(String, String)> {
    let rows = owner.query(TRACES, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Runs a statement as this user.
async fn run_as(client: &Client, person: Person, statement: &str) {
    let claims = format!(r#"{{"sub":"{}","role":"authenticated"}}"#, person.id());
    let sql = format!(
        "begin; set local role authenticated;
         select set_config('request.jwt.claims', '{claims}', true); {statement}; commit"
    );
    client.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn reports_of_hidden_users_lock_no_row_that_others_read() {
    let database = database().await;
    let (owner, client) = (database.connect().await, database.connect().await);
    owner
        .batch_execute(
            "update chat.config set value = 'true' where key in ('typing_in_table', 'share_current_page')",
        )
        .await
        .unwrap();
    // Ana has a row and hides. Zoe hides and never had a row. Ben appears offline.
    for (person, statement) in [
        (Ana, "select chat.set_presence('online', session_id => 'a')"),
        (
            Ana,
            r#"select chat.set_preferences('{"share_presence": false}')"#,
        ),
        (
            Zoe,
            r#"select chat.set_preferences('{"share_presence": false}')"#,
        ),
        (Ben, "select chat.set_presence('online', session_id => 'a')"),
        (
            Ben,
            "select chat.set_presence('offline', is_manual => true)",
        ),
        (
            Ana,
            &format!("select chat.open_conversation('{}')", Ben.id()),
        ),
    ] {
        run_as(&client, person, statement).await;
    }
    let before = traces(&owner).await;
    for statement in [
        "select chat.set_presence('online')",
        "select chat.set_presence('away', session_id => 'b', current_page => '/x')",
        "select chat.set_presence('busy', session_id => 'c', is_manual => false)",
        "select chat.set_presence('offline', session_id => 'b')",
        "insert into public.user_presence (user_id, status, current_page) values (auth.uid(), 'online', '/x')
         on conflict do nothing",
        "insert into public.user_presence (user_id, status) values (auth.uid(), 'away') on conflict do nothing",
        "select chat.set_typing(c.id, true) from public.user_conversations c",
        "select chat.end_presence('a')",
        "select chat.end_presence()",
        "select chat.set_presence('online')",
    ] {
        for person in [Ana, Ben, Zoe] {
            run_as(&client, person, statement).await;
            assert_eq!(traces(&owner).await, before, "{person:?}: {statement}");
        }
    }
    // The controls are a lock, and the report of a user who does not hide.
    owner
        .batch_execute("select from public.user_presence for key share")
        .await
        .unwrap();
    let locked = traces(&owner).await;
    assert_ne!(locked, before);
    run_as(
        &client,
        Ben,
        "select chat.set_presence('online', is_manual => true)",
    )
    .await;
    assert_ne!(traces(&owner).await, locked);
}
