//! Simulated users of the whole chat, over its routes and sockets. They write, read, edit, react,
//! type, arrange their lists, open conversations, and lose their connections.
//!
//! At the end, every device and every fresh load must show the state of the database. No allowed
//! request may be refused, no deadlock may occur, and messages must arrive soon.

mod copy;
mod person;
mod socket;

use std::time::Duration;

use futures_util::future::{join, try_join_all};
use serde_json::{Value, json};
use tokio::sync::{Barrier, watch};
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::Failure;
use crate::crowd::window::{microseconds, quantiles};
use crate::database::{Database, connect, current_thread, person_id};
use crate::report::rounded;
use crate::server::Server;
use person::{Person, Truth};

/// Number of initial conversations of each user. Other users opened half of them.
const CONVERSATIONS: usize = 6;

/// Number of users with whom each user may open a conversation during the run.
const STRANGERS: usize = 3;

/// Maximum number of users whose state is also loaded from scratch at the end.
const FRESH: usize = 50;

/// Milliseconds within which 95 of 100 messages must reach the other user's device.
const SOON: f64 = 100.0;

/// Creates team members, and conversations between each member and the next ones.
const SETTING: &str = "
    insert into public.teams (id, name) values ('50000000-0000-4000-8000-0000000000ff', 'Everybody');
    insert into public.users (id, email, full_name, team_id)
    select ('50000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, format('person-%s@people.example', n),
        'Person ' || n, '50000000-0000-4000-8000-0000000000ff'
    from generate_series(0, {people} - 1) n;
    insert into public.user_conversations (participant_1_id, participant_2_id)
    select ('50000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
        ('50000000-0000-4000-8000-' || lpad(to_hex((n + step) % {people}), 12, '0'))::uuid
    from generate_series(0, {people} - 1) n, generate_series(1, {steps}) step
    on conflict do nothing;";

/// The expected state of a user.
const TRUTH: &str = include_str!("truth.sql");

/// Simulates `people` users. Returns the result and whether it is correct.
pub(crate) fn run(people: usize, duration: Duration, seed: u64) -> Result<(Value, bool), Failure> {
    let database = Database::start()?;
    database.execute(
        &SETTING
            .replace("{people}", &people.to_string())
            .replace("{steps}", &(CONVERSATIONS / 2).to_string()),
    )?;
    let server = Server::rapport(&database)?;
    let everybody = (0..people)
        .map(|number| {
            let strangers = (1..=STRANGERS)
                .map(|step| (number + CONVERSATIONS / 2 + step) % people)
                .filter(|stranger| *stranger != number)
                .map(|stranger| person_id(stranger).to_string());
            Person::new(
                person_id(number).to_string(),
                database.token(number)?,
                server.address,
                strangers.collect(),
                seed.wrapping_mul(1_000_003) + number as u64,
            )
        })
        .collect::<Result<Vec<_>, Failure>>()?;

    let lived = current_thread()?.block_on(live(&everybody, &database.url(), duration))?;
    let deadlocks = database
        .number("select deadlocks from pg_stat_database where datname = current_database()")?;
    server.stop()?;

    let mut answers = std::collections::BTreeMap::<String, u64>::new();
    let mut events = std::collections::BTreeMap::<String, u64>::new();
    let mut arrival_us = microseconds()?;
    let (mut disconnects, mut faults) = (0, lived.faults);
    for tally in everybody.into_iter().map(Person::into_tally) {
        for ((what, status), count) in tally.answers {
            *answers.entry(format!("{what} {status}")).or_default() += count;
        }
        for (event, count) in tally.events {
            *events.entry(event).or_default() += count;
        }
        arrival_us.add(&tally.arrival_us)?;
        disconnects += tally.disconnects;
        faults.extend(tally.faults);
    }
    let p95 = arrival_us.value_at_quantile(0.95) as f64 / 1000.0;
    let is_well = faults.is_empty() && deadlocks == 0 && p95 < SOON;
    faults.truncate(20);
    let requests: u64 = answers.values().sum();
    let result = json!({
        "what": "people", "people": people, "minutes": duration.as_secs_f64() / 60.0, "seed": seed,
        "requests": requests, "requests_per_second": rounded(requests as f64 / duration.as_secs_f64()),
        "answers": answers, "events": events, "disconnects": disconnects,
        "messages_received": arrival_us.len(), "arrival_ms": quantiles(&arrival_us),
        "devices_right": lived.right, "fresh_loads_right": lived.fresh_right,
        "deadlocks": deadlocks, "faults": faults, "holds": is_well,
    });
    Ok((result, is_well))
}

/// The numbers of devices and of fresh loads that were correct, and the faults.
struct Outcome {
    right: usize,
    fresh_right: usize,
    faults: Vec<String>,
}

async fn live(everybody: &[Person], url: &str, duration: Duration) -> Result<Outcome, Failure> {
    let client = connect(url).await?;
    let end = Instant::now() + duration;
    let finished = Barrier::new(everybody.len() + 1);
    let (tell, truth) = watch::channel(None);
    let lives = everybody
        .iter()
        .enumerate()
        .map(|(place, person)| person.live(end, &finished, truth.clone(), place));
    let telling = async {
        finished.wait().await;
        let truths = try_join_all(everybody.iter().map(|person| truth_of(&client, person))).await?;
        tell.send_replace(Some(truths.clone()));
        Ok::<_, Failure>(truths)
    };
    let (lives, truths) = join(try_join_all(lives), telling).await;
    let (right, truths) = (lives?, truths?);

    let mut faults = Vec::new();
    let mut fresh_right = 0;
    let step = everybody.len().div_ceil(FRESH).max(1);
    for (person, truth) in everybody.iter().zip(&truths).step_by(step) {
        match first_difference(&person.load_afresh().await?, &truth.copy) {
            None => fresh_right += 1,
            Some(difference) => faults.push(format!("{} loaded afresh: {difference}", person.id)),
        }
    }
    Ok(Outcome {
        right: right.into_iter().filter(|is_right| *is_right).count(),
        fresh_right,
        faults,
    })
}

async fn truth_of(client: &Client, person: &Person) -> Result<Truth, Failure> {
    let id: uuid::Uuid = person.id.parse()?;
    let row = client.query_one(TRUTH, &[&id]).await?;
    Ok(Truth {
        copy: row.try_get(0)?,
        unread_total: row.try_get(1)?,
    })
}

/// Returns the first difference between two values: its path and both sides.
fn first_difference(found: &Value, expected: &Value) -> Option<String> {
    let under = |name: String, difference: String| format!("{name}.{difference}");
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let names = found.keys().chain(expected.keys());
            names
                .filter_map(|name| {
                    let side = |object: &serde_json::Map<String, Value>| {
                        object.get(name).cloned().unwrap_or_default()
                    };
                    first_difference(&side(found), &side(expected)).map(|d| under(name.clone(), d))
                })
                .next()
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => found
            .iter()
            .zip(expected)
            .enumerate()
            .find_map(|(place, (found, expected))| {
                first_difference(found, expected).map(|d| under(place.to_string(), d))
            }),
        _ if found == expected => None,
        _ => Some(format!(" {found} instead of {expected}")),
    }
}
