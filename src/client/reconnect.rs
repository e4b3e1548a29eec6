//! What the halves of one client share: the current connection, the subscriptions, and the way back
//! when the connection is lost.
//!
//! Whoever of them notices the loss first marks it; whoever is then waiting makes the next attempt,
//! and the others adopt its connection. No thread of its own does that.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::batch::unsent;
use super::connection::{Connection, SendFailure};
use super::error::{ClientError, Wait};
use super::memory::Memory;
use crate::address::Address;
use crate::packet::{FrameBuf, id};
use crate::topic_frames::topic_frames;

/// How to come back after a lost connection.
///
/// Before attempt `n` a client waits a random time between 0 and `first * 2^n`, at most `max`: of
/// many clients that lost one broker, no two come back at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// Bound of the wait before the first attempt.
    pub first: Duration,
    /// Bound of any wait.
    pub max: Duration,
    /// Failed attempts after which the error is reported; `None` never gives up.
    pub attempts_max: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(100),
            max: Duration::from_secs(10),
            attempts_max: None,
        }
    }
}

impl Reconnect {
    pub(super) fn wait(&self, failures: u32) -> Duration {
        let bound = self.first.saturating_mul(2_u32.saturating_pow(failures));
        let bound = bound.min(self.max);
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        // Each `RandomState` has keys of its own; nothing more random is needed to spread clients.
        let random = RandomState::new().hash_one(nanos);
        Duration::from_nanos(random.checked_rem(nanos.saturating_add(1)).unwrap_or(0))
    }
}

/// What a client was built with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) address: Address,
    pub(super) connect_timeout: Duration,
    pub(super) write_timeout: Option<Duration>,
    pub(super) answer_timeout: Duration,
    pub(super) reconnect: Option<Reconnect>,
    /// Whether CONNECT asks for extensions,
    pub(super) asks: bool,
    /// and for answers among them.
    pub(super) wants_answers: bool,
    /// At least so often a byte goes to the broker, as CONNECT promises.
    pub(super) keepalive: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    settings: Settings,
    /// That of the current connection. A hint: who sees an old one uses a dead connection once
    /// more, fails, and then looks under the lock.
    generation: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

/// Invariant: at most one thread is `connecting`, and only while there is no connection.
#[derive(Debug)]
struct State {
    connection: Option<Arc<Connection>>,
    memory: Memory,
    disconnected: bool,
    connecting: bool,
    failures: u32,
    next_attempt: Instant,
}

impl Shared {
    /// Connects for the first time; nothing is sent yet.
    pub(super) fn open(settings: Settings) -> Result<(Arc<Self>, Arc<Connection>), ClientError> {
        let connection = Arc::new(open(&settings, 1)?);
        let shared = Arc::new(Self {
            settings,
            generation: AtomicU64::new(1),
            state: Mutex::new(State {
                connection: Some(Arc::clone(&connection)),
                memory: Memory::default(),
                disconnected: false,
                connecting: false,
                failures: 0,
                next_attempt: Instant::now(),
            }),
            changed: Condvar::new(),
        });
        Ok((shared, connection))
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.lock().memory.topics()
    }

    /// Replaces `connection` if there is a newer one.
    pub(super) fn adopt(&self, connection: &mut Arc<Connection>) {
        // Relaxed: the lock orders everything that the new connection consists of.
        if self.generation.load(Ordering::Relaxed) != connection.generation()
            && let Some(current) = &self.lock().connection
        {
            *connection = Arc::clone(current);
        }
    }

    /// Sends CONNECT, and remembers it for the connections to come.
    pub(super) fn send_connect(&self, frame: FrameBuf) -> Result<(), ClientError> {
        self.change(frame.bytes(), false, |state| {
            state.memory.set_connect(frame);
        })
    }

    /// Sends SUBSCRIBE, and remembers the topics. Returns the frames, each of which has an answer
    /// where there are any.
    pub(super) fn subscribe(
        &self,
        topics: &[&str],
        is_awaited: bool,
    ) -> Result<Vec<u8>, ClientError> {
        let frames = topic_frames(id::SUBSCRIBE, topics.iter().copied())?;
        self.change(&frames, is_awaited, |state| {
            state.memory.add(topics);
        })?;
        Ok(frames)
    }

    /// Sends UNSUBSCRIBE, and forgets the topics; returns the frames.
    pub(super) fn unsubscribe(
        &self,
        topics: &[&str],
        is_awaited: bool,
    ) -> Result<Vec<u8>, ClientError> {
        let frames = topic_frames(id::UNSUBSCRIBE, topics.iter().copied())?;
        self.change(&frames, is_awaited, |state| state.memory.forget(topics))?;
        Ok(frames)
    }

    /// The broker has refused these.
    pub(super) fn forget(&self, topics: &[&str]) {
        self.lock().memory.forget(topics);
    }

    /// Sends a request that changes nothing which is remembered.
    pub(super) fn request(&self, frame: &[u8], is_awaited: bool) -> Result<(), ClientError> {
        self.change(frame, is_awaited, |_| ())
    }

    /// Marks `connection` as lost. An error, the cause, if this client does not reconnect.
    pub(super) fn lost(
        &self,
        connection: &Connection,
        cause: ClientError,
    ) -> Result<(), ClientError> {
        let mut state = self.lock();
        if state.disconnected {
            return Err(ClientError::Disconnected);
        }
        let Some(reconnect) = self.settings.reconnect else {
            return Err(cause);
        };
        if is_current(&state, connection) {
            // Wakes the other half if it is blocked on the old socket.
            connection.shut_down();
            state.connection = None;
            state.failures = 0;
            state.next_attempt = Instant::now() + reconnect.wait(0);
            // Relaxed: see the field.
            self.generation.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The current connection, if need be a new one on which everything is subscribed again. `None`
    /// if there is none until `deadline`; one attempt under way may take longer.
    pub(super) fn ready(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<Arc<Connection>>, ClientError> {
        let mut state = self.lock();
        loop {
            if state.disconnected {
                return Err(ClientError::Disconnected);
            }
            if let Some(connection) = &state.connection {
                return Ok(Some(Arc::clone(connection)));
            }
            let now = Instant::now();
            if !state.connecting && now >= state.next_attempt {
                state = self.attempt(state)?;
                continue;
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(None);
            }
            // Who waits for another's attempt is woken when it is decided.
            let attempt = (!state.connecting).then_some(state.next_attempt);
            let wake = attempt.into_iter().chain(deadline).min();
            state = match wake {
                Some(wake) => {
                    let waited = self.changed.wait_timeout(state, wake - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// From now on nobody reconnects. The connection, if there is one.
    pub(super) fn disconnect(&self) -> Result<Arc<Connection>, ClientError> {
        let mut state = self.lock();
        if state.disconnected {
            return Err(ClientError::Disconnected);
        }
        state.disconnected = true;
        self.changed.notify_all();
        state.connection.clone().ok_or_else(|| ClientError::Closed {
            address: self.settings.address.clone(),
        })
    }

    pub(super) fn is_disconnected(&self) -> bool {
        self.lock().disconnected
    }

    /// Remembers a change and sends its frames, both under the lock: a reconnection either comes
    /// later and carries the change, or it has come before and gets the frames.
    fn change(
        &self,
        frames: &[u8],
        is_awaited: bool,
        remember: impl FnOnce(&mut State),
    ) -> Result<(), ClientError> {
        let mut state = self.lock();
        if state.disconnected {
            return Err(ClientError::Disconnected);
        }
        remember(&mut state);
        if let Some(connection) = state.connection.clone() {
            connection.requests().note(frames, is_awaited);
            let Err(SendFailure { written, error }) = connection.send(frames) else {
                return Ok(());
            };
            connection.requests().forget(unsent(frames, written));
            drop(state);
            if matches!(error, ClientError::TimedOut { .. }) {
                return Err(error);
            }
            self.lost(&connection, error)?;
        } else {
            drop(state);
        }
        let deadline = self.write_deadline();
        self.ready(deadline)?
            .map(drop)
            .ok_or_else(|| self.not_back())
    }

    /// Until when a sender that starts waiting now waits for a connection.
    pub(super) fn write_deadline(&self) -> Option<Instant> {
        let timeout = self.settings.write_timeout?;
        // A time too far away to be expressed is as good as none.
        Instant::now().checked_add(timeout)
    }

    /// The error of a sender whose time is up before there is a connection again.
    pub(super) fn not_back(&self) -> ClientError {
        ClientError::TimedOut {
            address: self.settings.address.clone(),
            wait: Wait::Reconnect,
            limit: self.settings.write_timeout.unwrap_or_default(),
        }
    }

    /// One attempt, made without the lock.
    fn attempt<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> Result<MutexGuard<'a, State>, ClientError> {
        let reconnect = self.settings.reconnect.unwrap_or_default();
        state.connecting = true;
        drop(state);
        // Relaxed: nobody else changes it while this thread is connecting.
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let opened = open(&self.settings, generation);
        let mut state = self.lock();
        state.connecting = false;
        self.changed.notify_all();
        match opened.and_then(|connection| state.restore(connection)) {
            // Disconnected meanwhile: the new connection closes as this drops it.
            Ok(_) if state.disconnected => Err(ClientError::Disconnected),
            Ok(connection) => {
                state.connection = Some(Arc::new(connection));
                state.failures = 0;
                // Relaxed: see the field.
                self.generation.store(generation, Ordering::Relaxed);
                Ok(state)
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.next_attempt = Instant::now() + reconnect.wait(state.failures);
                if reconnect
                    .attempts_max
                    .is_some_and(|max| state.failures >= max)
                {
                    // The next call begins anew.
                    state.failures = 0;
                    return Err(error);
                }
                Ok(state)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave this state half changed in a way that matters here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends what makes the broker know this client again.
    fn restore(&self, connection: Connection) -> Result<Connection, ClientError> {
        let frames = self.memory.frames()?;
        connection.requests().note(&frames, false);
        match connection.send(&frames) {
            Ok(()) => Ok(connection),
            Err(failure) => Err(failure.error),
        }
    }
}

fn is_current(state: &State, connection: &Connection) -> bool {
    let current = state.connection.as_ref();
    current.is_some_and(|current| current.generation() == connection.generation())
}

fn open(settings: &Settings, generation: u64) -> Result<Connection, ClientError> {
    let connection = Connection::open(
        &settings.address,
        generation,
        settings.connect_timeout,
        settings.write_timeout,
    )?;
    connection.requests().set_answered(settings.wants_answers);
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_wait_before_an_attempt_is_random_and_bounded() {
        let reconnect = Reconnect::default();
        for failures in [0, 1, 5, 7, 100, u32::MAX] {
            let waits: BTreeSet<_> = (0..50).map(|_| reconnect.wait(failures)).collect();
            assert!(waits.len() > 40, "{failures}: {waits:?}");
            let doubled = reconnect
                .first
                .saturating_mul(2_u32.saturating_pow(failures));
            assert!(waits.last() <= Some(&doubled.min(reconnect.max)));
        }
    }
}
