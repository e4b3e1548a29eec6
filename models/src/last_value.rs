//! Last values, seen from outside: who subscribes gets the newest message and every later one.

use std::sync::Arc;

use shuttle::thread;

use crate::node::Node;
use crate::orders;
use crate::register::last_values::{LastValues, Prefixes};

/// How many are published, from 0 on.
const MESSAGES: u8 = 5;

/// One shard publishes while others subscribe.
pub fn of(subscribers: u8, orders: usize) {
    orders::draw(orders, move || {
        let values = LastValues::new(Prefixes::of(["t"]), 10, 10_000);
        let mut nodes = Node::among_with(1 + subscribers, Some(Arc::new(values)));
        let threads: Vec<_> = nodes
            .drain(1..)
            .map(|mut node| {
                thread::spawn(move || {
                    node.subscribe();
                    node.deliver();
                    node
                })
            })
            .collect();
        let mut publisher = nodes.remove(0);
        for number in 0..MESSAGES {
            publisher.publish(number);
            publisher.deliver();
        }
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        let mut nodes: Vec<_> = joined.collect();
        for _ in 0..3 {
            publisher.deliver();
            nodes.iter_mut().for_each(Node::deliver);
        }
        for node in nodes {
            let received = node.received;
            let each = received.windows(2).all(|pair| pair[1] == pair[0] + 1);
            assert!(each, "{received:?}");
            assert_eq!(received.last(), Some(&(MESSAGES - 1)));
        }
    });
}
