//! The physical limit: one thread that reads up to 256 KiB from the publisher and writes those very
//! bytes to every subscriber. It parses nothing of what it copies.
//!
//! It speaks just enough HVLP to be told who is who: a connection's first frame behind CONNECT
//! makes it a subscriber (SUBSCRIBE, to everything) or a publisher (anything else). One send per
//! subscriber and read. A subscriber whose socket is full is owed the rest, and until nobody is
//! owed anything the publisher is not read: memory is bounded by one read per subscriber.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;
use hvlp::address::Address;
use hvlp::loopback::take_pace_off;
use hvlp::packet::{Frame, id};
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Dialect, Endpoint};
use crate::machine;

/// Larger reads stall the loop, smaller ones cost more sends.
const READ_LEN_MAX: usize = 256 * 1024;
/// Connections that the kernel completes before we accept them.
const BACKLOG: i32 = 4096;
const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);

/// A relay with its listener bound.
pub struct Relay {
    poll: Poll,
    listener: Socket,
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
    /// Subscribers that are owed something. While there are any, no publisher is read.
    owing: usize,
    stopped: Arc<AtomicBool>,
}

struct Connection {
    socket: Socket,
    role: Role,
}

enum Role {
    /// The bytes so far do not tell.
    Unknown(Vec<u8>),
    /// Whether there may be something to read, and whether the end of the stream is part of it.
    Publisher { ready: bool, ending: bool },
    /// What its socket refused.
    Subscriber(Vec<u8>),
}

impl Relay {
    /// Binds `address`; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(address: &Address) -> anyhow::Result<Self> {
        let listener = listen(address).with_context(|| format!("cannot listen on {address}"))?;
        let poll = Poll::new()?;
        let source = listener.as_raw_fd();
        poll.registry()
            .register(&mut SourceFd(&source), LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            buffer: vec![0; READ_LEN_MAX].into(),
            owing: 0,
            stopped: Arc::default(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn local_address(&self) -> io::Result<Address> {
        let address = self.listener.local_addr()?;
        if let Some(path) = address.as_pathname() {
            return Ok(Address::Unix(path.into()));
        }
        let address: Option<SocketAddr> = address.as_socket();
        address
            .map(Address::from)
            .ok_or_else(|| ErrorKind::Unsupported.into())
    }

    /// Copies until the process ends or the handle stops it.
    ///
    /// # Errors
    /// The kernel refuses to wait for events.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.stopped.load(Ordering::Relaxed) {
            if let Err(error) = self.poll.poll(&mut events, None)
                && error.kind() != ErrorKind::Interrupted
            {
                return Err(error);
            }
            for event in &events {
                match event.token() {
                    STOP => {}
                    LISTENER => self.accept(),
                    Token(index) => self.serve(index, event),
                }
            }
            self.copy();
        }
        Ok(())
    }

    fn accept(&mut self) {
        // A failed accept (descriptors used up) leaves the peer waiting; nothing else suffers.
        while let Ok((socket, _)) = self.listener.accept() {
            let _ = socket.set_tcp_nodelay(true); // Fails on unix sockets, which need it not.
            let free = self.connections.iter().position(Option::is_none);
            let index = free.unwrap_or(self.connections.len());
            let source = socket.as_raw_fd();
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            let ready = socket
                .set_nonblocking(true)
                .and_then(|()| registry.register(&mut SourceFd(&source), Token(index), interest));
            if ready.is_err() {
                continue;
            }
            let connection = Some(Connection {
                socket,
                role: Role::Unknown(Vec::new()),
            });
            match self.connections.get_mut(index) {
                Some(slot) => *slot = connection,
                None => self.connections.push(connection),
            }
        }
    }

    /// One connection's event. Publishers are only marked: [`Relay::copy`] reads them.
    fn serve(&mut self, index: usize, event: &Event) {
        let (readable, ending) = (event.is_readable(), event.is_read_closed());
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let alive = match &mut connection.role {
            Role::Publisher {
                ready,
                ending: known,
            } => {
                *ready |= readable;
                *known |= ending;
                true
            }
            Role::Unknown(_) if readable => self.identify(index, ending),
            Role::Unknown(_) => true,
            Role::Subscriber(owed) => {
                let owed_before = !owed.is_empty();
                let mut alive = true;
                if event.is_writable() && owed_before {
                    alive = flush(&connection.socket, owed);
                }
                if readable {
                    alive &= discard(&connection.socket, &mut self.buffer);
                }
                self.owing -= usize::from(alive && owed_before && owed.is_empty());
                alive
            }
        };
        if !alive {
            self.close(index);
        }
    }

    /// Reads a connection's first bytes until they tell what it is.
    fn identify(&mut self, index: usize, ending: bool) -> bool {
        let Some(connection) = &mut self.connections[index] else {
            return true;
        };
        let Role::Unknown(said) = &mut connection.role else {
            return true;
        };
        loop {
            match (&connection.socket).read(&mut self.buffer) {
                Ok(0) => return false,
                Ok(len) => said.extend_from_slice(&self.buffer[..len]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
            let mut rest: &[u8] = said;
            while let Some((frame, behind)) = Frame::split_first(rest)
                && frame.id() == id::CONNECT
            {
                rest = behind;
            }
            match rest.first() {
                None | Some(&id::CONNECT) => {}
                Some(&id::SUBSCRIBE) => {
                    connection.role = Role::Subscriber(Vec::new());
                    return discard(&connection.socket, &mut self.buffer);
                }
                Some(_) => {
                    let first = rest.to_vec();
                    connection.role = Role::Publisher {
                        ready: true,
                        ending,
                    };
                    self.fan_out(&first);
                    return true;
                }
            }
        }
    }

    /// Reads the publishers and copies, until they have nothing more or a subscriber is owed.
    fn copy(&mut self) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for index in 0..self.connections.len() {
            while self.owing == 0
                && let Some(Some(Connection {
                    socket,
                    role:
                        Role::Publisher {
                            ready: ready @ true,
                            ending,
                        },
                })) = self.connections.get_mut(index)
            {
                match (&*socket).read(&mut buffer) {
                    Ok(0) => self.close(index),
                    Ok(len) => {
                        // A short read has emptied the socket of all but the end of the stream.
                        *ready = len == buffer.len() || *ending;
                        self.fan_out(&buffer[..len]);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => *ready = false,
                    Err(_) => self.close(index),
                }
            }
        }
        self.buffer = buffer;
    }

    /// One send to every subscriber.
    fn fan_out(&mut self, bytes: &[u8]) {
        for slot in &mut self.connections {
            let Some(Connection {
                socket,
                role: Role::Subscriber(owed),
            }) = slot
            else {
                continue;
            };
            // Only a first frame that came along with CONNECT meets somebody who is owed.
            let written = if owed.is_empty() {
                (&*socket).write(bytes)
            } else {
                Ok(0)
            };
            let written = match written {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                // Its hang-up is an event of its own.
                Err(_) => continue,
            };
            if written < bytes.len() {
                self.owing += usize::from(owed.is_empty());
                owed.extend_from_slice(&bytes[written..]);
            }
        }
    }

    fn close(&mut self, index: usize) {
        let closed = self.connections[index].take();
        if let Some(Connection {
            role: Role::Subscriber(owed),
            ..
        }) = closed
        {
            self.owing -= usize::from(!owed.is_empty());
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Writes what is owed; `false` if nobody is there any more.
fn flush(mut socket: &Socket, owed: &mut Vec<u8>) -> bool {
    while !owed.is_empty() {
        match socket.write(owed) {
            Ok(written) => drop(owed.drain(..written)),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// Reads and forgets; `false` at the end of the stream.
fn discard(mut socket: &Socket, buffer: &mut [u8]) -> bool {
    loop {
        match socket.read(buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn listen(address: &Address) -> io::Result<Socket> {
    let address = match address {
        Address::Unix(path) => SockAddr::unix(path)?,
        Address::Tcp { .. } => {
            let first = address.resolve()?.into_iter().next();
            first.ok_or(ErrorKind::AddrNotAvailable)?.into()
        }
    };
    let socket = Socket::new(
        Domain::from(i32::from(address.family())),
        Type::STREAM,
        None,
    )?;
    if !address.is_unix() {
        socket.set_reuse_address(true)?;
    }
    if let Some(address) = address.as_socket() {
        take_pace_off(&socket, address); // As the broker does.
    }
    socket.bind(&address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A relay on a thread of its own, for the time of a run.
#[derive(Debug)]
pub struct RelayThread {
    address: Address,
    /// Whose CPU time is the relay's.
    pub thread: machine::ThreadId,
    waker: Waker,
    stopped: Arc<AtomicBool>,
    thread_handle: Option<JoinHandle<io::Result<()>>>,
}

impl RelayThread {
    /// Starts it on `cpu`, or wherever the scheduler likes.
    ///
    /// # Errors
    /// No port, no thread, or no such CPU.
    pub fn spawn(cpu: Option<usize>) -> anyhow::Result<Self> {
        let mut relay = Relay::bind(&Address::Tcp {
            host: "127.0.0.1".into(),
            port: 0,
        })?;
        let address = relay.local_address()?;
        let waker = Waker::new(relay.poll.registry(), STOP)?;
        let stopped = Arc::clone(&relay.stopped);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread_handle = std::thread::Builder::new()
            .name("relay".into())
            .spawn(move || {
                let pinned = cpu.map_or(Ok(()), machine::pin_thread);
                let _ = sender.send(pinned.map(|()| machine::ThreadId::current()));
                relay.run()
            })?;
        let thread = receiver
            .recv()
            .context("the relay's thread ended at once")??;
        Ok(Self {
            address,
            thread,
            waker,
            stopped,
            thread_handle: Some(thread_handle),
        })
    }

    /// Where it listens, and what it half understands.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            dialect: Dialect::Hvlp,
            address: self.address.clone(),
        }
    }
}

impl Drop for RelayThread {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        let woken = self.waker.wake();
        if let (Ok(()), Some(handle)) = (woken, self.thread_handle.take()) {
            let _ = handle.join();
        }
    }
}
