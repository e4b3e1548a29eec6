//! What can go wrong in a run, how likely it is there, and what of it has happened.

use crate::prng::Prng;

/// Declares the kinds of fault, each with the percentage that it may reach in a run.
macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident $percent_max:literal,)*) => {
        /// Something that a network, a kernel or a scheduler may do at any time.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Fault { $($(#[$doc])* $name,)* }

        impl Fault {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
            const PERCENT_MAX: &[usize] = &[$($percent_max,)*];
        }
    };
}

faults! {
    /// Of what is under way only a part arrives.
    ReceiveSplit 100,
    ReceiveInterrupted 50,
    ReceiveFails 4,
    /// The kernel takes any part of an offer.
    SendShort 50,
    SendFull 30,
    /// No buffers: no edge will say when there are some.
    SendNoBuffers 10,
    /// The kernel takes nothing and says that this is fine.
    SendZero 3,
    SendFails 4,
    /// An event is told in a later turn.
    EventLate 40,
    EventDoubled 30,
    EventSpurious 30,
    /// An event is not told; the next one of its socket tells everything.
    EventLost 15,
    /// An event, or a call of a shard, for a session that has ended.
    EventStale 40,
    /// A connection has gone before it is accepted.
    AcceptAborted 15,
    AcceptNoDescriptors 10,
    /// The socket cannot be watched.
    RegisterFails 10,
    DoorbellLost 10,
    /// What a shard tells another of a slow consumer comes a few turns later.
    PauseLate 80,
    /// A reactor does not run for some steps.
    ReactorStalls 5,
    /// A reactor is interrupted in its sleep.
    ReactorWakes 10,
    /// Others run between a reactor's last look and its sleep.
    ParkLate 50,
    ReaderStops 40,
    ReaderTrickles 40,
    PeerResets 30,
    PeerEnds 40,
    /// The peer sends nothing more, in the middle of a frame.
    PeerStopsMidFrame 15,
    /// An answer to a CONNECT is given up, or comes when its session has ended.
    TicketDropped 30,
    TimeLeaps 6,
}

/// Declares what a run may come to, other than by a fault.
macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A state that runs shall come to, because something is decided there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Mark { $($(#[$doc])* $name,)* }

        impl Mark {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

marks! {
    /// Several pieces in one offer.
    Scattered,
    /// Several offers were made before the first was answered.
    SentTogether,
    /// The last flush of a turn was answered behind the next wait.
    SentWithTheWait,
    /// What was refused before is offered again.
    BacklogOffered,
    /// A socket has failed, and what it still holds is read.
    Broken,
    /// Input waits for the next turn.
    PutOff,
    /// There was no room for it to wait.
    RestExecuted,
    /// A batch of another shard is delivered in two turns.
    BatchCut,
    /// A ring is full, and a publisher waits for it.
    PublisherStopped,
    /// A publisher waits for a slow consumer of its own shard.
    HeldHere,
    /// The same, of another shard.
    HeldElsewhere,
    /// A publisher waits for several.
    HeldTwice,
    /// A backlog has grown, and others have gone for it.
    Evicted,
    /// More than one.
    EvictedTwo,
    /// So much waits that nobody is read.
    Spilling,
    /// Something came between the last look and the sleep.
    ParkRefused,
    /// Somebody else has the slot of a session that has ended.
    SlotReused,
    /// The connection of a session that has ended is still open.
    Lingering,
    /// More sessions have ended than a turn takes leave of.
    LeftForTheNextTurn,
    /// Answers went ahead of messages.
    WentAhead,
    /// A ping waits for other shards.
    PingAwaited,
    /// A session waits for last values.
    Replaying,
    /// A session has heard why it ends.
    LastWords,
    /// A stop came to its deadline.
    DrainDeadline,
}

/// The dice of a run. Drawn once per seed: which faults are possible, and how likely.
pub(crate) struct Faults {
    prng: Prng,
    percent: Vec<usize>,
    met: Vec<u64>,
    marks: Vec<u64>,
    /// Everything works for a while.
    calm: bool,
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let mut draw = |max: &usize| match prng.below(2) {
            0 => 0,
            _ => 1 + prng.below(*max),
        };
        let percent = Fault::PERCENT_MAX.iter().map(&mut draw).collect();
        Self {
            prng,
            percent,
            met: vec![0; Fault::ALL.len()],
            marks: vec![0; Mark::ALL.len()],
            calm: false,
        }
    }

    /// Whether the fault happens now.
    pub(crate) fn hit(&mut self, fault: Fault) -> bool {
        let percent = self.percent[fault as usize];
        let hit = percent > 0 && !self.calm && self.prng.below(100) < percent;
        self.met[fault as usize] += u64::from(hit);
        hit
    }

    /// Notes that the run has come so far.
    pub(crate) fn mark(&mut self, mark: Mark, is_there: bool) {
        self.marks[mark as usize] += u64::from(is_there);
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.prng.below(bound)
    }

    pub(crate) fn one_in(&mut self, count: usize) -> bool {
        self.prng.below(count) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.prng.below(from.len())]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.prng.below(last + 1));
        }
    }

    pub(crate) const fn set_calm(&mut self, calm: bool) {
        self.calm = calm;
    }

    /// How often each has happened, in the order of `Fault::ALL`.
    pub(crate) fn met(&self) -> &[u64] {
        &self.met
    }

    /// The same of `Mark::ALL`.
    pub(crate) fn marks(&self) -> &[u64] {
        &self.marks
    }

    /// Those that are possible in this run, with their percentages.
    pub(crate) fn plan(&self) -> Vec<(Fault, usize)> {
        let all = Fault::ALL.iter().copied().zip(self.percent.iter().copied());
        all.filter(|(_, percent)| *percent > 0).collect()
    }
}
