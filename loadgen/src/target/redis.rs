//! The Redis dialect: RESP 2. Publishes are pipelined; their replies are read and dropped.

use super::{Delivery, Template, topic_name};

/// What a subscriber says: one command for all topics.
pub fn subscribe(topics: impl Iterator<Item = usize>) -> Vec<u8> {
    let names: Vec<_> = topics.map(topic_name).collect();
    let mut command = format!("*{}\r\n$9\r\nSUBSCRIBE\r\n", names.len() + 1);
    for name in names {
        command += &format!("${}\r\n{name}\r\n", name.len());
    }
    command.into_bytes()
}

/// How a message is published.
pub fn publish(topic: usize, payload_len: usize) -> Template {
    array("PUBLISH", topic, payload_len)
}

/// How it arrives.
pub fn delivery(topic: usize, payload_len: usize) -> Template {
    array("message", topic, payload_len)
}

/// Splits the first reply or message off `input`; `None` until it is whole.
pub fn split(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let (line, rest) = split_line(input)?;
    let line_len = input.len() - rest.len();
    match line {
        [b':' | b'+', ..] => Some((Delivery::Answer, line_len)),
        [b'-', ..] => Some((Delivery::Complaint(line), line_len)),
        b"*3" => match split_push(rest) {
            Ok(push) => push.map(|(delivery, rest)| (delivery, input.len() - rest.len())),
            Err(Nonsense) => Some((Delivery::Other, line_len)),
        },
        _ => Some((Delivery::Other, line_len)),
    }
}

/// `PUBLISH topic payload` and `message topic payload` are built alike.
fn array(verb: &str, topic: usize, payload_len: usize) -> Template {
    let (verb_len, topic) = (verb.len(), topic_name(topic));
    let topic_len = topic.len();
    let head =
        format!("*3\r\n${verb_len}\r\n{verb}\r\n${topic_len}\r\n{topic}\r\n${payload_len}\r\n");
    Template::new(head.as_bytes(), payload_len, b"\r\n")
}

/// What no server sends.
struct Nonsense;

/// What was wanted and what follows; `Ok(None)` until it is whole.
type Split<'a, T> = Result<Option<(T, &'a [u8])>, Nonsense>;

/// What a subscriber is sent, behind its `*3`.
fn split_push(input: &[u8]) -> Split<'_, Delivery<'_>> {
    let Some((kind, rest)) = split_bulk(input)? else {
        return Ok(None);
    };
    let Some((topic, rest)) = split_bulk(rest)? else {
        return Ok(None);
    };
    if kind == b"subscribe" {
        return Ok(split_line(rest).map(|(_count, rest)| (Delivery::Answer, rest)));
    }
    let Some((payload, rest)) = split_bulk(rest)? else {
        return Ok(None);
    };
    let delivery = match kind {
        b"message" => Delivery::Message { topic, payload },
        _ => Delivery::Other,
    };
    Ok(Some((delivery, rest)))
}

/// A string with its length before it.
fn split_bulk(input: &[u8]) -> Split<'_, &[u8]> {
    let Some((line, rest)) = split_line(input) else {
        return Ok(None);
    };
    let digits = line.strip_prefix(b"$").ok_or(Nonsense)?;
    let digits = str::from_utf8(digits).map_err(|_| Nonsense)?;
    let len: u16 = digits.parse().map_err(|_| Nonsense)?;
    match rest.split_at_checked(usize::from(len)) {
        Some((bulk, [b'\r', b'\n', rest @ ..])) => Ok(Some((bulk, rest))),
        Some((_, [] | [b'\r'])) | None => Ok(None),
        Some(_) => Err(Nonsense),
    }
}

fn split_line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&input[..end], &input[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        assert_eq!(
            subscribe([0, 31].into_iter()),
            b"*3\r\n$9\r\nSUBSCRIBE\r\n$5\r\nt0000\r\n$5\r\nt001f\r\n"
        );
        let template = publish(0x1f, 3);
        let head = b"*3\r\n$7\r\nPUBLISH\r\n$5\r\nt001f\r\n$3\r\n";
        assert_eq!(template.bytes, [&head[..], b"\0\0\0\r\n"].concat());
        assert_eq!(template.payload_at, head.len());
    }

    #[test]
    fn a_delivery_splits_into_topic_and_payload_wherever_it_is_cut() {
        let template = delivery(0x1f, 3);
        let expected = b"*3\r\n$7\r\nmessage\r\n$5\r\nt001f\r\n$3\r\n\0\0\0\r\n";
        assert_eq!(template.bytes, expected);
        let message = Delivery::Message {
            topic: b"t001f",
            payload: &[0, 0, 0],
        };
        for cut in 0..expected.len() {
            assert_eq!(split(&expected[..cut]), None, "{cut}");
        }
        let followed = [&expected[..], b"*3"].concat();
        assert_eq!(split(&followed), Some((message, expected.len())));
    }

    #[test]
    fn replies_are_told_apart() {
        for (reply, delivery) in [
            (&b":100\r\n"[..], Delivery::Answer),
            (b"+OK\r\n", Delivery::Answer),
            (
                b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n",
                Delivery::Answer,
            ),
            (b"-ERR no\r\n", Delivery::Complaint(b"-ERR no")),
            (
                b"*3\r\n$5\r\nwhat?\r\n$1\r\na\r\n$1\r\nb\r\n",
                Delivery::Other,
            ),
            (b"*2\r\n", Delivery::Other),
        ] {
            assert_eq!(split(reply), Some((delivery, reply.len())));
        }
        assert_eq!(split(b"*3\r\n:1\r\n"), Some((Delivery::Other, 4)));
        assert_eq!(split(b"*3\r\n$1\r\nabc"), Some((Delivery::Other, 4)));
    }
}
