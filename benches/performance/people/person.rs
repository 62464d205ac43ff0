//! A simulated user of the chat, who acts over REST, receives over a socket, and sometimes loses
//! the connection.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::copy::{Copy, items};
use super::socket::{News, Socket};
use crate::Failure;
use crate::crowd::window::microseconds;
use crate::rest::{Connection, Request};

/// Mean pause between two actions.
const THINKING: Duration = Duration::from_millis(1500);

/// Mean number of actions between two connection losses.
const ACTS_PER_CONNECTION: usize = 25;

/// Maximum time without a connection.
const AWAY: Duration = Duration::from_secs(5);

/// Interval of heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Maximum wait for the last changes to arrive.
const SETTLING: Duration = Duration::from_secs(20);

/// Interval of comparisons with the database at the end.
const LOOKING: Duration = Duration::from_millis(250);

/// The largest page size of a list.
const PAGE: usize = 200;

/// The expected final state, read from the database.
#[derive(Clone, Debug)]
pub(super) struct Truth {
    pub(super) copy: Value,
    pub(super) unread_total: i64,
}

/// A user with one device.
pub(super) struct Person {
    pub(super) id: String,
    token: String,
    server: SocketAddr,
    /// Users with whom this user may still open a conversation.
    strangers: RefCell<Vec<String>>,
    copy: RefCell<Copy>,
    tally: RefCell<Tally>,
    random: RefCell<Rng>,
}

/// The recorded events of a user.
pub(super) struct Tally {
    /// Number of requests by action and status.
    pub(super) answers: std::collections::BTreeMap<(&'static str, u16), u64>,
    /// Time from the commit of another user's message to its arrival.
    pub(super) arrival_us: Histogram<u64>,
    pub(super) events: std::collections::BTreeMap<String, u64>,
    pub(super) disconnects: u64,
    pub(super) faults: Vec<String>,
}

/// Why a user stops acting.
enum End {
    Disconnected,
    Finished,
}

impl Person {
    pub(super) fn new(
        id: String,
        token: String,
        server: SocketAddr,
        strangers: Vec<String>,
        seed: u64,
    ) -> Result<Self, Failure> {
        Ok(Self {
            copy: RefCell::new(Copy::new(id.clone())),
            id,
            token,
            server,
            strangers: RefCell::new(strangers),
            tally: RefCell::new(Tally {
                answers: Default::default(),
                arrival_us: microseconds()?,
                events: Default::default(),
                disconnects: 0,
                faults: Vec::new(),
            }),
            random: RefCell::new(Rng::with_seed(seed)),
        })
    }

    /// Acts until `end`, then waits for the expected state. Returns whether the device then shows
    /// that state.
    pub(super) async fn live(
        &self,
        end: Instant,
        finished: &tokio::sync::Barrier,
        truth: watch::Receiver<Option<Vec<Truth>>>,
        place: usize,
    ) -> Result<bool, Failure> {
        let mut rest = Connection::open(self.server).await?;
        let mut cursor = None;
        loop {
            let mut socket = Socket::open(self.server, &self.token).await?;
            socket.listen(&format!("user:{}", self.id)).await?;
            let mut listening = Vec::new();
            self.catch_up(&mut rest, &mut cursor).await?;
            let stay = self
                .stay(&mut socket, &mut rest, &mut cursor, &mut listening, end)
                .await?;
            match stay {
                End::Disconnected => {
                    drop(socket);
                    self.copy.borrow_mut().disconnected();
                    self.tally.borrow_mut().disconnects += 1;
                    let away = AWAY.mul_f64(self.random.borrow_mut().f64());
                    sleep(away).await;
                }
                End::Finished => {
                    let waiting = async {
                        finished.wait().await;
                        let mut truth = truth.clone();
                        let truths = truth.wait_for(Option::is_some).await?;
                        Ok::<_, Failure>(truths.as_ref().map(|truths| truths[place].clone()))
                    };
                    let truth = self.follow(&mut socket, waiting).await??;
                    return self
                        .wait_until_correct(&mut socket, &mut rest, &mut cursor, truth)
                        .await;
                }
            }
        }
    }

    /// Returns the recorded events.
    pub(super) fn into_tally(self) -> Tally {
        self.tally.into_inner()
    }

    /// Loads everything over REST, like a newly opened page.
    pub(super) async fn load_afresh(&self) -> Result<Value, Failure> {
        let mut rest = Connection::open(self.server).await?;
        let mut copy = Copy::new(self.id.clone());
        let mut readers = std::collections::BTreeMap::new();
        let mut path = "/conversations?archived=all&format=page&limit=100".to_owned();
        let mut conversations = Vec::new();
        loop {
            let page = self.get(&mut rest, &path).await?;
            copy.catch_up(&json!({"conversations": page["data"]}));
            conversations.extend(items(&page["data"]).map(|row| row["id"].clone()));
            match page["next_cursor"].as_str() {
                Some(cursor) => {
                    path =
                        format!("/conversations?archived=all&format=page&limit=100&cursor={cursor}")
                }
                None => break,
            }
        }
        for conversation in &conversations {
            let conversation = conversation.as_str().unwrap_or_default();
            let base = format!(
                "/messages?conversation_id={conversation}&format=page&include_deleted=true&limit={PAGE}"
            );
            let mut path = base.clone();
            loop {
                let page = self.get(&mut rest, &path).await?;
                for row in items(&page["data"]) {
                    copy.loaded_message(row);
                    readers.insert(row["id"].to_string(), row["read_by"].clone());
                }
                match page["next_cursor"].as_str() {
                    Some(cursor) => path = format!("{base}&cursor={cursor}"),
                    None => break,
                }
            }
        }
        // The readers in the responses replace those derived from the read positions.
        let mut canonical = copy.canonical();
        for list in canonical["messages"]
            .as_object_mut()
            .into_iter()
            .flat_map(|all| all.values_mut())
        {
            for row in list.as_array_mut().into_iter().flatten() {
                row["read_by"] = readers.remove(&row["id"].to_string()).unwrap_or_default();
            }
        }
        Ok(canonical)
    }

    /// Loads all missed changes page by page.
    async fn catch_up(
        &self,
        rest: &mut Connection,
        cursor: &mut Option<String>,
    ) -> Result<(), Failure> {
        loop {
            let path = match &cursor {
                Some(cursor) => format!("/sync?since={cursor}"),
                None => "/sync".to_owned(),
            };
            let page = self.get(rest, &path).await?;
            self.copy.borrow_mut().catch_up(&page);
            *cursor = page["cursor"].as_str().map(str::to_owned);
            if page["has_more"] != true {
                let counts = self.get(rest, "/unread-count").await?;
                self.copy.borrow_mut().unread_total = counts["total"].as_i64();
                return Ok(());
            }
        }
    }

    /// Receives over the socket while acting.
    async fn stay(
        &self,
        socket: &mut Socket,
        rest: &mut Connection,
        cursor: &mut Option<String>,
        listening: &mut Vec<String>,
        end: Instant,
    ) -> Result<End, Failure> {
        let acts = self.random.borrow_mut().usize(1..2 * ACTS_PER_CONNECTION);
        let mut heart = Instant::now();
        for _ in 0..acts {
            // Subscribes to new conversations as well.
            let listed = self.copy.borrow().listed();
            for conversation in listed {
                if !listening.contains(&conversation) {
                    listening.push(conversation.clone());
                    socket
                        .listen(&format!("conversation:{conversation}"))
                        .await?;
                }
            }
            if heart.elapsed() > HEARTBEAT {
                heart = Instant::now();
                socket.heartbeat().await?;
            }
            let pause = THINKING.mul_f64(-self.random.borrow_mut().f64().max(0.01).ln());
            let until = Instant::now() + pause;
            self.follow(socket, sleep_until(until.min(end))).await?;
            if Instant::now() >= end {
                return Ok(End::Finished);
            }
            self.follow(socket, self.act(rest)).await??;
            self.refresh(socket, rest, cursor).await?;
        }
        Ok(End::Disconnected)
    }

    /// Catches up if reactions have changed.
    async fn refresh(
        &self,
        socket: &mut Socket,
        rest: &mut Connection,
        cursor: &mut Option<String>,
    ) -> Result<(), Failure> {
        if std::mem::take(&mut self.copy.borrow_mut().is_stale) {
            self.follow(socket, self.catch_up(rest, cursor)).await??;
        }
        Ok(())
    }

    /// Applies events from the socket until `doing` completes.
    async fn follow<T>(
        &self,
        socket: &mut Socket,
        doing: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let mut doing = std::pin::pin!(doing);
        loop {
            tokio::select! {
                biased;
                news = socket.news() => self.apply(news?),
                done = &mut doing => return Ok(done),
            }
        }
    }

    fn apply(&self, news: News) {
        let mut tally = self.tally.borrow_mut();
        let mut copy = self.copy.borrow_mut();
        match news {
            News::Change(data) => {
                if data["table"] == "user_messages" && data["type"] == "INSERT" {
                    let sender = data["record"]["sender_id"].as_str();
                    let committed = data["commit_timestamp"]
                        .as_str()
                        .and_then(|at| at.parse().ok());
                    if let Some(committed) = committed.filter(|_| sender != Some(&self.id)) {
                        let late = jiff::Timestamp::now().duration_since(committed);
                        let late = u64::try_from(late.as_micros()).unwrap_or_default();
                        tally.arrival_us.saturating_record(late);
                    }
                }
                if !data["errors"].is_null() {
                    tally.faults.push(format!("errors: {data}"));
                }
                copy.change(&data);
            }
            News::Event(event, payload) => {
                match &*event {
                    "typing" => copy.typing(&payload),
                    "unread.updated" => copy.unread_total = payload["total"].as_i64(),
                    _ => {}
                }
                *tally.events.entry(event).or_default() += 1;
            }
            News::Subscribed | News::Nothing => {}
        }
    }

    /// Waits until the device shows the expected state. Returns whether it does.
    async fn wait_until_correct(
        &self,
        socket: &mut Socket,
        rest: &mut Connection,
        cursor: &mut Option<String>,
        truth: Option<Truth>,
    ) -> Result<bool, Failure> {
        let Some(truth) = truth else {
            return Err("the expected state is missing".into());
        };
        let is_right = || {
            let copy = self.copy.borrow();
            copy.unread_total == Some(truth.unread_total)
                && !copy.shows_typing()
                && copy.canonical() == truth.copy
        };
        let following = async {
            while !is_right() {
                // If a user stops typing without a notice, the typing indicator stays until it
                // expires.
                self.follow(socket, sleep(LOOKING)).await?;
                self.refresh(socket, rest, cursor).await?;
            }
            Ok::<_, Failure>(())
        };
        if let Ok(settled) = timeout(SETTLING, following).await {
            settled?;
            return Ok(true);
        }
        let copy = self.copy.borrow();
        let difference = super::first_difference(&copy.canonical(), &truth.copy);
        self.tally.borrow_mut().faults.push(format!(
            "{}: {}; badge {:?} instead of {}; typing {}",
            self.id,
            difference.unwrap_or_default(),
            copy.unread_total,
            truth.unread_total,
            copy.shows_typing(),
        ));
        Ok(false)
    }

    /// Performs one random action.
    async fn act(&self, rest: &mut Connection) -> Result<(), Failure> {
        let Some((conversation, own, any)) = self.choose() else {
            return self.open(rest).await;
        };
        let (dice, coin, word) = {
            let mut random = self.random.borrow_mut();
            (random.usize(..100), random.bool(), random.u32(..))
        };
        let emoji = ["👍", "❤️", ":tada:"][word as usize % 3];
        match (dice, own, any) {
            (0..36, _, any) => {
                let reply_to = any.filter(|_| word % 4 == 0);
                let body = json!({
                    "conversation_id": conversation, "content": format!("message {word}"),
                    "client_message_id": uuid::Uuid::new_v4(), "reply_to_id": reply_to,
                });
                self.ask(
                    rest,
                    "send",
                    "POST",
                    "/messages".to_owned(),
                    Some(body),
                    &[201],
                )
                .await
            }
            (36..56, _, any) => {
                let path = format!("/conversations/{conversation}/read");
                let body = json!({"message_id": any.filter(|_| coin)});
                // The message may have been deleted in the meantime.
                self.ask(rest, "read", "POST", path, Some(body), &[200, 404])
                    .await
            }
            (56..66, Some(own), _) => {
                let body = json!({"content": format!("edited {word}")});
                self.ask(
                    rest,
                    "edit",
                    "PATCH",
                    format!("/messages/{own}"),
                    Some(body),
                    &[200, 409],
                )
                .await
            }
            (66..70, Some(own), _) => {
                self.ask(
                    rest,
                    "delete",
                    "DELETE",
                    format!("/messages/{own}"),
                    None,
                    &[200],
                )
                .await
            }
            (70..72, _, Some(any)) => {
                let path = format!("/messages/{any}?for=me");
                self.ask(rest, "hide", "DELETE", path, None, &[200]).await?;
                self.copy.borrow_mut().hide(any);
                Ok(())
            }
            (72..82, _, Some(any)) => {
                let method = if coin { "PUT" } else { "DELETE" };
                let path = format!("/messages/{any}/reactions/{}", escaped(emoji));
                self.ask(rest, "react", method, path, None, &[200, 409])
                    .await
            }
            (82..91, _, _) => {
                let path = format!("/conversations/{conversation}/typing");
                self.ask(
                    rest,
                    "type",
                    "POST",
                    path,
                    Some(json!({"is_typing": word % 3 != 0})),
                    &[204],
                )
                .await
            }
            (91..95, _, _) => {
                let setting = ["is_archived", "is_pinned", "is_muted"][word as usize % 3];
                let body = json!({setting: coin});
                self.ask(
                    rest,
                    "arrange",
                    "PATCH",
                    format!("/conversations/{conversation}"),
                    Some(body),
                    &[200],
                )
                .await
            }
            (95..97, _, any) => {
                let path = format!("/conversations/{conversation}/unread");
                let body = json!({"message_id": any.filter(|_| coin)});
                self.ask(rest, "mark unread", "POST", path, Some(body), &[200, 404])
                    .await
            }
            (97, _, _) => {
                self.ask(
                    rest,
                    "clear",
                    "DELETE",
                    format!("/conversations/{conversation}"),
                    None,
                    &[200],
                )
                .await
            }
            (98.., _, _) => self.open(rest).await,
            _ => Ok(()),
        }
    }

    /// Chooses a listed conversation, and from its recent messages one by the owner and one by any
    /// member.
    fn choose(&self) -> Option<(String, Option<String>, Option<String>)> {
        let copy = self.copy.borrow();
        let mut random = self.random.borrow_mut();
        let conversation = random.choice(copy.listed())?;
        let shown = copy.shown(&conversation);
        let recent = &shown[shown.len().saturating_sub(20)..];
        let all_own: Vec<_> = recent.iter().filter(|(_, is_own)| *is_own).collect();
        let own = random.choice(all_own).map(|(id, _)| id.clone());
        let any = random.choice(recent).map(|(id, _)| id.clone());
        Some((conversation, own, any))
    }

    /// Opens a conversation with another user.
    async fn open(&self, rest: &mut Connection) -> Result<(), Failure> {
        let Some(stranger) = self.strangers.borrow_mut().pop() else {
            return Ok(());
        };
        let body = json!({"other_user_id": stranger});
        self.ask(
            rest,
            "open",
            "POST",
            "/conversations".to_owned(),
            Some(body),
            &[200, 201],
        )
        .await
    }

    async fn ask(
        &self,
        rest: &mut Connection,
        what: &'static str,
        method: &'static str,
        path: String,
        body: Option<Value>,
        expected: &[u16],
    ) -> Result<(), Failure> {
        let request = Request {
            method,
            path,
            token: self.token.clone(),
            body: body.map(|body| body.to_string()),
        };
        let answer = rest.ask(&request).await?;
        let mut tally = self.tally.borrow_mut();
        *tally.answers.entry((what, answer.status)).or_default() += 1;
        if !expected.contains(&answer.status) {
            let text = String::from_utf8_lossy(answer.body);
            tally
                .faults
                .push(format!("{method} {}: {text}", request.path));
        }
        Ok(())
    }

    async fn get(&self, rest: &mut Connection, path: &str) -> Result<Value, Failure> {
        let request = Request {
            method: "GET",
            path: path.to_owned(),
            token: self.token.clone(),
            body: None,
        };
        let answer = rest.ask(&request).await?;
        if answer.status != 200 {
            return Err(format!("GET {path}: {}", String::from_utf8_lossy(answer.body)).into());
        }
        Ok(serde_json::from_slice(answer.body)?)
    }
}

/// Percent-encodes a text as one path segment.
fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
