//! A peer that speaks literal bytes: it can do everything that a client must not.

use std::fmt::Debug;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hvlp::address::Address;
use socket2::{Domain, SockRef, Type};

use super::{DEADLINE, wire};

trait Socket: Read + Write + Send + Debug {
    fn end_writing(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Socket for UnixStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[derive(Debug)]
pub(crate) struct Peer {
    socket: Box<dyn Socket>,
    /// The same socket, for what only TCP can do.
    tcp: Option<TcpStream>,
    received: Vec<u8>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Eof,
    Reset,
}

impl Peer {
    /// A connection without CONNECT.
    pub(crate) fn open(address: &Address) -> Self {
        match address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path).unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                socket.set_write_timeout(Some(DEADLINE)).unwrap();
                Self::new(Box::new(socket), None)
            }
            Address::Tcp { host, port } => {
                Self::over(TcpStream::connect((host.as_str(), *port)).unwrap())
            }
        }
    }

    /// A connection that has sent CONNECT, and whose window was small from the beginning: the
    /// kernel neither drops nor repeats what a reader that has stopped does not take.
    pub(crate) fn connect_narrow(address: &Address) -> Self {
        let Address::Tcp { host, port } = address else {
            panic!("windows are for TCP");
        };
        let address: SocketAddr = format!("{host}:{port}").parse().unwrap();
        let domain = Domain::for_address(address);
        let socket = socket2::Socket::new(domain, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        let mut peer = Self::over(socket.into());
        peer.send(wire::CONNECT);
        peer
    }

    fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        let tcp = socket.try_clone().unwrap();
        Self::new(Box::new(socket), Some(tcp))
    }

    fn new(socket: Box<dyn Socket>, tcp: Option<TcpStream>) -> Self {
        Self {
            socket,
            tcp,
            received: Vec::new(),
        }
    }

    /// A connection that has sent CONNECT.
    pub(crate) fn connect(address: &Address) -> Self {
        let mut peer = Self::open(address);
        peer.send(wire::CONNECT);
        peer
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    /// As `send`; false if the broker has ended the connection.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        match self.socket.write_all(bytes.as_ref()) {
            Ok(()) => true,
            Err(error) if is_reset(error.kind()) => false,
            Err(error) => panic!("the broker neither reads nor closes: {error}"),
        }
    }

    /// Every byte in a segment of its own.
    pub(crate) fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// The bytes, the last of them as urgent data.
    pub(crate) fn send_urgent(&self, bytes: &[u8]) {
        let taken = SockRef::from(self.tcp()).send_out_of_band(bytes);
        assert_eq!(taken.unwrap(), bytes.len());
    }

    pub(crate) fn subscribe(&mut self, topics: &[&str]) {
        self.send(wire::subscribe(topics));
    }

    pub(crate) fn publish(&mut self, topic: &str, data: impl AsRef<[u8]>) {
        self.send(wire::publish(topic, data));
    }

    /// The next frame, whatever it is; `Err` if the stream ends instead.
    pub(crate) fn next_frame(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some((frame, _)) = wire::split(&self.received) {
                let frame = frame.to_vec();
                self.received.drain(..frame.len());
                return Ok(frame);
            }
            self.fill()?;
        }
    }

    /// The next bytes are exactly these.
    #[track_caller]
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        while self.received.len() < expected.len() {
            let at = self.received.len();
            assert_eq!(self.received, expected[..at], "the bytes so far");
            self.fill().expect("more bytes, not the end of the stream");
        }
        let got: Vec<u8> = self.received.drain(..expected.len()).collect();
        // Not `assert_eq`: a megabyte of numbers tells nobody anything.
        let differs = got.iter().zip(expected).position(|(a, b)| a != b);
        assert!(
            differs.is_none(),
            "byte {differs:?} of {} is wrong",
            got.len()
        );
    }

    /// Nothing was sent to this peer but `marker`, which the caller has just caused: silence is
    /// proved by what follows it, not by waiting.
    #[track_caller]
    pub(crate) fn expect_nothing_before(&mut self, marker: impl AsRef<[u8]>) {
        self.expect(marker);
        assert_eq!(self.received, b"", "nothing behind the marker");
    }

    /// The broker ends the stream without another byte.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) -> End {
        let (rest, end) = self.read_to_end();
        assert_eq!(rest, b"", "no byte before the end of the stream");
        end
    }

    /// Everything until the broker ends the stream.
    pub(crate) fn read_to_end(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (std::mem::take(&mut self.received), end);
            }
        }
    }

    /// Waits up to `patience` for the end of the stream.
    pub(crate) fn has_ended(&mut self, patience: Duration) -> bool {
        self.tcp().set_read_timeout(Some(patience)).unwrap();
        let ended = match self.socket.read(&mut [0; 1]) {
            Ok(0) => true,
            Ok(_) => panic!("a byte where the end or silence was expected"),
            Err(error) => is_reset(error.kind()),
        };
        self.tcp().set_read_timeout(Some(DEADLINE)).unwrap();
        ended
    }

    /// Waits up to `patience` for bytes, which stay to be read.
    #[cfg(feature = "cli")]
    pub(crate) fn has_bytes(&self, patience: Duration) -> bool {
        if !self.received.is_empty() {
            return true;
        }
        self.tcp().set_read_timeout(Some(patience)).unwrap();
        let there = self.tcp().peek(&mut [0; 1]);
        self.tcp().set_read_timeout(Some(DEADLINE)).unwrap();
        matches!(there, Ok(1..))
    }

    /// FIN, while reading goes on.
    pub(crate) fn half_close(&self) {
        self.socket.end_writing().unwrap();
    }

    /// Closes with a reset instead of FIN.
    pub(crate) fn reset(self) {
        SockRef::from(self.tcp())
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// A small receive buffer: the window closes soon once nobody reads.
    pub(crate) fn shrink_window(&self) {
        SockRef::from(self.tcp())
            .set_recv_buffer_size(4096)
            .unwrap();
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        self.tcp.as_ref().expect("this test uses TCP")
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut room = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut room) {
                Ok(0) => return Err(End::Eof),
                Ok(len) => {
                    self.received.extend_from_slice(&room[..len]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_reset(error.kind()) => return Err(End::Reset),
                Err(error) => panic!("nothing came within {DEADLINE:?}: {error}"),
            }
        }
    }
}

pub(crate) fn is_reset(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}
