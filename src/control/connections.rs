//! The connections of the admin endpoint: so many at a time, and who goes when one more comes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{io, panic};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// Connections at a time; a scraper, a probe and a person need three.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its request's head is not whole.
    Asking,
    /// From there to the last byte of the answer.
    Answering,
    /// What is left is the peer's goodbye.
    Answered,
}

/// A connection's stage, as its task and the table of connections see it.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<AtomicU8>);

// Relaxed: one thread.
impl Progress {
    pub(super) fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }

    fn is(&self, stage: Stage) -> bool {
        self.0.load(Ordering::Relaxed) == stage as u8
    }
}

/// Whether one more connection may come, and at whose expense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room.
    Room,
    /// There is, because the oldest that has not asked yet was closed.
    Displaced,
    /// All are being answered: there is no room.
    Full,
}

/// Tasks, one for each connection, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    open: VecDeque<(AbortHandle, Progress)>,
}

impl Connections {
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= CONNECTIONS_MAX
    }

    /// Makes room for one more. A request comes with its connection, so whoever has held one and
    /// said nothing is the one to go: slow peers, however many, stop nobody who asks.
    pub(super) fn admit(&mut self) -> Admission {
        if !self.is_full() || self.close_oldest(Stage::Answered) {
            Admission::Room
        } else if self.close_oldest(Stage::Asking) {
            Admission::Displaced
        } else {
            Admission::Full
        }
    }

    /// Closes the oldest connection at this stage; false if there is none.
    fn close_oldest(&mut self, stage: Stage) -> bool {
        let oldest = self
            .open
            .iter()
            .position(|(_, progress)| progress.is(stage));
        let closed = oldest.and_then(|oldest| self.open.remove(oldest));
        closed.inspect(|(task, _)| task.abort()).is_some()
    }

    /// Adds the task of a connection for which there is room.
    pub(super) fn add(
        &mut self,
        progress: Progress,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        debug_assert!(!self.is_full(), "it was admitted");
        self.open.push_back((self.tasks.spawn(task), progress));
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
        for (task, progress) in &self.open {
            if !progress.is(Stage::Answering) {
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
