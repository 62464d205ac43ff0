//! The server process: its settings, its start on a free port, its end.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ClusterOptions;
use super::error::ClusterError;
use super::files::{Layout, write_private};
use super::system_call;
use super::user::ServerUser;

/// Written into the cluster at every start, so that a newer program brings its newer settings.
const SETTINGS: &str = include_str!("../../../config/postgresql.dev.conf");

/// How long a start may take. Recovery after a crash of a development database takes seconds;
/// a minute covers a busy machine.
pub(super) const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take before the server is told to quit at once. The longest
/// wait in it is for a replication reader, which is dropped after `wal_sender_timeout` (10 s).
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How often the lock file is read while the server starts or an earlier one ends.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Attempts to find a free port. Between choosing and binding another program may take it.
const PORT_ATTEMPTS: u32 = 5;

/// After a `kill -9` of the process that held the directory its server is still shutting down.
pub(super) fn wait_for_earlier_server(layout: &Layout) -> Result<(), ClusterError> {
    let deadline = Instant::now() + STOP_DEADLINE;
    while let Some(pid) = LockFile::read(layout).map(|lock| lock.pid) {
        // A lock file without its server is stale, and PostgreSQL removes it.
        if !is_server_of(pid, layout) {
            break;
        }
        if Instant::now() > deadline {
            return Err(ClusterError::StillRunning {
                pid,
                directory: layout.data(),
            });
        }
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Whether process `pid` is the server of this data directory, and not one that was given the
/// number since: a server's current directory is its data directory.
fn is_server_of(pid: i32, layout: &Layout) -> bool {
    if !system_call::is_running(pid) {
        return false;
    }
    match (
        std::fs::read_link(format!("/proc/{pid}/cwd")),
        layout.data().canonicalize(),
    ) {
        (Ok(current), Ok(data)) => current == data,
        // Without /proc the number alone has to do.
        _ => true,
    }
}

pub(super) fn launch_on_a_port(
    options: &ClusterOptions,
    layout: &Layout,
    user: Option<&ServerUser>,
) -> Result<(u16, Server), ClusterError> {
    if let Some(port) = options.port {
        return Ok((port, launch(options, layout, user, port)?));
    }
    let path = layout.port_file();
    let kept = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let mut port = match kept {
        Some(kept) if is_free(kept) => kept,
        _ => any_free_port()?,
    };
    let mut attempt = 1;
    let server = loop {
        match launch(options, layout, user, port) {
            // Another program bound the port in between; its port is no longer free.
            Err(ClusterError::Failed { .. }) if attempt < PORT_ATTEMPTS && !is_free(port) => {
                port = any_free_port()?;
                attempt += 1;
            }
            result => break result?,
        }
    };
    std::fs::write(&path, port.to_string())
        .map_err(|source| ClusterError::File { path, source })?;
    Ok((port, server))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn any_free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ClusterError::Spawn)
}

/// Starts the server and waits until it takes connections.
pub(super) fn launch(
    options: &ClusterOptions,
    layout: &Layout,
    user: Option<&ServerUser>,
    port: u16,
) -> Result<Server, ClusterError> {
    let mut settings = format!("{SETTINGS}\nport = {port}\n");
    for (name, value) in &options.settings {
        settings.push_str(&format!("{name} = '{value}'\n"));
    }
    write_private(
        &layout.data().join("postgresql.conf"),
        settings.as_bytes(),
        user,
    )?;

    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(layout.log())
        .map_err(|source| ClusterError::File {
            path: layout.log(),
            source,
        })?;
    let log_start = log.metadata().map_or(0, |metadata| metadata.len());
    let copy = log.try_clone().map_err(ClusterError::Spawn)?;
    let mut command = server_command(&options.binaries.program("postgres"), user);
    command
        .arg("-D")
        .arg(layout.data())
        .stdout(copy)
        .stderr(log);

    let server = Server::spawn(command)?;
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        // Waiting for the end doubles as the pause between two looks at the lock file.
        match server.ended.recv_timeout(POLL_INTERVAL) {
            Ok(status) => {
                let text = std::fs::read(layout.log()).unwrap_or_default();
                let start = usize::try_from(log_start).unwrap_or(0).min(text.len());
                return Err(ClusterError::Failed {
                    program: "postgres",
                    status,
                    output: last_lines(&text[start..]),
                });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ClusterError::NotReady { log: layout.log() });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if LockFile::read(layout).is_some_and(|lock| server.is(lock.pid) && lock.ready) {
            return Ok(server);
        }
        if Instant::now() > deadline {
            server.stop(layout)?;
            return Err(ClusterError::NotReady { log: layout.log() });
        }
    }
}

/// `postmaster.pid`, whose lines are described in PostgreSQL's `utils/pidfile.h`: the process id
/// is the first, the status the eighth.
struct LockFile {
    pid: i32,
    ready: bool,
}

impl LockFile {
    fn read(layout: &Layout) -> Option<Self> {
        let text = std::fs::read_to_string(layout.data().join("postmaster.pid")).ok()?;
        let mut lines = text.lines();
        let pid = lines.next()?.trim().parse().ok()?;
        Some(Self {
            pid,
            ready: lines.nth(6).is_some_and(|status| status.trim() == "ready"),
        })
    }
}

/// A running `postgres` process and the thread that started it.
///
/// The signal that the kernel sends when a parent dies is tied to the *thread* that spawned the
/// child, so a thread of its own spawns it and stays until it has ended.
#[derive(Debug)]
pub(super) struct Server {
    /// `None` once it has ended: from then on the number may belong to another process. A
    /// standard mutex, held for one system call.
    pid: Arc<Mutex<Option<i32>>>,
    ended: Receiver<ExitStatus>,
}

impl Server {
    fn spawn(mut command: Command) -> Result<Self, ClusterError> {
        let pid = Arc::new(Mutex::new(None));
        let (started, has_started) = sync_channel::<io::Result<()>>(1);
        let (end, ended) = sync_channel(1);
        let shared = Arc::clone(&pid);
        thread::Builder::new()
            .name("private-postgres".to_owned())
            .spawn(move || own_process(&mut command, &shared, &started, &end))
            .map_err(ClusterError::Spawn)?;
        match has_started.recv() {
            Ok(Ok(())) => Ok(Self { pid, ended }),
            Ok(Err(error)) => Err(ClusterError::Spawn(error)),
            Err(_) => Err(ClusterError::Spawn(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn is(&self, pid: i32) -> bool {
        *self.pid.lock().unwrap_or_else(PoisonError::into_inner) == Some(pid)
    }

    /// Sends `signal` unless the process has ended.
    fn signal(&self, signal: i32) {
        let pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *pid {
            system_call::send_signal(pid, signal);
        }
    }

    /// A fast shutdown, and an immediate one when that takes too long.
    pub(super) fn stop(&self, layout: &Layout) -> Result<(), ClusterError> {
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            self.signal(signal);
            match self.ended.recv_timeout(STOP_DEADLINE) {
                // Disconnected: it had ended before, and its end was received then.
                Ok(_) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        let pid = self
            .pid
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or_default();
        Err(ClusterError::StillRunning {
            pid,
            directory: layout.data(),
        })
    }
}

/// Runs `command` to its end. The body of the thread described at [`Server`].
fn own_process(
    command: &mut Command,
    pid: &Mutex<Option<i32>>,
    started: &SyncSender<io::Result<()>>,
    end: &SyncSender<ExitStatus>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // The receiver waits for exactly this word, so sending cannot fail.
            let _ = started.send(Err(error));
            return;
        }
    };
    let id = i32::try_from(child.id()).ok();
    *pid.lock().unwrap_or_else(PoisonError::into_inner) = id;
    let _ = started.send(Ok(()));
    if let Some(id) = id {
        // Without collecting it yet: its number stays its own until the lock is held.
        system_call::wait_until_ended(id);
    }
    let mut pid = pid.lock().unwrap_or_else(PoisonError::into_inner);
    *pid = None;
    let status = child.wait();
    drop(pid);
    if let Ok(status) = status {
        let _ = end.send(status);
    }
}

/// A command that runs as `user`, in a session of its own (so that Ctrl-C in the terminal
/// reaches only us and we stop it in order), and is told to shut down when we die.
pub(super) fn server_command(program: &Path, user: Option<&ServerUser>) -> Command {
    let mut command = Command::new(program);
    // The current directory may be one that the user cannot enter.
    command
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    // Variables that would change what `initdb` makes or where the server looks.
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGOPTIONS"] {
        command.env_remove(name);
    }
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    system_call::tie_to_this_thread(&mut command);
    command
}

/// The end of a program's output, short enough for an error message.
pub(super) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
