//! A database with a realistic history for the rows about REST: many conversations of plausible
//! lengths, and a single long one.

use uuid::Uuid;

use crate::Failure;
use crate::database::Database;

/// Number of distinct words in the texts.
const WORDS: u64 = 20_000;

/// Number of conversations that each user started.
const TALKS_PER_PERSON: usize = 10;

/// Number of users and messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Population {
    pub(crate) people: usize,
    messages: usize,
}

impl Population {
    /// Returns the size of the database: a million messages between two thousand users, and another
    /// million in one conversation. A quick run uses a few messages only.
    pub(crate) fn new(is_quick: bool) -> Self {
        if is_quick {
            Self {
                people: 40,
                messages: 2_000,
            }
        } else {
            Self {
                people: 2_000,
                messages: 1_000_000,
            }
        }
    }

    /// Fills the database, unless it is already filled.
    pub(crate) fn fill(&self, database: &Database) -> Result<(), Failure> {
        let there = "select count(*) from public.teams where name = 'Population'";
        if database.number(there)? > 0 {
            return Ok(());
        }
        let statements = include_str!("population.sql")
            .replace("{people}", &self.people.to_string())
            .replace("{messages}", &self.messages.to_string())
            .replace("{long}", &self.messages.to_string());
        database.execute(&statements)?;
        // In a database that has grown over time, autovacuum has done this.
        for table in [
            "user_messages",
            "user_conversations",
            "user_conversation_members",
        ] {
            database.execute(&format!("vacuum analyze public.{table}"))?;
        }
        Ok(())
    }

    /// Returns the longest conversation that a user started.
    pub(crate) fn conversation(&self, person: usize) -> Uuid {
        conversation(person * TALKS_PER_PERSON)
    }

    /// Returns a separate user with three conversations: one as long as all others together, one of
    /// fifty messages, and an empty one.
    pub(crate) fn apart(&self) -> (usize, [Uuid; 3]) {
        let first = self.people * TALKS_PER_PERSON;
        (self.people, [0, 1, 2].map(|nth| conversation(first + nth)))
    }

    /// Returns a word for a fraction (0..1). A lower fraction yields a word that is more frequent
    /// in the texts.
    pub(crate) fn word(fraction: f64) -> String {
        let number = (WORDS as f64 * fraction.powi(4)) as u64 * 7919;
        [number % 85, number / 85 % 85, number / 7225 % 85]
            .map(|syllable| {
                let consonant = &"bcdfghjklmnprstvz"[(syllable % 17) as usize..][..1];
                let vowel = &"aeiou"[(syllable / 17 % 5) as usize..][..1];
                format!("{consonant}{vowel}")
            })
            .concat()
    }
}

/// Returns the id of the conversation with this number. SQL computes it in the same way.
fn conversation(number: usize) -> Uuid {
    Uuid::from_u64_pair(0x6000_0000_0000_4000, 0x8000_0000_0000_0000 | number as u64)
}
