//! System calls the standard library does not offer: the only unsafe code of the crate.

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
