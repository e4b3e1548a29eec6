//! What the shards of a broker take of the process's memory, by their own account, and what follows
//! once that is nearly all.
//!
//! By account and not by what the kernel says: the kernel's figure may stay when memory is freed,
//! and a broker that waits for it would never leave this state.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{MemoryBound, SESSION, SUBSCRIPTION, TOPIC};
use crate::deadline::Timestamp;
use crate::handler::SessionHandler;
use crate::shard::Shard;

/// What all shards of a broker take. Each tells of itself when that has changed by `STEP`, so the
/// sum is as exact as that.
#[derive(Debug)]
pub struct Accounts {
    /// What there is for the taking, in bytes: what may be, less what is taken whoever comes.
    room: usize,
    own: Sum,
    /// Whether other brokers of the process take of the same memory.
    is_shared: bool,
    is_full: AtomicBool,
}

/// What some shards take, together.
#[derive(Debug)]
struct Sum {
    bytes: AtomicUsize,
    backlogs: AtomicUsize,
}

impl Sum {
    const fn nothing() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            backlogs: AtomicUsize::new(0),
        }
    }

    // Relaxed, here and below: each number stands for itself.

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn backlogs(&self) -> usize {
        self.backlogs.load(Ordering::Relaxed)
    }

    fn change(&self, from: Taken, to: Taken) {
        // Two's complement: what is less comes out as less.
        let more = |from: usize, to: usize| to.wrapping_sub(from);
        self.bytes
            .fetch_add(more(from.bytes, to.bytes), Ordering::Relaxed);
        self.backlogs
            .fetch_add(more(from.backlog, to.backlog), Ordering::Relaxed);
    }
}

/// What all brokers of this process take that were given no `memory_max` of their own.
static PROCESS: Sum = Sum::nothing();

/// A shard tells of itself when what it takes has changed by this much.
const STEP: usize = 64 * 1024;
/// From one eviction of a shard that takes no more than before to its next. Whoever else is to let
/// go of something may sleep as long.
const PATIENCE: Duration = Duration::from_secs(1);

impl Accounts {
    /// Of a broker with this bound. `is_shared`: whether the memory is that of the process, of
    /// which its other brokers take as well.
    pub fn new(bound: &MemoryBound, is_shared: bool) -> Arc<Self> {
        Arc::new(Self {
            room: bound.max().saturating_sub(bound.fixed()),
            own: Sum::nothing(),
            is_shared,
            is_full: AtomicBool::new(false),
        })
    }

    /// Whether new sessions are refused: from four fifths of the room on, until a quarter is free.
    pub fn is_full(&self) -> bool {
        let taken = self.sum().bytes();
        let was_full = self.is_full.load(Ordering::Relaxed);
        let limit = if was_full { 15 } else { 16 };
        let is_full = taken > self.room / 20 * limit;
        if is_full != was_full {
            self.is_full.store(is_full, Ordering::Relaxed);
        }
        is_full
    }

    /// What backlogs are to be relieved of: nothing until nine tenths are taken, then what it takes
    /// to come down to eight. A tenth stays theirs, for where that much is taken by others than
    /// they, closing all of them would not help.
    fn excess(&self) -> usize {
        let (taken, backlogs) = (self.sum().bytes(), self.sum().backlogs());
        match taken > self.room / 10 * 9 {
            true => (taken - self.room / 10 * 8).min(backlogs.saturating_sub(self.room / 10)),
            false => 0,
        }
    }

    fn sum(&self) -> &Sum {
        match self.is_shared {
            true => &PROCESS,
            false => &self.own,
        }
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
    /// Backlogs have grown since the last eviction.
    has_grown: bool,
    evicted: Timestamp,
}

impl Account {
    fn new(accounts: Arc<Accounts>) -> Self {
        Self {
            accounts,
            told: Taken::default(),
            has_grown: false,
            evicted: Timestamp::default(),
        }
    }

    /// As [`Accounts::is_full`].
    pub(super) fn is_full(&self) -> bool {
        self.accounts.is_full()
    }

    /// Tells what is taken now.
    fn tell(&mut self, taken: Taken) {
        let is_over = taken.bytes == 0 && self.told.bytes > 0;
        if is_over || self.told.bytes.abs_diff(taken.bytes) >= STEP {
            self.has_grown |= taken.backlog > self.told.backlog;
            self.accounts.sum().change(self.told, taken);
            self.told = taken;
        }
    }

    /// How much is to be freed here: its share, by what it has to free. Others may not have freed
    /// theirs yet, so it is asked for again only when more is taken here, or after a while.
    fn excess(&mut self, now: Timestamp) -> usize {
        let excess = self.accounts.excess();
        if excess == 0 || !self.has_grown && now.since(self.evicted) < PATIENCE {
            return 0;
        }
        (self.has_grown, self.evicted) = (false, now);
        let backlogs = self.accounts.sum().backlogs().max(1);
        let share = excess as u128 * self.told.backlog as u128 / backlogs as u128;
        usize::try_from(share).unwrap_or(usize::MAX)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.accounts.sum().change(self.told, Taken::default());
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
        self.backlog_total
            + self.spare_chunks.surplus()
            + self.held_total
            + self.sessions.len() * SESSION
            + self.topic_count() * TOPIC
            + self.topic_bytes()
            + self.subscription_count() * SUBSCRIPTION
    }

    /// Tells the others what this shard takes.
    pub(super) fn tell_account(&mut self) {
        let taken = Taken {
            bytes: self.accounted_bytes(),
            backlog: self.backlog_total + self.spare_chunks.surplus(),
        };
        if let Some(account) = &mut self.account {
            account.tell(taken);
        }
    }

    /// Lets go of the largest backlogs here if all shards together take too much.
    pub(super) fn relieve(&mut self, now: Timestamp) {
        self.tell_account();
        let account = self.account.as_mut();
        let excess = account.map_or(0, |account| account.excess(now));
        // What nobody is owed any more goes first.
        let excess = excess.saturating_sub(self.spare_chunks.release(excess));
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
        let all = (0..shards).map(|_| Account::new(Arc::clone(&accounts)));
        let all = all.collect();
        (accounts, all)
    }

    fn mebibytes(bytes: usize, backlog: usize) -> Taken {
        let (bytes, backlog) = (bytes * MIB, backlog * MIB);
        Taken { bytes, backlog }
    }

    const MIB: usize = 1024 * 1024;

    fn excess(account: &mut Account, taken: Taken) -> usize {
        account.tell(taken);
        account.excess(Timestamp::default())
    }

    #[test]
    fn e9_each_shard_frees_its_share_of_what_is_beyond_nine_tenths() {
        let (accounts, mut shards) = accounts(2);
        assert_eq!(excess(&mut shards[0], mebibytes(50, 30)), 0);
        assert_eq!(excess(&mut shards[1], mebibytes(29, 10)), 0);
        assert!(!accounts.is_full());
        let at_nine_tenths = mebibytes(40, 10);
        assert_eq!(excess(&mut shards[1], at_nine_tenths), 0);
        assert!(accounts.is_full());
        // 92 of 100: twelve are to be freed, nine of them where three quarters of all backlogs are.
        assert_eq!(excess(&mut shards[1], mebibytes(42, 10)), 3 * MIB);
        assert_eq!(excess(&mut shards[0], mebibytes(50, 30)), 9 * MIB);
        assert_eq!(excess(&mut shards[0], mebibytes(41, 21)), 0);
        assert!(accounts.is_full());
        excess(&mut shards[1], mebibytes(36, 5));
        assert!(accounts.is_full(), "a state does not flap");
        excess(&mut shards[1], mebibytes(34, 3));
        assert!(!accounts.is_full());
    }

    #[test]
    fn e9_a_shard_does_not_pay_again_for_another_that_sleeps() {
        let (_, mut shards) = accounts(2);
        excess(&mut shards[0], mebibytes(60, 60));
        assert_eq!(excess(&mut shards[1], mebibytes(35, 15)), 3 * MIB);
        let mut again = |taken| excess(&mut shards[1], taken);
        assert_eq!(
            again(mebibytes(32, 12)),
            0,
            "the other has its share to free"
        );
        assert_eq!(
            again(mebibytes(33, 13)),
            13 * 13 * MIB / 73,
            "more is taken"
        );
        let later = Timestamp::from(PATIENCE);
        assert_eq!(shards[0].excess(later), 13 * 60 * MIB / 73);
    }

    #[test]
    fn e9_where_topics_take_all_of_it_backlogs_keep_a_tenth() {
        let (_, mut shards) = accounts(1);
        assert_eq!(excess(&mut shards[0], mebibytes(99, 9)), 0);
        assert_eq!(excess(&mut shards[0], mebibytes(99, 9)), 0);
        assert_eq!(excess(&mut shards[0], mebibytes(100, 14)), 4 * MIB);
    }

    #[test]
    fn a_shard_that_goes_takes_nothing_and_small_changes_are_kept_to_oneself() {
        let (accounts, mut shards) = accounts(2);
        shards[0].tell(mebibytes(85, 85));
        assert!(accounts.is_full());
        shards.remove(0);
        assert!(!accounts.is_full());
        assert_eq!((accounts.sum().bytes(), accounts.sum().backlogs()), (0, 0));
        shards[0].tell(Taken {
            bytes: STEP - 1,
            backlog: 0,
        });
        assert_eq!(accounts.sum().bytes(), 0);
    }

    #[test]
    fn g16_brokers_of_one_process_that_were_told_nothing_share_its_memory() {
        let mut config = Config::default();
        config.set("reactors=1").unwrap();
        let fixed = MemoryBound::of(&config, false).fixed();
        config.limits.memory_max = Some(fixed + 100 * MIB);
        let bound = MemoryBound::of(&config, false);
        let mut brokers = [(); 2].map(|()| Account::new(Accounts::new(&bound, true)));
        excess(&mut brokers[0], mebibytes(60, 60));
        // Each frees its share, whichever broker it belongs to. Other tests of this process may
        // have brokers too: they take less than a step.
        assert_eq!(excess(&mut brokers[1], mebibytes(33, 4)), 13 * 4 * MIB / 64);
        let later = Timestamp::from(PATIENCE);
        assert_eq!(brokers[0].excess(later), 13 * 60 * MIB / 64);
        assert!(brokers.iter().all(Account::is_full));
        brokers
            .iter_mut()
            .for_each(|broker| broker.tell(Taken::default()));
        assert!(!brokers[0].is_full());
    }
}
