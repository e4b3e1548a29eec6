//! What the shards of a broker take of the process's memory, by their own account, and what follows
//! once that is nearly all.
//!
//! By account and not by what the kernel says: the kernel's figure may stay when memory is freed,
//! and a broker that waits for it would never leave this state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::{MemoryBound, SESSION, SUBSCRIPTION, TOPIC};
use crate::handler::SessionHandler;
use crate::shard::Shard;

/// What all shards of a broker take. Each tells of itself when that has changed by `STEP`, so the
/// sum is as exact as that.
///
/// What is there for the taking is what may be, less what is taken whoever comes.
#[derive(Debug)]
pub struct Accounts {
    /// What there is for the taking, in bytes.
    room: usize,
    /// Whether other brokers of the process take of it too.
    is_shared: bool,
    taken: AtomicUsize,
    backlogs: AtomicUsize,
}

/// What all brokers of this process take that were given no `memory_max` of their own.
static PROCESS: AtomicUsize = AtomicUsize::new(0);

/// A shard tells of itself when what it takes has changed by this much.
const STEP: usize = 64 * 1024;

impl Accounts {
    /// Of a broker with this bound. `is_shared`: whether the memory is that of the process, of
    /// which its other brokers take as well.
    pub fn new(bound: &MemoryBound, is_shared: bool) -> Arc<Self> {
        Arc::new(Self {
            room: bound.max().saturating_sub(bound.fixed()),
            is_shared,
            taken: AtomicUsize::new(0),
            backlogs: AtomicUsize::new(0),
        })
    }

    /// Whether four fifths of the room are taken: new sessions are refused.
    pub fn is_full(&self) -> bool {
        self.taken() > self.room / 5 * 4
    }

    /// What is to be freed: nothing until nine tenths are taken, then down to eight.
    fn excess(&self) -> usize {
        let taken = self.taken();
        match taken > self.room / 10 * 9 {
            true => taken - self.room / 10 * 8,
            false => 0,
        }
    }

    // Relaxed, here and below: each number stands for itself.

    fn taken(&self) -> usize {
        match self.is_shared {
            true => PROCESS.load(Ordering::Relaxed),
            false => self.taken.load(Ordering::Relaxed),
        }
    }

    fn change(&self, from: Taken, to: Taken) {
        // Two's complement: what is less comes out as less.
        let more = to.bytes.wrapping_sub(from.bytes);
        self.taken.fetch_add(more, Ordering::Relaxed);
        if self.is_shared {
            PROCESS.fetch_add(more, Ordering::Relaxed);
        }
        self.backlogs
            .fetch_add(to.backlog.wrapping_sub(from.backlog), Ordering::Relaxed);
    }
}

/// What one shard takes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    bytes: usize,
    /// The part of it that can be freed.
    backlog: usize,
}

/// A shard's part in the accounts; what it has told is taken back when it goes.
#[derive(Debug)]
pub(super) struct Account {
    accounts: Arc<Accounts>,
    told: Taken,
}

impl Account {
    pub(super) fn new(accounts: Arc<Accounts>) -> Self {
        let told = Taken::default();
        Self { accounts, told }
    }

    /// As [`Accounts::is_full`].
    pub(super) fn is_full(&self) -> bool {
        self.accounts.is_full()
    }

    /// Tells what is taken now, and returns how much of it is to be freed here.
    fn update(&mut self, taken: Taken) -> usize {
        if self.told.bytes.abs_diff(taken.bytes) >= STEP {
            self.accounts.change(self.told, taken);
            self.told = taken;
        }
        match self.accounts.excess() {
            0 => 0,
            excess => self.share_of(excess),
        }
    }

    /// Each shard frees its share, by what it has to free.
    fn share_of(&self, excess: usize) -> usize {
        let backlogs = self.accounts.backlogs.load(Ordering::Relaxed).max(1);
        let share = excess as u128 * self.told.backlog as u128 / backlogs as u128;
        usize::try_from(share).unwrap_or(usize::MAX)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.accounts.change(self.told, Taken::default());
    }
}

impl<H: SessionHandler> Shard<H> {
    /// This shard among those that share the memory.
    #[must_use]
    pub fn with_accounts(mut self, accounts: Arc<Accounts>) -> Self {
        self.account = Some(Account::new(accounts));
        self
    }

    /// What this shard takes, in bytes: of what grows with those who come.
    pub fn accounted_bytes(&self) -> usize {
        let register = &self.register;
        self.backlog_total
            + self.held_total
            + self.sessions.len() * SESSION
            + register.topic_count() * TOPIC
            + register.topic_bytes()
            + register.subscription_count() * SUBSCRIPTION
    }

    /// Tells the others what this shard takes, and lets go of the largest backlogs if all together
    /// take too much.
    pub(super) fn settle_account(&mut self) {
        let taken = Taken {
            bytes: self.accounted_bytes(),
            backlog: self.backlog_total,
        };
        let Some(account) = &mut self.account else {
            return;
        };
        let excess = account.update(taken);
        if excess > 0 {
            self.evict(self.backlog_total.saturating_sub(excess));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// Accounts of a broker with a room of 100 MiB, and so many shards in it.
    fn accounts(shards: usize) -> (Arc<Accounts>, Vec<Account>) {
        let mut config = Config::default();
        config.set("reactors=1").unwrap();
        let fixed = MemoryBound::of(&config, false).fixed();
        config.limits.memory_max = Some(fixed + 100 * MIB);
        let accounts = Accounts::new(&MemoryBound::of(&config, false), false);
        let shards = (0..shards).map(|_| Account::new(Arc::clone(&accounts)));
        (Arc::clone(&accounts), shards.collect())
    }

    fn mebibytes(bytes: usize, backlog: usize) -> Taken {
        let (bytes, backlog) = (bytes * MIB, backlog * MIB);
        Taken { bytes, backlog }
    }

    const MIB: usize = 1024 * 1024;

    #[test]
    fn e9_each_shard_frees_its_share_of_what_is_beyond_nine_tenths() {
        let (accounts, mut shards) = accounts(2);
        assert_eq!(shards[0].update(mebibytes(50, 30)), 0);
        assert_eq!(shards[1].update(mebibytes(29, 10)), 0);
        assert!(!accounts.is_full());
        assert_eq!(
            shards[1].update(mebibytes(40, 10)),
            0,
            "exactly nine tenths"
        );
        assert!(accounts.is_full());
        // 92 of 100: twelve are to be freed, nine of them where three quarters of all backlogs are.
        assert_eq!(shards[1].update(mebibytes(42, 10)), 3 * MIB);
        assert_eq!(shards[0].update(mebibytes(50, 30)), 9 * MIB);
        assert_eq!(shards[0].update(mebibytes(41, 21)), 0);
        assert!(accounts.is_full(), "until it is below eight");
        assert_eq!(shards[1].update(mebibytes(38, 7)), 0);
        assert!(!accounts.is_full());
    }

    #[test]
    fn a_shard_that_goes_takes_nothing_and_small_changes_are_kept_to_oneself() {
        let (accounts, mut shards) = accounts(2);
        shards[0].update(mebibytes(85, 85));
        assert!(accounts.is_full());
        shards.remove(0);
        assert!(!accounts.is_full());
        assert_eq!(
            (accounts.taken(), accounts.backlogs.load(Ordering::Relaxed)),
            (0, 0)
        );
        let small = Taken {
            bytes: STEP - 1,
            backlog: 0,
        };
        shards[0].update(small);
        assert_eq!(accounts.taken(), 0);
    }

    #[test]
    fn g16_brokers_of_one_process_that_were_told_nothing_share_its_memory() {
        let bound = MemoryBound::of(&Config::default(), false);
        let brokers = [Accounts::new(&bound, true), Accounts::new(&bound, true)];
        let before = brokers[1].taken();
        let mut shard = Account::new(Arc::clone(&brokers[0]));
        shard.update(mebibytes(10, 0));
        // Other tests of this process may have brokers too: theirs are below a step.
        assert_eq!(brokers[1].taken() - before, 10 * MIB);
        drop(shard);
        assert_eq!(brokers[1].taken(), before);
    }
}
