//! A transaction or statement that began before a right was revoked cannot use that right.

use tokio_postgres::Client;
use uuid::Uuid;

use super::{begin_as, database};
use crate::support::chat_server::Person::{self, Ana, Ben};
use crate::support::database::TestDatabase;
use crate::support::eventually::eventually;

/// Ana and Ben, their conversation, and a message from each of them.
pub(super) struct Scene {
    pub(super) owner: Client,
    pub(super) ben: Client,
    ana: Client,
    pub(super) conversation: Uuid,
    pub(super) anas: Uuid,
    pub(super) bens: Uuid,
    pub(super) database: TestDatabase,
}

impl Scene {
    pub(super) async fn start() -> Self {
        let database = database().await;
        let (owner, ana, ben) = (
            database.connect().await,
            database.connect().await,
            database.connect().await,
        );
        owner
            .batch_execute("update chat.config set value = 'true' where key = 'typing_in_table'")
            .await
            .unwrap();
        let open = format!(
            "select conversation_id from chat.open_conversation('{}')",
            Ben.id()
        );
        let conversation = one_as(&ana, Ana, &open).await;
        let send = format!("select message_id from chat.send_message('{conversation}', 'text')");
        let anas = one_as(&ana, Ana, &send).await;
        let bens = one_as(&ben, Ben, &send).await;
        let react = format!(
            "insert into public.message_reactions (message_id, reaction) values ('{anas}', 'early') returning id"
        );
        one_as(&ben, Ben, &react).await;
        let present = "insert into public.user_presence (user_id, status) values (auth.uid(), 'online') returning user_id";
        one_as(&ben, Ben, present).await;
        Self {
            owner,
            ben,
            ana,
            conversation,
            anas,
            bens,
            database,
        }
    }

    /// Returns statements by Ben whose effects other members see.
    fn statements(&self) -> Vec<String> {
        let Self {
            conversation,
            anas,
            bens,
            ..
        } = self;
        vec![
            format!(
                "insert into public.message_reactions (message_id, reaction) values ('{anas}', 'late')"
            ),
            format!("delete from public.message_reactions where message_id = '{anas}'"),
            format!("select chat.react('{anas}', 'late')"),
            format!("select chat.pin_message('{anas}')"),
            format!("update public.user_messages set content = 'late' where id = '{bens}'"),
            format!("update public.user_messages set is_deleted = true where id = '{bens}'"),
            format!("select chat.edit_message('{bens}', 'late')"),
            format!("select chat.delete_message('{bens}')"),
            format!(
                "insert into public.user_messages (conversation_id, sender_id, content) values ('{conversation}', auth.uid(), 'late')"
            ),
            format!("select chat.send_message('{conversation}', 'late')"),
            format!("select chat.mark_delivered('{conversation}', 2)"),
        ]
    }

    /// Returns everything that a member sees of the conversation.
    pub(super) async fn seen(&self) -> String {
        let query = "
            select string_agg(t.row, e'\\n' order by t.row)
            from (
              select m::text as row from public.user_messages m
              union all select r::text from public.message_reactions r
              union all select p::text from public.message_pins p
              union all select r::text from public.conversation_receipts r
              union all select is_typing_to::text from public.user_presence
            ) t";
        self.owner.query_one(query, &[]).await.unwrap().get(0)
    }
}

/// Returns the id that a statement of this user returns.
pub(super) async fn one_as(client: &Client, person: Person, statement: &str) -> Uuid {
    begin_as(client, person, "read committed").await;
    let id = client.query_one(statement, &[]).await.unwrap().get(0);
    client.batch_execute("commit").await.unwrap();
    id
}

#[tokio::test]
async fn a_transaction_from_before_a_revocation_changes_nothing_that_others_see() {
    let scene = Scene::start().await;
    let block = format!(
        "insert into public.user_blocks (blocker_id, blocked_id) values ('{}', '{}')",
        Ana.id(),
        Ben.id()
    );
    let suspension = format!(
        "update public.users set status = 'suspended' where id = '{}'",
        Ben.id()
    );
    let removal = format!(
        "update public.user_conversation_members set left_at = now() where user_id = '{}'",
        Ben.id()
    );
    // The control: Ben may run all of these statements.
    for statement in scene.statements() {
        begin_as(&scene.ben, Ben, "read committed").await;
        let done = scene.ben.batch_execute(&statement).await;
        assert!(done.is_ok(), "{statement}: {done:?}");
        scene.ben.batch_execute("rollback").await.unwrap();
    }
    for revocation in [block, suspension, removal] {
        for level in ["repeatable read", "serializable"] {
            let mut old = Vec::new();
            for _ in scene.statements() {
                let client = scene.database.connect().await;
                begin_as(&client, Ben, level).await;
                client
                    .batch_execute("select count(*) from public.user_messages")
                    .await
                    .unwrap();
                old.push(client);
            }
            scene.owner.batch_execute(&revocation).await.unwrap();
            let before = scene.seen().await;
            for (client, statement) in old.iter().zip(scene.statements()) {
                let refused = client.batch_execute(&statement).await;
                let code = refused.map_err(|error| error.code().map(|code| code.code().to_owned()));
                assert_eq!(
                    code,
                    Err(Some("PT422".to_owned())),
                    "{revocation}, {statement}"
                );
                let _ = client.batch_execute("commit").await;
                assert_eq!(scene.seen().await, before, "{revocation}, {statement}");
            }
            scene
                .owner
                .batch_execute(
                    "delete from public.user_blocks; update public.users set status = 'active';
                     update public.user_conversation_members set left_at = null",
                )
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn typing_from_before_a_block_is_not_shown() {
    let scene = Scene::start().await;
    let typing = [
        format!(
            "update public.user_presence set is_typing_to = '{}' where user_id = auth.uid()",
            Ana.id()
        ),
        format!("select chat.set_typing('{}', true)", scene.conversation),
    ];
    let shown = async || -> i64 {
        let query = "select count(*) from public.user_presence where is_typing_to is not null";
        scene.owner.query_one(query, &[]).await.unwrap().get(0)
    };
    for statement in &typing {
        begin_as(&scene.ben, Ben, "read committed").await;
        scene.ben.batch_execute(statement).await.unwrap();
        scene.ben.batch_execute("commit").await.unwrap();
        assert_eq!(shown().await, 1, "{statement}");
        scene
            .owner
            .batch_execute("update public.user_presence set is_typing_to = null")
            .await
            .unwrap();
        begin_as(&scene.ben, Ben, "repeatable read").await;
        scene
            .ben
            .batch_execute("select count(*) from public.user_messages")
            .await
            .unwrap();
        begin_as(&scene.ana, Ana, "read committed").await;
        let block = format!("select chat.block('{}')", Ben.id());
        scene.ana.batch_execute(&block).await.unwrap();
        scene.ana.batch_execute("commit").await.unwrap();
        let _ = scene.ben.batch_execute(statement).await;
        let _ = scene.ben.batch_execute("commit").await;
        assert_eq!(shown().await, 0, "{statement}");
        scene
            .owner
            .batch_execute("delete from public.user_blocks")
            .await
            .unwrap();
    }
}

/// A statement checks its policies with the snapshot taken when it begins.
#[tokio::test]
async fn a_statement_from_before_a_revocation_changes_nothing_that_others_see() {
    let scene = Scene::start().await;
    let Scene {
        conversation,
        bens,
        anas,
        ..
    } = &scene;
    let send = format!(
        "insert into public.user_messages (conversation_id, sender_id, content)
         select '{conversation}', auth.uid(), 'late' where pg_advisory_xact_lock(7) is not null"
    );
    let delete = format!(
        "with waited as materialized (select pg_advisory_xact_lock(7))
         update public.user_messages set is_deleted = true from waited where id = '{bens}'"
    );
    let unreact = format!(
        "with waited as materialized (select pg_advisory_xact_lock(7))
         delete from public.message_reactions using waited where message_id = '{anas}'"
    );
    let block = format!(
        "insert into public.user_blocks (blocker_id, blocked_id) values ('{}', '{}')",
        Ana.id(),
        Ben.id()
    );
    let removal = format!(
        "update public.user_conversation_members set left_at = now() where user_id = '{}'",
        Ben.id()
    );
    for (revocation, statement) in [
        (&block, &send),
        (&removal, &send),
        (&removal, &delete),
        (&removal, &unreact),
    ] {
        let holder = scene.database.connect().await;
        holder
            .batch_execute("select pg_advisory_lock(7)")
            .await
            .unwrap();
        begin_as(&scene.ben, Ben, "read committed").await;
        let release = async {
            eventually("the statement has begun", async || {
                let query = "select count(*) from pg_locks where locktype = 'advisory' and not granted
                    and database = (select oid from pg_database where datname = current_database())";
                let waiting: i64 = scene.owner.query_one(query, &[]).await.unwrap().get(0);
                (waiting == 1).then_some(())
            })
            .await;
            scene.owner.batch_execute(revocation).await.unwrap();
            let before = scene.seen().await;
            holder
                .batch_execute("select pg_advisory_unlock_all()")
                .await
                .unwrap();
            before
        };
        let (_, before) = tokio::join!(scene.ben.batch_execute(statement), release);
        let _ = scene.ben.batch_execute("commit").await;
        assert_eq!(scene.seen().await, before, "{revocation}, {statement}");
        scene
            .owner
            .batch_execute(
                "delete from public.user_blocks;
                 update public.user_conversation_members set left_at = null",
            )
            .await
            .unwrap();
    }
}
