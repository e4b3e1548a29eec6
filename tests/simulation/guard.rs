//! The handler of a simulated broker: the payload of a CONNECT, or its user if it is an extended
//! one, says what becomes of it, and topics that begin with `!` are denied.

use std::sync::{Arc, Mutex};

use hvlp::handler::{
    ConnectAnswer, ConnectRequest, Refusal, SessionHandler, SessionView, Ticket, Verdict,
};

/// First bytes of that; any other, or none, is accepted.
pub(crate) const LATER: u8 = 1;
pub(crate) const UNAUTHORISED: u8 = 2;
pub(crate) const BEYOND_LIMIT: u8 = 3;

pub(crate) fn is_denied(topic: &str) -> bool {
    topic.starts_with('!')
}

/// CONNECTs that wait for an answer, with the numbers of their sessions.
pub(crate) type Tickets = Arc<Mutex<Vec<(u64, Ticket)>>>;

#[derive(Clone, Debug)]
pub(crate) struct Guard(pub(crate) Tickets);

impl SessionHandler for Guard {
    fn on_connect(&mut self, session: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        let choice = match request.hello() {
            Some(hello) => hello.user.unwrap_or_default().as_bytes(),
            None => request.payload(),
        };
        match choice.first() {
            Some(&LATER) => {
                let (ticket, later) = request.later();
                self.0.lock().unwrap().push((session.number, ticket));
                later
            }
            Some(&UNAUTHORISED) => ConnectAnswer::Refuse(Refusal::NotAuthorised),
            Some(&BEYOND_LIMIT) => ConnectAnswer::Refuse(Refusal::Limit),
            _ => ConnectAnswer::Accept,
        }
    }

    fn on_subscribe(&mut self, _: SessionView, topic: &str) -> Verdict {
        verdict(topic)
    }

    fn on_publish(&mut self, _: SessionView, topic: &str, _: &[u8]) -> Verdict {
        verdict(topic)
    }
}

fn verdict(topic: &str) -> Verdict {
    match is_denied(topic) {
        true => Verdict::Discard,
        false => Verdict::Allow,
    }
}
