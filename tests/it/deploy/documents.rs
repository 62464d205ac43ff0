//! Runs the commands of the deployment guides and of the troubleshooting guide.
//!
//! A comment before each block of shell or SQL says what the test does with it:
//!
//! - `run` runs a shell block;
//! - `run: sql` runs an SQL block as the login that installs the schema. `as superuser` and
//!   `in DATABASE` change this;
//! - `serve` starts the block in the background and waits until the server is ready;
//! - `not run: REASON` skips it.
//!
//! All blocks of a document run in one shell, in order, and each must succeed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rapport::config::source::program_path;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use crate::supabase::{ACCOUNTS, Project};
use crate::support::database::{client_program, own_cluster};
use crate::support::process::{free_port, text};
use crate::support::token::JWT_SECRET;

/// Time limit for all commands of a document, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A block of commands in a document.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// The number of its first line, from 1.
    line: usize,
    language: String,
    /// The text of the comment before it.
    mark: String,
    text: String,
}

/// Returns every block of shell and SQL.
fn blocks(document: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = document.lines().zip(1..);
    let mut before = "";
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = line;
            continue;
        };
        let inside = lines.by_ref().take_while(|(line, _)| *line != "```");
        let text: String = inside.map(|(line, _)| format!("{line}\n")).collect();
        if ["sh", "sql"].contains(&language) {
            let mark = before
                .strip_prefix("<!-- ")
                .and_then(|rest| rest.strip_suffix(" -->"))
                .unwrap_or_else(|| panic!("line {number}: no mark before this block"));
            found.push(Block {
                line: number,
                language: language.to_owned(),
                mark: mark.to_owned(),
                text,
            });
        }
        before = "";
    }
    found
}

/// Returns the shell script that runs these blocks.
fn script(blocks: &[Block]) -> String {
    let mut script = String::from("set -euo pipefail\nserver=\n");
    script.push_str("stop() { if [ -n \"$server\" ]; then kill \"$server\"; wait \"$server\"; fi; }\ntrap stop EXIT\n");
    for block in blocks {
        let Block {
            line,
            mark,
            text,
            language,
        } = block;
        script.push_str(&format!("echo '== line {line}'\n"));
        match mark.split_once(": ").unwrap_or((mark, "")) {
            ("run", "") if language == "sh" => script.push_str(text),
            ("run", how) if language == "sql" && how.starts_with("sql") => {
                let login = if how.contains("as superuser") { "ADMIN" } else { "OWNER" };
                let database = how
                    .split(", ")
                    .find_map(|part| part.strip_prefix("in "))
                    .unwrap_or("postgres");
                script.push_str(&format!(
                    "psql -Xq -v ON_ERROR_STOP=1 \"${login}/{database}\" <<'SQL'\n{text}SQL\n"
                ));
            }
            ("serve", "") => script.push_str(&format!(
                "{} &\nserver=$!\n\
                 until rapport health --ready; do kill -0 \"$server\"; sleep 0.1; done 2>/dev/null\n",
                text.trim_end()
            )),
            ("not run", reason) if !reason.is_empty() => {}
            _ => panic!("line {line}: `{mark}` is not a valid mark"),
        }
    }
    script
}

/// Runs the commands of a document. `admin` and `owner` are connection strings without a database.
pub(super) async fn run_document(
    document: &str,
    admin: &str,
    owner: &str,
    variables: &[(&str, &str)],
) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let blocks = blocks(&fs::read_to_string(path).unwrap());
    assert!(blocks.len() > 3, "{}", blocks.len());
    let directory = TempDir::new().unwrap();
    let programs = [
        Path::new(env!("CARGO_BIN_EXE_rapport"))
            .parent()
            .unwrap()
            .to_owned(),
        client_program("psql").parent().unwrap().to_owned(),
    ];
    let mut search =
        std::env::join_paths(programs.iter().filter(|path| path.is_absolute())).unwrap();
    search.push(":");
    search.push(program_path());
    let child = Command::new("bash")
        .args([
            "-c",
            &script(&blocks).replace("127.0.0.1:4000", "127.0.0.1:$PORT"),
        ])
        .current_dir(directory.path())
        .env_remove("DATABASE_URL")
        .env("PATH", search)
        .env("ADMIN", admin)
        .env("OWNER", owner)
        .envs(variables.iter().copied())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, child)
        .await
        .expect("the commands end")
        .unwrap();
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{document}:\n{printed}\n{errors}");
    printed
}

/// Returns a free port. It replaces the port in the guides, which another process may be using.
fn port() -> String {
    free_port().to_string()
}

/// Returns a connection string without its database.
pub(super) fn without_database(url: &str) -> String {
    url.rsplit_once('/').unwrap().0.to_owned()
}

pub(super) fn address(url: &str) -> &str {
    let (_, rest) = url.split_once('@').unwrap();
    rest.split('/').next().unwrap()
}

#[tokio::test]
async fn the_commands_for_a_hosted_project_succeed() {
    let project = Project::hosted().await;
    project.run_as_superuser(ACCOUNTS).await;
    let printed = run_document(
        "docs/deploy-hosted.md",
        &without_database(&project.admin_url()),
        &without_database(&project.url),
        &[
            ("PROJECT", "abcdefghijklmnopqrst"),
            ("DB", address(&project.url)),
            ("POSTGRES_PASSWORD", "secret"),
            ("SUPABASE_JWT_SECRET", JWT_SECRET),
            ("PORT", &port()),
        ],
    )
    .await;
    for expected in ["rapport_1_of_", "_rapport_1.sql", r#""status":"ready""#] {
        assert!(printed.contains(expected), "{expected}:\n{printed}");
    }
    project.end().await;
}

#[tokio::test]
async fn the_commands_for_own_machines_succeed() {
    let cluster = own_cluster().await;
    let url = cluster.url_for("postgres");
    let admin = without_database(&url);
    let printed = run_document(
        "docs/deploy-selfhosted.md",
        &admin,
        &admin,
        &[("DB", address(&url)), ("PORT", &port())],
    )
    .await;
    assert!(printed.contains(r#""status":"ready""#), "{printed}");
    tokio::task::spawn_blocking(|| drop(cluster)).await.unwrap();
}

#[test]
fn a_block_without_a_mark_is_an_error() {
    let marked = "<!-- run -->\n```sh\ntrue\n```\n\n```js\nx\n```\n";
    assert_eq!(blocks(marked).len(), 1);
    assert!(std::panic::catch_unwind(|| blocks("```sh\ntrue\n```\n")).is_err());
    assert!(std::panic::catch_unwind(|| script(&blocks("<!-- runs -->\n```sh\n```\n"))).is_err());
    assert!(
        std::panic::catch_unwind(|| script(&blocks("<!-- not run -->\n```sh\n```\n"))).is_err()
    );
}
