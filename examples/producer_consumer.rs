//! Producer and consumer: one thread publishes 256 messages, another one receives them all.
//!
//! ```sh
//! cargo run --example producer_consumer
//! ```

use std::error::Error;
use std::thread;
use std::time::Duration;

use hvlp::address::Address;
use hvlp::client::{Client, ClientError};

fn main() -> Result<(), Box<dyn Error>> {
    let broker = hvlp::Broker::builder().listen("127.0.0.1:0")?.spawn()?;
    let address = broker.local_addr().clone();

    let consumer = thread::spawn({
        let address = address.clone();
        move || consume(&address)
    });
    // The base protocol has no answer to SUBSCRIBE; within one process the register can be asked.
    while broker.register().subscribers("a").next().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    produce(&address)?;

    let received = consumer.join().map_err(|_| "the consumer panicked")??;
    assert!(received.iter().copied().eq(0..=255));
    println!("received {} messages, all of them in order", received.len());

    broker.stop();
    let counters = broker.join()?;
    assert!(counters.is_conserved());
    Ok(())
}

fn produce(address: &Address) -> Result<(), ClientError> {
    let mut client = Client::connect(address)?;
    // A publisher does not get its own messages, subscribed or not.
    client.subscribe(["a"])?;
    for number in 0..=255 {
        client.publish("a", &[number])?;
    }
    client.disconnect()
}

fn consume(address: &Address) -> Result<Vec<u8>, ClientError> {
    let mut client = Client::connect(address)?;
    client.subscribe(["a"])?;
    let mut received = Vec::new();
    for message in client.messages(Duration::from_secs(5)).take(256) {
        received.extend_from_slice(message?.data());
    }
    client.disconnect()?;
    Ok(received)
}
