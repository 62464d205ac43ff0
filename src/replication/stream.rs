//! The task that reads the slot, connection after connection, until it is asked to stop.

use std::convert::Infallible;
use std::time::Duration;

use pgwire_replication::{ReplicationClient, ReplicationEvent};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assemble::{Assembler, Chunk, ChunkLimits, Position, Step};
use super::names::SlotName;
use super::pgoutput::{self, WalMessage};
use super::prepare::{Preparation, SlotOrigin};
use super::publication::Publications;
use super::relation_cache::RelationCache;
use super::session_error::SessionError;
use super::slot;
use super::slot_watch::{self, SlotWatch};
use super::status::{ReplicationStatus, Sinks, StreamState};
use super::transport::{self, Address, Cluster, Opened};
use crate::change::{InsertedMessages, Lsn, StreamEvent};
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::ReplicationMetrics;
use crate::observability::readiness::{Readiness, ReplicationState};
use crate::shutdown::Tasks;

/// The pause while another process reads the slot: how soon after its end this one takes over.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// A connection that lived this long counts as a success even if nothing came.
const LIVED: Duration = Duration::from_secs(5);

/// How long the replication client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long the clean end may take in all.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// After this our own walsender, which should have ended by itself, is ended.
const WALSENDER_EXIT: Duration = Duration::from_secs(2);

/// Everything the task needs, and what it remembers between connections.
pub(super) struct Stream {
    pub connector: Connector,
    pub address: Address,
    pub config: ReplicationConfig,
    pub slot: SlotName,
    pub sinks: Sinks,
    pub status: watch::Sender<ReplicationStatus>,
    pub metrics: ReplicationMetrics,
    pub readiness: Readiness,
    pub tasks: Tasks,
    pub stop: CancellationToken,
    pub memory: Memory,
}

/// What outlives a connection.
#[derive(Default)]
pub(super) struct Memory {
    preparation: Preparation,
    position: Position,
    relations: RelationCache,
    /// Everything up to here was handed over or holds nothing for us.
    acknowledged: Lsn,
    cluster: Option<Cluster>,
    attempts: usize,
    /// The slot was made or read by this process, so it is this process's to drop.
    has_slot: bool,
    was_live: bool,
    is_live: bool,
    /// An interruption that listeners have not been told of, because the sink was full.
    owes_interrupted: bool,
    /// A gap that listeners have not been told of.
    owes_gap: bool,
    /// A change that is not acknowledged was written before the publication of
    /// `realtime.messages` was made: the next connection reads without it.
    without_messages: bool,
}

impl Stream {
    /// Reads until asked to stop or until nobody listens; then releases the slot.
    pub(super) async fn run(mut self) {
        let mut pause = self.config.backoff_min;
        while !self.stop.is_cancelled() {
            let progress = (self.memory.acknowledged, self.memory.position);
            let begun = Instant::now();
            let Err(error) = self.session().await;
            if matches!(error, SessionError::Stopped | SessionError::SinkClosed) {
                break;
            }
            if matches!(error, SessionError::PublicationsChanged) {
                tracing::info!(slot = %self.slot, "a publication has come or gone: the stream begins again");
                self.memory.without_messages = false;
                continue;
            }
            let is_progress = progress != (self.memory.acknowledged, self.memory.position);
            if is_progress || begun.elapsed() >= LIVED {
                pause = self.config.backoff_min;
            }
            if self.interrupted(&error).is_err() {
                break;
            }
            let wait = match error {
                SessionError::SlotBusy(_) => BUSY_PAUSE,
                _ => pause,
            };
            tokio::select! {
                () = tokio::time::sleep(jittered(wait)) => {}
                () = self.stop.cancelled() => {}
            }
            pause = (pause * 2).min(self.config.backoff_max);
        }
        self.release().await;
        self.readiness.set_replication(ReplicationState::Connecting);
        self.status
            .send_modify(|status| status.state = StreamState::Stopped);
    }

    /// One connection, from its preparation to its end.
    async fn session(&mut self) -> Result<Infallible, SessionError> {
        let attempt = self.memory.attempts;
        self.memory.attempts += 1;
        let stop = self.stop.clone();
        let control = stoppable(&stop, slot_watch::connect(&self.connector, &self.tasks)).await?;
        let (origin, mut reading) = self
            .memory
            .preparation
            .prepare(&control, &self.connector, &self.slot, &self.config, &stop)
            .await?;
        self.take_slot(origin);
        // A new slot begins behind whatever the old one could not read.
        self.memory.without_messages &= origin == SlotOrigin::Found && reading.changes;
        reading.messages &= !self.memory.without_messages;

        let opening = transport::open(
            &self.address,
            attempt,
            &self.slot,
            &self.config,
            reading,
            self.memory.acknowledged,
        );
        let Opened {
            mut client,
            cluster,
            end,
            pid,
        } = stoppable(&stop, opening).await?;
        self.enter_cluster(cluster, end);
        self.memory.preparation.own_pid = Some(pid);
        stoppable(&stop, transport::start(&mut client))
            .await
            .inspect_err(|error| self.note_lost_slot(error, false))?;
        self.memory.has_slot = true;

        let watch = SlotWatch {
            connector: self.connector.clone(),
            tasks: self.tasks.clone(),
            name: self.slot.clone(),
            pid,
            max_wal_held_bytes: self.config.max_wal_held_bytes,
            interval: self.config.check_interval,
            publication: self.config.publication.clone(),
            reading,
        };
        let status = self.status.clone();
        let metrics = self.metrics.clone();
        let readiness = self.readiness.clone();
        let watching = watch.run(control, move |seen| {
            let gauge = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
            metrics.wal_held_bytes.set(gauge(seen.held_bytes));
            metrics.lag_bytes.set(gauge(seen.lag_bytes));
            metrics.lag_seconds.set(seen.lag_seconds.unwrap_or(0.0));
            readiness.set_slot(seen.report(pid));
            status.send_modify(|status| {
                status.lag_bytes = Some(seen.lag_bytes);
                status.wal_held_bytes = Some(seen.held_bytes);
            });
        });
        let error = tokio::select! {
            biased;
            () = stop.cancelled() => SessionError::Stopped,
            error = watching => error,
            ended = self.pump(&mut client, reading) => { let Err(error) = ended; error }
        };
        self.sinks.messages_live.send_replace(false);
        self.note_lost_slot(&error, true);
        say_goodbye(client).await;
        Err(error)
    }

    /// Notes what the slot's origin means for what was handed over so far.
    fn take_slot(&mut self, origin: SlotOrigin) {
        let memory = &mut self.memory;
        if origin == SlotOrigin::Found {
            return;
        }
        memory.has_slot = true;
        // A new slot starts behind everything that was handed over.
        memory.position = Position::default();
        memory.acknowledged = Lsn(0);
        if origin == SlotOrigin::Replaced || memory.was_live {
            self.metrics.slot_recreated.inc();
            memory.owes_gap = true;
        }
    }

    /// Positions are compared only within one history of one cluster. A restored backup, another
    /// cluster behind the same name, or a standby that took over without the last transactions
    /// would otherwise make new transactions look like repetitions.
    fn enter_cluster(&mut self, cluster: Cluster, end: Lsn) {
        let memory = &mut self.memory;
        let is_same = memory
            .cluster
            .as_ref()
            .is_none_or(|known| *known == cluster);
        let is_behind = end < memory.position.commit_lsn || end < memory.acknowledged;
        if !is_same || is_behind {
            tracing::warn!("another history of the database begins; changes may be missing");
            memory.position = Position::default();
            memory.acknowledged = Lsn(0);
            memory.relations.clear();
            memory.owes_gap = true;
        }
        memory.cluster = Some(cluster);
    }

    fn note_lost_slot(&mut self, error: &SessionError, is_streaming: bool) {
        self.memory.preparation.needs_new_slot |= error.needs_new_slot(is_streaming);
        self.memory.without_messages |= error.is_without_messages(is_streaming);
    }

    /// Hands over what comes until the connection ends.
    async fn pump(
        &mut self,
        client: &mut ReplicationClient,
        reading: Publications,
    ) -> Result<Infallible, SessionError> {
        self.announce_live(reading).await?;
        let mut assembler = Assembler::new(ChunkLimits {
            changes: self.config.chunk_max_changes,
            bytes: self.config.chunk_max_bytes,
        });
        loop {
            let event = client.recv().await?.ok_or(SessionError::Ended)?;
            let (message, bytes) = match event {
                ReplicationEvent::XLogData { data, .. } => {
                    let bytes = data.len();
                    (pgoutput::decode(data)?, bytes)
                }
                ReplicationEvent::Begin {
                    final_lsn,
                    xid,
                    commit_time_micros,
                } => {
                    let begin = WalMessage::Begin {
                        commit_lsn: Lsn(final_lsn.as_u64()),
                        committed_at: pgoutput::timestamp(commit_time_micros),
                        xid,
                    };
                    (begin, 0)
                }
                ReplicationEvent::Commit {
                    lsn,
                    end_lsn,
                    commit_time_micros,
                } => {
                    let commit = WalMessage::Commit {
                        commit_lsn: Lsn(lsn.as_u64()),
                        end_lsn: Lsn(end_lsn.as_u64()),
                        committed_at: pgoutput::timestamp(commit_time_micros),
                    };
                    (commit, 0)
                }
                // The server has sent everything before this position, and all of it is handed
                // over: events arrive here in order. Acknowledging it lets an idle slot release
                // the log that other databases write, and a fast shutdown come to its end.
                ReplicationEvent::KeepAlive { wal_end, .. } => {
                    if !assembler.is_inside_transaction() {
                        self.acknowledge(client, Lsn(wal_end.as_u64()));
                    }
                    continue;
                }
                ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => continue,
            };
            self.metrics.bytes.inc_by(bytes as u64);
            let memory = &mut self.memory;
            let step = assembler.push(message, bytes, &mut memory.relations, &memory.position)?;
            self.take_step(client, step).await?;
        }
    }

    async fn take_step(
        &mut self,
        client: &ReplicationClient,
        step: Step,
    ) -> Result<(), SessionError> {
        if let Some(chunk) = step.chunk {
            self.hand_over(chunk).await?;
        }
        if let Some(lsn) = step.acknowledge {
            self.acknowledge(client, lsn);
        }
        self.metrics
            .truncated_tables
            .inc_by(step.truncated_tables as u64);
        Ok(())
    }

    /// Gives a chunk to the sinks, waiting for room: its messages first, because those who wait for
    /// them need not wait for who may see its row changes. What was given counts as handed over;
    /// when this future is dropped before, the rest of the chunk comes again with the next
    /// connection.
    ///
    /// A full sink of row changes stops the reading of the log, and then messages wait, too: they
    /// come out of the same log in the order of commits. The alternatives are worse: to hold back
    /// row changes without bound, or a second slot, for which the database decodes all of its log
    /// a second time.
    async fn hand_over(&mut self, mut chunk: Chunk) -> Result<(), SessionError> {
        let mut position = self.memory.position;
        position.advance(&chunk);
        let messages = chunk.messages.rows.len() as u64;
        if messages > 0 {
            let mut half_way = self.memory.position;
            half_way.advance_messages(&chunk);
            let room = self.sinks.messages.reserve().await;
            room.map_err(|_| SessionError::SinkClosed)?
                .send(std::mem::replace(
                    &mut chunk.messages,
                    InsertedMessages {
                        committed_at: chunk.transaction.committed_at,
                        rows: Vec::new(),
                    },
                ));
            self.memory.position = half_way;
            self.metrics.messages.inc_by(messages);
        }
        let changes = chunk.transaction.changes.len() as u64;
        let (commit_lsn, committed_at) =
            (chunk.transaction.commit_lsn, chunk.transaction.committed_at);
        if chunk.has_changes() {
            self.send(StreamEvent::Changes(chunk.transaction.into()))
                .await?;
        }
        self.memory.position = position;
        self.metrics.changes.inc_by(changes);
        if position.is_whole {
            self.metrics.transactions.inc();
            self.status.send_modify(|status| {
                status.last_commit = Some((commit_lsn, committed_at));
            });
        }
        Ok(())
    }

    fn acknowledge(&mut self, client: &ReplicationClient, lsn: Lsn) {
        if lsn > self.memory.acknowledged {
            self.memory.acknowledged = lsn;
            client.update_applied_lsn(pgwire_replication::Lsn::from_u64(lsn.0));
        }
    }

    /// Tells listeners that the stream runs, after the gap they missed if there was one: the new
    /// slot exists by now, so what they read from the tables on hearing of the gap and what
    /// follows here leave nothing out.
    async fn announce_live(&mut self, reading: Publications) -> Result<(), SessionError> {
        self.sinks.messages_live.send_replace(reading.messages);
        if self.memory.owes_interrupted {
            self.send(StreamEvent::Interrupted).await?;
            self.memory.owes_interrupted = false;
        }
        if self.memory.owes_gap {
            self.send(StreamEvent::Gap).await?;
            self.memory.owes_gap = false;
        }
        self.send(StreamEvent::Live).await?;
        self.readiness.set_replication(ReplicationState::Streaming);
        self.memory.is_live = true;
        self.memory.was_live = true;
        self.status.send_modify(|status| {
            status.state = StreamState::Live;
            status.last_error = None;
        });
        Ok(())
    }

    /// Reports the end of a connection, without waiting: a sink that is full for long must not keep
    /// the slot from being looked at. Errors only when there is nobody to report to.
    fn interrupted(&mut self, error: &SessionError) -> Result<(), SessionError> {
        match error {
            SessionError::SlotBusy(_) => {
                tracing::info!(slot = %self.slot, %error, "waiting for the replication slot");
            }
            _ => tracing::warn!(
                slot = %self.slot,
                error = error.with_causes(),
                sqlstate = error.sqlstate(),
                "replication is interrupted and will be tried again"
            ),
        }
        self.metrics.reconnects.inc();
        // With an SQLSTATE the server has answered and refused; it may take a person to help.
        self.readiness.set_replication(match error.sqlstate() {
            Some(_) => ReplicationState::Failing,
            None => ReplicationState::Connecting,
        });
        self.status.send_modify(|status| {
            if status.state == StreamState::Live {
                status.state = StreamState::Interrupted;
            }
            status.last_error = Some(error.with_causes());
        });
        if std::mem::take(&mut self.memory.is_live) {
            let sink = &self.sinks.changes;
            self.memory.owes_interrupted = match sink.try_send(StreamEvent::Interrupted) {
                Ok(()) => false,
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Closed(_)) => return Err(SessionError::SinkClosed),
            };
        }
        Ok(())
    }

    async fn send(&self, event: StreamEvent) -> Result<(), SessionError> {
        self.sinks
            .changes
            .send(event)
            .await
            .map_err(|_| SessionError::SinkClosed)
    }

    /// The clean end: the slot is dropped, or brought to where the stream was acknowledged.
    async fn release(&mut self) {
        if !self.memory.has_slot {
            return;
        }
        let released = tokio::time::timeout(RELEASE_TIMEOUT, self.release_slot()).await;
        let problem = match released {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.with_causes(),
            Err(_) => format!("no end after {} s", RELEASE_TIMEOUT.as_secs()),
        };
        tracing::warn!(
            slot = %self.slot,
            problem,
            "the replication slot could not be released; it keeps write-ahead log until it is read or dropped"
        );
    }

    async fn release_slot(&self) -> Result<(), SessionError> {
        /// How soon to look again whether the walsender has ended.
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let client = slot_watch::connect(&self.connector, &self.tasks).await?;
        let begun = Instant::now();
        loop {
            let Some(state) = slot::inspect(&client, &self.slot).await? else {
                return Ok(());
            };
            match state.active_pid {
                Some(pid) if self.memory.preparation.own_pid != Some(pid) => {
                    tracing::info!(slot = %self.slot, pid, "another process reads the slot: it is left to it");
                    return Ok(());
                }
                Some(pid) => {
                    if begun.elapsed() >= WALSENDER_EXIT {
                        slot::terminate(&client, pid).await?;
                    }
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                None if !self.config.keep_slot => {
                    return Ok(slot::drop(&client, &self.slot).await?);
                }
                None => {
                    // The last acknowledgement may not have reached the server before the end.
                    let acknowledged = self.memory.acknowledged;
                    if state
                        .confirmed
                        .is_some_and(|confirmed| confirmed < acknowledged)
                    {
                        slot::advance(&client, &self.slot, acknowledged).await?;
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// Ends the session as the protocol wants it, or by force where the peer does not listen.
async fn say_goodbye(mut client: ReplicationClient) {
    if tokio::time::timeout(GOODBYE, client.shutdown())
        .await
        .is_err()
    {
        client.abort();
    }
}

/// `work`, given up when a stop is asked for.
async fn stoppable<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, SessionError>>,
) -> Result<T, SessionError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(SessionError::Stopped),
        result = work => result,
    }
}

/// Half to one and a half of `pause`, so that several processes do not come back in step.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}
