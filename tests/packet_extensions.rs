//! The vectors of `tests/vectors/extensions.json`, run against this codec: what an extended CONNECT
//! asks for, and what a broker answers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use hvlp::packet::{
    Answer, EncodeError, Extensions, Frame, Hello, MalformedHello, Packet, PacketError, Reason,
    Status,
};

#[test]
fn every_vector_has_its_meaning_and_encodes_to_its_bytes() {
    for case in cases() {
        let bytes = bytes_of(&case["bytes"]);
        let (frame, rest) = Frame::split_first(&bytes).unwrap();
        let name = &case["name"];
        assert!(rest.is_empty(), "{name}");
        if !case["hello"].is_null() {
            let hello = Hello::parse(frame.payload());
            assert_eq!(hello_as_json(hello), case["hello"], "{name}");
            if let Some(Ok(hello)) = hello {
                assert_eq!(hello.to_frame().unwrap().bytes(), bytes, "{name}");
            }
        } else if !case["answer"].is_null() {
            let answer = Answer::of(frame);
            assert_eq!(answer_as_json(answer), case["answer"], "{name}");
            if let Some(answer) = answer {
                assert_eq!(answer.to_frame().unwrap().bytes(), bytes, "{name}");
            }
        } else {
            assert_eq!(request_as_json(frame.packet()), case["request"], "{name}");
        }
    }
}

#[test]
fn what_does_not_fit_into_a_connect_is_refused() {
    let hello = |user: Option<&'static str>, secret: usize| Hello {
        user,
        secret: Some(&[b's'; 300][..secret]),
        ..Hello::default()
    };
    let (fits, too_long) = (hello(Some("user"), 244), hello(Some("user"), 245));
    assert_eq!(fits.to_frame().unwrap().bytes().len(), 257);
    let payload_too_long = |len| Err(EncodeError::PayloadTooLong { len });
    assert_eq!(too_long.to_frame(), payload_too_long(256));
    assert_eq!(hello(Some("user"), 256).to_frame(), payload_too_long(256));
    assert_eq!(
        hello(None, 1).to_frame(),
        Err(EncodeError::SecretWithoutUser)
    );
}

#[test]
fn sets_statuses_and_reasons_are_words_for_people() {
    let texts = [
        (Extensions::NONE.to_string(), "none"),
        ((Extensions::ACK | Extensions::ECHO).to_string(), "ack+echo"),
        (Status::NotAuthorised.to_string(), "not authorised"),
        (Status::of(9).to_string(), "status 9"),
        (Reason::SlowConsumer.to_string(), "slow consumer"),
        (MalformedHello.to_string(), "malformed extended CONNECT"),
    ];
    for (text, expected) in texts {
        assert_eq!(text, expected);
    }
    for byte in 0..=u8::MAX {
        assert_eq!(Status::of(byte).byte(), byte);
        assert_eq!(Reason::of(byte).byte(), byte);
    }
}

fn hello_as_json(hello: Option<Result<Hello<'_>, MalformedHello>>) -> Value {
    let hello = match hello {
        None => return json!("none"),
        Some(Err(MalformedHello)) => return json!("malformed"),
        Some(Ok(hello)) => hello,
    };
    let mut fields = json!({"want": hello.want.bits(), "keepalive": hello.keepalive});
    if let Some(user) = hello.user {
        fields["user"] = json!(user);
    }
    if let Some(secret) = hello.secret {
        fields["secret"] = json!(hex(secret));
    }
    fields
}

fn answer_as_json(answer: Option<Answer<'_>>) -> Value {
    match answer {
        None => json!("none"),
        Some(Answer::Hello { have, status }) => {
            json!({"type": "hello", "have": have.bits(), "status": status.byte()})
        }
        Some(Answer::Subscribe { statuses }) => {
            json!({"type": "subscribe", "statuses": hex(statuses)})
        }
        Some(Answer::Unsubscribe { statuses }) => {
            json!({"type": "unsubscribe", "statuses": hex(statuses)})
        }
        Some(Answer::Pong { dropped }) => json!({"type": "pong", "dropped": dropped}),
        Some(Answer::Disconnect { reason, text }) => {
            json!({"type": "disconnect", "reason": reason.byte(), "text": text})
        }
    }
}

fn request_as_json(packet: Result<Packet<'_>, PacketError>) -> Value {
    match packet {
        Ok(Packet::Subscribe { topics } | Packet::Unsubscribe { topics }) => {
            json!(topics.collect::<Vec<_>>())
        }
        Ok(other) => panic!("{other} is no request"),
        Err(_) => json!("malformed"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

fn bytes_of(hex: &Value) -> Vec<u8> {
    let bytes = hex.as_str().unwrap().split_whitespace();
    bytes
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/extensions.json");
    let file: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    file["cases"].as_array().unwrap().clone()
}
