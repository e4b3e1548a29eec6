//! In which orders a model is run, and how its threads tell each other what has happened.

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::sync::{AtomicUsize, Ordering};

/// The same orders each time; `SHUTTLE_RANDOM_SEED` draws others.
const SEED: u64 = 1;
/// Changes of the thread that goes first, in half of the orders; rare ones are found with few.
const DEPTH: usize = 4;

/// Runs `model` in so many orders.
pub(crate) fn draw(orders: usize, model: impl Fn() + Clone + Send + Sync + 'static) {
    let half = orders / 2;
    Runner::new(RandomScheduler::new_from_seed(SEED, half), config()).run(model.clone());
    Runner::new(PctScheduler::new_from_seed(SEED, DEPTH, half), config()).run(model);
}

/// Runs `model` in every order.
pub(crate) fn all(model: impl Fn() + Send + Sync + 'static) {
    let orders = Runner::new(DfsScheduler::new(None, false), config()).run(model);
    println!("{orders} orders");
}

fn config() -> Config {
    let mut config = Config::new();
    // A directory is built on the stack.
    config.stack_size = 512 * 1024;
    config
}

/// How often a subscription has begun or ended: odd while it holds.
///
/// Advanced behind a SUBSCRIBE and in front of an UNSUBSCRIBE.
pub(crate) struct Epoch(AtomicUsize);

impl Epoch {
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Whether a subscription held all the time from `then` on.
    pub(crate) fn held_since(&self, then: usize) -> bool {
        then % 2 == 1 && self.now() == then
    }
}
