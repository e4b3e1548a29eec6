//! Descriptors: one per session, so sessions are fitted to their limit.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors that are not sessions: listeners, poller, waker, standard streams, logs.
const OTHERS: u64 = 64;

/// Raises the soft limit to the hard one: the process belongs to the broker.
pub(super) fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused, the limit stays what it is, and sessions are fitted to that.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    );
}

/// Lowers `sessions_max` to what the descriptors of this process allow.
pub(super) fn fit_sessions(limits: &mut Limits) {
    // No limit at all fits everything.
    let Some(current) = getrlimit(Resource::Nofile).current else {
        return;
    };
    let fitting = usize::try_from(current.saturating_sub(OTHERS).max(1)).unwrap_or(usize::MAX);
    if fitting < limits.sessions_max {
        tracing::warn!(
            "descriptor limit {current} allows {fitting} sessions, sessions_max asks {}: \
             LimitNOFILE={} in the unit, or ulimit -n",
            limits.sessions_max,
            limits.sessions_max as u64 + OTHERS,
        );
        limits.sessions_max = fitting;
    }
}
