//! A connection inside the process: a buffer for each direction instead of a socket.
//!
//! The process's end waits where a socket would block, the reactor's never does: it is told by
//! edges, like those of a socket, that there are bytes, room or an end.

use std::io::{self, IoSlice};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::reactor::{Command, Mailbox};
use crate::session::SessionKey;
use crate::shard::SendOutcome;

/// What each direction may hold: one session's share of a turn.
const PIPE_LEN_MAX: usize = 256 * 1024;

/// The end that a reactor serves as a session.
#[derive(Debug)]
pub(crate) struct ReactorEnd(Arc<Pipe>);

/// The end that the process uses; several threads may.
#[derive(Debug)]
pub(crate) struct ProcessEnd(Arc<Pipe>);

/// The broker has ended this connection, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended;

#[derive(Debug, Default)]
struct Pipe {
    state: Mutex<State>,
    /// Notified of everything that the process may wait for.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Of the process, not taken by the reactor yet.
    to_broker: Vec<u8>,
    to_process: Vec<u8>,
    /// Everything that was taken has been executed.
    is_settled: bool,
    /// The reactor could not send all that it had.
    wants_room: bool,
    /// The process has let go of its end.
    process_ended: bool,
    /// The broker stops: it executes what the process has written, and takes nothing more.
    is_stopped: bool,
    /// The reactor writes and takes no more.
    broker_ended: bool,
    /// Who is told of edges, once the connection has a session.
    session: Option<(Arc<Mailbox>, SessionKey)>,
}

/// What has become possible on a connection, told once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edge {
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    pub(crate) is_read_closed: bool,
}

/// Both ends of a new connection.
pub(crate) fn pipe() -> (ProcessEnd, ReactorEnd) {
    let pipe = Arc::new(Pipe::default());
    (ProcessEnd(Arc::clone(&pipe)), ReactorEnd(pipe))
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Tells the reactor. One that has ended needs no edges.
    fn tell(&self, is_readable: bool, is_writable: bool) {
        if let Some((mailbox, key)) = &self.session {
            let edge = Edge {
                is_readable,
                is_writable,
                is_read_closed: self.process_ended,
            };
            let _ = mailbox.post(Command::Edge(*key, edge));
        }
    }
}

impl ReactorEnd {
    /// From now on edges go to `key`; tells of what is there already.
    pub(crate) fn attach(&self, mailbox: Arc<Mailbox>, key: SessionKey) {
        let mut state = self.0.lock();
        state.session = Some((mailbox, key));
        state.tell(true, false);
    }

    /// As a socket's receive: 0 is the end of the stream.
    pub(crate) fn receive(&self, room: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let len = state.to_broker.len().min(room.len());
        if len == 0 {
            return match state.process_ended {
                true => Ok(0),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        }
        room[..len].copy_from_slice(&state.to_broker[..len]);
        state.to_broker.drain(..len);
        self.0.changed.notify_all();
        Ok(len)
    }

    /// As a socket's send.
    pub(crate) fn send(&self, bytes: &[u8]) -> SendOutcome {
        let mut state = self.0.lock();
        if state.process_ended {
            return SendOutcome::Failed(io::ErrorKind::BrokenPipe);
        }
        let len = (PIPE_LEN_MAX - state.to_process.len()).min(bytes.len());
        state.to_process.extend_from_slice(&bytes[..len]);
        self.0.changed.notify_all();
        if len == bytes.len() {
            return SendOutcome::Whole(len);
        }
        state.wants_room = true;
        SendOutcome::Short(len)
    }

    /// As a socket's, of several stretches.
    pub(crate) fn send_vectored(&self, parts: &[IoSlice<'_>]) -> SendOutcome {
        let mut sent = 0;
        for part in parts {
            match self.send(part) {
                SendOutcome::Whole(len) => sent += len,
                SendOutcome::Short(len) => return SendOutcome::Short(sent + len),
                SendOutcome::NoBuffers(len) => return SendOutcome::NoBuffers(sent + len),
                // What went before went; the failure shows at the next send.
                SendOutcome::Failed(_) if sent > 0 => return SendOutcome::Short(sent),
                failed @ SendOutcome::Failed(_) => return failed,
            }
        }
        SendOutcome::Whole(sent)
    }

    /// All that was received has been executed.
    pub(crate) fn settle(&self) {
        let mut state = self.0.lock();
        if state.to_broker.is_empty() && !state.is_settled {
            state.is_settled = true;
            self.0.changed.notify_all();
        }
    }

    /// Takes what the process has written, and nothing after it.
    pub(crate) fn stop(&self) {
        self.0.lock().is_stopped = true;
        self.0.changed.notify_all();
    }

    /// Whether all that the process has written was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().to_broker.is_empty()
    }

    /// Ends our side; what was sent can still be taken.
    pub(crate) fn shut_down_writing(&self) {
        self.0.lock().broker_ended = true;
        self.0.changed.notify_all();
    }
}

impl Drop for ReactorEnd {
    fn drop(&mut self) {
        self.shut_down_writing();
    }
}

impl ProcessEnd {
    /// Writes a whole frame, waiting for room.
    pub(crate) fn write(&self, frame: &[u8]) -> Result<(), Ended> {
        let mut state = self.0.lock();
        while state.to_broker.len() + frame.len() > PIPE_LEN_MAX && !state.is_over() {
            state = self.0.wait(state);
        }
        if state.is_over() {
            return Err(Ended);
        }
        let was_empty = state.to_broker.is_empty();
        state.to_broker.extend_from_slice(frame);
        state.is_settled = false;
        if was_empty {
            state.tell(true, false);
        }
        Ok(())
    }

    /// Waits until the broker has executed all that was written. What the broker has to send before
    /// and finds no room for is taken meanwhile, and appended to `buffer`.
    pub(crate) fn wait_until_settled(&self, buffer: &mut Vec<u8>) -> Result<(), Ended> {
        let mut state = self.0.lock();
        while !state.is_settled {
            if state.wants_room {
                state.take(buffer);
                continue;
            }
            if state.broker_ended {
                return Err(Ended);
            }
            state = self.0.wait(state);
        }
        Ok(())
    }

    /// Appends what has come to `buffer`, waiting for it at most until `deadline`, if there is one;
    /// false if nothing came by then.
    pub(crate) fn read(
        &self,
        buffer: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<bool, Ended> {
        let mut state = self.0.lock();
        while state.to_process.is_empty() {
            if state.broker_ended {
                return Err(Ended);
            }
            let left = deadline.map_or(FOREVER, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return Ok(false);
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.take(buffer);
        Ok(true)
    }
}

/// Longer than anybody waits; a wait without end cannot be written with a timeout.
const FOREVER: Duration = Duration::from_secs(1 << 32);

impl Drop for ProcessEnd {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.process_ended = true;
        state.tell(true, true);
    }
}

impl State {
    /// Moves what has come to the end of `buffer`.
    fn take(&mut self, buffer: &mut Vec<u8>) {
        if buffer.is_empty() {
            std::mem::swap(buffer, &mut self.to_process);
        } else {
            buffer.append(&mut self.to_process);
        }
        if std::mem::take(&mut self.wants_room) {
            self.tell(false, true);
        }
    }

    const fn is_over(&self) -> bool {
        self.is_stopped || self.broker_ended
    }
}
