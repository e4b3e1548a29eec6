//! The time of a reactor: it goes on with the monotonic clock, and stands still while the process
//! does.

use std::time::{Duration, Instant};

use crate::deadline::Timestamp;

/// A loop that comes back so much later than it wanted to has not run meanwhile: its virtual
/// machine was paused, its process stopped, or a hook took that long.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Tells the time since the start, without the pauses.
///
/// What peers sent before a pause may still be on its way when it ends. Were the pause charged to
/// them, all of them would be closed at once over deadlines that nobody had a chance to meet.
#[derive(Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    paused: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            epoch: Instant::now(),
            paused: Duration::ZERO,
        }
    }

    /// The time of a turn that begins, and how much later than it should have that is. The one
    /// before began at `before`; the loop wanted to wait for at most `timeout` since, for ever if
    /// there is none.
    pub(crate) fn tell(
        &mut self,
        before: Timestamp,
        timeout: Option<Duration>,
    ) -> (Timestamp, Duration) {
        self.tell_at(self.epoch.elapsed(), before, timeout)
    }

    /// From `before`, which this clock has told, to now.
    pub(crate) fn since(&self, before: Timestamp) -> Duration {
        Timestamp::from(self.epoch.elapsed().saturating_sub(self.paused)).since(before)
    }

    fn tell_at(
        &mut self,
        elapsed: Duration,
        before: Timestamp,
        timeout: Option<Duration>,
    ) -> (Timestamp, Duration) {
        let now = Timestamp::from(elapsed.saturating_sub(self.paused));
        let late = timeout.map_or(Duration::ZERO, |timeout| now.since(before + timeout));
        if late < PAUSE_MIN {
            return (now, late);
        }
        // The whole wait, and not only what was too long: what it was for would be due at once.
        self.paused += now.since(before);
        (before, late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g11_a_pause_does_not_count_and_everything_else_does() {
        let seconds = Duration::from_secs;
        let mut clock = Clock::start();
        let start = Timestamp::default();
        let mut tell = |at, before, timeout| clock.tell_at(seconds(at), before, timeout);
        let wanted = Some(seconds(2));
        let (now, late) = tell(1, start, wanted);
        assert_eq!(now, Timestamp::from(seconds(1)), "an event came");
        assert_eq!(late, seconds(0));
        let (now, _) = tell(3, now, wanted);
        assert_eq!(now, Timestamp::from(seconds(3)), "the wait was over");
        // A leap of ten seconds: what was to come within two seconds still has them.
        let (now, late) = tell(15, now, wanted);
        assert_eq!(now, Timestamp::from(seconds(3)));
        assert_eq!(late, seconds(10), "and it is told");
        let (now, _) = tell(16, now, wanted);
        assert_eq!(now, Timestamp::from(seconds(4)), "time goes on");
        let (now, late) = tell(100, now, None);
        assert_eq!(now, Timestamp::from(seconds(88)), "nothing was waited for");
        assert_eq!(late, seconds(0));
    }
}
