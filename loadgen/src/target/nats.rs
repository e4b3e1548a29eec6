//! The NATS dialect: lines of text, and payloads of a length that their line says.
//!
//! A subscription's id is its topic's number, so that a delivery's bytes are known beforehand.

use super::{Delivery, Template, topic_name};

/// The answer to PING, without which the server hangs up.
pub const PONG: &[u8] = b"PONG\r\n";

/// What a connection says first; the server's INFO is not waited for.
pub fn greeting() -> Vec<u8> {
    let options = concat!(
        r#"{"verbose":false,"pedantic":false,"tls_required":false,"headers":false,"#,
        r#""no_responders":false,"echo":true,"protocol":1,"lang":"rust","#,
        r#""name":"hvlp-loadgen","version":""#,
        env!("CARGO_PKG_VERSION"),
        r#""}"#
    );
    format!("CONNECT {options}\r\n").into_bytes()
}

/// What a subscriber says next.
pub fn subscribe(topics: impl Iterator<Item = usize>) -> Vec<u8> {
    let line = |topic| format!("SUB {} {topic}\r\n", topic_name(topic));
    topics.map(line).collect::<String>().into_bytes()
}

/// How a message is published.
pub fn publish(topic: usize, payload_len: usize) -> Template {
    let line = format!("PUB {} {payload_len}\r\n", topic_name(topic));
    Template::new(line.as_bytes(), payload_len, b"\r\n")
}

/// How it arrives.
pub fn delivery(topic: usize, payload_len: usize) -> Template {
    let line = format!("MSG {} {topic} {payload_len}\r\n", topic_name(topic));
    Template::new(line.as_bytes(), payload_len, b"\r\n")
}

/// Splits the first line, or message, off `input`; `None` until it is whole.
pub fn split(input: &[u8]) -> Option<(Delivery<'_>, usize)> {
    let line_len = input.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, behind) = (&input[..line_len], &input[line_len + 2..]);
    let line_len = line_len + 2;
    if line.starts_with(b"MSG ") {
        let Some((topic, payload_len)) = message_line(&line[4..]) else {
            return Some((Delivery::Other, line_len));
        };
        let payload = behind.get(..payload_len)?;
        let len = line_len + payload_len + 2;
        let closed = input.get(len - 2..len)? == b"\r\n";
        let delivery = match closed {
            true => Delivery::Message { topic, payload },
            false => Delivery::Other,
        };
        return Some((delivery, len));
    }
    let delivery = match line {
        b"PING" => Delivery::Ping,
        b"PONG" | b"+OK" => Delivery::Answer,
        line if line.starts_with(b"INFO ") => Delivery::Answer,
        line if line.starts_with(b"-ERR") => Delivery::Complaint(line),
        _ => Delivery::Other,
    };
    Some((delivery, line_len))
}

/// Topic and length of `topic id length`.
fn message_line(line: &[u8]) -> Option<(&[u8], usize)> {
    let mut words = line.split(|&byte| byte == b' ');
    let (topic, _id, len) = (words.next()?, words.next()?, words.next()?);
    let len: u16 = str::from_utf8(len).ok()?.parse().ok()?;
    words.next().is_none().then_some((topic, len.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_the_protocols_text() {
        let greeting = String::from_utf8(greeting()).unwrap();
        assert!(
            greeting.starts_with(r#"CONNECT {"verbose":false,"#),
            "{greeting}"
        );
        assert!(greeting.ends_with("\"}\r\n"), "{greeting}");
        assert_eq!(
            subscribe([0, 31].into_iter()),
            b"SUB t0000 0\r\nSUB t001f 31\r\n"
        );
        let template = publish(0x1f, 3);
        assert_eq!(template.bytes, b"PUB t001f 3\r\n\0\0\0\r\n");
        assert_eq!(template.payload_at, 13);
    }

    #[test]
    fn a_delivery_splits_into_topic_and_payload_wherever_it_is_cut() {
        let template = delivery(0x1f, 3);
        assert_eq!(template.bytes, b"MSG t001f 31 3\r\n\0\0\0\r\n");
        let message = Delivery::Message {
            topic: b"t001f",
            payload: &[0, 0, 0],
        };
        let len = template.bytes.len();
        for cut in 0..len {
            assert_eq!(split(&template.bytes[..cut]), None, "{cut}");
        }
        let followed = [&template.bytes[..], b"MSG"].concat();
        assert_eq!(split(&followed), Some((message, len)));
    }

    #[test]
    fn a_payload_may_look_like_the_end_of_a_line() {
        let message = Delivery::Message {
            topic: b"a",
            payload: b"\r\n\r\n",
        };
        assert_eq!(split(b"MSG a 1 4\r\n\r\n\r\n\r\n"), Some((message, 17)));
    }

    #[test]
    fn other_lines_are_told_apart() {
        for (line, delivery) in [
            (&b"PING\r\n"[..], Delivery::Ping),
            (b"PONG\r\n", Delivery::Answer),
            (b"+OK\r\n", Delivery::Answer),
            (b"INFO {\"max_payload\":1}\r\n", Delivery::Answer),
            (
                b"-ERR 'Slow Consumer'\r\n",
                Delivery::Complaint(b"-ERR 'Slow Consumer'"),
            ),
            (b"MSG a 1\r\n", Delivery::Other),
            (b"MSG a 1 x\r\n", Delivery::Other),
            (b"MSG a 1 1\r\nxyz", Delivery::Other),
            (b"what\r\n", Delivery::Other),
        ] {
            assert_eq!(split(line), Some((delivery, line.len())));
        }
    }
}
