//! Processes under measurement: started so that none outlives the benchmark, and what the operating
//! system says of their cost.
//!
//! Linux only: everything is read from `/proc` (proc(5)).

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

/// How long a process may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A child process. Killed when dropped, and by the kernel when this process ends in any way.
pub(crate) struct ChildProcess {
    child: Child,
}

impl ChildProcess {
    /// Starts `program` with nothing but these variables, by way of [`become_tied`].
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

    /// The process's number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it prints.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Asks it to end as a service manager would (SIGTERM), without waiting.
    pub(crate) fn ask_to_end(&self) -> Result<(), Failure> {
        let id = Pid::from_raw(i32::try_from(self.id())?).ok_or("no process has the number 0")?;
        Ok(kill_process(id, Signal::TERM)?)
    }

    /// Waits for its end, which must be a clean one.
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

    /// User and system time of all its threads so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        Stat::read(self.id()).map_or(0.0, |stat| stat.own_seconds)
    }

    /// Memory that is its own, with its share of what it shares, in KiB.
    pub(crate) fn memory_kib(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id()));
        let line = |text: &str| -> Option<f64> {
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        text.ok().as_deref().and_then(line).unwrap_or(0.0)
    }

    /// Files and sockets that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).map_or(0, Iterator::count)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Becomes `program`, to be ended by the kernel when the process that started this one ends.
/// Returns only when that fails.
pub(crate) fn become_tied(program: &OsStr, arguments: &[OsString]) -> Failure {
    match set_parent_process_death_signal(Some(Signal::TERM)) {
        Ok(()) => Command::new(program).args(arguments).exec().into(),
        Err(error) => error.into(),
    }
}

/// CPU seconds of all PostgreSQL processes below this one, those that have ended included.
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

/// CPU seconds of this process.
pub(crate) fn own_cpu_seconds() -> f64 {
    Stat::read(std::process::id()).map_or(0.0, |stat| stat.own_seconds)
}

/// Raises the soft limit of open files to the hard one: a socket is a file here and in every child.
pub(crate) fn raise_file_limit() -> Result<(), Failure> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A line of `/proc/PID/stat`.
struct Stat {
    command: String,
    parent: u32,
    own_seconds: f64,
    /// Of children that have ended and were waited for.
    children_seconds: f64,
}

impl Stat {
    fn read(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The command's name may hold spaces and brackets: it ends at the last one.
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
