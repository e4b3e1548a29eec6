//! One run to everyone here who wants it.

use crate::arena::Piece;
use crate::handler::SessionHandler;
use crate::metrics::DropReason;
use crate::outbound::Pieces;
use crate::packet::Extensions;
use crate::register::TopicIndex;
use crate::session::{CloseReason, SessionKey, Sessions};
use crate::shard::Shard;
use crate::shard::parse::Origin;

/// Whom a run goes to: whoever holds exactly its topic, and whoever has a filter that matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Audience {
    /// Where the register has the topic, if anybody here wants exactly that.
    pub(super) exact: Option<TopicIndex>,
    /// Whether filters match as well: those in `Shard::matched`.
    by_filters: bool,
    /// How many subscriptions it has; a session with several filters counts as often.
    pub(super) sessions: usize,
}

impl Audience {
    pub(super) const NONE: Self = Self {
        exact: None,
        by_filters: false,
        sessions: 0,
    };
}

/// How many got it, and who could not because there was no memory.
#[derive(Default)]
struct Given {
    sessions: usize,
    starved: Vec<SessionKey>,
}

impl<H: SessionHandler> Shard<H> {
    /// Whom messages on `topic` go to, until subscriptions change or another topic is asked for.
    #[inline]
    pub(super) fn audience(&mut self, hash: u64, topic: &[u8]) -> Audience {
        let exact = self.register.find(hash, topic);
        let holders = exact.map_or(0, |exact| self.register.route_at(exact).subscribers().len());
        if self.wildcards.is_empty() {
            return Audience {
                exact,
                by_filters: false,
                sessions: holders,
            };
        }
        let filters = self.match_filters(hash, topic);
        Audience {
            exact,
            by_filters: filters > 0,
            sessions: holders + filters,
        }
    }

    #[cold]
    fn match_filters(&mut self, hash: u64, topic: &[u8]) -> usize {
        self.matched = self.wildcards.matched(hash, topic);
        let routes = self.matched.iter();
        let routes = routes.map(|&filter| self.wildcards.route_at(filter));
        routes.map(|route| route.subscribers().len()).sum()
    }

    /// Gives a run to its audience, except its publisher; returns how many deliveries that are.
    #[inline]
    pub(super) fn fan_out(
        &mut self,
        audience: Audience,
        origin: Origin,
        piece: Piece,
        frames: u32,
    ) -> u64 {
        let is_plain = !audience.by_filters && self.left_out.is_empty();
        let gathered = match is_plain {
            true => Vec::new(),
            false => self.gather(audience),
        };
        let listeners = match (is_plain, audience.exact) {
            (true, Some(exact)) => self.register.route_at(exact).subscribers(),
            _ => &gathered[..],
        };
        let mut hands = Hands {
            sessions: &mut self.sessions,
            pieces: &mut self.pieces,
            dirty: &mut self.dirty,
        };
        let given = hands.give(listeners, origin.publisher(), piece, frames);
        if !is_plain {
            self.listeners = gathered;
        }
        let matched = given.sessions as u64 * u64::from(frames);
        for subscriber in given.starved {
            self.count_dropped(subscriber, DropReason::NoMemory, u64::from(frames));
            self.close(subscriber, CloseReason::NoMemory);
        }
        if self.pauses.consumers > 0 {
            let listeners = self.gather(audience);
            self.hold_origin(&listeners, origin);
            self.listeners = listeners;
        }
        self.budget.spend_deliveries(piece.len(), given.sessions);
        self.counters.deliveries_matched += matched;
        matched
    }

    /// The sessions of an audience, each once, in the memory of `Shard::listeners`.
    pub(super) fn gather(&mut self, audience: Audience) -> Vec<SessionKey> {
        self.marked += 1;
        let mut listeners = std::mem::take(&mut self.listeners);
        listeners.clear();
        let holders = audience.exact;
        let holders = holders.map(|exact| self.register.route_at(exact).subscribers());
        // What was matched by another topic is no longer true.
        let filters = match audience.by_filters {
            true => &self.matched[..],
            false => &[],
        };
        let filters = filters.iter();
        let filters = filters.map(|&filter| self.wildcards.route_at(filter).subscribers());
        // In the order in which they come here.
        let mut left_out = self.left_out.iter().peekable();
        let takes_all = self.left_out.is_empty();
        for &key in holders.into_iter().chain(filters).flatten() {
            // Only who may use wildcards can be among them twice.
            let extended = self.sessions.get_mut(key);
            let extended = extended.and_then(|session| session.extended.as_mut());
            let is_first = extended.is_none_or(|extended| {
                std::mem::replace(&mut extended.marked, self.marked) != self.marked
            });
            if is_first && (takes_all || left_out.next_if_eq(&&key).is_none()) {
                listeners.push(key);
            }
        }
        listeners
    }
}

/// What a run is given through.
struct Hands<'a> {
    sessions: &'a mut Sessions,
    pieces: &'a mut Pieces,
    dirty: &'a mut Vec<SessionKey>,
}

impl Hands<'_> {
    /// Gives a piece to each of the listeners, except the publisher.
    #[inline]
    fn give(
        &mut self,
        listeners: &[SessionKey],
        publisher: Option<SessionKey>,
        piece: Piece,
        frames: u32,
    ) -> Given {
        let mut given = Given::default();
        for &listener in listeners {
            if Some(listener) == publisher && !self.has_echo(listener) {
                continue;
            }
            let Some(session) = self.sessions.get_mut(listener) else {
                continue;
            };
            if session.closing.is_some() || session.outbound.broken {
                continue;
            }
            given.sessions += 1;
            session.deliveries += u64::from(frames);
            if session.outbound.push(self.pieces, piece, frames).is_err() {
                given.starved.push(listener);
                continue;
            }
            if !session.outbound.dirty {
                session.outbound.dirty = true;
                self.dirty.push(listener);
            }
        }
        given
    }

    /// Whether a session gets its own messages too.
    #[cold]
    fn has_echo(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| session.extensions().contains(Extensions::ECHO))
    }
}
