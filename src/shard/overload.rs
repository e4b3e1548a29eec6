//! The states that a shard is in when it has too much of something, and leaves by itself.

use crate::handler::SessionHandler;
use crate::metrics::Overload;
use crate::register::wildcard::Pattern;
use crate::session::SessionKey;
use crate::shard::Shard;
use crate::shard::account::Account;

/// Which of them hold, in the order of [`Overload`].
pub(crate) type Overloads = [bool; Overload::ALL.len()];

impl<H: SessionHandler> Shard<H> {
    /// Which states of overload hold.
    pub(crate) const fn overloads(&self) -> Overloads {
        self.overloads
    }

    /// Whether a limit keeps a session from one more topic. One of the whole broker's is a state
    /// until there is some room again.
    pub(super) fn is_at_subscription_limit(
        &mut self,
        key: SessionKey,
        topic: &str,
        pattern: Pattern,
    ) -> bool {
        let limits = &self.limits;
        let mut held = self.register.topics(key).len();
        if !self.wildcards.is_empty() {
            held += self.wildcards.filters().topics(key).len();
        }
        let own = held >= limits.subscriptions_per_session_max;
        let all = self.subscription_count() >= limits.subscriptions_max;
        let (register, has_shape) = match pattern {
            Pattern::Filter(shape) => (self.wildcards.filters(), self.wildcards.has_room(shape)),
            _ => (&self.register, true),
        };
        let topics = (self.topic_count() >= limits.topics_max
            || self.topic_bytes() + topic.len() > limits.topic_bytes_max)
            && register.subscribers(topic).is_empty();
        if !(own || all || topics || !has_shape) || register.is_subscribed(key, topic) {
            return false;
        }
        self.overloads[Overload::Subscriptions as usize] |= all;
        self.overloads[Overload::Topics as usize] |= topics;
        true
    }

    /// Ends the states that are over, and begins and ends that of the memory. Called when whoever
    /// leaves with this turn has left.
    pub(super) fn settle_overloads(&mut self) {
        self.tell_account();
        let limits = &self.limits;
        let (count, topic_count) = (self.subscription_count(), self.topic_count());
        let topic_bytes = self.topic_bytes();
        let subscriptions = || is_near(count, limits.subscriptions_max);
        let topics = || {
            is_near(topic_count, limits.topics_max) || is_near(topic_bytes, limits.topic_bytes_max)
        };
        let account = self.account.as_ref();
        let [memory, subscribed, named] = &mut self.overloads;
        *memory = account.is_some_and(Account::is_full);
        *subscribed = *subscribed && subscriptions();
        *named = *named && topics();
    }
}

/// Whether less than a twentieth is free: a state that ended with every session that leaves would
/// come and go all the time.
const fn is_near(count: usize, max: usize) -> bool {
    count >= max - max / 20
}
