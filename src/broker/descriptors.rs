//! Descriptors: one per session, so the limit is raised and sessions are fitted to it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors that are not sessions: listeners, poller, waker, standard streams, logs.
const OTHERS: u64 = 64;

/// Raises the soft limit to the hard one, and lowers `sessions_max` to what fits.
pub(super) fn fit_sessions(limits: &mut Limits) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let current = setrlimit(Resource::Nofile, raised).map_or(current, |()| maximum);
    // No limit at all fits everything.
    let Some(current) = current else { return };
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
