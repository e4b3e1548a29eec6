//! The states of a session: the connection is there, CONNECT has come, and it has gone.
//!
//! ```sh
//! cargo run --example session_states
//! ```

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use hvlp::session::SessionState;
use hvlp::{Broker, BrokerHandle, Client};

fn main() -> Result<(), Box<dyn Error>> {
    let broker = Broker::builder().listen("127.0.0.1:0")?.spawn()?;

    // The TCP connection alone.
    let builder = Client::builder().address(broker.local_addr())?;
    let mut client = builder.open()?;
    wait_for(&broker, Some(SessionState::WaitConnect))?;

    // CONNECT begins the session.
    client.send_connect(b"")?;
    wait_for(&broker, Some(SessionState::Connected))?;

    client.subscribe(["a", "b"])?;
    client.disconnect()?;
    // A session that has ended is not in the register any more, and neither are its subscriptions.
    wait_for(&broker, None)?;
    assert_eq!(broker.register().subscribers("a").count(), 0);

    broker.stop();
    assert!(broker.join()?.is_conserved());
    Ok(())
}

/// Waits until the only session is in this state, or there is none.
fn wait_for(broker: &BrokerHandle, expected: Option<SessionState>) -> Result<(), Box<dyn Error>> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let register = broker.register();
        let session = register.sessions().last();
        if session.map(|session| session.state) == expected {
            match session {
                Some(session) => println!("session {}: {:?}", session.number, session.state),
                None => println!("no session"),
            }
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("never {expected:?}").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
}
