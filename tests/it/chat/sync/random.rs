//! Several users act randomly, in transactions that overlap and commit in any order, and clients
//! synchronise in between. At the end, each client must show the same as after a fresh load.
//!
//! A single task drives everything, so that a seed identifies a run. Transactions overlap because
//! they stay open while others run. A statement that has to wait for a lock fails after 10 ms.

use rapport::config::source::{ProcessEnvironment, Source as _};
use tokio_postgres::Client;

use super::mirror::{Mirror, assert_like_fresh};
use crate::support::chat_server::ChatServer;
use crate::support::chat_server::Person::{self, Ada, Ana, Ben, Sue};

/// Rounds of a run. After each round, all transactions are ended and some clients are compared. A
/// round is short, so that later changes do not hide an earlier change that was missed.
const ROUNDS: usize = 40;

/// Steps of a round. A step either acts in a transaction, which it may begin and end, or lets a
/// client synchronise.
const STEPS: usize = 15;

/// Maximum number of open transactions.
const WRITERS: usize = 4;

/// The environment variable with the seed of a run to repeat.
const SEED_VARIABLE: &str = "RAPPORT_TEST_SEED";

const PEOPLE: [Person; 4] = [Ana, Ben, Ada, Sue];

/// A connection, the user of its last transaction, and whether that transaction is open.
struct Writer {
    client: Client,
    person: Person,
    is_open: bool,
}

/// The committed messages of a user from which a step chooses.
const MESSAGES: &str = "select m.id::text, m.conversation_id::text \
    from user_messages m join user_conversation_members mine using (conversation_id) \
    where mine.user_id = $1 order by m.created_at desc, m.id limit 25";
/// The conversations of a user from which a step chooses.
const CONVERSATIONS: &str = "select m.conversation_id::text from user_conversation_members m where m.user_id = $1 order by 1";

#[expect(
    clippy::print_stdout,
    reason = "a failed run is repeated by its seed, which the harness shows only then"
)]
#[tokio::test]
async fn clients_that_sync_show_the_same_as_a_fresh_load() {
    let asked = ProcessEnvironment
        .get(SEED_VARIABLE)
        .map(|seed| seed.parse().unwrap());
    // By default, two fixed seeds and a random one.
    let seeds = asked.map_or_else(|| vec![1, 3, fastrand::u64(..)], |seed| vec![seed]);
    for seed in seeds {
        println!("{SEED_VARIABLE}={seed}");
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let server = ChatServer::start().await;
    let mut random = fastrand::Rng::with_seed(seed);
    let observer = server.database.connect().await;
    for (one, other) in [(Ana, Ben), (Ana, Ada), (Ben, Ada), (Sue, Ana)] {
        let conversation = server.open(one, other).await;
        for text in ["one", "two", "three"] {
            server.say(one, &conversation, text).await;
        }
    }
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let client = server.database.connect().await;
        client
            .batch_execute("set lock_timeout = '10ms'")
            .await
            .unwrap();
        writers.push(Writer {
            client,
            person: Ana,
            is_open: false,
        });
    }
    // Each user has two devices. The second one synchronises only when it is compared.
    let mut mirrors = Vec::new();
    for person in PEOPLE.into_iter().chain(PEOPLE) {
        mirrors.push(Mirror::load(&server, person, random.u32(1..4)).await);
    }

    let mut done = 0;
    for round in 0..ROUNDS {
        for step in 0..STEPS {
            if random.u8(..100) < 12 {
                let mirror = &mut mirrors[random.usize(..PEOPLE.len())];
                let limit = random.u32(1..5);
                // Sometimes the chain is interrupted after a page.
                if random.bool() {
                    mirror.page(&server, limit).await;
                } else {
                    mirror.sync(&server, limit).await;
                }
                continue;
            }
            let writer = &mut writers[random.usize(..WRITERS)];
            writer.begin(&mut random).await;
            let step = round * STEPS + step;
            let statement = statement(&mut random, &observer, writer.person, step).await;
            done += usize::from(writer.execute(&mut random, &statement).await);
        }
        for writer in &mut writers {
            writer.end("commit").await;
        }
        let is_last = round == ROUNDS - 1;
        for mirror in &mut mirrors {
            if is_last || random.u8(..100) < 15 {
                // The first call completes an interrupted chain, up to the snapshot with which the
                // chain began. The second call fetches the later changes.
                mirror.sync(&server, random.u32(1..30)).await;
                mirror.sync(&server, random.u32(1..30)).await;
                let what = format!("{SEED_VARIABLE}={seed} round {round}");
                assert_like_fresh(&server, mirror, &what).await;
            }
        }
    }
    assert!(done > ROUNDS * STEPS / 4, "too little happened: {done}");
}

impl Writer {
    /// Begins a transaction on behalf of a user, as the server does, unless one is open.
    async fn begin(&mut self, random: &mut fastrand::Rng) {
        if std::mem::replace(&mut self.is_open, true) {
            return;
        }
        self.person = PEOPLE[random.usize(..PEOPLE.len())];
        let id = self.person.id();
        let begin = format!(
            "begin; select set_config('request.jwt.claims', '{{\"sub\":\"{id}\",\"role\":\"authenticated\"}}', true), \
                set_config('request.jwt.claim.sub', '{id}', true), set_config('role', 'authenticated', true)"
        );
        self.client.batch_execute(&begin).await.unwrap();
    }

    /// Runs a statement in the open transaction, and then sometimes ends the transaction. Returns
    /// whether the statement succeeded.
    async fn execute(&mut self, random: &mut fastrand::Rng, statement: &str) -> bool {
        let guarded = format!("savepoint step; {statement}; release savepoint step");
        let result = self.client.batch_execute(&guarded).await;
        if let Err(error) = &result {
            assert!(error.as_db_error().is_some(), "{statement}: {error}");
            let undo = "rollback to savepoint step";
            self.client.batch_execute(undo).await.unwrap();
        }
        match random.u8(..100) {
            0..40 => self.end("commit").await,
            40..45 => self.end("rollback").await,
            _ => {}
        }
        result.is_ok()
    }

    async fn end(&mut self, how: &str) {
        if std::mem::take(&mut self.is_open) {
            self.client.batch_execute(how).await.unwrap();
        }
    }
}

/// Returns a random action of a user. Some actions are refused by the rules, or fail because of a
/// lock.
async fn statement(
    random: &mut fastrand::Rng,
    observer: &Client,
    me: Person,
    step: usize,
) -> String {
    let messages = observer.query(MESSAGES, &[&me.id()]).await.unwrap();
    let conversations = observer.query(CONVERSATIONS, &[&me.id()]).await.unwrap();
    let person = PEOPLE[random.usize(..PEOPLE.len())].id();
    if messages.is_empty() {
        return format!(
            "select chat.send_message(o.conversation_id, 'first') from chat.open_conversation('{person}') o"
        );
    }
    let conversation: String = conversations[random.usize(..conversations.len())].get(0);
    let message: String = messages[random.usize(..messages.len())].get(0);
    let quoted = &messages[random.usize(..messages.len())];
    let (quoted, quoted_in): (String, String) = (quoted.get(0), quoted.get(1));
    let newest: String = messages[0].get(0);
    let flag = random.bool();
    let reaction = ["👍", "🎉", ":ok:"][random.usize(..3)];
    // Wraps an action of the owner for use within a user's transaction.
    let as_owner =
        |statement: String| format!("reset role; {statement}; set local role authenticated");
    match random.u8(..100) {
        0..16 => format!(
            "select chat.send_message('{conversation}', 'text {step}', mentions => array['{person}']::uuid[])"
        ),
        16..24 => format!(
            "select chat.send_message('{quoted_in}', 'reply {step}', reply_to_id => '{quoted}')"
        ),
        24..27 => format!(
            "insert into user_messages (conversation_id, sender_id, content) select '{conversation}', auth.uid(), 'row ' || n from generate_series(1, 3) n"
        ),
        27..39 => format!("select chat.edit_message('{message}', 'edited {step}')"),
        39..44 => format!("select chat.delete_message('{message}')"),
        44..49 => format!(
            "select chat.hide_message('{}')",
            if flag { newest } else { message }
        ),
        49..57 => format!("select chat.react('{message}', '{reaction}', {flag})"),
        57..61 => format!("select chat.pin_message('{message}', {flag})"),
        61..68 => format!("select chat.mark_read('{conversation}')"),
        68..71 => {
            format!("select * from chat.mark_read_messages(array['{message}', '{quoted}']::uuid[])")
        }
        71..74 => format!("select chat.mark_unread('{quoted_in}', '{quoted}')"),
        74..76 => format!(
            "select chat.mark_delivered('{conversation}', {})",
            random.u8(1..40)
        ),
        76..78 => format!(
            "select chat.set_conversation_settings('{conversation}', '{{\"is_archived\":{flag},\"is_pinned\":{},\"is_muted\":{flag}}}')",
            random.bool()
        ),
        78..84 => format!(
            "select chat.set_conversation_settings('{conversation}', '{{\"draft\":\"{}\"}}')",
            if flag { "written" } else { "" }
        ),
        84..86 => format!(
            "select chat.set_conversation_settings('{conversation}', '{{\"marked_unread\":{flag},\"notification_level\":\"mentions\"}}')"
        ),
        86..88 => format!("select chat.clear_conversation('{conversation}')"),
        88..90 => format!("select chat.open_conversation('{person}')"),
        90..92 => format!("select chat.block('{person}')"),
        92..95 => format!("select chat.unblock('{person}')"),
        95..97 => format!("select chat.set_preferences('{{\"share_read_receipts\":{flag}}}')"),
        97..99 => as_owner(format!("delete from user_messages where id = '{message}'")),
        _ if conversations.len() > 2 => as_owner(format!(
            "delete from user_conversations where id = '{conversation}'"
        )),
        _ => "select 1".to_owned(),
    }
}
