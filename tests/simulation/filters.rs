//! Filters by the letter of docs/protocol.md, level by level. Shares no code with the broker, which
//! finds them by their shapes.

/// What a topic of a list is, for a session that may use wildcards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Topic,
    Filter,
    Bad,
}

pub(crate) fn kind(topic: &str) -> Kind {
    let levels: Vec<&str> = topic.split('/').collect();
    let has_wildcard = |level: &str| level.contains(['+', '#']);
    let is_good = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at + 1 == levels.len(),
        level => !has_wildcard(level),
    };
    if !has_wildcard(topic) {
        Kind::Topic
    } else if levels.iter().enumerate().all(is_good) {
        Kind::Filter
    } else {
        Kind::Bad
    }
}

pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    fn all(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) | ([], []) => true,
            ([level, filter @ ..], [same, topic @ ..]) => {
                (*level == "+" || level == same) && all(filter, topic)
            }
            _ => false,
        }
    }
    let [filter, topic] = [filter, topic].map(|it| it.split('/').collect::<Vec<_>>());
    all(&filter, &topic)
}

/// Filters whose wildcards stand in the same places have one shape.
pub(crate) fn shape(filter: &str) -> String {
    let levels = filter.split('/').map(|level| match level {
        "+" | "#" => level,
        _ => "literal",
    });
    levels.collect::<Vec<_>>().join("/")
}
