//! A broker of a few lines that can be told to misbehave.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use hvlp::packet::{Frame, Packet};

/// Where the sequence stands in a frame of ours: header, topic of five bytes, stamp.
const SEQUENCE_AT: usize = 8 + 12;

/// What the broker does to a message before it delivers it.
pub type Mangle = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

#[derive(Default)]
struct Subscriptions(Vec<(String, SocketAddr, TcpStream)>);

/// A broker on a port of its own. It serves until the test's process ends.
pub fn spawn(mangle: Mangle) -> SocketAddr {
    serve_all(mangle, None)
}

/// A broker that delivers everything to the subscribers of `topic` as well.
pub fn spawn_leaking(topic: &'static str) -> SocketAddr {
    serve_all(Box::new(<[u8]>::to_vec), Some(topic))
}

fn serve_all(mangle: Mangle, leak: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mangle = Arc::new(Mutex::new(mangle));
    let subscriptions = Arc::new(Mutex::new(Subscriptions::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mangle, subscriptions) = (Arc::clone(&mangle), Arc::clone(&subscriptions));
            thread::spawn(move || serve(stream.unwrap(), &mangle, &subscriptions, leak));
        }
    });
    address
}

/// A broker that delivers everything as it came.
pub fn honest() -> SocketAddr {
    spawn(Box::new(<[u8]>::to_vec))
}

/// An honest broker in a process of its own, whose CPU time has nobody else's in it.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
}

impl Process {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("support::serves_until_its_input_ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(ADDRESS)?.parse().ok())
            .unwrap();
        Self { child, address }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

const ADDRESS: &str = "honest broker at ";

#[test]
#[ignore = "not a test: what `Process` starts"]
fn serves_until_its_input_ends() {
    println!("\n{ADDRESS}{}", honest());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The number of a message of ours.
pub fn sequence(frame: &[u8]) -> u32 {
    u32::from_le_bytes(frame[SEQUENCE_AT..SEQUENCE_AT + 4].try_into().unwrap())
}

fn serve(
    mut stream: TcpStream,
    mangle: &Mutex<Mangle>,
    subscriptions: &Mutex<Subscriptions>,
    leak: Option<&str>,
) {
    stream.set_nodelay(true).unwrap();
    let peer = stream.peer_addr().unwrap();
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..len]);
        let mut rest: &[u8] = &bytes;
        while let Some((frame, behind)) = Frame::split_first(rest) {
            match frame.packet().unwrap() {
                Packet::Subscribe { topics } => {
                    let mut subscriptions = subscriptions.lock().unwrap();
                    for topic in topics {
                        let stream = stream.try_clone().unwrap();
                        subscriptions.0.push((topic.into(), peer, stream));
                    }
                }
                Packet::Publish { topic, .. } => {
                    let delivery = mangle.lock().unwrap()(frame.bytes());
                    deliver(topic, peer, &delivery, subscriptions);
                    let leak = leak.filter(|leak| topic != *leak);
                    leak.iter()
                        .for_each(|leak| deliver(leak, peer, &delivery, subscriptions));
                }
                _ => {}
            }
            rest = behind;
        }
        bytes = rest.to_vec();
    }
}

/// To all but the publisher itself. An empty delivery is a lost one; a single zero hangs up on the
/// subscribers.
fn deliver(
    topic: &str,
    publisher: SocketAddr,
    delivery: &[u8],
    subscriptions: &Mutex<Subscriptions>,
) {
    let mut subscriptions = subscriptions.lock().unwrap();
    subscriptions.0.retain_mut(|(wanted, subscriber, stream)| {
        if delivery == [0] {
            stream.shutdown(Shutdown::Both).unwrap();
            return false;
        }
        wanted != topic || *subscriber == publisher || stream.write_all(delivery).is_ok()
    });
}
