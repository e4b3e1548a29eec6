//! What a broker leaves behind in its process. A program of its own: nothing else opens anything.
#![cfg(all(feature = "broker", target_os = "linux"))]

#[path = "support/engine.rs"]
mod engine;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hvlp::Broker;

fn count(of: &str) -> usize {
    let entries = fs::read_dir(format!("/proc/self/{of}"));
    entries.expect("Linux has /proc").count()
}

#[test]
fn c11_g16_a_broker_that_has_ended_leaves_no_descriptor_and_no_thread() {
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("unix:{}", directory.path().join("s").display());
    let before = (count("fd"), count("task"));
    for _ in 0..20 {
        let builder = Broker::builder().listen("127.0.0.1:0").unwrap();
        let builder = builder.listen(&unix).unwrap();
        #[cfg(feature = "control")]
        let builder = builder.admin("127.0.0.1:0").unwrap();
        let broker = engine::chosen(builder).spawn().unwrap();
        // One that has asked and one that never does, both still open when the broker ends.
        #[cfg(feature = "control")]
        let _watchers = ["GET /healthz HTTP/1.0\r\n\r\n", "GET"].map(|request| {
            let mut watcher = TcpStream::connect(broker.admin_addr().unwrap()).unwrap();
            watcher.write_all(request.as_bytes()).unwrap();
            watcher
        });
        let mut clients: Vec<_> = (0..10)
            .map(|_| TcpStream::connect(broker.local_addr().to_string()).unwrap())
            .collect();
        for client in &mut clients {
            client.write_all(&[1, 0, 3, 2, 1, b'a']).unwrap();
        }
        broker.stop();
        for client in &mut clients {
            // The end, or a reset for what was still on its way.
            let _ = client.read(&mut [0; 1]);
        }
        let counters = broker.join().unwrap();
        assert_eq!(counters.sessions_opened, counters.sessions_closed.total());
    }
    // A thread that was joined leaves the kernel's table a moment later.
    let deadline = Instant::now() + Duration::from_secs(30);
    while (count("fd"), count("task")) != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    assert_eq!((count("fd"), count("task")), before);
}
