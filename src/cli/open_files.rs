//! The number of files this process may have open: each socket is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files besides sockets: connections to the database, the listeners, the runtime's own, and requests
/// under way.
const BESIDES_SOCKETS: u64 = 1_024;

/// Raises the limit as far as it goes without anybody's permission, and says so when that is not
/// enough for `sockets`. Shells and systemd start programs with 1,024, because `select` takes no
/// more; nothing here uses that.
pub(super) fn raise_limit(sockets: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit.current
        }
    };
    let needed = u64::try_from(sockets)
        .unwrap_or(u64::MAX)
        .saturating_add(BESIDES_SOCKETS);
    // Without a number there is no limit.
    if let Some(files) = in_force.filter(|files| *files < needed) {
        tracing::warn!(
            files,
            needed,
            "fewer files may be open than realtime.max_sockets needs: raise LimitNOFILE or ulimit -Hn"
        );
    }
}
