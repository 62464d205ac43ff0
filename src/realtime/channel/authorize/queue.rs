//! The checks that wait for a worker (see [`super`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::check::PendingCheck;
use super::error::AuthorizeError;

/// Maximum number of checks per pipeline. A larger pipeline would only let one slow policy delay
/// more checks.
const MAX_PER_PIPELINE: usize = 32;

/// Number of waiting checks per worker at which another worker starts. A few large pipelines cost
/// the database less than many small ones.
const WAITING_PER_WORKER: usize = 16;

/// How long each pipeline contains only one check after a slow check. The database evaluates the
/// checks of a pipeline in order, so a slow check delays those behind it.
const SINGLE_CHECK_PERIOD: Duration = Duration::from_secs(2);

/// Maximum number of checks in the queue. Further checks would wait longer than
/// [`QUEUE_TIMEOUT`](super::limits::QUEUE_TIMEOUT) anyway.
pub(super) const MAX_QUEUED: usize = 20_000;

/// Maximum number of checks that a worker takes from the queue for one pipeline, including
/// duplicates. Duplicates are sent only once.
const MAX_TAKEN: usize = 512;

/// The waiting checks, and the number of workers that take checks from the queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<PendingCheck>,
    /// Number of running workers.
    workers: usize,
    /// The time until which each pipeline contains only one check.
    single_until: Option<Instant>,
}

impl Queue {
    /// Appends a check.
    ///
    /// # Errors
    /// Fails if the queue is full.
    pub(super) fn push(&mut self, pending: PendingCheck) -> Result<(), AuthorizeError> {
        if self.waiting.len() >= MAX_QUEUED {
            return Err(AuthorizeError::PoolExhausted);
        }
        self.waiting.push_back(pending);
        Ok(())
    }

    /// Adds a check at the front of the queue.
    pub(super) fn push_front(&mut self, pending: PendingCheck) {
        self.waiting.push_front(pending);
    }

    /// Removes and returns all checks.
    pub(super) fn take_all(&mut self) -> VecDeque<PendingCheck> {
        std::mem::take(&mut self.waiting)
    }

    /// Returns whether to start a worker: checks must wait, and another connection must be
    /// worthwhile. If so, the worker is counted until [`Queue::take_next`] finds no check for it.
    pub(super) fn add_worker(&mut self, is_urgent: bool, max_workers: usize) -> bool {
        let is_worth_it = self.workers == 0
            || is_urgent
            || self.waiting.len() >= WAITING_PER_WORKER * self.workers;
        let starts = !self.waiting.is_empty() && self.workers < max_workers && is_worth_it;
        if starts {
            self.workers += 1;
        }
        starts
    }

    /// Takes checks from the queue for one pipeline. Returns `None` if no checks wait, which ends
    /// the worker.
    pub(super) fn take_next(&mut self, now: Instant) -> Option<Vec<PendingCheck>> {
        let is_single = self.single_until.is_some_and(|until| now < until);
        let max = if is_single { 1 } else { MAX_PER_PIPELINE };
        let mut positions = HashMap::new();
        let mut checks: Vec<PendingCheck> = Vec::new();
        for _ in 0..MAX_TAKEN {
            let Some(pending) = self.waiting.pop_front() else {
                break;
            };
            if !pending.is_waited_for() {
                continue;
            }
            let check = &pending.check;
            // The claims identify the caller, including its role and subject.
            let key = (
                check.kind,
                Arc::clone(&check.topic),
                Arc::clone(&check.claims.json),
                Arc::clone(&check.headers),
            );
            if let Some(position) = positions.get(&key) {
                let other: &mut PendingCheck = &mut checks[*position];
                pending.is_taken.store(true, Ordering::Relaxed);
                other.receivers.extend(pending.receivers);
                other.is_repeated |= pending.is_repeated;
                continue;
            }
            if checks.len() == max {
                self.waiting.push_front(pending);
                break;
            }
            pending.is_taken.store(true, Ordering::Relaxed);
            positions.insert(key, checks.len());
            checks.push(pending);
        }
        if checks.is_empty() {
            self.workers -= 1;
            return None;
        }
        Some(checks)
    }

    /// Returns the checks behind a slow one to the front of the queue. For a while, each new
    /// pipeline contains only one check.
    pub(super) fn take_back(&mut self, checks: &mut VecDeque<PendingCheck>, now: Instant) {
        self.single_until = Some(now + SINGLE_CHECK_PERIOD);
        while let Some(pending) = checks.pop_back() {
            pending.is_taken.store(false, Ordering::Relaxed);
            self.waiting.push_front(pending);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::sync::oneshot;

    use super::super::check::{Check, CheckKind, CheckResult};
    use super::*;
    use crate::auth::Claims;

    type Receiver = oneshot::Receiver<CheckResult>;

    fn pending(topic: &str) -> (PendingCheck, Receiver) {
        let (sender, receiver) = oneshot::channel();
        let claims = Claims {
            json: "{}".into(),
            role: "authenticated".to_owned(),
            subject: None,
            expires_at: i64::MAX,
            signer: None,
        };
        let check = Check {
            kind: CheckKind::Write,
            topic: topic.into(),
            claims,
            headers: "{}".into(),
        };
        let pending = PendingCheck {
            check: Arc::new(check),
            receivers: vec![sender],
            is_taken: Arc::new(AtomicBool::new(false)),
            is_repeated: false,
        };
        (pending, receiver)
    }

    fn queue_of(topics: &[&str]) -> (Queue, Vec<Receiver>) {
        let mut queue = Queue::default();
        let push = |topic: &&str| {
            let (pending, receiver) = pending(topic);
            queue.push(pending).unwrap();
            receiver
        };
        let receivers = topics.iter().map(push).collect();
        (queue, receivers)
    }

    /// Takes the checks of a pipeline. Returns their topics, each with the number of receivers.
    fn take_next(queue: &mut Queue, now: Instant) -> Option<Vec<(String, usize)>> {
        let summary =
            |pending: &PendingCheck| (pending.check.topic.to_string(), pending.receivers.len());
        Some(queue.take_next(now)?.iter().map(summary).collect())
    }

    #[test]
    fn equal_checks_are_sent_once_and_abandoned_ones_never() {
        let now = Instant::now();
        let (mut queue, mut receivers) = queue_of(&["a", "b", "a", "c"]);
        receivers.remove(1);
        assert!(queue.add_worker(false, 1));
        let expected = vec![("a".to_owned(), 2), ("c".to_owned(), 1)];
        assert_eq!(take_next(&mut queue, now), Some(expected));
        assert_eq!(take_next(&mut queue, now), None, "the worker has ended");
        assert!(!queue.add_worker(true, 1), "nothing waits");
    }

    #[test]
    fn another_worker_starts_if_it_is_urgent_or_many_checks_wait() {
        let (mut queue, _receivers) = queue_of(&["a"; WAITING_PER_WORKER - 1]);
        assert!(queue.add_worker(false, 3));
        assert!(!queue.add_worker(false, 3));
        assert!(queue.add_worker(true, 3));
        let (more, _receiver) = pending("a");
        queue.push(more).unwrap();
        assert!(!queue.add_worker(false, 3), "two workers suffice");
        assert!(queue.add_worker(true, 3));
        assert!(!queue.add_worker(true, 3), "all connections are in use");
    }

    #[test]
    fn after_a_slow_check_pipelines_contain_one_check_for_a_while() {
        let now = Instant::now();
        let (mut queue, _receivers) = queue_of(&["a", "b", "c"]);
        assert!(queue.add_worker(false, 1));
        let mut checks: VecDeque<PendingCheck> = queue.take_next(now).unwrap().into();
        checks.pop_front();
        assert!(checks[0].is_taken.load(Ordering::Relaxed));
        queue.take_back(&mut checks, now);
        let alone = vec![("b".to_owned(), 1)];
        assert_eq!(take_next(&mut queue, now), Some(alone));
        let last = queue.take_next(now + SINGLE_CHECK_PERIOD).unwrap();
        assert_eq!(&*last[0].check.topic, "c");
    }
}
