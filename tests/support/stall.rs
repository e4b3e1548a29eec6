//! A reactor that stands still for as long as a test likes.

use std::sync::{Arc, Mutex, mpsc};

use hvlp::handler::{ConnectAnswer, ConnectRequest, SessionHandler, SessionView};

use super::{DEADLINE, TestBroker, start_with, wire};

/// Stops the reactor when a CONNECT says "stall", until it is told to go on: what happens meanwhile
/// is seen by one turn.
#[derive(Clone)]
struct Gate {
    stalled: mpsc::Sender<()>,
    go_on: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl SessionHandler for Gate {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        if request.payload() == b"stall" {
            self.stalled.send(()).unwrap();
            self.go_on.lock().unwrap().recv().unwrap();
        }
        ConnectAnswer::Accept
    }
}

pub(crate) struct Stall {
    stalled: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
}

pub(crate) fn start_stallable(settings: &[&str]) -> (TestBroker, Stall) {
    let (stalled_sender, stalled) = mpsc::channel();
    let (go_on, go_on_receiver) = mpsc::channel();
    let gate = Gate {
        stalled: stalled_sender,
        go_on: Arc::new(Mutex::new(go_on_receiver)),
    };
    (start_with(gate, settings), Stall { stalled, go_on })
}

impl Stall {
    /// Acts while the reactor that gets the next session stands still.
    pub(crate) fn during(&self, broker: &TestBroker, act: impl FnOnce()) {
        let mut peer = broker.open();
        peer.send(wire::frame(1, b"stall"));
        self.stalled.recv_timeout(DEADLINE).unwrap();
        act();
        self.go_on.send(()).unwrap();
    }
}
