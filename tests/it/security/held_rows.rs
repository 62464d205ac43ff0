//! Users who keep their own rows locked delay only themselves. They never delay the statements that
//! the server runs for many users.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{begin_as, database};
use crate::support::chat_server::Person::{self, Ana, Ben, Sue, Zoe};

const NOBODY: [Uuid; 0] = [];

/// Prepares the connection of the server's login. A statement that waits for a user fails the test
/// within seconds.
async fn server(owner: &Client) {
    owner
        .batch_execute("set lock_timeout = '5s'")
        .await
        .unwrap();
}

/// Runs a statement as this user, in a separate transaction.
async fn run_as(client: &Client, person: Person, statement: &str) {
    begin_as(client, person, "read committed").await;
    client.batch_execute(statement).await.unwrap();
    client.batch_execute("commit").await.unwrap();
}

/// Runs a statement as Zoe, who then keeps its locks until [`release`].
async fn hold(client: &Client, statement: &str) {
    begin_as(client, Zoe, "read committed").await;
    client.batch_execute(statement).await.unwrap();
}

async fn release(client: &Client) {
    client.batch_execute("rollback").await.unwrap();
}

async fn ids(client: &Client, query: &str) -> Vec<Uuid> {
    let rows = client.query(query, &[]).await;
    let rows = rows.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Returns the status and the number of devices from the published row.
async fn shown(owner: &Client, person: Person) -> (String, i32) {
    let query = "select status, device_count from public.user_presence where user_id = $1";
    let row = owner.query_opt(query, &[&person.id()]).await.unwrap();
    row.map_or_else(|| ("none".to_owned(), 0), |row| (row.get(0), row.get(1)))
}

/// The process that reports sockets in these tests.
const PROCESS: Uuid = Uuid::from_u128(1);

/// Reports one socket of Ana and one of Zoe. Returns the users who must be reported again.
async fn report_both(owner: &Client) -> Vec<Uuid> {
    let query = format!(
        "select unnest(chat.report_devices('{PROCESS}', array['{}', '{}']::uuid[], array[1, 1], array[true, true]))",
        Ana.id(),
        Zoe.id()
    );
    ids(owner, &query).await
}

async fn take_lease(owner: &Client) {
    let query = format!("select chat.keep_presence('{PROCESS}', 60000)");
    owner.batch_execute(&query).await.unwrap();
}

const VISIBLE_ROW: &str =
    "select user_id from public.user_presence where user_id = auth.uid() for update";
const REPORTS: &str = "select chat.lock_own_presence()";
const ROW_OF_APPLICATION: &str = "select id from public.users where id = auth.uid() for update";

#[tokio::test]
async fn a_held_row_does_not_keep_the_presence_of_others_from_ending() {
    let database = database().await;
    let (owner, zoe, other) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    server(&owner).await;
    // Presence ends for expired reports, for the sockets of a dead process, and for the sockets
    // before a crash.
    let reports = "
        update chat.presence_reports set expires_at = now() - interval '1 second';
        update chat.presence_report_sessions set expires_at = now() - interval '1 second'";
    let process = "update chat.presence_processes set lease_until = now() - interval '1 second'";
    let crash = "delete from chat.presence_processes";
    for held in [VISIBLE_ROW, REPORTS] {
        for ending in [reports, process, crash] {
            if ending == reports {
                for person in [Ana, Zoe] {
                    let report = "select chat.set_presence('online', session_id => 'a')";
                    run_as(&other, person, report).await;
                }
            } else {
                take_lease(&owner).await;
                assert_eq!(report_both(&owner).await, NOBODY);
            }
            assert_eq!(shown(&owner, Ana).await, ("online".to_owned(), 1));
            owner.batch_execute(ending).await.unwrap();

            hold(&zoe, held).await;
            if ending == crash {
                take_lease(&owner).await;
            } else {
                owner
                    .batch_execute("select chat.expire_presence()")
                    .await
                    .unwrap();
            }
            let what = format!("{held}, {ending}");
            assert_eq!(
                shown(&owner, Ana).await,
                ("offline".to_owned(), 0),
                "{what}"
            );
            assert_eq!(shown(&owner, Zoe).await, ("online".to_owned(), 1), "{what}");
            release(&zoe).await;
            let changed = ids(&owner, "select chat.expire_presence()").await;
            assert_eq!(changed, [Zoe.id()], "{what}");
            assert_eq!(
                shown(&owner, Zoe).await,
                ("offline".to_owned(), 0),
                "{what}"
            );
            let unshown = ids(&owner, "select user_id from chat.presence_unshown").await;
            assert_eq!(unshown, NOBODY, "{what}");
            owner
                .batch_execute("delete from chat.presence_processes")
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_held_row_does_not_keep_others_shown_as_typing() {
    let database = database().await;
    let (owner, zoe, other) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    server(&owner).await;
    for person in [Ana, Zoe] {
        run_as(&other, person, "select chat.set_presence('online')").await;
    }
    owner
        .batch_execute(
            "update public.user_presence
             set is_typing_to = user_id, typing_started_at = now() - interval '1 hour'",
        )
        .await
        .unwrap();
    let typing = "select user_id from public.user_presence where is_typing_to is not null";
    hold(&zoe, VISIBLE_ROW).await;
    owner
        .batch_execute("select chat.expire_presence()")
        .await
        .unwrap();
    assert_eq!(ids(&owner, typing).await, [Zoe.id()]);
    release(&zoe).await;
    owner
        .batch_execute("select chat.expire_presence()")
        .await
        .unwrap();
    assert_eq!(ids(&owner, typing).await, NOBODY);
}

#[tokio::test]
async fn a_held_row_does_not_keep_others_from_being_shown_as_connected() {
    for held in [VISIBLE_ROW, REPORTS] {
        let database = database().await;
        let (owner, zoe, other) = (
            database.connect().await,
            database.connect().await,
            database.connect().await,
        );
        server(&owner).await;
        run_as(&other, Zoe, "select chat.set_presence('away')").await;
        take_lease(&owner).await;
        hold(&zoe, held).await;
        let again = report_both(&owner).await;
        assert_eq!(shown(&owner, Ana).await, ("online".to_owned(), 1), "{held}");
        assert_eq!(shown(&owner, Zoe).await, ("away".to_owned(), 0), "{held}");
        release(&zoe).await;
        if held == REPORTS {
            assert_eq!(again, [Zoe.id()]);
            assert_eq!(report_both(&owner).await, NOBODY);
        } else {
            assert_eq!(again, NOBODY, "the number of sockets is recorded");
            let changed = ids(&owner, "select chat.expire_presence()").await;
            assert_eq!(changed, [Zoe.id()]);
        }
        assert_eq!(shown(&owner, Zoe).await, ("away".to_owned(), 1), "{held}");
    }
}

/// A row that does not exist yet cannot be skipped like a locked row.
#[tokio::test]
async fn a_held_first_row_does_not_keep_others_from_being_shown_as_connected() {
    for held in [REPORTS, ROW_OF_APPLICATION] {
        let database = database().await;
        let (owner, zoe) = (database.connect().await, database.connect().await);
        server(&owner).await;
        take_lease(&owner).await;
        hold(&zoe, held).await;
        assert_eq!(report_both(&owner).await, [Zoe.id()], "{held}");
        assert_eq!(shown(&owner, Ana).await, ("online".to_owned(), 1));
        assert_eq!(shown(&owner, Zoe).await, ("none".to_owned(), 0));
        assert_eq!(report_both(&owner).await, [Zoe.id()], "still held");
        release(&zoe).await;
        assert_eq!(report_both(&owner).await, NOBODY);
        assert_eq!(shown(&owner, Zoe).await, ("online".to_owned(), 1));
    }
}

/// A departure that was postponed because its row was locked is not lost.
#[tokio::test]
async fn a_departure_of_a_held_user_is_reported_again() {
    let database = database().await;
    let (owner, zoe) = (database.connect().await, database.connect().await);
    server(&owner).await;
    take_lease(&owner).await;
    assert_eq!(report_both(&owner).await, NOBODY);
    let gone = format!(
        "select unnest(chat.report_devices('{PROCESS}', array['{}']::uuid[], array[0], array[false]))",
        Zoe.id()
    );
    hold(&zoe, REPORTS).await;
    assert_eq!(ids(&owner, &gone).await, [Zoe.id()]);
    release(&zoe).await;
    assert_eq!(shown(&owner, Zoe).await, ("online".to_owned(), 1));
    assert_eq!(ids(&owner, &gone).await, NOBODY);
    assert_eq!(shown(&owner, Zoe).await, ("offline".to_owned(), 0));
}

#[tokio::test]
async fn a_held_receipt_does_not_keep_the_deliveries_of_others_from_being_recorded() {
    let database = database().await;
    let (owner, zoe, other) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    server(&owner).await;
    let mut conversations = Vec::new();
    for (sender, reader) in [(Ana, Ben), (Sue, Zoe)] {
        let open = format!("select chat.open_conversation('{}')", reader.id());
        run_as(&other, sender, &open).await;
        let query = format!(
            "select id from public.user_conversations where created_by = '{}'",
            sender.id()
        );
        let id = ids(&owner, &query).await[0];
        for _ in 0..2 {
            run_as(
                &other,
                sender,
                &format!("select chat.send_message('{id}', 'x')"),
            )
            .await;
        }
        conversations.push(id);
    }
    let [bens, zoes] = conversations[..] else {
        unreachable!()
    };
    let note = format!(
        "select user_id from chat.note_delivered(
             array['{bens}', '{zoes}']::uuid[], array['{}', '{}']::uuid[], array[2, 2]::bigint[])",
        Ben.id(),
        Zoe.id()
    );
    let delivered =
        "select user_id from public.conversation_receipts where last_delivered_seq = 2 order by 1";

    let own = format!("select chat.mark_delivered('{zoes}', 1)");
    hold(&zoe, &own).await;
    assert_eq!(ids(&owner, &note).await, [Zoe.id()]);
    assert_eq!(ids(&owner, delivered).await, [Ben.id()]);
    release(&zoe).await;
    assert_eq!(ids(&owner, &note).await, NOBODY);
    assert_eq!(ids(&owner, delivered).await, [Ben.id(), Zoe.id()]);
}

#[tokio::test]
async fn an_open_read_of_messages_does_not_keep_old_ones_from_being_deleted() {
    let database = database().await;
    let (owner, zoe) = (database.connect().await, database.connect().await);
    server(&owner).await;
    owner
        .batch_execute(
            "create table realtime.messages_2020_01_01 partition of realtime.messages
                 for values from ('2020-01-01') to ('2020-01-02');
             -- The owner is the one of the partitions that the function creates
             do $$ begin
               execute format('alter table realtime.messages_2020_01_01 owner to %I', (
                 select pg_get_userbyid(c.relowner) from pg_class c where c.oid = 'realtime.messages'::regclass
               ));
             end $$;
             insert into realtime.messages (topic, extension, inserted_at, expires_at) values
                 ('a', 'broadcast', '2020-01-01 12:00', null),
                 ('b', 'broadcast', '2020-01-03 12:00', null),
                 ('c', 'broadcast', now() at time zone 'utc', now() at time zone 'utc' - interval '1 hour'),
                 ('d', 'broadcast', now() at time zone 'utc', now() at time zone 'utc' + interval '1 hour')",
        )
        .await
        .unwrap();
    let maintain = async || -> Option<i32> {
        let query = "select chat.maintain_message_partitions(31)";
        owner.query_one(query, &[]).await.unwrap().get(0)
    };
    let kept = async || -> Vec<String> {
        let query = "select topic from realtime.messages order by 1";
        let rows = owner.query(query, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let partition = async || -> bool {
        let query = "select to_regclass('realtime.messages_2020_01_01') is not null";
        owner.query_one(query, &[]).await.unwrap().get(0)
    };
    hold(&zoe, "select count(*) from realtime.messages").await;
    assert_eq!(maintain().await, None, "partitions must wait");
    assert_eq!(kept().await, ["d"]);
    assert!(partition().await);
    release(&zoe).await;
    assert_eq!(maintain().await, Some(1));
    assert!(!partition().await);
}
