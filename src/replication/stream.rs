//! The task that reads the slot over one connection after another, until it is stopped.

use std::convert::Infallible;
use std::time::Duration;

use pgwire_replication::{ReplicationClient, ReplicationEvent};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assemble::{Assembler, Chunk, ChunkLimits, Progress, Step};
use super::connection_error::ConnectionError;
use super::names::SlotName;
use super::pgoutput::{self, WalMessage};
use super::prepare::{Preparation, SlotOrigin};
use super::publication::Publications;
use super::relation_cache::RelationCache;
use super::slot;
use super::slot_watch::{self, SlotWatch};
use super::status::{ReplicationStatus, Sinks, StreamState};
use super::transport::{self, Address, ClusterHistory, Opened};
use crate::change::{InsertedMessages, Lsn, StreamEvent};
use crate::config::ReplicationConfig;
use crate::db::connect::Connector;
use crate::observability::metrics::ReplicationMetrics;
use crate::observability::readiness::{Readiness, ReplicationState};
use crate::shutdown::Tasks;

/// Pause while another process uses the slot. It bounds the time until this process takes over.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Minimum lifetime of a connection to count as a success even if nothing arrived. A success resets
/// the pause between attempts.
const SUCCESS_AFTER: Duration = Duration::from_secs(5);

/// Time limit for the replication client's shutdown.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Time limit for the whole clean stop.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which this process's walsender is terminated if it has not ended by itself.
const TERMINATE_AFTER: Duration = Duration::from_secs(2);

/// The task that reads the stream, with its state between connections.
pub(super) struct Stream {
    pub connector: Connector,
    pub address: Address,
    pub config: ReplicationConfig,
    pub slot: SlotName,
    /// The queues to which the stream sends.
    pub sinks: Sinks,
    pub status: watch::Sender<ReplicationStatus>,
    pub metrics: ReplicationMetrics,
    pub readiness: Readiness,
    pub tasks: Tasks,
    pub stop: CancellationToken,
    pub memory: Memory,
}

/// The state that outlives a connection.
#[derive(Default)]
pub(super) struct Memory {
    preparation: Preparation,
    progress: Progress,
    relations: RelationCache,
    /// The acknowledged position. Everything before it was handed over or is not relevant.
    acknowledged: Lsn,
    cluster: Option<ClusterHistory>,
    attempts: usize,
    /// Whether this process created or read the slot, and is therefore responsible for dropping it.
    has_slot: bool,
    was_live: bool,
    is_live: bool,
    /// Whether an interruption could not be sent yet, because the sink was full.
    interrupted_is_pending: bool,
    /// Whether a gap has not been sent yet.
    gap_is_pending: bool,
    /// Whether the next connection reads without the publication of `realtime.messages`, because an
    /// unacknowledged change is older than that publication.
    without_messages: bool,
}

impl Stream {
    /// Reads until the stream is stopped or the sinks are closed, then releases the slot.
    pub(super) async fn run(mut self) {
        let mut pause = self.config.backoff_min;
        while !self.stop.is_cancelled() {
            let before = (self.memory.acknowledged, self.memory.progress);
            let begun = Instant::now();
            let Err(error) = self.run_connection().await;
            if matches!(
                error,
                ConnectionError::Stopped | ConnectionError::SinkClosed
            ) {
                break;
            }
            if matches!(error, ConnectionError::PublicationsChanged) {
                tracing::info!(slot = %self.slot, "set of publications has changed; restarting the stream");
                self.memory.without_messages = false;
                continue;
            }
            let is_progress = before != (self.memory.acknowledged, self.memory.progress);
            if is_progress || begun.elapsed() >= SUCCESS_AFTER {
                pause = self.config.backoff_min;
            }
            if self.report_interruption(&error).is_err() {
                break;
            }
            let wait = match error {
                ConnectionError::SlotBusy(_) => BUSY_PAUSE,
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

    /// Runs one connection, from its preparation to its end.
    async fn run_connection(&mut self) -> Result<Infallible, ConnectionError> {
        let attempt = self.memory.attempts;
        self.memory.attempts += 1;
        let stop = self.stop.clone();
        let control =
            until_stopped(&stop, slot_watch::connect(&self.connector, &self.tasks)).await?;
        let (origin, mut publications) = self
            .memory
            .preparation
            .prepare(&control, &self.connector, &self.slot, &self.config, &stop)
            .await?;
        self.note_slot_origin(origin);
        // A new slot begins after everything that the old one could not read.
        self.memory.without_messages &= origin == SlotOrigin::Found && publications.changes;
        publications.messages &= !self.memory.without_messages;

        let opening = transport::open(
            &self.address,
            attempt,
            &self.slot,
            &self.config,
            publications,
            self.memory.acknowledged,
        );
        let Opened {
            mut client,
            cluster,
            end,
            pid,
        } = until_stopped(&stop, opening).await?;
        self.check_cluster(cluster, end);
        self.memory.preparation.own_pid = Some(pid);
        until_stopped(&stop, transport::start(&mut client))
            .await
            .inspect_err(|error| self.note_error(error, false))?;
        self.memory.has_slot = true;

        let watch = SlotWatch {
            connector: self.connector.clone(),
            tasks: self.tasks.clone(),
            name: self.slot.clone(),
            pid,
            max_wal_held_bytes: self.config.max_wal_held_bytes,
            interval: self.config.check_interval,
            publication: self.config.publication.clone(),
            publications,
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
            () = stop.cancelled() => ConnectionError::Stopped,
            error = watching => error,
            ended = self.read(&mut client, publications) => { let Err(error) = ended; error }
        };
        self.sinks.messages_live.send_replace(false);
        self.note_error(&error, true);
        shut_down(client).await;
        Err(error)
    }

    /// Resets the progress if the slot is new, and remembers a gap if changes may be missing.
    fn note_slot_origin(&mut self, origin: SlotOrigin) {
        let memory = &mut self.memory;
        if origin == SlotOrigin::Found {
            return;
        }
        memory.has_slot = true;
        // A new slot starts after everything that was handed over.
        memory.progress = Progress::default();
        memory.acknowledged = Lsn(0);
        if origin == SlotOrigin::Replaced || memory.was_live {
            self.metrics.slot_recreated.inc();
            memory.gap_is_pending = true;
        }
    }

    /// Resets the progress if the cluster or its history has changed, because positions are
    /// comparable only within one history of one cluster. After a restored backup, a switch to
    /// another cluster, or a failover to a standby that lacks the last transactions, new
    /// transactions would otherwise look like repeated ones.
    fn check_cluster(&mut self, cluster: ClusterHistory, end: Lsn) {
        let memory = &mut self.memory;
        let is_same = memory
            .cluster
            .as_ref()
            .is_none_or(|known| *known == cluster);
        let is_behind = end < memory.progress.commit_lsn || end < memory.acknowledged;
        if !is_same || is_behind {
            tracing::warn!("database history has changed; changes may be missing");
            memory.progress = Progress::default();
            memory.acknowledged = Lsn(0);
            memory.relations.clear();
            memory.gap_is_pending = true;
        }
        memory.cluster = Some(cluster);
    }

    fn note_error(&mut self, error: &ConnectionError, is_streaming: bool) {
        self.memory.preparation.needs_new_slot |= error.needs_new_slot(is_streaming);
        self.memory.without_messages |= error.is_without_messages(is_streaming);
    }

    /// Hands over row changes and rows of `realtime.messages` as they arrive, until the connection
    /// ends.
    async fn read(
        &mut self,
        client: &mut ReplicationClient,
        publications: Publications,
    ) -> Result<Infallible, ConnectionError> {
        self.announce_live(publications).await?;
        let mut assembler = Assembler::new(ChunkLimits {
            changes: self.config.chunk_max_changes,
            bytes: self.config.chunk_max_bytes,
        });
        loop {
            let event = client.recv().await?.ok_or(ConnectionError::Ended)?;
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
                // The server has sent everything before this position, and all of it has been
                // handed over, because events arrive in order. Acknowledging it lets an idle slot
                // release the WAL of other databases, and lets a fast shutdown finish.
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
            let step = assembler.push(message, bytes, &mut memory.relations, &memory.progress)?;
            self.apply_step(client, step).await?;
        }
    }

    async fn apply_step(
        &mut self,
        client: &ReplicationClient,
        step: Step,
    ) -> Result<(), ConnectionError> {
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

    /// Sends a chunk to the sinks and waits until they have room. The rows of `realtime.messages`
    /// are sent first, because they need not wait for the access checks of the row changes.
    /// Everything that was sent counts as handed over. If this future is dropped, the next
    /// connection delivers the rest of the chunk.
    ///
    /// A full sink of row changes stops the reading of the WAL, and rows of `realtime.messages`
    /// wait as well, because they come from the same WAL in commit order. The alternatives are
    /// worse: row changes would be buffered without limit, or there would be a second slot, for
    /// which the database would have to decode its WAL twice.
    async fn hand_over(&mut self, mut chunk: Chunk) -> Result<(), ConnectionError> {
        let mut progress = self.memory.progress;
        progress.advance(&chunk);
        let messages = chunk.messages.rows.len() as u64;
        if messages > 0 {
            let mut half_way = self.memory.progress;
            half_way.advance_messages(&chunk);
            let room = self.sinks.messages.reserve().await;
            room.map_err(|_| ConnectionError::SinkClosed)?
                .send(std::mem::replace(
                    &mut chunk.messages,
                    InsertedMessages {
                        committed_at: chunk.transaction.committed_at,
                        rows: Vec::new(),
                    },
                ));
            self.memory.progress = half_way;
            self.metrics.messages.inc_by(messages);
        }
        let changes = chunk.transaction.changes.len() as u64;
        let (commit_lsn, committed_at) =
            (chunk.transaction.commit_lsn, chunk.transaction.committed_at);
        if chunk.has_changes() {
            self.send(StreamEvent::Changes(chunk.transaction.into()))
                .await?;
        }
        self.memory.progress = progress;
        self.metrics.changes.inc_by(changes);
        if progress.is_whole {
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

    /// Sends the event that the stream is live, after the events that are still pending. After a
    /// gap, the new slot already exists, so a listener that reads the tables at the gap and then
    /// follows the stream misses nothing.
    async fn announce_live(&mut self, publications: Publications) -> Result<(), ConnectionError> {
        self.sinks.messages_live.send_replace(publications.messages);
        if self.memory.interrupted_is_pending {
            self.send(StreamEvent::Interrupted).await?;
            self.memory.interrupted_is_pending = false;
        }
        if self.memory.gap_is_pending {
            self.send(StreamEvent::Gap).await?;
            self.memory.gap_is_pending = false;
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

    /// Reports the end of a connection without waiting, because a full sink must not delay the next
    /// check of the slot. Fails only if the sink is closed.
    fn report_interruption(&mut self, error: &ConnectionError) -> Result<(), ConnectionError> {
        match error {
            ConnectionError::SlotBusy(_) => {
                tracing::info!(slot = %self.slot, %error, "waiting for the replication slot");
            }
            _ => tracing::warn!(
                slot = %self.slot,
                error = error.with_causes(),
                sqlstate = error.sqlstate(),
                "replication interrupted; retrying"
            ),
        }
        self.metrics.reconnects.inc();
        // An SQLSTATE means that the server responded with an error, which may need an operator.
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
            self.memory.interrupted_is_pending = match sink.try_send(StreamEvent::Interrupted) {
                Ok(()) => false,
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Closed(_)) => return Err(ConnectionError::SinkClosed),
            };
        }
        Ok(())
    }

    async fn send(&self, event: StreamEvent) -> Result<(), ConnectionError> {
        self.sinks
            .changes
            .send(event)
            .await
            .map_err(|_| ConnectionError::SinkClosed)
    }

    /// Releases the slot at a clean stop: drops it, or, if the configuration keeps it, advances it
    /// to the last acknowledged position. A slot that another process uses is left alone.
    async fn release(&mut self) {
        if !self.memory.has_slot {
            return;
        }
        let released = tokio::time::timeout(RELEASE_TIMEOUT, self.release_slot()).await;
        let problem = match released {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.with_causes(),
            Err(_) => format!("not finished after {} s", RELEASE_TIMEOUT.as_secs()),
        };
        tracing::warn!(
            slot = %self.slot,
            problem,
            "failed to release the replication slot; it holds WAL until it is read or dropped"
        );
    }

    async fn release_slot(&self) -> Result<(), ConnectionError> {
        /// Pause between two checks of whether the walsender has ended.
        const CHECK_PAUSE: Duration = Duration::from_millis(20);
        let client = slot_watch::connect(&self.connector, &self.tasks).await?;
        let begun = Instant::now();
        loop {
            let Some(state) = slot::inspect(&client, &self.slot).await? else {
                return Ok(());
            };
            match state.active_pid {
                Some(pid) if self.memory.preparation.own_pid != Some(pid) => {
                    tracing::info!(slot = %self.slot, pid, "slot is in use by another process; not dropping it");
                    return Ok(());
                }
                Some(pid) => {
                    if begun.elapsed() >= TERMINATE_AFTER {
                        slot::terminate(&client, pid).await?;
                    }
                    tokio::time::sleep(CHECK_PAUSE).await;
                }
                None if !self.config.keep_slot => {
                    return Ok(slot::drop(&client, &self.slot).await?);
                }
                None => {
                    // The last acknowledgement may not have reached the server.
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

/// Ends the replication connection as the protocol requires, or aborts it if the server does not
/// respond.
async fn shut_down(mut client: ReplicationClient) {
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, client.shutdown())
        .await
        .is_err()
    {
        client.abort();
    }
}

/// Runs `work` until a stop is requested.
async fn until_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(ConnectionError::Stopped),
        result = work => result,
    }
}

/// Returns a random pause between 0.5 and 1.5 times `pause`, so that several processes do not
/// reconnect at the same time.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64())
}
