//! The directory's guarantee, seen from outside: what is published behind a SUBSCRIBE arrives.

use std::sync::Arc;

use shuttle::thread;

use crate::node::Node;
use crate::orders::{self, Epoch};

/// Shards that subscribe, withdraw and subscribe again, while one publishes and sometimes
/// subscribes itself. What it publishes while another's subscription holds is delivered there.
pub fn of(subscribers: u8, orders: usize) {
    orders::draw(orders, move || {
        let mut nodes = Node::among(1 + subscribers);
        let epochs: Vec<_> = (0..subscribers).map(|_| Arc::new(Epoch::new())).collect();
        let threads: Vec<_> = nodes
            .drain(1..)
            .zip(&epochs)
            .map(|(node, epoch)| {
                let epoch = Arc::clone(epoch);
                thread::spawn(move || come_and_go(node, &epoch))
            })
            .collect();
        let owed = publish(nodes.remove(0), &epochs);
        for (thread, owed) in threads.into_iter().zip(owed) {
            let mut node = thread.join().unwrap();
            node.deliver();
            let received = &node.received;
            assert!(
                received.is_sorted_by(|one, next| one < next),
                "{received:?}"
            );
            assert!(
                owed.iter().all(|number| received.contains(number)),
                "of {owed:?} came {received:?}"
            );
        }
    });
}

fn come_and_go(mut node: Node, epoch: &Epoch) -> Node {
    node.subscribe();
    epoch.advance();
    node.deliver();
    epoch.advance();
    // What was handed over while it held is delivered before it ends.
    node.deliver();
    node.unsubscribe();
    node.subscribe();
    epoch.advance();
    node
}

/// Publishes some; returns what each subscriber must get of it.
fn publish(mut node: Node, epochs: &[Arc<Epoch>]) -> Vec<Vec<u8>> {
    let mut owed = vec![Vec::new(); epochs.len()];
    for number in 0..5 {
        // With a subscriber of its own it finds the word in its register, else in what it knows.
        match number {
            2 => node.subscribe(),
            3 => node.unsubscribe(),
            _ => {}
        }
        let before: Vec<_> = epochs.iter().map(|epoch| epoch.now()).collect();
        node.publish(number);
        for ((owed, epoch), before) in owed.iter_mut().zip(epochs).zip(before) {
            if epoch.held_since(before) {
                owed.push(number);
            }
        }
    }
    owed
}
