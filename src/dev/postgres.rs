//! A private PostgreSQL cluster: made, started, stopped, and never left behind.
//!
//! Guarantees: it listens on the loopback interface only and asks for a password; one process
//! at a time uses a directory; when this process ends in any way, `kill -9` included, the
//! kernel tells the server to shut down (on Linux).
//! Everything here blocks; asynchronous callers go through `spawn_blocking`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::binaries::Binaries;

/// The superuser `initdb` makes; the name every tool tries first.
pub const SUPERUSER: &str = "postgres";

/// Written into the cluster at every start, so that a newer program brings its newer settings.
const SETTINGS: &str = include_str!("../../config/postgresql.dev.conf");

/// How long a start may take. Recovery after a crash of a development database takes seconds;
/// a minute covers a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// How long a fast shutdown may take before the server is told to quit at once. The longest
/// wait in it is for a replication reader, which is dropped after `wal_sender_timeout` (10 s).
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// How often the lock file is read while the server starts or an earlier one ends.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Attempts to find a free port. Between choosing and binding another program may take it.
const PORT_ATTEMPTS: u32 = 5;

/// Scratch directories looked at before giving up: as many processes at once on one machine.
const SCRATCH_LIMIT: u32 = 256;

/// The file whose lock says that a directory is in use.
const LOCK: &str = "lock";

/// Where a cluster's files live and how long.
#[derive(Clone, Debug)]
pub enum Storage {
    /// This directory, kept between starts, together with its password and its port.
    Kept(PathBuf),
    /// The first unused numbered directory below this one: emptied before, removed on stop.
    /// One left behind by a killed process is taken over, so that leftovers do not pile up.
    Scratch(PathBuf),
}

/// What to start.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The programs to run.
    pub binaries: Binaries,
    /// Where the files live.
    pub storage: Storage,
    /// The port to listen on; `None` takes the one used before if it is free, else any.
    pub port: Option<u16>,
    /// Settings that replace those of `config/postgresql.dev.conf`: name and value.
    pub settings: Vec<(&'static str, &'static str)>,
}

/// Why a cluster could not be made, started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Another process holds the directory.
    #[error(
        "{} is in use by another process: stop the other `rapport dev`, or choose another \
         directory with --data-dir.",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// A server that is still shutting down, or that somebody else started, did not go away.
    #[error("The PostgreSQL server {pid} still runs in {}.", directory.display())]
    StillRunning {
        /// Its process id, from `postmaster.pid`.
        pid: i32,
        /// Its data directory.
        directory: PathBuf,
    },
    /// The server's user cannot reach the directory.
    #[error(
        "The user `{user}`, as whom PostgreSQL runs when started by root, cannot enter {}: \
         choose another directory.",
        directory.display()
    )]
    NotTraversable {
        /// The first directory that refuses.
        directory: PathBuf,
        /// Who is refused.
        user: String,
    },
    /// Root without a user to run the server as.
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`."
    )]
    NoUser,
    /// The files were made by another major version.
    #[error(
        "The data in {} is of PostgreSQL {found}, the programs are of {major}: use the same \
         version, or remove the directory to start anew.",
        directory.display()
    )]
    OtherVersion {
        /// The data directory.
        directory: PathBuf,
        /// The version that made it.
        found: String,
        /// The version of the programs.
        major: u32,
    },
    /// A program ended with an error; its last words follow.
    #[error("`{program}` failed ({status}):\n{output}")]
    Failed {
        /// Which program.
        program: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it printed.
        output: String,
    },
    /// The server neither became ready nor ended.
    #[error("PostgreSQL was not ready within {} s; see {}.", START_DEADLINE.as_secs(), log.display())]
    NotReady {
        /// Its log file.
        log: PathBuf,
    },
    /// Every scratch directory is taken.
    #[error("All {SCRATCH_LIMIT} scratch directories below {} are in use.", parent.display())]
    NoScratch {
        /// The directory they lie in.
        parent: PathBuf,
    },
    /// A scratch directory belongs to somebody else.
    #[error("{} belongs to another user.", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A process or thread could not be started.
    #[error("PostgreSQL cannot be started: {0}")]
    Spawn(#[source] io::Error),
}

/// A running cluster. Stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    options: ClusterOptions,
    user: Option<ServerUser>,
    password: String,
    port: u16,
    /// A standard mutex: it is held while a server starts or stops, which only callers that
    /// want the same wait for, and never across an await.
    server: Mutex<Option<Server>>,
    /// Held from before the first file is touched until after the server has ended. The last
    /// field, so that it is released last.
    _lock: File,
}

impl Cluster {
    /// Makes the cluster if there is none, starts it, and returns when it takes connections.
    pub fn start(options: ClusterOptions) -> Result<Self, ClusterError> {
        let user = ServerUser::for_this_process()?;
        let (directory, lock) = match &options.storage {
            Storage::Kept(directory) => (directory.clone(), claim(directory)?),
            Storage::Scratch(parent) => claim_scratch(parent)?,
        };
        let layout = Layout { directory };
        if let Some(user) = &user {
            user.check_path(&layout.directory)?;
        }
        wait_for_earlier_server(&layout)?;
        if matches!(options.storage, Storage::Scratch(_)) {
            layout.clear()?;
        }
        let password = kept_secret(&layout.password_file())?;
        if !layout.data().exists() {
            initialise(&options.binaries, &layout, user.as_ref(), &password)?;
        }
        check_version(&options.binaries, &layout)?;

        let (port, server) = launch_on_a_port(&options, &layout, user.as_ref())?;
        Ok(Self {
            layout,
            options,
            user,
            password,
            port,
            server: Mutex::new(Some(server)),
            _lock: lock,
        })
    }

    /// The TCP port on the loopback interface; the same for the cluster's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that holds the cluster's files, its password and its log.
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }

    /// The programs the cluster runs on.
    pub fn binaries(&self) -> &Binaries {
        &self.options.binaries
    }

    /// The connection string of the superuser for `database`. Contains the password.
    pub fn url_for(&self, database: &str) -> String {
        format!(
            "postgresql://{SUPERUSER}:{}@127.0.0.1:{}/{database}",
            self.password, self.port
        )
    }

    /// Stops the server as `pg_ctl stop -m fast` does: sessions are cut, everything is written.
    /// Nothing happens when it is stopped already.
    pub fn stop(&self) -> Result<(), ClusterError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        match server.take() {
            Some(running) => running.stop(&self.layout),
            None => Ok(()),
        }
    }

    /// Starts the server again after [`Cluster::stop`], on the same port.
    pub fn resume(&self) -> Result<(), ClusterError> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.is_none() {
            *server = Some(launch(
                &self.options,
                &self.layout,
                self.user.as_ref(),
                self.port,
            )?);
        }
        Ok(())
    }

    /// Stops the server and starts it again on the same port.
    pub fn restart(&self) -> Result<(), ClusterError> {
        self.stop()?;
        self.resume()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "the private PostgreSQL did not stop");
        }
        if matches!(self.options.storage, Storage::Scratch(_))
            && let Err(error) = self.layout.clear()
        {
            tracing::warn!(%error, "the scratch directory was not removed");
        }
    }
}

/// The files of one cluster.
#[derive(Debug)]
struct Layout {
    directory: PathBuf,
}

impl Layout {
    /// PostgreSQL's own data directory.
    fn data(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    /// Where `initdb` works; renamed to [`Layout::data`] when it has succeeded, so that an
    /// interrupted one is not mistaken for a cluster.
    fn unfinished_data(&self) -> PathBuf {
        self.directory.join("postgres.unfinished")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The port of the last start.
    fn port_file(&self) -> PathBuf {
        self.directory.join("postgres.port")
    }

    fn lock(&self) -> PathBuf {
        self.directory.join(LOCK)
    }

    fn password_file(&self) -> PathBuf {
        self.directory.join("postgres.password")
    }

    /// Removes everything but the lock, which another process may be looking at.
    fn clear(&self) -> Result<(), ClusterError> {
        let failed = |path: &Path, source| ClusterError::File {
            path: path.to_owned(),
            source,
        };
        let entries =
            std::fs::read_dir(&self.directory).map_err(|error| failed(&self.directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| failed(&self.directory, error))?;
            let path = entry.path();
            if path == self.lock() {
                continue;
            }
            if path.is_dir() && !path.is_symlink() {
                remove_directory(&path)?;
            } else {
                std::fs::remove_file(&path).map_err(|error| failed(&path, error))?;
            }
        }
        Ok(())
    }
}

/// The secret in the file `path`: made once, then kept, readable by its owner only.
///
/// # Errors
/// When the file cannot be read or written.
pub fn kept_secret(path: &Path) -> Result<String, ClusterError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random_secret();
            write_private(path, secret.as_bytes(), None)?;
            Ok(secret)
        }
        Err(source) => Err(ClusterError::File {
            path: path.to_owned(),
            source,
        }),
    }
}

/// A random text of 244 bits, fit for a password or a signing key.
fn random_secret() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Takes the lock of `directory`, making the directory if need be. The kernel releases it when
/// this process ends, however it ends, so there is no stale lock to recover from.
fn claim(directory: &Path) -> Result<File, ClusterError> {
    // Others may pass through (the server's user must), only we may list or write.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .map_err(|source| ClusterError::File {
            path: directory.to_owned(),
            source,
        })?;
    let path = directory.join(LOCK);
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| ClusterError::File {
            path: path.clone(),
            source,
        })?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(ClusterError::InUse {
            directory: directory.to_owned(),
        }),
        Err(std::fs::TryLockError::Error(source)) => Err(ClusterError::File { path, source }),
    }
}

fn claim_scratch(parent: &Path) -> Result<(PathBuf, File), ClusterError> {
    for number in 0..SCRATCH_LIMIT {
        let directory = parent.join(number.to_string());
        match claim(&directory) {
            Ok(lock) => {
                // The parent may lie in a directory that everybody can write to.
                for path in [parent, &directory] {
                    let owner = std::fs::metadata(path)
                        .map_err(|source| ClusterError::File {
                            path: path.to_owned(),
                            source,
                        })?
                        .uid();
                    if owner != effective_user() {
                        return Err(ClusterError::Foreign {
                            directory: path.to_owned(),
                        });
                    }
                }
                return Ok((directory, lock));
            }
            Err(ClusterError::InUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(ClusterError::NoScratch {
        parent: parent.to_owned(),
    })
}

/// After a `kill -9` of the process that held the directory its server is still shutting down.
fn wait_for_earlier_server(layout: &Layout) -> Result<(), ClusterError> {
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
    if !os::is_running(pid) {
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

fn initialise(
    binaries: &Binaries,
    layout: &Layout,
    user: Option<&ServerUser>,
    password: &str,
) -> Result<(), ClusterError> {
    let data = layout.unfinished_data();
    remove_directory(&data)?;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&data)
        .and_then(|()| ServerUser::give(user, &data))
        .map_err(|source| ClusterError::File {
            path: data.clone(),
            source,
        })?;
    // A file, because the standard input of the parent cannot be opened anew by another user.
    let password_file = layout.directory.join("initdb.password");
    write_private(&password_file, password.as_bytes(), user)?;

    let mut command = server_command(&binaries.program("initdb"), user);
    command
        .arg("--pgdata")
        .arg(&data)
        .arg("--pwfile")
        .arg(&password_file)
        .args(["--username", SUPERUSER, "--auth", "scram-sha-256"])
        // Upper and lower case of every script, the same on each machine.
        .args(["--encoding", "UTF8", "--locale", "C.UTF-8"])
        // A crash in these seconds costs an unfinished directory, which is made anew.
        .arg("--no-sync");
    let output = command.output().map_err(ClusterError::Spawn);
    let removed = std::fs::remove_file(&password_file);
    let output = output?;
    removed.map_err(|source| ClusterError::File {
        path: password_file,
        source,
    })?;
    if !output.status.success() {
        return Err(ClusterError::Failed {
            program: "initdb",
            status: output.status,
            output: last_lines(&output.stderr),
        });
    }
    std::fs::rename(&data, layout.data()).map_err(|source| ClusterError::File {
        path: layout.data(),
        source,
    })
}

fn check_version(binaries: &Binaries, layout: &Layout) -> Result<(), ClusterError> {
    let path = layout.data().join("PG_VERSION");
    let found = std::fs::read_to_string(&path)
        .map_err(|source| ClusterError::File { path, source })?
        .trim()
        .to_owned();
    if found == binaries.major().to_string() {
        return Ok(());
    }
    Err(ClusterError::OtherVersion {
        directory: layout.data(),
        found,
        major: binaries.major(),
    })
}

fn launch_on_a_port(
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
fn launch(
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
struct Server {
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
            os::send_signal(pid, signal);
        }
    }

    /// A fast shutdown, and an immediate one when that takes too long.
    fn stop(&self, layout: &Layout) -> Result<(), ClusterError> {
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
        os::wait_until_ended(id);
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
fn server_command(program: &Path, user: Option<&ServerUser>) -> Command {
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
    os::tie_to_this_thread(&mut command);
    command
}

/// The number of the user this process acts as; root's is 0.
pub fn effective_user() -> u32 {
    os::effective_user()
}

/// The user PostgreSQL runs as when we are root, which it refuses to be.
#[derive(Debug)]
struct ServerUser {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// `None` when this process is an ordinary user and the server may run as the same one.
    fn for_this_process() -> Result<Option<Self>, ClusterError> {
        if effective_user() != 0 {
            return Ok(None);
        }
        let path = Path::new("/etc/passwd");
        let text = std::fs::read_to_string(path).map_err(|source| ClusterError::File {
            path: path.to_owned(),
            source,
        })?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::in_passwd(&text, name))
            .map(Some)
            .ok_or(ClusterError::NoUser)
    }

    /// A line of passwd(5): `name:password:uid:gid:…`.
    fn in_passwd(text: &str, name: &str) -> Option<Self> {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self {
                name: name.to_owned(),
                uid,
                gid,
            })
        })
    }

    /// Whether every directory down to `directory` lets this user pass.
    fn check_path(&self, directory: &Path) -> Result<(), ClusterError> {
        let directory = directory
            .canonicalize()
            .map_err(|source| ClusterError::File {
                path: directory.to_owned(),
                source,
            })?;
        for ancestor in directory.ancestors() {
            let metadata = std::fs::metadata(ancestor).map_err(|source| ClusterError::File {
                path: ancestor.to_owned(),
                source,
            })?;
            let bit = if metadata.uid() == self.uid {
                0o100
            } else if metadata.gid() == self.gid {
                0o010
            } else {
                0o001
            };
            if metadata.mode() & bit == 0 {
                return Err(ClusterError::NotTraversable {
                    directory: ancestor.to_owned(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }

    /// Makes `path` the server's own, when it runs as another user than we do.
    fn give(user: Option<&Self>, path: &Path) -> io::Result<()> {
        match user {
            Some(user) => std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }
}

/// Writes a file that only its owner may read; never through a file that is there already,
/// whose mode or owner may be another.
fn write_private(
    path: &Path,
    content: &[u8],
    user: Option<&ServerUser>,
) -> Result<(), ClusterError> {
    let write = || {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(content)?;
        ServerUser::give(user, path)
    };
    write().map_err(|source| ClusterError::File {
        path: path.to_owned(),
        source,
    })
}

fn remove_directory(path: &Path) -> Result<(), ClusterError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ClusterError::File {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The end of a program's output, short enough for an error message.
fn last_lines(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// System calls the standard library does not offer.
mod os {
    #![allow(
        unsafe_code,
        reason = "process control of the private cluster; each call says why it is sound"
    )]

    use std::io;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    /// The user this process acts as.
    pub(super) fn effective_user() -> u32 {
        // SAFETY: takes nothing, touches no memory, and cannot fail.
        unsafe { libc::geteuid() }
    }

    /// Whether a process of this number exists, whoever owns it.
    pub(super) fn is_running(pid: i32) -> bool {
        // SAFETY: signal 0 only asks; no memory is touched.
        let answer = unsafe { libc::kill(pid, 0) };
        answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
    }

    /// Sends `signal` to a child that has not been collected yet.
    pub(super) fn send_signal(pid: i32, signal: i32) {
        // SAFETY: no memory is touched; the caller holds the lock under which the number is
        // known to be our child's. Failure means that it has ended, which is what is wanted.
        unsafe { libc::kill(pid, signal) };
    }

    /// Waits for the end of a child without collecting it, so that its number is not reused.
    pub(super) fn wait_until_ended(pid: i32) {
        let Ok(id) = libc::id_t::try_from(pid) else {
            return;
        };
        loop {
            // SAFETY: an all-zero siginfo_t is a valid value of that plain C structure.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: `info` lives through the call, which only writes into it.
            let answer = unsafe {
                libc::waitid(
                    libc::P_PID,
                    id,
                    &raw mut info,
                    libc::WEXITED | libc::WNOWAIT,
                )
            };
            if answer == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return;
            }
        }
    }

    /// Makes the child leave the terminal's process group, and ask for SIGINT (PostgreSQL's fast
    /// shutdown) when the thread that spawns it ends.
    pub(super) fn tie_to_this_thread(command: &mut Command) {
        let parent = std::process::id();
        let prepare = move || {
            // SAFETY: setsid takes nothing; it fails only for a group leader, which a fresh child
            // is not.
            if unsafe { libc::setsid() } == -1 {
                return Err(io::Error::last_os_error());
            }
            #[cfg(target_os = "linux")]
            {
                // The request is forgotten when the user changes, which has happened by now:
                // the standard library runs this last before exec.
                let signal = libc::c_ulong::from(libc::SIGINT.cast_unsigned());
                // SAFETY: PR_SET_PDEATHSIG takes one number and touches no memory.
                if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == -1 {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: getppid takes nothing and cannot fail.
            let current = unsafe { libc::getppid() };
            // The parent may have died before the request was in place.
            if u32::try_from(current) != Ok(parent) {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; `prepare` makes
        // three system calls and allocates nothing.
        unsafe { command.pre_exec(prepare) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_from_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533::/:/bin/false\nbroken\n";
        let user = ServerUser::in_passwd(text, "nobody").unwrap();
        assert_eq!((user.uid, user.gid), (65534, 65533));
        assert!(ServerUser::in_passwd(text, "postgres").is_none());
    }

    #[test]
    fn a_directory_closed_to_the_servers_user_is_named() {
        use std::os::unix::fs::PermissionsExt as _;

        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // A user id that owns nothing here.
        let user = ServerUser {
            name: "stranger".to_owned(),
            uid: u32::MAX - 1,
            gid: u32::MAX - 1,
        };
        match user.check_path(&inner) {
            Err(ClusterError::NotTraversable { directory, .. }) => {
                assert_eq!(directory, outer.path().canonicalize().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let lock = claim(directory.path()).unwrap();
        assert!(matches!(
            claim(directory.path()),
            Err(ClusterError::InUse { .. })
        ));
        drop(lock);
        claim(directory.path()).unwrap();
    }

    #[test]
    fn two_secrets_differ() {
        assert_ne!(random_secret(), random_secret());
        assert_eq!(random_secret().len(), 64);
    }
}
