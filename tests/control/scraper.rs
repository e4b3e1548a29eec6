//! Who asks the admin endpoint: requests as bytes, answers taken apart.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::exposition::Exposition;
use crate::support::DEADLINE;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scraper {
    address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header == name);
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "one {name}: {:?}", self.headers);
        value
    }

    /// One whole answer, and nothing behind it.
    fn read(bytes: &[u8], has_body: bool) -> Self {
        let text = std::str::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole head");
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap();
        let code = status.strip_prefix("HTTP/1.").unwrap()[2..5].parse();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header");
            (name.to_lowercase(), value.to_owned())
        };
        let answer = Self {
            code: code.unwrap(),
            headers: lines.map(header).collect(),
            body: body.into(),
        };
        let len: usize = match answer.header("content-length") {
            Some(len) => len.parse().unwrap(),
            None => 0,
        };
        assert_eq!(body.len(), if has_body { len } else { 0 }, "{text}");
        answer
    }
}

impl Scraper {
    /// Of an endpoint that may listen on every address.
    pub(crate) fn of(address: SocketAddr) -> Self {
        let address = match address.ip().is_unspecified() {
            true => (Ipv4Addr::LOCALHOST, address.port()).into(),
            false => address,
        };
        Self { address }
    }

    pub(crate) fn open(self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    pub(crate) fn is_listening(self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// Everything that comes until the stream ends; a reset is an end too.
    pub(crate) fn exchange(self, request: &[u8]) -> Vec<u8> {
        let mut socket = self.open();
        // Who is refused early need not have taken all of it.
        let _ = socket.write_all(request);
        let mut received = Vec::new();
        match socket.read_to_end(&mut received) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{error}"),
            _ => received,
        }
    }

    pub(crate) fn send(self, request: &str) -> Answer {
        let has_body = !request.starts_with("HEAD ");
        Answer::read(&self.exchange(request.as_bytes()), has_body)
    }

    pub(crate) fn get(self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    pub(crate) fn metrics(self) -> Exposition {
        let answer = self.get("/metrics");
        assert_eq!(answer.code, 200, "{answer:?}");
        let format = answer.header("content-type");
        assert_eq!(format, Some("text/plain; version=0.0.4; charset=utf-8"));
        Exposition::parse(&answer.body)
    }

    pub(crate) fn snapshot(self) -> serde_json::Value {
        let answer = self.get("/v1/snapshot");
        assert_eq!(answer.code, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        serde_json::from_str(&answer.body).unwrap()
    }
}
