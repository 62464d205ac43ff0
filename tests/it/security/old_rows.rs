//! An UPDATE that makes a row visible to a subscriber must not reveal the earlier, invisible
//! version.

use serde_json::{Value, json};

use super::{database, join};
use crate::support::chat_server::Person::{self, Ana, Ben};
use crate::support::socket::PhoenixSocket;
use crate::support::token::user_token;
use crate::support::whole_server::WholeServer;

const CASES: &str = "
    create table public.cases (id int primary key, assignee uuid not null, notes text not null);
    alter table public.cases replica identity full;
    alter table public.cases enable row level security;
    create policy own on public.cases for select to authenticated using (assignee = (select auth.uid()));
    grant select on public.cases to authenticated;
    alter publication supabase_realtime add table public.cases;";

async fn follow(server: &WholeServer, person: Person) -> PhoenixSocket {
    let binding = json!({ "event": "UPDATE", "schema": "public", "table": "cases" });
    let config = json!({ "postgres_changes": [binding], "presence": { "enabled": false } });
    let token = user_token(person.id());
    let (mut socket, reason) = join(server.address(), &token, "cases", config).await;
    assert_eq!(reason, None);
    let (status, text) = socket.expect_system("realtime:cases").await;
    assert_eq!(status, "ok", "{text}");
    socket
}

/// Returns `record` and `old_record` of the next change.
async fn next(socket: &mut PhoenixSocket) -> (Value, Value) {
    let mut message = socket.expect("realtime:cases", "postgres_changes").await;
    let data = &mut message.payload["data"];
    (data["record"].take(), data["old_record"].take())
}

#[tokio::test]
async fn an_earlier_version_of_a_row_is_shown_only_to_users_who_could_see_it() {
    let database = database().await;
    let owner = database.connect().await;
    owner.batch_execute(CASES).await.unwrap();
    let (ana, ben) = (Ana.id(), Ben.id());
    owner
        .batch_execute(&format!(
            "insert into cases values (1, '{ben}', 'about Ana')"
        ))
        .await
        .unwrap();
    let case = |assignee, notes| json!({ "id": 1, "assignee": assignee, "notes": notes });
    for (settings, moved) in [
        (vec![], json!({ "id": 1 })),
        (
            vec![(
                "RAPPORT_VISIBILITY_TABLES_WITH_UNCHECKED_OLD_ROWS",
                "public.cases",
            )],
            case(ben, "about Ana"),
        ),
    ] {
        let server = WholeServer::start(database.url(), &settings)
            .await
            .ready()
            .await;
        let mut anas = follow(&server, Ana).await;
        let mut bens = follow(&server, Ben).await;
        let steps = format!(
            "update cases set assignee = '{ana}', notes = 'for Ana';
             update cases set notes = 'more';
             update cases set assignee = '{ben}', notes = 'about Ana';"
        );
        owner.batch_execute(&steps).await.unwrap();
        // The control: `old_record` is the version that Ana could see.
        let expected = [
            (case(ana, "for Ana"), moved.clone()),
            (case(ana, "more"), case(ana, "for Ana")),
        ];
        assert_eq!([next(&mut anas).await, next(&mut anas).await], expected);
        // Ben receives the row when it returns to him. Only with the setting, he also receives the
        // version in between, which he could not see.
        let (record, old) = next(&mut bens).await;
        assert_eq!(record, case(ben, "about Ana"));
        let hidden = if settings.is_empty() {
            json!({ "id": 1 })
        } else {
            case(ana, "more")
        };
        assert_eq!(old, hidden);
    }
}
