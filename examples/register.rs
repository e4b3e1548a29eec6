//! The register by itself: who is subscribed to what, without a broker around it.
//!
//! ```sh
//! cargo run --example register
//! ```

use hvlp::register::Register;
use hvlp::session::SessionKey;

fn main() {
    let mut register = Register::new();
    let (first, second) = (SessionKey::new(0, 0), SessionKey::new(1, 0));

    // Sessions are made known before they subscribe.
    register.add_session(first);
    register.add_session(second);
    assert!(register.sessions().any(|session| session == first));
    println!("sessions: {}", register.sessions().count());

    // Subscriptions are a set: the second time changes nothing.
    register.subscribe(first, ["test1", "test2"]);
    register.subscribe(first, ["test1"]);
    register.subscribe(second, ["test2", "test3"]);
    assert_eq!(sorted(register.topics(first)), ["test1", "test2"]);
    assert_eq!(register.topic_count(), 3);

    // Each topic knows its subscribers.
    assert_eq!(register.subscribers("test1"), [first]);
    assert_eq!(register.subscribers("test2").len(), 2);
    assert!(register.subscribers("nobody wants it").is_empty());
    assert!(register.is_subscribed(second, "test3"));
    println!("test2 goes to {:?}", register.subscribers("test2"));

    // A topic without subscribers is forgotten.
    register.unsubscribe(second, ["test3", "never held"]);
    assert_eq!(sorted(register.topics(second)), ["test2"]);
    assert_eq!(register.topic_count(), 2);

    // With a session go its subscriptions.
    register.remove_session(first);
    assert_eq!(register.subscribers("test2"), [second]);
    assert_eq!(register.subscription_count(), 1);

    register.reset();
    assert_eq!(register.sessions().count(), 0);
    assert_eq!(register.topic_count(), 0);
    println!("after reset: no sessions, no topics");
}

fn sorted<'a>(topics: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut topics: Vec<&str> = topics.collect();
    topics.sort_unstable();
    topics
}
