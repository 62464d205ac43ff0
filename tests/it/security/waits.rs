//! A statement that waits for a lock uses no right that is revoked meanwhile. A user can make their
//! own statement wait for as long as they like, with a second database session that holds the lock.

use tokio_postgres::Client;
use uuid::Uuid;

use super::old_snapshots::{Scene, one_as};
use super::{begin_as, database};
use crate::support::chat_server::Person::{Ada, Ana, Ben};
use crate::support::eventually::eventually;

/// A lock that Ben's second session holds, and what happens while his first session waits for it.
struct Wait {
    /// The statement of the second session that takes the lock.
    held: String,
    /// Statements of the first session, each of which waits for the lock.
    statements: Vec<String>,
    /// Statements that revoke Ben's right meanwhile.
    revocations: Vec<String>,
}

/// What Ben's sessions need in addition to the scene.
struct Things {
    /// A message that only the second session touches.
    other: Uuid,
    /// A message that the first session deletes.
    third: Uuid,
    /// Ben's conversation with Ada.
    elsewhere: Uuid,
    /// The id of a message that does not exist.
    id: Uuid,
}

impl Things {
    async fn make(scene: &Scene) -> Self {
        let conversation = scene.conversation;
        let send = format!("select message_id from chat.send_message('{conversation}', 'other')");
        let open = format!(
            "select conversation_id from chat.open_conversation('{}')",
            Ada.id()
        );
        let react = format!(
            "insert into public.message_reactions (message_id, reaction) values ('{}', 'too') returning id",
            scene.anas
        );
        one_as(&scene.ben, Ben, &react).await;
        Self {
            other: one_as(&scene.ben, Ben, &send).await,
            third: one_as(&scene.ben, Ben, &send).await,
            elsewhere: one_as(&scene.ben, Ben, &open).await,
            id: Uuid::from_u128(7),
        }
    }
}

fn waits(scene: &Scene, things: &Things) -> Vec<Wait> {
    let Scene {
        conversation,
        anas,
        bens,
        ..
    } = scene;
    let Things {
        other,
        third,
        elsewhere,
        id,
    } = things;
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
        "update public.user_conversation_members set left_at = now() where conversation_id = '{conversation}' and user_id = '{}'",
        Ben.id()
    );
    let insert = "insert into public.user_messages (conversation_id, sender_id, content";
    let present =
        "select user_id from public.user_presence where user_id = auth.uid() for update".to_owned();
    vec![
        // Ben waits for the conversation. A block would wait for it, too, so it is not among the
        // revocations.
        Wait {
            held: format!("update public.user_messages set content = 'held' where id = '{other}'"),
            statements: vec![
                format!("{insert}) values ('{conversation}', auth.uid(), 'late')"),
                format!("select chat.send_message('{conversation}', 'late')"),
                format!("update public.user_messages set content = 'late' where id = '{bens}'"),
                format!("select chat.edit_message('{bens}', 'later')"),
                format!(
                    "insert into public.message_reactions (message_id, reaction) values ('{anas}', 'late')"
                ),
                format!("select chat.react('{anas}', 'later')"),
                format!("select chat.pin_message('{anas}')"),
            ],
            revocations: vec![suspension.clone(), removal.clone()],
        },
        // Suspended members may still delete their own messages and remove their reactions.
        Wait {
            held: format!("update public.user_messages set content = 'held' where id = '{other}'"),
            statements: vec![
                format!("update public.user_messages set is_deleted = true where id = '{bens}'"),
                format!("select chat.delete_message('{third}')"),
                format!(
                    "delete from public.message_reactions where message_id = '{anas}' and reaction = 'early'"
                ),
                format!("select chat.react('{anas}', 'too', false)"),
            ],
            revocations: vec![removal.clone()],
        },
        // Ben waits for his own membership. A removal would wait for it, too.
        Wait {
            held: format!(
                "update public.user_conversation_members set is_muted = true where conversation_id = '{conversation}'"
            ),
            statements: vec![
                format!("{insert}) values ('{conversation}', auth.uid(), 'late')"),
                format!("select chat.send_message('{conversation}', 'late')"),
            ],
            revocations: vec![suspension.clone()],
        },
        // Ben waits for a row to which a foreign key refers.
        Wait {
            held: format!("select id from public.user_messages where id = '{other}' for update"),
            statements: vec![
                format!(
                    "{insert}, reply_to_id) values ('{conversation}', auth.uid(), 'late', '{other}')"
                ),
                format!(
                    "select chat.send_message('{conversation}', 'late', reply_to_id => '{other}')"
                ),
            ],
            revocations: vec![suspension.clone(), removal.clone()],
        },
        // Ben waits for a unique key.
        Wait {
            held: format!("{insert}, id) values ('{elsewhere}', auth.uid(), 'held', '{id}')"),
            statements: vec![format!(
                "{insert}, id) values ('{conversation}', auth.uid(), 'late', '{id}')"
            )],
            revocations: vec![suspension.clone(), removal.clone()],
        },
        // Ben waits for his own receipt.
        Wait {
            held: format!("select chat.mark_delivered('{conversation}', 1)"),
            statements: vec![format!("select chat.mark_delivered('{conversation}', 9)")],
            revocations: vec![removal.clone()],
        },
        // Ben waits for his own presence row.
        Wait {
            held: present,
            statements: vec![
                format!("select chat.set_typing('{conversation}', true)"),
                format!(
                    "update public.user_presence set is_typing_to = '{}' where user_id = auth.uid()",
                    Ana.id()
                ),
            ],
            revocations: vec![block, suspension, removal],
        },
    ]
}

/// Runs a statement of Ben while his second session holds `held`. After the statement has begun to
/// wait, `revocation` is committed and the second session rolled back. Returns what members saw
/// before and after, and whether the statement failed.
async fn late(
    scene: &Scene,
    held: &str,
    statement: &str,
    revocation: &str,
) -> (String, String, bool) {
    let holder = scene.database.connect().await;
    begin_as(&holder, Ben, "read committed").await;
    holder.batch_execute(held).await.unwrap();
    let row = scene.ben.query_one("select pg_backend_pid()", &[]);
    let pid: i32 = row.await.unwrap().get(0);
    begin_as(&scene.ben, Ben, "read committed").await;
    let release = async {
        wait_for(&scene.owner, pid).await;
        scene.owner.batch_execute(revocation).await.unwrap();
        let before = scene.seen().await;
        holder.batch_execute("rollback").await.unwrap();
        before
    };
    let (result, before) = tokio::join!(scene.ben.batch_execute(statement), release);
    scene.ben.batch_execute("commit").await.unwrap();
    (before, scene.seen().await, result.is_err())
}

async fn wait_for(owner: &Client, pid: i32) {
    eventually("the statement waits", async || {
        let query = "select cardinality(pg_blocking_pids($1)) > 0";
        let waits: bool = owner.query_one(query, &[&pid]).await.unwrap().get(0);
        waits.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_waited_uses_no_right_that_was_revoked_meanwhile() {
    let scene = Scene::start().await;
    let things = Things::make(&scene).await;
    scene
        .owner
        .batch_execute("set lock_timeout = '10s'")
        .await
        .unwrap();
    for wait in waits(&scene, &things) {
        for statement in &wait.statements {
            for revocation in &wait.revocations {
                let what = format!("{}; {statement}; {revocation}", wait.held);
                let (before, after, _) = late(&scene, &wait.held, statement, revocation).await;
                assert_eq!(after, before, "{what}");
                scene
                    .owner
                    .batch_execute(
                        "delete from public.user_blocks;
                         update public.users set status = 'active';
                         update public.user_conversation_members set left_at = null",
                    )
                    .await
                    .unwrap();
            }
        }
    }
}

/// The control: without a revocation, each of these statements changes what members see.
#[tokio::test]
async fn a_statement_that_waited_succeeds_if_its_right_remains() {
    let scene = Scene::start().await;
    let things = Things::make(&scene).await;
    // In this order, no statement undoes what a later one needs.
    let mut waits = waits(&scene, &things);
    let deletions = waits.remove(1);
    for wait in waits.into_iter().chain([deletions]) {
        for statement in &wait.statements {
            let (before, after, failed) = late(&scene, &wait.held, statement, "").await;
            assert!(!failed, "{statement}");
            assert_ne!(after, before, "{statement}");
            scene
                .owner
                .batch_execute("update public.user_presence set is_typing_to = null")
                .await
                .unwrap();
        }
    }
}

#[tokio::test]
async fn a_conversation_is_not_opened_after_a_block() {
    let database = database().await;
    let (owner, holder, ana) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    let open = format!("select created from chat.open_conversation('{}')", Ada.id());
    let row = ana.query_one("select pg_backend_pid()", &[]).await.unwrap();
    let pid: i32 = row.get(0);
    for (revocation, opened) in [
        (
            format!(
                "insert into public.user_blocks (blocker_id, blocked_id) values ('{}', '{}')",
                Ada.id(),
                Ana.id()
            ),
            0_i64,
        ),
        (
            format!(
                "update public.users set status = 'suspended' where id = '{}'",
                Ana.id()
            ),
            0,
        ),
        // The control has no revocation.
        (String::new(), 1),
    ] {
        begin_as(&holder, Ana, "read committed").await;
        holder.batch_execute(&open).await.unwrap();
        begin_as(&ana, Ana, "read committed").await;
        let release = async {
            wait_for(&owner, pid).await;
            owner.batch_execute(&revocation).await.unwrap();
            holder.batch_execute("rollback").await.unwrap();
        };
        let (result, ()) = tokio::join!(ana.batch_execute(&open), release);
        ana.batch_execute("commit").await.unwrap();
        assert_eq!(result.is_ok(), opened == 1, "{revocation}");
        let count = "select count(*) from public.user_conversations";
        let row = owner.query_one(count, &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), opened, "{revocation}");
        owner
            .batch_execute(
                "delete from public.user_blocks; update public.users set status = 'active'",
            )
            .await
            .unwrap();
    }
}
