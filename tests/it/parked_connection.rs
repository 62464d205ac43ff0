//! A parked connection runs statements for many callers. A result counts only if it certainly
//! belongs to the right caller.
//!
//! The login is a superuser, so a statement that ran as the login would succeed.

use rapport::db::connect::Connector;
use rapport::db::parked::{Caller, NEXT_TRANSACTION, ParkedConnection, ParkedError};
use rapport::shutdown::Tasks;
use tokio_postgres::SimpleQueryMessage;

use crate::support::database::TestDatabase;

/// The outcome of a pipeline.
#[derive(Debug, PartialEq, Eq)]
struct PipelineOutcome {
    is_opened: bool,
    /// For each query: the rows, `doubtful`, or the SQLSTATE.
    answers: Vec<String>,
    is_sound: bool,
}

struct Bench {
    database: TestDatabase,
    tasks: Tasks,
}

impl Bench {
    async fn new() -> Self {
        Self {
            database: TestDatabase::new().await,
            tasks: Tasks::new(),
        }
    }

    async fn park(&self) -> ParkedConnection {
        let connector = Connector::new(self.database.url()).unwrap();
        let client = connector.connect("test", &self.tasks).await.unwrap();
        ParkedConnection::park(client, "set jit = off", &["test.who"])
            .await
            .unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

/// Runs queries in one pipeline. Each query has a role, the name of the caller, and a statement.
async fn run(
    connection: &ParkedConnection,
    opening: &str,
    queries: &[(&str, &str, &str)],
) -> PipelineOutcome {
    let client = connection.client();
    let queries = queries.iter().map(|(role, who, sql)| {
        let caller = Caller {
            role,
            settings: vec![who],
        };
        (caller, client.simple_query(sql))
    });
    let opening = client.batch_execute(opening);
    let mut pipeline = connection
        .send_pipeline(opening, NEXT_TRANSACTION, queries)
        .await;
    let is_opened = pipeline.opening().await.is_ok();
    let mut answers = Vec::new();
    while let Some(answer) = pipeline.next().await {
        answers.push(match answer {
            Ok(messages) => text(&messages),
            Err(ParkedError::Doubtful) => "doubtful".to_owned(),
            Err(ParkedError::Database(error)) => error.code().unwrap().code().to_owned(),
        });
    }
    PipelineOutcome {
        is_opened,
        answers,
        is_sound: pipeline.finish().await,
    }
}

fn text(messages: &[SimpleQueryMessage]) -> String {
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.collect::<Vec<_>>().join(", ")
}

const WHO: &str = "select current_user || ' ' || current_setting('test.who') || ' '
    || coalesce(nullif(current_setting('test.left', true), ''), 'nothing left')";

#[tokio::test]
async fn each_query_runs_as_its_caller_and_sees_nothing_of_the_previous_query() {
    let bench = Bench::new().await;
    let connection = bench.park().await;
    let queries = [
        ("authenticated", "ann", WHO),
        (
            "authenticated",
            "ben",
            "select set_config('test.left', 'something', false)",
        ),
        ("anon", "zoe", WHO),
        ("no_such_role", "nobody", WHO),
        ("authenticated", "ann", "select 1 / 0"),
        ("authenticated", "ann", WHO),
    ];
    let outcome = run(&connection, "begin", &queries).await;
    let answers = [
        "authenticated ann nothing left",
        "something",
        "anon zoe nothing left",
        "22023",
        "22012",
        "authenticated ann nothing left",
    ];
    assert_eq!(outcome.answers, answers);
    assert!(outcome.is_opened && outcome.is_sound);
    let parked = "select current_user";
    let messages = connection.client().simple_query(parked).await.unwrap();
    assert_eq!(text(&messages), "rapport_request");
}

#[tokio::test]
async fn results_that_may_belong_to_another_caller_do_not_count() {
    let bench = Bench::new().await;
    let anyone = ("authenticated", "ann", WHO);
    let known = "authenticated ann nothing left";
    // Statement before the pipeline, opening, queries, answers.
    let cases = [
        // The connection is not parked, so it has the login's rights.
        (
            "reset role",
            "begin",
            [anyone, anyone],
            ["doubtful", "doubtful"],
        ),
        // In PostgreSQL, the role `none` means the login's own role.
        (
            "",
            "begin",
            [("none", "ann", WHO), anyone],
            ["doubtful", "doubtful"],
        ),
        // The opening fails.
        (
            "",
            "begin; select 1 / 0",
            [anyone, anyone],
            ["doubtful", "doubtful"],
        ),
        // A query ends the transaction, so the next query runs outside of one.
        (
            "",
            "begin",
            [("authenticated", "ann", "commit"), anyone],
            ["", "doubtful"],
        ),
        // The control case, in which nothing fails.
        ("", "begin read only", [anyone, anyone], [known, known]),
    ];
    for (before, opening, queries, answers) in cases {
        let connection = bench.park().await;
        connection.client().batch_execute(before).await.unwrap();
        let outcome = run(&connection, opening, &queries).await;
        let is_well = answers == [known, known];
        let expected = PipelineOutcome {
            is_opened: !opening.contains('/'),
            answers: answers.map(str::to_owned).to_vec(),
            is_sound: is_well,
        };
        assert_eq!(outcome, expected, "{before} {opening} {queries:?}");
    }
}

/// A caller may lack the rights to resolve the names in a statement, so it is prepared with those
/// of the login. The connection must not keep these rights.
#[tokio::test]
async fn statements_are_prepared_with_the_rights_of_the_login() {
    let bench = Bench::new().await;
    let admin = bench.database.connect().await;
    admin
        .batch_execute(
            "create schema hidden;
             create function hidden.me() returns text language sql as $$ select current_user $$;",
        )
        .await
        .unwrap();
    let mut connection = bench.park().await;
    let wanted = [
        (1, "select hidden.me()"),
        (2, "select hidden.nobody()"),
        (1, "select hidden.me()"),
    ];
    let refused = connection.prepare(wanted.into_iter()).await.unwrap();
    assert_eq!(refused.keys().collect::<Vec<_>>(), [&2]);
    assert!(connection.statement(2).is_none());
    let client = connection.client();
    let messages = client.simple_query("select current_user").await.unwrap();
    assert_eq!(text(&messages), "rapport_request");
    let statement = connection.statement(1).unwrap();
    let caller = Caller {
        role: "authenticated",
        settings: vec!["ann"],
    };
    let queries = std::iter::once((caller, client.query_one(statement, &[])));
    let mut pipeline = connection
        .send_pipeline(client.batch_execute("begin"), NEXT_TRANSACTION, queries)
        .await;
    pipeline.opening().await.unwrap();
    let row = pipeline.next().await.unwrap().unwrap();
    assert_eq!(row.get::<_, &str>(0), "authenticated");
    assert!(pipeline.finish().await);
    connection.forget(1);
    assert!(connection.statement(1).is_none());
}
