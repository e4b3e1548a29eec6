//! The directory by itself: who joins and leaves against who remembers its answers.

use std::sync::Arc;

use shuttle::thread;

use crate::orders::{self, Epoch};
use crate::register::directory::{Directory, Wanted};

/// One shard joins, leaves and joins again, another asks `looks` times: in every order.
pub fn of_one_in_every_order(looks: usize) {
    orders::all(move || model(1, looks));
}

/// As many shards, in some orders.
pub fn of(shards: u8, looks: usize, orders: usize) {
    orders::draw(orders, move || model(shards, looks));
}

fn model(shards: u8, looks: usize) {
    let directory = Arc::new(Directory::new());
    let mut remembered = Remembered {
        wanted: directory.look_up(directory.hash(b"t"), b"t"),
        directory: Arc::clone(&directory),
    };
    let epochs: Vec<_> = (0..shards).map(|_| Arc::new(Epoch::new())).collect();
    let threads: Vec<_> = (0..)
        .zip(&epochs)
        .map(|(shard, epoch)| {
            let (directory, epoch) = (Arc::clone(&directory), Arc::clone(epoch));
            thread::spawn(move || {
                directory.join(shard, b"t");
                epoch.advance();
                epoch.advance();
                directory.leave(shard, b"t");
                directory.join(shard, b"t");
                epoch.advance();
            })
        })
        .collect();
    for _ in 0..looks {
        let before: Vec<_> = epochs.iter().map(|epoch| epoch.now()).collect();
        let word = remembered.shards();
        for (shard, (epoch, before)) in epochs.iter().zip(before).enumerate() {
            let holds = epoch.held_since(before);
            assert!(
                !holds || word & 1 << shard != 0,
                "{shard} is not in {word:b}"
            );
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(remembered.shards(), (1 << shards) - 1);
    (0..shards).for_each(|shard| directory.leave(shard, b"t"));
    assert_eq!((remembered.shards(), directory.topic_count()), (0, 0));
}

/// An answer that is believed as long as the directory says so, as a shard does.
struct Remembered {
    wanted: Wanted,
    directory: Arc<Directory>,
}

impl Remembered {
    fn shards(&mut self) -> u64 {
        let hash = self.directory.hash(b"t");
        loop {
            if let Some(shards) = self.directory.recall(hash, &self.wanted) {
                return shards;
            }
            self.wanted = self.directory.look_up(hash, b"t");
        }
    }
}
