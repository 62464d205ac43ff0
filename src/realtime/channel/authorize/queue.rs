//! The questions that wait for a flight (see [`super`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::error::AuthorizeError;
use super::question::Group;

/// Maximum number of questions per flight. A larger flight would only let one slow policy delay
/// more questions.
const MAX_FLIGHT: usize = 32;

/// Number of waiting questions per running flight at which another connection starts a flight. A
/// few large flights cost the database less than many small ones.
const WAITING_PER_FLIGHT: usize = 16;

/// How long each flight carries only one question after a slow question. The database evaluates the
/// questions of a flight in order, so a slow question delays those behind it.
const CAUTION: Duration = Duration::from_secs(2);

/// Maximum number of questions in the queue. Further questions would wait longer than
/// [`QUEUE_TIMEOUT`](super::limits::QUEUE_TIMEOUT) anyway.
pub(super) const MAX_QUEUED: usize = 20_000;

/// Maximum number of questions that a flight takes from the queue, including duplicates. Duplicates
/// share one place in the flight.
const MAX_BOARDING: usize = 512;

/// The waiting questions, and the number of flights that take questions from the queue.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Group>,
    /// Number of running flights.
    flights: usize,
    /// The time until which each flight carries only one question.
    caution: Option<Instant>,
}

impl Queue {
    /// Appends a question.
    ///
    /// # Errors
    /// Fails if the queue is full.
    pub(super) fn push(&mut self, group: Group) -> Result<(), AuthorizeError> {
        if self.waiting.len() >= MAX_QUEUED {
            return Err(AuthorizeError::PoolExhausted);
        }
        self.waiting.push_back(group);
        Ok(())
    }

    /// Adds a question at the front of the queue.
    pub(super) fn push_front(&mut self, group: Group) {
        self.waiting.push_front(group);
    }

    /// Removes and returns all questions.
    pub(super) fn take_all(&mut self) -> VecDeque<Group> {
        std::mem::take(&mut self.waiting)
    }

    /// Returns whether to start a flight: questions must wait, and another connection must be
    /// worthwhile. If so, the flight is counted until [`Queue::board`] finds no question for it.
    pub(super) fn begin_flight(&mut self, is_urgent: bool, max_flights: usize) -> bool {
        let is_worth_it = self.flights == 0
            || is_urgent
            || self.waiting.len() >= WAITING_PER_FLIGHT * self.flights;
        let begins = !self.waiting.is_empty() && self.flights < max_flights && is_worth_it;
        if begins {
            self.flights += 1;
        }
        begins
    }

    /// Takes questions from the queue for one flight. Returns `None` if no questions wait, which
    /// ends the flights of the connection.
    pub(super) fn board(&mut self, now: Instant) -> Option<Vec<Group>> {
        let is_cautious = self.caution.is_some_and(|until| now < until);
        let places = if is_cautious { 1 } else { MAX_FLIGHT };
        let mut places_of = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for _ in 0..MAX_BOARDING {
            let Some(group) = self.waiting.pop_front() else {
                break;
            };
            if !group.is_waited_for() {
                continue;
            }
            let subject = &group.subject;
            // The claims identify the caller, including its role and subject.
            let same = (
                subject.question,
                Arc::clone(&subject.topic),
                Arc::clone(&subject.claims.json),
                Arc::clone(&subject.headers),
            );
            if let Some(place) = places_of.get(&same) {
                let other: &mut Group = &mut groups[*place];
                group.is_taken.store(true, Ordering::Relaxed);
                other.receivers.extend(group.receivers);
                other.is_repeated |= group.is_repeated;
                continue;
            }
            if groups.len() == places {
                self.waiting.push_front(group);
                break;
            }
            group.is_taken.store(true, Ordering::Relaxed);
            places_of.insert(same, groups.len());
            groups.push(group);
        }
        if groups.is_empty() {
            self.flights -= 1;
            return None;
        }
        Some(groups)
    }

    /// Returns the questions behind a slow one to the front of the queue. For a while, each new
    /// flight carries only one question.
    pub(super) fn take_back(&mut self, groups: &mut VecDeque<Group>, now: Instant) {
        self.caution = Some(now + CAUTION);
        while let Some(group) = groups.pop_back() {
            group.is_taken.store(false, Ordering::Relaxed);
            self.waiting.push_front(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use tokio::sync::oneshot;

    use super::super::question::{Answer, Question, Subject};
    use super::*;
    use crate::auth::Claims;

    type Receiver = oneshot::Receiver<Answer>;

    fn group(topic: &str) -> (Group, Receiver) {
        let (sender, receiver) = oneshot::channel();
        let claims = Claims {
            json: "{}".into(),
            role: "authenticated".to_owned(),
            subject: None,
            expires_at: i64::MAX,
            signer: None,
        };
        let subject = Subject {
            question: Question::Write,
            topic: topic.into(),
            claims,
            headers: "{}".into(),
        };
        let group = Group {
            subject: Arc::new(subject),
            receivers: vec![sender],
            is_taken: Arc::new(AtomicBool::new(false)),
            is_repeated: false,
        };
        (group, receiver)
    }

    fn queue_of(topics: &[&str]) -> (Queue, Vec<Receiver>) {
        let mut queue = Queue::default();
        let push = |topic: &&str| {
            let (group, receiver) = group(topic);
            queue.push(group).unwrap();
            receiver
        };
        let receivers = topics.iter().map(push).collect();
        (queue, receivers)
    }

    /// Boards a flight. Returns its topics, each with the number of receivers.
    fn board(queue: &mut Queue, now: Instant) -> Option<Vec<(String, usize)>> {
        let on_board = |group: &Group| (group.subject.topic.to_string(), group.receivers.len());
        Some(queue.board(now)?.iter().map(on_board).collect())
    }

    #[test]
    fn equal_questions_share_a_place_and_abandoned_ones_have_none() {
        let now = Instant::now();
        let (mut queue, mut receivers) = queue_of(&["a", "b", "a", "c"]);
        receivers.remove(1);
        assert!(queue.begin_flight(false, 1));
        let expected = vec![("a".to_owned(), 2), ("c".to_owned(), 1)];
        assert_eq!(board(&mut queue, now), Some(expected));
        assert_eq!(board(&mut queue, now), None, "the flight has ended");
        assert!(!queue.begin_flight(true, 1), "nothing waits");
    }

    #[test]
    fn another_flight_starts_if_it_is_urgent_or_many_questions_wait() {
        let (mut queue, _receivers) = queue_of(&["a"; WAITING_PER_FLIGHT - 1]);
        assert!(queue.begin_flight(false, 3));
        assert!(!queue.begin_flight(false, 3));
        assert!(queue.begin_flight(true, 3));
        let (more, _receiver) = group("a");
        queue.push(more).unwrap();
        assert!(!queue.begin_flight(false, 3), "two flights suffice");
        assert!(queue.begin_flight(true, 3));
        assert!(!queue.begin_flight(true, 3), "all connections are in use");
    }

    #[test]
    fn after_a_slow_question_flights_carry_one_question_for_a_while() {
        let now = Instant::now();
        let (mut queue, _receivers) = queue_of(&["a", "b", "c"]);
        assert!(queue.begin_flight(false, 1));
        let mut groups: VecDeque<Group> = queue.board(now).unwrap().into();
        groups.pop_front();
        assert!(groups[0].is_taken.load(Ordering::Relaxed));
        queue.take_back(&mut groups, now);
        let alone = vec![("b".to_owned(), 1)];
        assert_eq!(board(&mut queue, now), Some(alone));
        let last = queue.board(now + CAUTION).unwrap();
        assert_eq!(&*last[0].subject.topic, "c");
    }
}
