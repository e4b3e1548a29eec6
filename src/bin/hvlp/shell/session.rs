//! The connection of a shell, and what the commands do to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hvlp::address::Address;
use hvlp::client::{ClientError, Receiver, Sender};
use hvlp::packet::{Frame, FrameBuf, Packet, PacketError};

use super::command::{COMMANDS, Command, Setting, usage};
use crate::exit::Failure;
use crate::output::Escaped;
use crate::server::Server;

/// Prints one line without destroying the one that is being typed.
pub(super) type Print = Box<dyn FnMut(String) + Send>;

/// What a command cannot do in this state.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("already connected to {0}; disconnect first")]
    AlreadyConnected(Address),
    #[error("not connected; connect first")]
    NotConnected,
    #[error("no command {0:?}; help lists them")]
    NoHelp(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Failure(#[from] Failure),
}

pub(super) struct Session {
    address: Address,
    server: Server,
    print: Arc<Mutex<Print>>,
    sniffing: Arc<AtomicBool>,
    open: Option<Open>,
}

/// An open socket.
struct Open {
    sender: Sender,
    /// Whether CONNECT has been sent.
    connected: bool,
    /// Without a sender when the receiving thread has ended.
    ended: mpsc::Receiver<()>,
}

impl Session {
    pub(super) fn new(server: &Server, print: Print) -> Result<Self, Failure> {
        Ok(Self {
            address: server.address()?,
            server: server.clone(),
            print: Arc::new(Mutex::new(print)),
            sniffing: Arc::new(AtomicBool::new(false)),
            open: None,
        })
    }

    /// Does what a line asks for.
    pub(super) fn execute(&mut self, command: Command) -> Result<(), SessionError> {
        self.notice_end();
        match command {
            Command::Open(address) => self.open(address),
            Command::Connect(payload) => self.connect(&payload),
            Command::Subscribe(topics) => {
                let sender = self.connected()?;
                sender.subscribe(&topics)?;
                self.sniff_list(FrameBuf::subscribe(&topics));
                self.say(&format!("subscribed to {}", list(&topics)));
                Ok(())
            }
            Command::Unsubscribe(topics) => {
                let sender = self.connected()?;
                sender.unsubscribe(&topics)?;
                self.sniff_list(FrameBuf::unsubscribe(&topics));
                self.say(&format!("unsubscribed from {}", list(&topics)));
                Ok(())
            }
            Command::Publish { topic, data } => {
                self.connected()?.publish(&topic, &data)?;
                self.sniff_list(FrameBuf::publish(&topic, &data));
                Ok(())
            }
            Command::Send(bytes) => {
                self.opened()?.sender.send_raw(&bytes)?;
                self.sniff_bytes(&bytes);
                Ok(())
            }
            Command::Disconnect => self.disconnect(),
            Command::Close => {
                let open = self.open.take().ok_or(SessionError::NotConnected)?;
                open.sender.close();
                self.say("closed");
                Ok(())
            }
            Command::Config(setting) => self.config(setting),
            Command::Sniffer(on) => {
                // Relaxed: the flag carries nothing but itself.
                let on = on.unwrap_or_else(|| !self.sniffing.load(Ordering::Relaxed));
                self.sniffing.store(on, Ordering::Relaxed);
                self.say(if on {
                    "sniffer is on"
                } else {
                    "sniffer is off"
                });
                Ok(())
            }
            Command::Help(name) => self.help(name),
            Command::Quit => self.quit(),
        }
    }

    /// Ends the connection, if there is one.
    pub(super) fn quit(&mut self) -> Result<(), SessionError> {
        match self.open {
            Some(_) => self.disconnect(),
            None => Ok(()),
        }
    }

    /// Topics that the user may mean.
    pub(super) fn topics(&self) -> Vec<String> {
        let sender = self.open.as_ref().map(|open| open.sender.topics());
        sender.unwrap_or_default()
    }

    fn open(&mut self, address: Option<Address>) -> Result<(), SessionError> {
        if self.open.is_some() {
            return Err(SessionError::AlreadyConnected(self.address.clone()));
        }
        let address = address.unwrap_or_else(|| self.address.clone());
        let client = self.server.builder()?.address(&address)?.open()?;
        // An address where nobody is does not take the place of one that may be right.
        self.address = address;
        self.say(&format!("open: {}", self.address));
        let (sender, receiver) = client.split();
        let (ending, ended) = mpsc::channel();
        let (print, sniffing) = (Arc::clone(&self.print), Arc::clone(&self.sniffing));
        std::thread::spawn(move || {
            receive(receiver, &print, &sniffing);
            drop(ending);
        });
        self.open = Some(Open {
            sender,
            connected: false,
            ended,
        });
        Ok(())
    }

    fn connect(&mut self, payload: &[u8]) -> Result<(), SessionError> {
        if self.open.as_ref().is_some_and(|open| open.connected) {
            return Err(SessionError::AlreadyConnected(self.address.clone()));
        }
        let frame = FrameBuf::connect(payload).map_err(ClientError::from)?;
        if self.open.is_none() {
            self.open(None)?;
        }
        let open = self.opened()?;
        open.sender.send_connect(payload)?;
        open.connected = true;
        self.sniff_bytes(frame.bytes());
        self.say("connected");
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), SessionError> {
        let open = self.open.take().ok_or(SessionError::NotConnected)?;
        open.sender.disconnect()?;
        self.sniff_list(FrameBuf::disconnect(&[]));
        // The receiving thread reads to the end, so nothing that was sent is destroyed by a reset.
        match open.ended.recv_timeout(DRAIN_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => self.say("the broker does not close; left anyway"),
            _ => self.say("disconnected"),
        }
        Ok(())
    }

    fn config(&mut self, setting: Option<Setting>) -> Result<(), SessionError> {
        if setting.is_some() && self.open.is_some() {
            return Err(SessionError::AlreadyConnected(self.address.clone()));
        }
        match (setting, &mut self.address) {
            (Some(Setting::Server(new)), address) => *address = new,
            (Some(Setting::Host(new)), Address::Tcp { host, .. }) => *host = new,
            (Some(Setting::Port(new)), Address::Tcp { port, .. }) => *port = new,
            (Some(Setting::Host(host)), address) => {
                let port = hvlp::packet::DEFAULT_PORT;
                *address = Address::Tcp { host, port };
            }
            (Some(Setting::Port(port)), address) => {
                let host = "127.0.0.1".into();
                *address = Address::Tcp { host, port };
            }
            (None, _) => {}
        }
        self.say(&format!("server {}", self.address));
        Ok(())
    }

    fn help(&self, name: Option<String>) -> Result<(), SessionError> {
        let Some(name) = name else {
            for (_, usage, meaning) in COMMANDS {
                self.say(&format!("{usage:<46} {meaning}"));
            }
            return Ok(());
        };
        let (usage, meaning) = usage(&name).ok_or(SessionError::NoHelp(name))?;
        self.say(&format!("{usage}: {meaning}"));
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Open, SessionError> {
        self.open.as_mut().ok_or(SessionError::NotConnected)
    }

    fn connected(&mut self) -> Result<&mut Sender, SessionError> {
        match &mut self.open {
            Some(open) if open.connected => Ok(&mut open.sender),
            _ => Err(SessionError::NotConnected),
        }
    }

    /// Forgets a connection that has ended by itself; its thread has said why.
    fn notice_end(&mut self) {
        if let Some(open) = &self.open
            && open.ended.try_recv() == Err(mpsc::TryRecvError::Disconnected)
        {
            self.open = None;
        }
    }

    /// Lists are sent in as many frames as needed; the sniffer shows what fits into one.
    fn sniff_list(&self, frame: Result<FrameBuf, hvlp::packet::EncodeError>) {
        if let Ok(frame) = frame {
            self.sniff_bytes(frame.bytes());
        }
    }

    fn sniff_bytes(&self, bytes: &[u8]) {
        if self.sniffing.load(Ordering::Relaxed) {
            self.say(&format!("-> {}", describe(bytes)));
        }
    }

    fn say(&self, line: &str) {
        say(&self.print, line.into());
    }
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Prints what comes until the connection ends, and why it has.
fn receive(mut receiver: Receiver, print: &Mutex<Print>, sniffing: &AtomicBool) {
    loop {
        match receiver.receive_frame(None) {
            Ok(Some(bytes)) => {
                if sniffing.load(Ordering::Relaxed) {
                    say(print, format!("<- {}", describe(&bytes)));
                } else if let Ok(Some((Packet::Publish { topic, data }, _))) =
                    Packet::decode(&bytes)
                {
                    let (topic, data) = (Escaped(topic.as_bytes()), Escaped(data));
                    say(print, format!("{topic} {data}"));
                }
            }
            Ok(None) => {}
            Err(ClientError::Disconnected) => return,
            Err(error) => return say(print, format!("connection ended: {error}")),
        }
    }
}

/// Bytes as packets, one behind the other.
fn describe(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while let Some((frame, rest)) = Frame::split_first(bytes) {
        let packet: Result<Packet<'_>, PacketError> = frame.packet();
        match packet {
            Ok(packet) => text.push_str(&packet.to_string()),
            Err(error) => text.push_str(&format!("malformed ({error}) {:02x?}", frame.bytes())),
        }
        bytes = rest;
        if !bytes.is_empty() {
            text.push_str("; ");
        }
    }
    if !bytes.is_empty() {
        text.push_str(&format!("part of a frame {bytes:02x?}"));
    }
    text
}

fn say(print: &Mutex<Print>, line: String) {
    let mut print = print.lock().unwrap_or_else(PoisonError::into_inner);
    print(line);
}

fn list(topics: &[String]) -> String {
    let shown: Vec<String> = topics.iter().map(|topic| format!("{topic:?}")).collect();
    shown.join(", ")
}
