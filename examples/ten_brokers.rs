//! Ten brokers in one process: each has its own port, its own sessions and its own topics.
//!
//! ```sh
//! cargo run --example ten_brokers
//! ```

use std::error::Error;
use std::thread;
use std::time::Duration;

use hvlp::{Broker, Client};

fn main() -> Result<(), Box<dyn Error>> {
    // Port 0: the kernel chooses one that is free.
    let spawn = |_| Broker::builder().listen("127.0.0.1:0")?.spawn();
    let brokers = (0..10).map(spawn).collect::<Result<Vec<_>, _>>()?;

    let mut clients = Vec::new();
    for broker in &brokers {
        let mut client = Client::connect(broker.local_addr())?;
        client.subscribe(["number"])?;
        while broker.register().subscribers("number").next().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        println!("connected to {}", broker.local_addr());
        clients.push(client);
    }

    // The same topic at ten brokers is ten topics.
    for (number, broker) in (0..).zip(&brokers) {
        let mut producer = Client::connect(broker.local_addr())?;
        producer.publish("number", &[number])?;
        producer.disconnect()?;
    }
    for (number, client) in (0..).zip(&mut clients) {
        let message = client
            .receive(Duration::from_secs(5))?
            .ok_or("no message")?;
        assert_eq!(message.data(), [number]);
        assert!(
            client.receive(Duration::ZERO)?.is_none(),
            "nothing from another broker"
        );
    }

    for broker in brokers {
        assert_eq!(broker.register().sessions().len(), 1);
        broker.stop();
        broker.join()?;
    }
    println!("ten brokers served one client each and have stopped");
    Ok(())
}
