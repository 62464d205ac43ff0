//! System calls that the standard library does not offer. The only unsafe code of the crate.

#![allow(
    unsafe_code,
    reason = "process control of the private cluster; each call documents why it is sound"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Returns the effective user id of this process.
pub(super) fn effective_user() -> u32 {
    // SAFETY: takes no argument, accesses no memory, and cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns whether a process with this id exists, under any user.
pub(super) fn is_running(pid: i32) -> bool {
    // SAFETY: signal 0 only checks for existence; no memory is accessed.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Sends `signal` to a child that has not been reaped yet.
pub(super) fn send_signal(pid: i32, signal: i32) {
    // SAFETY: no memory is accessed. The caller holds the lock under which `pid` is known to be our
    // child. An error means that the child has ended, which is the desired state.
    unsafe { libc::kill(pid, signal) };
}

/// Waits until a child ends without reaping it, so that its id is not reused.
pub(super) fn wait_until_ended(pid: i32) {
    let Ok(id) = libc::id_t::try_from(pid) else {
        return;
    };
    loop {
        // SAFETY: an all-zero siginfo_t is a valid value of that plain C structure.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` outlives the call, which only writes to it.
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

/// Puts the child into its own session, away from the terminal's process group, and has it receive
/// SIGINT (PostgreSQL's fast shutdown) when the spawning thread ends.
pub(super) fn end_with_this_thread(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: setsid takes no argument. It fails only for a process group leader, which a new
        // child is not.
        if unsafe { libc::setsid() } == -1 {
            return Err(io::Error::last_os_error());
        }
        #[cfg(target_os = "linux")]
        {
            // The kernel clears this setting when the user id changes. That has already happened:
            // the standard library runs this closure last before exec.
            let signal = libc::c_ulong::from(libc::SIGINT.cast_unsigned());
            // SAFETY: PR_SET_PDEATHSIG takes one number and accesses no memory.
            if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: getppid takes no argument and cannot fail.
        let current = unsafe { libc::getppid() };
        // The parent may have died before the signal was set up.
        if u32::try_from(current) != Ok(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: only async-signal-safe calls are allowed between fork and exec. `prepare` makes three
    // system calls and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}
