//! Runs the examples for other programs, which are the curl script and the Rust client, against a
//! real server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::chat_server::Person;
use crate::support::database::TestDatabase;
use crate::support::process::{PATIENCE, run, text};
use crate::support::token::{anon_key, user_token};
use crate::support::whole_server::WholeServer;

/// Time limit for a line from the Rust client. Cargo may have to build the client first, on a busy
/// machine.
const BUILD_PATIENCE: Duration = Duration::from_secs(300);

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join(path).display().to_string()
}

#[tokio::test]
async fn the_curl_script_sends_a_message_and_reads_it() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &[]).await.ready().await;
    let variables = tempfile::NamedTempFile::new().unwrap();
    let written = format!(
        "API_URL=\"http://{}\"\nUSER_ID_BEN=\"{}\"\nUSER_TOKEN_ANA=\"{}\"\nUSER_TOKEN_BEN=\"{}\"\n",
        server.address(),
        Person::Ben.id(),
        user_token(Person::Ana.id()),
        user_token(Person::Ben.id()),
    );
    std::fs::write(variables.path(), written).unwrap();

    let mut script = Command::new(file("examples/curl.sh"));
    let output = run(script.arg(variables.path()).kill_on_drop(true)).await;
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{printed}{errors}");
    let part = |label: &str| -> Value {
        let line = printed.lines().find_map(|line| line.strip_prefix(label));
        serde_json::from_str(line.unwrap()).unwrap()
    };
    let (sent, read) = (part("sent: "), part("read: "));
    assert_eq!(sent["content"], "Hello Ben");
    assert_eq!(read[0]["id"], sent["id"], "{printed}");

    let unread: i64 = database
        .connect()
        .await
        .query_one(
            "select unread_count::int8 from public.user_conversation_members where user_id = $1",
            &[&Person::Ben.id()],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(unread, 0, "the script marks the messages that it has read");
}

/// The maximum of `realtime.expiry_warning_s`. The tokens of tests expire sooner, so every channel
/// is warned right after it was joined.
const WARN_AT_ONCE: [(&str, &str); 1] = [("RAPPORT_REALTIME_EXPIRY_WARNING_S", "86400")];

/// Returns the next line. Panics with the client's error output if there is none.
async fn next_line(
    lines: &mut Lines<BufReader<ChildStdout>>,
    errors: &mut Lines<BufReader<ChildStderr>>,
) -> String {
    let line = timeout(BUILD_PATIENCE, lines.next_line()).await;
    if let Some(line) = line.expect("the client prints a line").unwrap() {
        return line;
    }
    let mut said = String::new();
    while let Some(line) = errors.next_line().await.unwrap() {
        said.push_str(&line);
        said.push('\n');
    }
    panic!("the client ended: {said}");
}

#[tokio::test]
async fn the_rust_client_prints_the_messages_of_its_user() {
    let database = TestDatabase::new().await;
    let server = WholeServer::start(database.url(), &WARN_AT_ONCE)
        .await
        .ready()
        .await;
    let conversation = server.open(Person::Ana, Person::Ben).await;

    // `cargo test --test it` does not build examples, so cargo builds the example here. After
    // `cargo test` without a target, nothing is left to build.
    let mut cargo = Command::new(env!("CARGO"));
    // Cargo describes this package to its tests. The build script of `ring` is run again if these
    // variables change, and then everything that depends on `ring` would be compiled, now and in
    // the next run of the tests.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text == "OUT_DIR"
        {
            cargo.env_remove(&name);
        }
    }
    let mut client = cargo
        .args(["run", "--quiet", "--locked", "--example", "listen"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("API_URL", format!("http://{}", server.address()))
        .env("ANON_KEY", anon_key())
        .env("USER_TOKEN", user_token(Person::Ben.id()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut errors = BufReader::new(client.stderr.take().unwrap()).lines();
    assert_eq!(
        next_line(&mut lines, &mut errors).await,
        "listening for messages"
    );
    // Ben is not a member of this conversation. If he received its message, it would come first.
    let others = server.open(Person::Ana, Person::Ada).await;
    server.say(Person::Ana, &others, "Hello Ada").await;
    server.say(Person::Ana, &conversation, "Hello Ben").await;
    assert_eq!(
        next_line(&mut lines, &mut errors).await,
        format!("{}: Hello Ben", Person::Ana.id())
    );

    // The warning has the status `ok`, but it does not announce that messages arrive.
    loop {
        let line = timeout(PATIENCE, errors.next_line()).await;
        let line = line.expect("the client prints the warning").unwrap();
        if line.unwrap().starts_with("Token expires in ") {
            break;
        }
    }
}
