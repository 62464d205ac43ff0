//! The process's limit on open files. Every socket is an open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of open files besides sockets: database connections, listeners, the runtime's own files,
/// and requests in progress.
const BESIDES_SOCKETS: u64 = 1_024;

/// Raises the soft limit to the hard limit, which needs no privilege. Warns if the hard limit is
/// too low for `sockets`. Shells and systemd start programs with a soft limit of 1,024, because
/// `select` supports no more. Rapport does not use `select`.
pub(super) fn raise_limit(sockets: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let effective = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "raising the limit of open files failed");
            limit.current
        }
    };
    let needed = u64::try_from(sockets)
        .unwrap_or(u64::MAX)
        .saturating_add(BESIDES_SOCKETS);
    // `None` means unlimited.
    if let Some(files) = effective.filter(|files| *files < needed) {
        tracing::warn!(
            files,
            needed,
            "limit of open files is too low for realtime.max_sockets; raise LimitNOFILE or ulimit -Hn"
        );
    }
}
