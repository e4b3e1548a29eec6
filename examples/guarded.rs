//! A broker with rules of its own: `SessionHandler` with `on_connect` and `on_publish` overridden.
//!
//! CONNECT must carry a token, which a thread checks while the reactor goes on; nobody publishes
//! below `system/`. Starts the broker, tries it with clients, and ends by itself.
//!
//! ```sh
//! cargo run --example guarded
//! ```

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use hvlp::handler::{
    ConnectAnswer, ConnectRequest, Refusal, SessionHandler, SessionView, Ticket, Verdict,
};
use hvlp::{Broker, Client};

/// Asks a checking thread about tokens, and keeps `system/` to itself.
#[derive(Clone)]
struct Guard {
    questions: mpsc::Sender<(Vec<u8>, Ticket)>,
}

impl SessionHandler for Guard {
    fn on_connect(&mut self, _: SessionView, request: ConnectRequest<'_>) -> ConnectAnswer {
        let token = request.payload().to_vec();
        let (ticket, later) = request.later();
        // If the checking thread has gone, the ticket comes back in the error; dropped, it refuses.
        drop(self.questions.send((token, ticket)));
        later
    }

    fn on_publish(&mut self, session: SessionView, topic: &str, _: &[u8]) -> Verdict {
        if topic.starts_with("system/") {
            println!("session {} may not publish to {topic}", session.number);
            return Verdict::Discard;
        }
        Verdict::Allow
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (questions, asked) = mpsc::channel::<(Vec<u8>, Ticket)>();
    let checker = thread::spawn(move || {
        for (token, ticket) in asked {
            match &token[..] {
                b"s3cret" => ticket.accept(),
                _ => ticket.refuse(Refusal::NotAuthorised),
            }
        }
    });

    let broker = Broker::builder()
        .handler(Guard { questions })
        .listen("127.0.0.1:0")?
        .spawn()?;
    let address = broker.local_addr();
    let connect = |token: &[u8]| Client::builder().address(address)?.payload(token).connect();

    let mut subscriber = connect(b"s3cret")?;
    subscriber.subscribe(["news", "system/halt"])?;
    while broker.register().subscribers("news").count() == 0 {
        thread::yield_now();
    }

    let mut publisher = connect(b"s3cret")?;
    publisher.publish("system/halt", b"now")?;
    publisher.publish("news", b"all is well")?;
    let first = subscriber
        .receive(Duration::from_secs(5))?
        .expect("what may be published");
    println!(
        "{}: {}",
        first.topic(),
        String::from_utf8_lossy(first.data())
    );
    assert_eq!(first.topic(), "news");

    let mut stranger = connect(b"guess")?;
    let refused = stranger.receive(Duration::from_secs(5));
    println!(
        "with a wrong token: {}",
        refused.expect_err("the broker closes")
    );

    broker.stop();
    broker.join()?;
    checker.join().expect("the checker only loops");
    Ok(())
}
