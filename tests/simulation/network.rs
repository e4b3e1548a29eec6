//! A connection in memory: what the kernel would hold of it, and what it would say.

use std::collections::VecDeque;
use std::io::ErrorKind;

use hvlp::shard::SendOutcome;

use crate::faults::{Fault, Faults};

/// How far the end of the peer's stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    None,
    UnderWay,
    Arrived,
}

/// What has become possible on a connection: all of it whenever there is an edge, as with epoll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) is_readable: bool,
    pub(crate) is_writable: bool,
    pub(crate) is_read_closed: bool,
    pub(crate) is_error: bool,
}

/// The broker's end of a connection, and the wire to the peer.
///
/// A receive that gets less than it has room for has emptied it, and whatever arrives later makes
/// an edge; a send that is cut short finds it full, and room makes an edge.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Written by the peer, not here yet.
    under_way: VecDeque<u8>,
    arrived: VecDeque<u8>,
    fin: Fin,
    /// The connection is cut; what has arrived can still be read.
    cut: Option<ErrorKind>,
    is_cut_told: bool,
    /// Taken by the kernel and not read by the peer.
    unread: usize,
    unread_max: usize,
    /// A send was cut short.
    wants_room: bool,
    pub(crate) has_edge: bool,
    /// An edge was lost, or will not come.
    is_lost: bool,
    /// The broker has closed it.
    is_closed: bool,
}

impl Socket {
    pub(crate) const fn new(unread_max: usize) -> Self {
        Self {
            under_way: VecDeque::new(),
            arrived: VecDeque::new(),
            fin: Fin::None,
            cut: None,
            is_cut_told: false,
            unread: 0,
            unread_max,
            wants_room: false,
            // What came before it was watched.
            has_edge: true,
            is_lost: false,
            is_closed: false,
        }
    }

    // ---- the peer's side

    pub(crate) fn write(&mut self, bytes: impl IntoIterator<Item = u8>) {
        self.under_way.extend(bytes);
    }

    pub(crate) fn end(&mut self) {
        self.fin = Fin::UnderWay;
    }

    /// The peer resets the connection; what is under way is lost.
    pub(crate) fn reset(&mut self, kind: ErrorKind) {
        self.under_way.clear();
        self.cut.get_or_insert(kind);
        self.has_edge = true;
    }

    /// Reads at most so many bytes.
    pub(crate) fn read(&mut self, len: usize) -> usize {
        let len = len.min(self.unread);
        self.unread -= len;
        if self.wants_room && len > 0 {
            self.wants_room = false;
            self.has_edge = true;
        }
        len
    }

    pub(crate) fn under_way_len(&self) -> usize {
        self.under_way.len() + self.arrived.len()
    }

    /// Some or all of what is under way arrives.
    pub(crate) fn arrive(&mut self, faults: &mut Faults) {
        let mut len = self.under_way.len();
        if len > 0 && faults.hit(Fault::ReceiveSplit) {
            len = 1 + faults.below(len);
        }
        self.arrived.extend(self.under_way.drain(..len));
        let is_end = self.under_way.is_empty() && self.fin == Fin::UnderWay;
        if is_end {
            self.fin = Fin::Arrived;
        }
        self.has_edge |= len > 0 || is_end;
    }

    /// An edge that was lost comes after all.
    pub(crate) const fn recall(&mut self) {
        self.has_edge |= self.is_lost;
        self.is_lost = false;
    }

    // ---- the broker's side

    pub(crate) fn readiness(&self) -> Readiness {
        let is_over = self.fin == Fin::Arrived || self.cut.is_some();
        Readiness {
            is_readable: !self.arrived.is_empty() || is_over,
            is_writable: self.unread < self.unread_max || self.cut.is_some(),
            is_read_closed: is_over,
            is_error: self.cut.is_some(),
        }
    }

    /// The edge was told; whatever was lost before was told with it.
    pub(crate) const fn tell(&mut self) {
        self.has_edge = false;
        self.is_lost = false;
        // Who was told that there is no room is told when there is.
        self.wants_room |= self.unread >= self.unread_max;
    }

    pub(crate) const fn lose_edge(&mut self) {
        self.has_edge = false;
        self.is_lost = true;
    }

    pub(crate) const fn error(&self) -> Option<ErrorKind> {
        self.cut
    }

    /// Receives at most `len` bytes; none is the end of the stream.
    pub(crate) fn receive(
        &mut self,
        len: usize,
        faults: &mut Faults,
    ) -> Result<Vec<u8>, ErrorKind> {
        if faults.hit(Fault::ReceiveInterrupted) {
            return Err(ErrorKind::Interrupted);
        }
        if self.cut.is_none() && faults.hit(Fault::ReceiveFails) {
            let kind = faults.pick(&[
                ErrorKind::ConnectionReset,
                ErrorKind::TimedOut,
                ErrorKind::HostUnreachable,
            ]);
            self.reset(kind);
            self.is_cut_told = true;
            return Err(kind);
        }
        if !self.arrived.is_empty() {
            let len = len.min(self.arrived.len());
            let bytes = self.arrived.drain(..len).collect();
            // More may come at once: it has an edge of its own.
            if faults.hit(Fault::ReceiveSplit) {
                self.arrive(faults);
            }
            return Ok(bytes);
        }
        match self.cut {
            Some(kind) if !self.is_cut_told => {
                self.is_cut_told = true;
                Err(kind)
            }
            Some(_) => Ok(Vec::new()),
            None if self.fin == Fin::Arrived => Ok(Vec::new()),
            None => Err(ErrorKind::WouldBlock),
        }
    }

    /// Offers `len` bytes, once.
    pub(crate) fn send(&mut self, len: usize, faults: &mut Faults) -> SendOutcome {
        if self.cut.is_some() {
            let kinds = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            return SendOutcome::Failed(faults.pick(&kinds));
        }
        if faults.hit(Fault::SendFails) {
            let kind = faults.pick(&[
                ErrorKind::ConnectionReset,
                ErrorKind::BrokenPipe,
                ErrorKind::TimedOut,
                ErrorKind::HostUnreachable,
            ]);
            self.reset(kind);
            return SendOutcome::Failed(kind);
        }
        if faults.hit(Fault::SendZero) {
            return SendOutcome::Failed(ErrorKind::WriteZero);
        }
        if faults.hit(Fault::SendNoBuffers) {
            return SendOutcome::NoBuffers(0);
        }
        let room = self.unread_max - self.unread;
        let limit = if faults.hit(Fault::SendFull) {
            0
        } else if faults.hit(Fault::SendShort) {
            faults.below(len)
        } else {
            len
        };
        let taken = len.min(room).min(limit);
        self.unread += taken;
        if taken == len {
            return SendOutcome::Whole(taken);
        }
        // Where there is room already, the edge comes at once.
        self.wants_room = self.unread > 0;
        self.has_edge |= self.unread < self.unread_max;
        SendOutcome::Short(taken)
    }

    pub(crate) fn close(&mut self) {
        self.is_closed = true;
        self.has_edge = false;
        self.is_lost = false;
        self.under_way.clear();
        self.arrived.clear();
    }

    /// Whether nobody would notice what the peer does.
    pub(crate) const fn is_over(&self) -> bool {
        self.is_closed || self.cut.is_some()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.fin != Fin::None
    }

    /// Whether it holds something that the broker could read.
    pub(crate) fn has_input(&self) -> bool {
        !self.arrived.is_empty() || self.fin == Fin::Arrived || self.cut.is_some()
    }
}
