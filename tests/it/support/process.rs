//! Runs the program as a separate process.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use rapport::shutdown::Tasks;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::eventually::eventually;
use super::token::JWT_SECRET;

/// Time limit for a command or a stop. Neither needs nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a command that runs the program.
pub(crate) fn rapport(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rapport"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// Runs a command until it exits.
pub(crate) async fn run(command: &mut Command) -> Output {
    timeout(PATIENCE, command.output())
        .await
        .expect("the command ends")
        .unwrap()
}

/// Returns the output of a command as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns a port without a listener.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// A separate process that runs `rapport serve`, with its log.
pub(crate) struct Process {
    child: Child,
    /// The address of the listener.
    pub(crate) address: SocketAddr,
    log: JoinHandle<String>,
}

impl Process {
    /// Starts the server with this database and additional settings, and waits until it is ready.
    pub(crate) async fn start(database_url: &str, settings: &[(&str, &str)]) -> Self {
        let mut log = String::new();
        // Another process may take the free port before the server listens on it, so the start is
        // repeated.
        for _ in 0..5 {
            match Self::try_start(database_url, settings).await {
                Ok(process) => return process,
                Err(ended) => log = ended,
            }
        }
        panic!("the server ended:\n{log}");
    }

    /// Tries to start the server. If it exits before it is ready, the error is its log.
    async fn try_start(database_url: &str, settings: &[(&str, &str)]) -> Result<Self, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut child = rapport(&["serve"])
            .env("DATABASE_URL", database_url)
            .env("SUPABASE_JWT_SECRET", JWT_SECRET)
            .env("RAPPORT_SERVER_PORT", address.port().to_string())
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = Tasks::new().spawn("log of a process", async move {
            let mut text = String::new();
            stderr.read_to_string(&mut text).await.unwrap();
            text
        });
        let is_ready = eventually("the server is ready, or has ended", async || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let answer = reqwest::get(format!("http://{address}/ready")).await.ok()?;
            answer.status().is_success().then_some(true)
        })
        .await;
        if !is_ready {
            return Err(log.await.unwrap());
        }
        Ok(Self {
            child,
            address,
            log,
        })
    }

    /// Returns the process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns the resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Sends SIGTERM and waits for the exit. Returns the status, the duration and the log.
    pub(crate) async fn stop(mut self) -> (ExitStatus, Duration, String) {
        let begin = Instant::now();
        let pid = self.pid().to_string();
        let sent = std::process::Command::new("kill")
            .args(["-s", "TERM", &pid])
            .status();
        assert!(sent.unwrap().success());
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server exits after SIGTERM")
            .unwrap();
        (status, begin.elapsed(), self.log.await.unwrap())
    }
}
