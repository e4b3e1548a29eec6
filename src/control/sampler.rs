//! What all reactors have counted at one moment, asked for when somebody wants to know.
//!
//! A question passes through a reactor's own loop, so an answer also proves that the loop goes
//! round. However many ask, reactors are asked ten times a second at most, and none is asked again
//! before it has answered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::{Instant, sleep, timeout_at};

use crate::metrics::Counters;
use crate::reactor::{Command, Peers, Reply};

/// A reactor that needs longer for an answer stands still.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Who asks within this time of an answer gets the same one.
const AGE_MAX: Duration = Duration::from_millis(100);
/// Between two looks for the last count of a reactor that is just ending.
const ENDING_PAUSE: Duration = Duration::from_millis(1);

/// How a reactor stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has answered.
    Answers,
    /// It has ended in order; its counters are the last.
    Ended,
    /// It did not answer within `ANSWER_TIMEOUT`; its counters are the last known.
    Late,
    /// It has ended out of order; its counters are the last known.
    Failed,
}

impl Standing {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Ended => "ended",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }

    pub(super) const fn is_well(self) -> bool {
        matches!(self, Self::Answers | Self::Ended)
    }
}

/// One reactor's part of a sample.
#[derive(Clone, Debug)]
pub(super) struct ReactorSample {
    /// Its number, or `process`.
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) counters: Counters,
}

/// What all reactors have counted.
#[derive(Debug)]
pub(super) struct Sample {
    /// When it was complete.
    pub(super) taken: Instant,
    pub(super) reactors: Vec<ReactorSample>,
    pub(super) sum: Counters,
}

/// Takes samples.
#[derive(Debug)]
pub(super) struct Sampler {
    peers: Arc<Peers>,
    latest: Option<Arc<Sample>>,
    reactors: Vec<Asked>,
}

/// A reactor and the question that it has not answered yet.
#[derive(Debug)]
struct Asked {
    id: usize,
    question: Option<oneshot::Receiver<Counters>>,
    known: Counters,
}

impl Sampler {
    pub(super) fn new(peers: Arc<Peers>) -> Self {
        let asked = |id| Asked {
            id,
            question: None,
            known: Counters::default(),
        };
        Self {
            latest: None,
            reactors: (0..peers.mailboxes.len()).map(asked).collect(),
            peers,
        }
    }

    /// The latest sample if it is fresh, else a new one, within `ANSWER_TIMEOUT`. Whoever stops
    /// waiting loses nothing but the answer.
    pub(super) async fn sample(&mut self) -> Arc<Sample> {
        if let Some(latest) = &self.latest
            && latest.taken.elapsed() < AGE_MAX
        {
            return Arc::clone(latest);
        }
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        for asked in &mut self.reactors {
            asked.ask(&self.peers);
        }
        let mut reactors = Vec::with_capacity(self.reactors.len());
        for asked in &mut self.reactors {
            let standing = asked.answer(&self.peers, deadline).await;
            reactors.push(ReactorSample {
                name: match asked.id < self.peers.serving() {
                    true => asked.id.to_string(),
                    false => "process".into(),
                },
                standing,
                counters: asked.known.clone(),
            });
        }
        let sample = Arc::new(Sample {
            taken: Instant::now(),
            sum: self
                .peers
                .sum(reactors.iter().map(|reactor| &reactor.counters)),
            reactors,
        });
        self.latest = Some(Arc::clone(&sample));
        sample
    }
}

impl Asked {
    /// Leaves a question, unless the last one waits still.
    fn ask(&mut self, peers: &Peers) {
        if let Some(question) = &mut self.question {
            match question.try_recv() {
                Err(TryRecvError::Empty) => return,
                // It came when nobody waited any more: no answer to what is asked now.
                Ok(counters) => self.known = counters,
                Err(TryRecvError::Closed) => {}
            }
        }
        let (sender, question) = oneshot::channel();
        let reply = Reply::new(move |counters| {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(counters);
        });
        // Refused, the question is dropped, and the answer is that the reactor has ended.
        let _ = peers.mailboxes[self.id].post(Command::Count(reply));
        self.question = Some(question);
    }

    async fn answer(&mut self, peers: &Peers, deadline: Instant) -> Standing {
        if let Some(question) = &mut self.question {
            match timeout_at(deadline, question).await {
                Err(_) => return Standing::Late,
                Ok(Ok(counters)) => {
                    self.question = None;
                    self.known = counters;
                    return Standing::Answers;
                }
                Ok(Err(_)) => self.question = None,
            }
        }
        // It has ended; what it counted last is there in a moment, unless it failed.
        loop {
            if let Some(counters) = peers.last_count(self.id) {
                self.known = counters.clone();
                return Standing::Ended;
            }
            if Instant::now() >= deadline {
                return Standing::Failed;
            }
            sleep(ENDING_PAUSE).await;
        }
    }
}
