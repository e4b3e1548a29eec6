//! A peer that speaks literal bytes, in place of a broker.
#![allow(dead_code, reason = "each test program uses its part of it")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use hvlp::address::Address;

/// Long enough for a loaded machine; only a failing test waits for it.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// A listener, and what it does with its connections, on a thread of its own.
pub(crate) struct Peer<T = ()> {
    pub(crate) address: Address,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Peer<T> {
    /// Runs `play` with the first connection.
    pub(crate) fn once(play: impl FnOnce(Connection) -> T + Send + 'static) -> Self {
        Self::listening(|listener| play(listener.accept()))
    }

    /// Runs `play` with the listener, for more than one connection.
    pub(crate) fn listening(play: impl FnOnce(Listener) -> T + Send + 'static) -> Self {
        let listener = Listener(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.0.local_addr().unwrap().into();
        let thread = std::thread::spawn(move || play(listener));
        Self { address, thread }
    }

    /// Whether everything went as the peer expected; what it has to tell.
    pub(crate) fn join(self) -> T {
        self.thread.join().unwrap()
    }
}

pub(crate) struct Listener(TcpListener);

impl Listener {
    pub(crate) fn accept(&self) -> Connection {
        let (stream, _) = self.0.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection(stream)
    }
}

pub(crate) struct Connection(pub(crate) TcpStream);

impl Connection {
    /// Reads exactly these bytes.
    pub(crate) fn expect(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        self.0.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes);
    }

    /// Reads until these bytes are the last ones that came.
    pub(crate) fn expect_eventually(&mut self, bytes: &[u8]) {
        let mut received = Vec::new();
        while !received.ends_with(bytes) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            received.extend(byte);
        }
    }

    /// Reads the end of the stream.
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Tears the connection down instead of closing it.
    pub(crate) fn reset(self) {
        let socket = socket2::Socket::from(self.0);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}
