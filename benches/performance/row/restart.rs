//! Row 22 of `docs/benchmarks.md`: the server is restarted, and all its clients reconnect.
//!
//! One third of the clients is in public channels, one third in private channels, and one third
//! subscribes to row changes. One run reconnects them like the official clients. Another reconnects
//! them as fast as possible, which shows how much of the time is due to the server.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Laboratory, joins};
use crate::Failure;
use crate::client::phoenix::{self, Control, HEARTBEAT, HEARTBEAT_SECONDS, JoinConfig};
use crate::client::{Handler, SocketId, Sockets};
use crate::process::database_cpu_seconds;
use crate::report::{Better, Figure, Outcome, median, rounded};
use crate::server::Server;

/// Members of one topic.
const PER_TOPIC: usize = 100;

/// Timeout for all clients to connect or reconnect.
const PATIENCE: Duration = Duration::from_secs(120);

/// Maximum concurrent connection attempts of eager clients, and of all clients when they connect
/// for the first time. It equals a typical accept queue of the kernel.
const OPENING_AT_ONCE: usize = 500;

/// How clients reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Retries after 1, 2, 5, then every 10 seconds, without jitter, like realtime-js.
    Official,
    /// Retries almost without a delay.
    Eager,
}

impl Manner {
    fn pause(self, attempts: usize) -> Duration {
        match self {
            Self::Official => {
                const SECONDS: [u64; 4] = [1, 2, 5, 10];
                Duration::from_secs(SECONDS[attempts.min(3)])
            }
            Self::Eager => Duration::from_millis(20),
        }
    }
}

/// Measures row 22.
pub(super) fn measure(lab: &Laboratory) -> Result<Outcome, Failure> {
    lab.database.execute(joins::POLICIES)?;
    let (mut official, mut eager) = (Vec::new(), Vec::new());
    for _ in 0..lab.settings.runs {
        official.push(run(lab, Manner::Official)?);
        eager.push(run(lab, Manner::Eager)?);
    }
    let figure = |name, runs: &[Run], of: fn(&Run) -> f64| Figure {
        name,
        unit: "s",
        value: median(runs.iter().map(of)),
        better: Better::Lower,
        floor: 10.0,
        goal: 3.0,
    };
    Ok(Outcome {
        figures: vec![
            figure(
                "from the stop signal until all clients like realtime-js are back",
                &official,
                |run| run.seconds,
            ),
            figure(
                "from the new start until all eager clients are back",
                &eager,
                |run| run.seconds - run.stop_seconds,
            ),
        ],
        runs: official.len(),
        detail: json!({"official": medians(&official), "eager": medians(&eager)}),
        faults: Vec::new(),
    })
}

struct Run {
    seconds: f64,
    stop_seconds: f64,
    attempts_per_client: f64,
    joins_refused: f64,
    server_cpu_seconds: f64,
    database_cpu_seconds: f64,
    transactions: f64,
    memory_before_kib: f64,
    memory_after_kib: f64,
}

fn medians(runs: &[Run]) -> Value {
    let of = |value: fn(&Run) -> f64| rounded(median(runs.iter().map(value)));
    json!({
        "seconds": runs.iter().map(|run| rounded(run.seconds)).collect::<Vec<_>>(),
        "until_the_old_process_has_ended_s": of(|run| run.stop_seconds),
        "attempts_per_client": of(|run| run.attempts_per_client),
        "joins_refused": of(|run| run.joins_refused),
        "server_cpu_seconds": of(|run| run.server_cpu_seconds),
        "database_cpu_seconds": of(|run| run.database_cpu_seconds),
        "database_transactions": of(|run| run.transactions),
        "memory_before_kib": of(|run| run.memory_before_kib),
        "memory_after_kib": of(|run| run.memory_after_kib),
    })
}

fn run(lab: &Laboratory, manner: Manner) -> Result<Run, Failure> {
    let mut server = Server::rapport(&lab.database)?;
    let mut sockets = Sockets::to(server.address)?;
    let mut fleet = Fleet::new(lab, manner)?;
    fleet.turn_until_back(&mut sockets, PATIENCE)?;
    fleet.idle(&mut sockets, lab.settings.pause())?;
    let memory_before_kib = server.process.memory_kib();

    let (attempts, refused) = (fleet.attempts_made, fleet.refused);
    let transactions = transactions_ended(lab)?;
    let (begun, database_cpu) = (Instant::now(), database_cpu_seconds());
    server.process.ask_to_end()?;
    while server.process.ended()?.is_none() {
        fleet.turn(&mut sockets)?;
        if begun.elapsed() > PATIENCE {
            return Err("the server did not stop".into());
        }
    }
    server.wait_for_end()?;
    let stop_seconds = begun.elapsed().as_secs_f64();
    let server = Server::launch(&lab.database, server.address.port(), &[])?;
    fleet.turn_until_back(&mut sockets, PATIENCE)?;
    let run = Run {
        seconds: begun.elapsed().as_secs_f64(),
        stop_seconds,
        attempts_per_client: (fleet.attempts_made - attempts) as f64 / fleet.clients.len() as f64,
        joins_refused: (fleet.refused - refused) as f64,
        server_cpu_seconds: server.process.cpu_seconds(),
        database_cpu_seconds: database_cpu_seconds() - database_cpu,
        // The database reports its counts about a second later.
        transactions: {
            fleet.idle(&mut sockets, Duration::from_secs(1))?;
            (transactions_ended(lab)? - transactions) as f64
        },
        memory_before_kib,
        memory_after_kib: server.process.memory_kib(),
    };
    drop(sockets);
    server.stop()?;
    Ok(run)
}

/// Returns the number of transactions that the database has completed.
fn transactions_ended(lab: &Laboratory) -> Result<i64, Failure> {
    lab.database.number(
        "select xact_commit + xact_rollback from pg_stat_database
         where datname = current_database()",
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Away,
    Opening,
    Joining,
    /// The join was refused; the socket stays open.
    Refused,
    /// Joined and, if subscribed to row changes, notified that they are live.
    Back,
}

struct Client {
    path: String,
    join: String,
    has_bindings: bool,
    state: State,
    /// Number of attempts since the client was last back.
    attempts: usize,
}

/// Clients that reconnect whenever they are disconnected.
struct Fleet {
    manner: Manner,
    clients: Vec<Client>,
    /// When each client tries again.
    due: BinaryHeap<Reverse<(Instant, SocketId)>>,
    opening: usize,
    back: usize,
    attempts_made: u64,
    /// Refused joins.
    refused: u64,
    heart: (Instant, u64),
    last_reason: String,
}

impl Fleet {
    fn new(lab: &Laboratory, manner: Manner) -> Result<Self, Failure> {
        let count = lab.settings.clients(10_000);
        let topics = count.div_ceil(PER_TOPIC);
        let bindings =
            vec![json!({"event": "INSERT", "schema": "public", "table": "user_messages"})];
        let configs = [
            JoinConfig::default(),
            JoinConfig {
                is_private: true,
                ..JoinConfig::default()
            },
            JoinConfig {
                bindings,
                ..JoinConfig::default()
            },
        ];
        let clients = (0..count)
            .map(|person| {
                let token = lab.database.token(person)?;
                let config = &configs[person % configs.len()];
                let topic = format!("realtime:room-{}", person % topics);
                Ok(Client {
                    path: phoenix::path(&token),
                    join: phoenix::join(&topic, &token, config),
                    has_bindings: !config.bindings.is_empty(),
                    state: State::Away,
                    attempts: 0,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let now = Instant::now();
        Ok(Self {
            manner,
            due: (0..count).map(|id| Reverse((now, id))).collect(),
            clients,
            opening: 0,
            back: 0,
            attempts_made: 0,
            refused: 0,
            heart: (now, 0),
            last_reason: String::new(),
        })
    }

    /// Opens due sockets, repeats due joins, sends due heartbeats, and handles everything that
    /// arrived.
    fn turn(&mut self, sockets: &mut Sockets) -> Result<(), Failure> {
        // The initial connections are not measured, so their number at a time may be limited.
        let at_once =
            if self.manner == Manner::Official && self.attempts_made >= self.clients.len() as u64 {
                usize::MAX
            } else {
                OPENING_AT_ONCE
            };
        while self.opening < at_once
            && let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= Instant::now()
        {
            self.due.pop();
            let client = &mut self.clients[id];
            client.attempts += 1;
            if client.state == State::Refused {
                client.state = State::Joining;
                let join = client.join.clone();
                sockets.send_text(id, &join, self);
                continue;
            }
            client.state = State::Opening;
            self.opening += 1;
            self.attempts_made += 1;
            sockets.open_at(id, &client.path)?;
        }
        let count = self.clients.len() as u64;
        let due = (self.heart.0.elapsed().as_secs_f64() / HEARTBEAT_SECONDS * count as f64) as u64;
        while self.heart.1 < due {
            let id = (self.heart.1 % count) as SocketId;
            if self.clients[id].state == State::Back {
                sockets.send_text(id, HEARTBEAT, self);
            }
            self.heart.1 += 1;
        }
        Ok(sockets.turn(Duration::from_millis(2), self)?)
    }

    fn turn_until_back(
        &mut self,
        sockets: &mut Sockets,
        patience: Duration,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.back < self.clients.len() {
            self.turn(sockets)?;
            if begun.elapsed() > patience {
                let (back, all) = (self.back, self.clients.len());
                return Err(format!("{back} of {all} are back: {}", self.last_reason).into());
            }
        }
        Ok(())
    }

    fn idle(&mut self, sockets: &mut Sockets, duration: Duration) -> Result<(), Failure> {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            self.turn(sockets)?;
        }
        Ok(())
    }

    /// Schedules another join after a refusal, or another connection after a close. Both have the
    /// same delays.
    fn try_again(&mut self, id: SocketId, state: State) {
        let client = &mut self.clients[id];
        client.state = state;
        let again = Instant::now() + self.manner.pause(client.attempts);
        self.due.push(Reverse((again, id)));
    }

    fn came_back(&mut self, id: SocketId) {
        if self.clients[id].state == State::Joining {
            self.clients[id].state = State::Back;
            self.clients[id].attempts = 0;
            self.back += 1;
        }
    }
}

impl Handler for Fleet {
    fn opened(&mut self, sockets: &mut Sockets, id: SocketId) {
        self.opening -= 1;
        let client = &mut self.clients[id];
        client.state = State::Joining;
        let join = client.join.clone();
        sockets.send_text(id, &join, self);
    }

    fn message(&mut self, _sockets: &mut Sockets, id: SocketId, _opcode: u8, payload: &[u8]) {
        match phoenix::control(payload) {
            Control::Joined if !self.clients[id].has_bindings => self.came_back(id),
            Control::Subscribed => self.came_back(id),
            Control::Refused(reason) => {
                self.last_reason = reason;
                if self.clients[id].state == State::Joining {
                    self.refused += 1;
                    self.try_again(id, State::Refused);
                }
            }
            // A warned client stays joined and is notified later when its row changes are live.
            Control::Warned(reason) | Control::Closed(reason) => self.last_reason = reason,
            Control::Joined | Control::Other => {}
        }
    }

    fn closed(&mut self, id: SocketId, reason: &str) {
        let client = &mut self.clients[id];
        match client.state {
            State::Back => self.back -= 1,
            State::Opening => self.opening -= 1,
            // The client is already scheduled; it will open a socket first.
            State::Refused => {
                client.state = State::Away;
                return;
            }
            State::Joining | State::Away => {}
        }
        self.try_again(id, State::Away);
        reason.clone_into(&mut self.last_reason);
    }
}
