//! Measured processes. None outlives the benchmark, and the operating system reports their cost.
//!
//! Linux only: all figures are read from `/proc` (proc(5)).

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::param::clock_ticks_per_second;
use rustix::process::{
    Pid, Resource, Signal, getrlimit, kill_process, set_parent_process_death_signal, setrlimit,
};

use crate::Failure;

/// Maximum time for a process to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child process. It is killed when dropped, and by the kernel when this process ends for any
/// reason.
pub(crate) struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// Starts `program` with only these environment variables. It is started through this
    /// executable's command `tied`, which calls [`become_tied`], so that it ends with this process.
    pub(crate) fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        output: Stdio,
        errors: File,
    ) -> io::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg("tied")
            .arg(program)
            .args(arguments)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()?;
        Ok(Self { child })
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the standard output.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Returns the exit status, if the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Sends SIGTERM, as a service manager would. Does not wait for the end.
    pub(crate) fn ask_to_end(&self) -> Result<(), Failure> {
        let id = Pid::from_raw(i32::try_from(self.id())?).ok_or("process id 0 is not valid")?;
        Ok(kill_process(id, Signal::TERM)?)
    }

    /// Waits for the end of the process. Fails unless it ended successfully.
    pub(crate) fn wait_for_end(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("a process ended with {status}").into()),
                None if begun.elapsed() > PATIENCE => {
                    return Err(format!("a process did not end in {PATIENCE:?}").into());
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Returns the user and system time of all threads so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        Stat::read(self.id()).map_or(0.0, |stat| stat.own_seconds)
    }

    /// Returns the memory of the process in KiB, including its proportion of shared memory.
    pub(crate) fn memory_kib(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id()));
        let line = |text: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        text.ok().as_deref().and_then(line).unwrap_or(0.0)
    }

    /// Returns the number of open files and sockets.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // An error means that the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces this process with `program`, which the kernel ends when its parent ends. Returns only
/// on failure.
pub(crate) fn become_tied(program: &OsStr, arguments: &[OsString]) -> Failure {
    match set_parent_process_death_signal(Some(Signal::TERM)) {
        Ok(()) => Command::new(program).args(arguments).exec().into(),
        Err(error) => error.into(),
    }
}

/// Returns the CPU seconds of all descendant PostgreSQL processes, including ended ones.
pub(crate) fn database_cpu_seconds() -> f64 {
    let mut family = vec![std::process::id()];
    let all: Vec<(u32, Stat)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            Some((id, Stat::read(id)?))
        })
        .collect();
    let mut seconds = 0.0;
    let mut at = 0;
    while let Some(parent) = family.get(at).copied() {
        for (id, stat) in all.iter().filter(|(_, stat)| stat.parent == parent) {
            family.push(*id);
            if stat.command == "postgres" {
                seconds += stat.own_seconds + stat.children_seconds;
            }
        }
        at += 1;
    }
    seconds
}

/// Returns the CPU seconds of this process.
pub(crate) fn own_cpu_seconds() -> f64 {
    Stat::read(std::process::id()).map_or(0.0, |stat| stat.own_seconds)
}

/// Raises the soft limit of open files to the hard limit, because every socket is a file here and
/// in every child process.
pub(crate) fn raise_file_limit() -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// The relevant fields of `/proc/PID/stat`.
struct Stat {
    command: String,
    parent: u32,
    own_seconds: f64,
    /// CPU time of child processes that have ended and were reaped.
    children_seconds: f64,
}

impl Stat {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The command may contain spaces and brackets; it ends at the last bracket.
        let (head, rest) = text.rsplit_once(')')?;
        let (_, command) = head.split_once('(')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
        let per_second = clock_ticks_per_second() as f64;
        Some(Self {
            command: command.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            own_seconds: (ticks(11)? + ticks(12)?) / per_second,
            children_seconds: (ticks(13)? + ticks(14)?) / per_second,
        })
    }
}
