//! The connections of the admin endpoint: so many at a time, and who goes when one more comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, panic};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// Connections at a time; a scraper, a probe and a person need three.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// Whether a connection is being answered: from the end of its request's head to the last byte of
/// the answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answering(Arc<AtomicBool>);

// Relaxed: one thread.
impl Answering {
    pub(super) fn set(&self, is_answering: bool) {
        self.0.store(is_answering, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What became of the oldest connection, or of the one that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There was room.
    Room,
    /// The oldest that is not being answered was closed to make room.
    Displaced,
    /// All are being answered: there is no room.
    Full,
}

/// Tasks, one for each connection, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Answering)>,
}

impl Connections {
    /// Makes room for one more. A request comes with its connection, so whoever has held one and
    /// said nothing is the one to go: slow peers, however many, stop nobody who asks.
    pub(super) fn admit(&mut self) -> Admission {
        if self.open.len() < CONNECTIONS_MAX {
            return Admission::Room;
        }
        let oldest = self.open.iter().position(|(_, answering)| !answering.get());
        match oldest.and_then(|oldest| self.open.remove(oldest)) {
            Some((task, _)) => {
                task.abort();
                Admission::Displaced
            }
            None => Admission::Full,
        }
    }

    /// Adds the task of a connection for which there is room.
    pub(super) fn add(
        &mut self,
        answering: Answering,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        debug_assert!(self.open.len() < CONNECTIONS_MAX, "it was admitted");
        self.open.push_back((self.tasks.spawn(task), answering));
    }

    /// Waits for the end of a connection, and goes on with its panic if that was it; never ends if
    /// there is none.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(Ok((id, ()))) => self.forget(id),
            Some(Err(error)) => self.failed(error),
            None => std::future::pending().await,
        }
    }

    /// Closes those that are not being answered, and waits for the rest.
    pub(super) async fn finish(mut self) {
        for (task, answering) in &self.open {
            if !answering.get() {
                task.abort();
            }
        }
        while !self.tasks.is_empty() {
            self.ended().await;
        }
    }

    fn failed(&mut self, error: JoinError) {
        self.forget(error.id());
        if let Ok(panic) = error.try_into_panic() {
            panic::resume_unwind(panic);
        }
    }

    fn forget(&mut self, id: Id) {
        self.open.retain(|(task, _)| task.id() != id);
    }
}

/// Whether accepting failed for a reason of this one connection alone.
pub(super) fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}
