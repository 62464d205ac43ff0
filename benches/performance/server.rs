//! The two measured servers, Rapport and the yardstick, each in a separate process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::database::Database;
use crate::process::ChildProcess;

/// Maximum time for a server to become ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// The token for `/metrics`. Without a token, the server does not serve that route.
pub(crate) const METRICS_TOKEN: &str = "benchmark";

/// Settings that disable the limits of the chat.
const WITHOUT_CHAT_LIMITS: [(&str, &str); 8] = [
    ("RAPPORT_CHAT_LIMITS_SEND_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_SEND_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_OPEN_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_MARK_READ_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_TYPING_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_SEARCH_PER_MINUTE", "0"),
    ("RAPPORT_CHAT_LIMITS_WRITE_PER_SECOND", "0"),
    ("RAPPORT_CHAT_LIMITS_READ_PER_SECOND", "0"),
];

/// A running server, which is killed when dropped.
pub(crate) struct Server {
    /// The process, to measure its cost.
    pub(crate) process: ChildProcess,
    /// The address of its listener.
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Server {
    /// Starts the yardstick.
    pub(crate) fn yardstick(directory: &Path) -> Result<Self, Failure> {
        let log = directory.join("yardstick.log");
        let program = std::env::current_exe()?;
        let errors = File::create(&log)?;
        let mut process =
            ChildProcess::start(&program, &["yardstick"], &[], Stdio::piped(), errors)?;
        let mut line = String::new();
        let output = process.output().ok_or("the yardstick has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let port: u16 = line.trim().parse()?;
        Ok(Self {
            process,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            log,
        })
    }

    /// Starts Rapport with its defaults on a free port and waits until it is ready.
    pub(crate) fn rapport(database: &Database) -> Result<Self, Failure> {
        Self::ready(database, &[])
    }

    /// Starts Rapport without the chat's limits per user, because few users do the work of many.
    pub(crate) fn with_busy_people(database: &Database) -> Result<Self, Failure> {
        Self::ready(database, &WITHOUT_CHAT_LIMITS)
    }

    fn ready(database: &Database, settings: &[(&str, &str)]) -> Result<Self, Failure> {
        // The port was free a moment ago. The kernel reassigns a port only after all others.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let mut server = Self::launch(database, port, settings)?;
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Starts Rapport on this port, with its defaults except for `settings`, without waiting until
    /// it is ready.
    pub(crate) fn launch(
        database: &Database,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Self, Failure> {
        let log = database.directory().join("rapport.log");
        let errors = File::create(&log)?;
        let (url, request_url) = (database.url(), database.request_url());
        let mut environment = vec![
            ("RAPPORT_DATABASE_URL", url.as_str()),
            ("RAPPORT_DATABASE_REQUEST_URL", request_url.as_str()),
            ("RAPPORT_SERVER_METRICS_TOKEN", METRICS_TOKEN),
            ("RAPPORT_AUTH_JWT_SECRET", &database.keys.jwt_secret),
        ];
        environment.extend_from_slice(settings);
        let process = ChildProcess::start(
            Path::new(env!("CARGO_BIN_EXE_rapport")),
            &["serve", "--port", &port.to_string()],
            &environment,
            errors.try_clone()?.into(),
            errors,
        )?;
        Ok(Self {
            process,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            log,
        })
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while !is_ready(self.address) {
            if let Some(status) = self.process.ended()? {
                return Err(format!("Rapport ended with {status}: {}", self.log_end()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("Rapport is not ready: {}", self.log_end()).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops the server as a service manager would. The yardstick can simply be dropped.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.process.ask_to_end()?;
        self.wait_for_end()
    }

    /// Waits for the end of the process. Fails unless it ended successfully.
    pub(crate) fn wait_for_end(&mut self) -> Result<(), Failure> {
        self.process
            .wait_for_end()
            .map_err(|error| format!("{error}: {}", self.log_end()).into())
    }

    /// Returns the last lines of the log, for error messages.
    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// Returns whether `GET /ready` responds with 200.
fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: rapport\r\nConnection: close\r\n\r\n")?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
