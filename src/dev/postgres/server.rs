//! The server process: settings, start on a free port, shutdown.

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

use super::error::ClusterError;
use super::files::{Layout, write_private};
use super::options::ClusterOptions;
use super::system_call;
use super::user::ServerUser;

/// The server's settings. They are written at every start, so a newer program also applies its
/// newer settings.
const SETTINGS: &str = include_str!("../../../config/postgresql.dev.conf");

/// Timeout of a start. Crash recovery of a development database takes seconds; a minute leaves room
/// for a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Timeout of a fast shutdown; an immediate shutdown follows. The longest wait in a fast shutdown
/// is for a replication client, which the server drops after `wal_sender_timeout` (10 s).
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How often the lock file is read while the server starts or an earlier one ends.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum attempts to find a free port. Another program may bind the port between the check and
/// the start.
const PORT_ATTEMPTS: u32 = 5;

/// Waits for the server of an earlier process. If that process was killed with `kill -9`, its
/// server may still be shutting down.
pub(super) fn wait_for_earlier_server(layout: &Layout) -> Result<(), ClusterError> {
    let deadline = Instant::now() + STOP_DEADLINE;
    while let Some(pid) = LockFile::read(layout).map(|lock| lock.pid) {
        // A lock file without a running server is stale. PostgreSQL removes it.
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

/// Returns whether process `pid` is the server of this data directory and not a later process with
/// the same id. The working directory of a server is its data directory.
fn is_server_of(pid: i32, layout: &Layout) -> bool {
    if !system_call::is_running(pid) {
        return false;
    }
    match (
        std::fs::read_link(format!("/proc/{pid}/cwd")),
        layout.data().canonicalize(),
    ) {
        (Ok(current), Ok(data)) => current == data,
        // Without `/proc` only the process id can be checked.
        _ => true,
    }
}

pub(super) fn launch_on_free_port(
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
            // Another program bound the port in the meantime.
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

/// Starts the server and waits until it accepts connections.
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
        // Waiting for an exit doubles as the pause between two reads of the lock file.
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
                return Err(ClusterError::NotReady {
                    deadline: START_DEADLINE,
                    log: layout.log(),
                });
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if LockFile::read(layout).is_some_and(|lock| server.is(lock.pid) && lock.ready) {
            return Ok(server);
        }
        if Instant::now() > deadline {
            server.stop(layout)?;
            return Err(ClusterError::NotReady {
                deadline: START_DEADLINE,
                log: layout.log(),
            });
        }
    }
}

/// The content of the server's lock file, `postmaster.pid`. PostgreSQL's `utils/pidfile.h`
/// describes its lines: the first is the process id, the eighth the status.
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

/// A running `postgres` process, owned by a dedicated thread.
///
/// The kernel sends the parent-death signal when the *thread* that spawned the child ends. A
/// dedicated thread therefore spawns the child and lives until the child has ended.
#[derive(Debug)]
pub(super) struct Server {
    /// `None` once the process has ended, because its id may then be reused. A standard mutex, held
    /// for one system call.
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
            .spawn(move || run_to_end(&mut command, &shared, &started, &end))
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

    /// Sends `signal` if the process is still running.
    fn signal(&self, signal: i32) {
        let pid = self.pid.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pid) = *pid {
            system_call::send_signal(pid, signal);
        }
    }

    /// Requests a fast shutdown, then an immediate one if the fast one times out.
    pub(super) fn stop(&self, layout: &Layout) -> Result<(), ClusterError> {
        for signal in [libc::SIGINT, libc::SIGQUIT] {
            self.signal(signal);
            match self.ended.recv_timeout(STOP_DEADLINE) {
                // Disconnected: the process ended earlier, and its exit status was already
                // received.
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

/// Spawns `command` and waits until it ends. Runs on the dedicated thread described at [`Server`].
fn run_to_end(
    command: &mut Command,
    pid: &Mutex<Option<i32>>,
    started: &SyncSender<io::Result<()>>,
    end: &SyncSender<ExitStatus>,
) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            // `spawn` waits for exactly this message, so sending cannot fail.
            let _ = started.send(Err(error));
            return;
        }
    };
    let id = i32::try_from(child.id()).ok();
    *pid.lock().unwrap_or_else(PoisonError::into_inner) = id;
    let _ = started.send(Ok(()));
    if let Some(id) = id {
        // The child is not reaped yet, so its id stays reserved until the lock is held.
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

/// Returns a command that runs as `user` and shuts down when this process dies. It runs in its own
/// session, so Ctrl-C in the terminal reaches only this process, which then stops the server
/// properly.
pub(super) fn server_command(program: &Path, user: Option<&ServerUser>) -> Command {
    let mut command = Command::new(program);
    // The user may not be able to enter the current directory.
    command
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    // These variables would change what `initdb` creates or where the server looks for its files.
    for name in ["PGDATA", "PGPORT", "PGHOST", "PGOPTIONS"] {
        command.env_remove(name);
    }
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    system_call::end_with_this_thread(&mut command);
    command
}

/// Returns the end of a program's output, short enough for an error message.
pub(super) fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
