//! The connections of a reactor, by the slot of their session.

use crate::pages::Pages;
use crate::reactor::pipe::ReactorEnd;
use crate::reactor::transport::Transport;
#[cfg(all(feature = "uring", target_os = "linux"))]
use crate::reactor::uring::InFlight;
use crate::session::SessionKey;

/// A session's socket, and what its edges have said.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) key: SessionKey,
    pub(crate) transport: Transport,
    /// It stands on the ready list.
    pub(crate) is_ready: bool,
    /// Bytes may lie in the socket: an edge has said so, and nothing has shown otherwise since.
    pub(crate) is_readable: bool,
    /// The peer's end of stream is near: read until it is there.
    pub(crate) is_read_closed: bool,
    /// A receive stops short at urgent data: read until the socket is empty.
    pub(crate) is_urgent: bool,
    /// The session has ended; input is thrown away.
    pub(crate) is_lingering: bool,
    /// What the ring has of it; it is closed when that is nothing.
    #[cfg(all(feature = "uring", target_os = "linux"))]
    pub(crate) in_flight: InFlight,
}

impl Connection {
    pub(crate) const fn new(key: SessionKey, transport: Transport) -> Self {
        Self {
            key,
            transport,
            is_ready: false,
            is_readable: false,
            is_read_closed: false,
            is_urgent: false,
            is_lingering: false,
            #[cfg(all(feature = "uring", target_os = "linux"))]
            in_flight: InFlight::NONE,
        }
    }
}

/// At most one connection per slot; a key of a former owner of the slot finds nothing.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Pages<Option<Connection>>,
}

impl Connections {
    pub(crate) fn insert(&mut self, connection: Connection) {
        let slot = connection.key.slot() as usize;
        *self.slots.reach(slot) = Some(connection);
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Connection> {
        let slot = self.slots.get_mut(key.slot() as usize)?;
        slot.take_if(|connection| connection.key == key)
    }

    #[inline]
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Connection> {
        let connection = self.slots.get(key.slot() as usize)?.as_ref();
        connection.filter(|connection| connection.key == key)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(key.slot() as usize)?.as_mut();
        connection.filter(|connection| connection.key == key)
    }

    /// The ends of connections inside the process.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = &ReactorEnd> {
        let connections = self.slots.iter().flatten();
        connections.filter_map(|connection| connection.transport.pipe())
    }
}
