//! The ring itself: requests in, completions out, and the memory that the kernel works on.
//!
//! All of the project's `unsafe` is in here, and where `send` is called. Its two invariants:
//!
//! * **The kernel reads, for a send, bytes that its caller keeps unchanged until the next `submit`
//!   or `wait` has returned.** A send does not wait (`MSG_DONTWAIT`), so it ends inside the enter
//!   that submits it, and nothing of it is in flight afterwards.
//! * **The kernel writes received bytes into `Buffers`, and nowhere else.** Their memory lives as
//!   long as the ring, and each buffer is either the kernel's or ours: ours from the completion
//!   that names it until `give_back`.
//!
//! With DEFER_TASKRUN, requests make progress on this thread, inside its own enters, and nowhere
//! else. A ring that is dropped can therefore write nothing any more.
#![expect(
    unsafe_code,
    reason = "what the kernel is told about memory, no type can check"
)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};
use memmap2::{Advice, MmapMut};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

/// Requests and completions of one thread.
pub(crate) struct Ring {
    // Before the buffers, which it may write to: fields are dropped in this order.
    ring: IoUring,
    buffers: Buffers,
    has_no_iowait: bool,
}

/// What a request was about, told again by its completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserData(pub(crate) u64);

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Completion {
    pub(crate) user_data: UserData,
    /// As the system call would have returned it.
    pub(crate) result: Result<usize, Errno>,
    /// More of this request will follow.
    pub(crate) more: bool,
    /// There is more in the socket than was received.
    pub(crate) nonempty: bool,
    /// The buffer that holds what was received.
    pub(crate) buffer: Option<u16>,
}

/// Requests that wait to be submitted. Fewer than what an enter should take at a time: the first
/// receivers get theirs while the last sends are still prepared.
const SUBMISSIONS: u32 = 128;
/// Every connection may complete something between two enters; the kernel keeps what has no room,
/// at the price of memory of its own.
const COMPLETIONS: u32 = 4096;
/// As many receives can complete between two turns, a page each: of 2 KiB, of 8 and of 16 the first
/// made many publishers dearer, the others one that publishes to many topics (measured).
pub(crate) const BUFFERS: u16 = 256;
const BUFFER_LEN: u32 = 4 * 1024;
const BUFFER_GROUP: u16 = 0;
/// An enter that finds no memory is tried so often.
const TRIES_MAX: usize = 1000;

impl Ring {
    /// A ring that no thread uses yet.
    ///
    /// # Errors
    /// The kernel has none, refuses it, or lacks what is needed of one: before Linux 6.1.
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(COMPLETIONS)
            .setup_r_disabled()
            .dontfork()
            .build(SUBMISSIONS)?;
        let buffers = Buffers::new()?;
        // SAFETY: the address is that of a mapping of its own, page-aligned, of BUFFERS entries,
        // which lives as long as the ring (it is dropped behind it) and never moves.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                buffers.entries.as_ptr() as u64,
                BUFFERS,
                BUFFER_GROUP,
                0,
            )?;
        }
        Ok(Self {
            has_no_iowait: ring.params().is_feature_no_iowait(),
            ring,
            buffers,
        })
    }

    /// Makes it this thread's, and no other's.
    pub(crate) fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    // ---- requests

    /// Receives whatever comes, as often as it comes, into buffers of ours.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, about: UserData) -> io::Result<()> {
        self.push(
            opcode::RecvMulti::new(fd(socket), BUFFER_GROUP).build(),
            about,
        )
    }

    /// As `receive`, once.
    pub(crate) fn receive_once(
        &mut self,
        socket: BorrowedFd<'_>,
        about: UserData,
    ) -> io::Result<()> {
        let receive = opcode::Recv::new(fd(socket), std::ptr::null_mut(), BUFFER_LEN)
            .buf_group(BUFFER_GROUP)
            .build()
            .flags(Flags::BUFFER_SELECT);
        self.push(receive, about)
    }

    /// Tells once when one of `events` is possible, or the peer is gone.
    pub(crate) fn poll(
        &mut self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        about: UserData,
    ) -> io::Result<()> {
        let poll = opcode::PollAdd::new(fd(socket), u32::from(events.bits()));
        self.push(poll.build(), about)
    }

    /// Tells each time when something new can be read.
    pub(crate) fn watch(&mut self, file: BorrowedFd<'_>, about: UserData) -> io::Result<()> {
        let poll = opcode::PollAdd::new(fd(file), u32::from(PollFlags::IN.bits())).multi(true);
        self.push(poll.build(), about)
    }

    /// Ends one request; it completes once more, with ECANCELED, unless it already has.
    pub(crate) fn cancel(&mut self, which: UserData, about: UserData) -> io::Result<()> {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(which.0));
        self.push(cancel.build().flags(Flags::SKIP_SUCCESS), about)
    }

    /// Ends every request on a socket, as `cancel` does.
    pub(crate) fn cancel_all(&mut self, socket: BorrowedFd<'_>, about: UserData) -> io::Result<()> {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::fd(fd(socket)).all());
        self.push(cancel.build().flags(Flags::SKIP_SUCCESS), about)
    }

    /// Offers `bytes` to the kernel, once. It completes only if the socket did not take all of
    /// them, in the enter that submits it: WAITALL makes a short send count as a failed one.
    ///
    /// # Safety
    /// `bytes` must stay where they are, unchanged, until `submit` or `wait` has returned.
    pub(crate) unsafe fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        about: UserData,
    ) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).expect("shorter than a segment");
        let flags =
            SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL).bits() | RecvFlags::WAITALL.bits();
        let send = opcode::Send::new(fd(socket), bytes.as_ptr(), len).flags(flags.cast_signed());
        self.push(send.build().flags(Flags::SKIP_SUCCESS), about)
    }

    fn push(&mut self, entry: Entry, about: UserData) -> io::Result<()> {
        let entry = entry.user_data(about.0);
        if self.ring.submission().is_full() {
            self.submit()?;
        }
        // SAFETY: memory that the request names is that of a send, whose caller answers for it, or
        // of `Buffers`; descriptors are looked up by the kernel while it submits, and a number that
        // names nothing is an error in a completion.
        unsafe { self.ring.submission().push(&entry) }
            .map_err(|_| io::Error::other("the submission queue stays full"))
    }

    // ---- enters

    /// Submits every request, without waiting; what was in flight before makes no progress.
    pub(crate) fn submit(&mut self) -> io::Result<()> {
        let requests = self.ring.submission().len();
        if requests == 0 {
            return Ok(());
        }
        self.enter(|ring| {
            let requests = u32::try_from(requests).expect("as many as the queue holds");
            // SAFETY: no argument is passed that the kernel would look at. More requests than there
            // still are, after a first try, is as good as all.
            unsafe { ring.submitter().enter::<()>(requests, 0, 0, None) }
        })
    }

    /// Submits every request and lets those in flight make progress, without waiting.
    fn progress(&mut self) -> io::Result<()> {
        self.enter(|ring| ring.submitter().submit())
    }

    /// Submits every request and waits for a completion, for at most as long, for ever if there is
    /// no limit. Without a wait nor anything to submit or to be done, no system call is made.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            let requests = self.ring.submission();
            let has_work = !requests.is_empty() || requests.taskrun() || requests.cq_overflow();
            drop(requests);
            return match has_work {
                true => self.progress(),
                false => Ok(()),
            };
        }
        let timeout = timeout.map(Timespec::from);
        let flags = match self.has_no_iowait {
            true => EnterFlags::NO_IOWAIT,
            false => EnterFlags::empty(),
        };
        self.enter(|ring| {
            let args = SubmitArgs::new();
            match &timeout {
                Some(timeout) => {
                    let args = args.timespec(timeout);
                    ring.submitter().submit_with_args_and_flags(1, &args, flags)
                }
                None => ring.submitter().submit_with_args_and_flags(1, &args, flags),
            }
        })
    }

    fn enter(&mut self, enter: impl Fn(&IoUring) -> io::Result<usize>) -> io::Result<()> {
        for _ in 0..TRIES_MAX {
            let entered = enter(&self.ring).map_err(|error| {
                let code = error.raw_os_error().map(Errno::from_raw_os_error);
                (code, error)
            });
            match entered {
                // A timeout, or a signal, ends the wait and not the submission before it.
                Ok(_) | Err((Some(Errno::TIME | Errno::INTR), _)) => {}
                // Completions have no room, which the kernel makes in an enter that asks for them.
                Err((Some(Errno::BUSY), _)) => drop(self.ring.submitter().submit()),
                // There is no memory for requests.
                Err((Some(Errno::AGAIN), _)) => std::thread::yield_now(),
                Err((_, error)) => return Err(error),
            }
            if self.ring.submission().is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel takes no request any more"))
    }

    /// Moves what has completed behind `completions`.
    pub(crate) fn take(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        loop {
            completions.extend(self.ring.completion().map(|entry| Completion::of(&entry)));
            if !self.ring.submission().cq_overflow() {
                return Ok(());
            }
            self.progress()?;
        }
    }

    /// Ends every request, and waits until the kernel has let go of them.
    pub(crate) fn end(&self) {
        // Nothing to be done about an error: the ring that is dropped next ends them as well.
        let _ = self
            .ring
            .submitter()
            .register_sync_cancel(None, CancelBuilder::any());
        let _ = self.ring.submitter().unregister_buf_ring(BUFFER_GROUP);
    }

    // ---- buffers

    /// What was received into buffer `id`, which is ours until it is given back.
    pub(crate) fn received(&self, id: u16, len: usize) -> &[u8] {
        let start = start_of(id);
        &self.buffers.bytes[start..start + len]
    }

    /// Lets the kernel receive into buffer `id` again.
    pub(crate) fn give_back(&mut self, id: u16) {
        self.buffers.give(id);
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").finish_non_exhaustive()
    }
}

impl Completion {
    fn of(entry: &cqueue::Entry) -> Self {
        let result = entry.result();
        Self {
            user_data: UserData(entry.user_data()),
            result: usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result)),
            more: cqueue::more(entry.flags()),
            nonempty: cqueue::sock_nonempty(entry.flags()),
            buffer: cqueue::buffer_select(entry.flags()),
        }
    }
}

fn fd(descriptor: BorrowedFd<'_>) -> Fd {
    Fd(descriptor.as_raw_fd())
}

/// Where buffer `id` begins.
const fn start_of(id: u16) -> usize {
    id as usize * BUFFER_LEN as usize
}

/// Buffers that the kernel receives into, and the ring of those that it may use.
struct Buffers {
    entries: MmapMut,
    bytes: MmapMut,
    tail: u16,
}

impl Buffers {
    fn new() -> io::Result<Self> {
        let count = usize::from(BUFFERS);
        let entries = MmapMut::map_anon(count * size_of::<BufRingEntry>())?;
        let bytes = MmapMut::map_anon(start_of(BUFFERS))?;
        for mapping in [&entries, &bytes] {
            // A child of the process has no part in them.
            mapping.advise(Advice::DontFork)?;
        }
        let mut buffers = Self {
            entries,
            bytes,
            tail: 0,
        };
        (0..BUFFERS).for_each(|id| buffers.give(id));
        Ok(buffers)
    }

    fn give(&mut self, id: u16) {
        let address = self.bytes[start_of(id)..start_of(id + 1)].as_mut_ptr() as u64;
        let at = usize::from(self.tail % BUFFERS);
        let base = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `at` is below BUFFERS, as many entries as the page-aligned mapping has, zeroed at
        // first, which any entry may be. The kernel reads an entry only between its head and the
        // tail, and this one is beyond the tail until the store below: there are as many entries as
        // buffers, and the buffer that had this place came back. The tail lies in the first entry,
        // where no setter writes, aligned for an AtomicU16, and is written here alone; Release, so
        // that the kernel sees the entry before it.
        unsafe {
            let entry = &mut *base.add(at);
            entry.set_addr(address);
            entry.set_len(BUFFER_LEN);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
