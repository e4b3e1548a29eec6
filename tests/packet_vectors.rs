//! The conformance vectors of `tests/vectors/`, run against this codec.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use hvlp::packet::{EncodeError, Frame, FrameBuf, Packet, PacketError};

const FILES: [&str; 6] = ["protocol", "sizes", "topics", "utf8", "stream", "encode"];

/// One frame of a vector: its bytes, and its meaning as the vectors spell it.
#[derive(Debug, PartialEq)]
struct Decoded {
    bytes: Vec<u8>,
    meaning: Value,
}

#[test]
fn every_vector_decodes_to_its_meaning() {
    for case in decode_cases() {
        let (decoded, rest) = decode(&bytes_of(&case, "bytes"));
        let meanings: Vec<_> = decoded.into_iter().map(|frame| frame.meaning).collect();
        assert_eq!(Value::Array(meanings), case["frames"], "{}", case["name"]);
        assert_eq!(rest, bytes_of(&case, "rest"), "{}", case["name"]);
    }
}

#[test]
fn every_vector_cut_at_any_byte_gives_the_same_frames() {
    for case in decode_cases() {
        let bytes = bytes_of(&case, "bytes");
        let whole = decode(&bytes);
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            let name = &case["name"];
            assert_eq!(decode_parts([first, second]), whole, "{name} at {cut}");
        }
    }
}

#[test]
fn every_vector_byte_by_byte_gives_the_same_frames() {
    for case in decode_cases() {
        let bytes = bytes_of(&case, "bytes");
        assert_eq!(
            decode_parts(bytes.chunks(1)),
            decode(&bytes),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn no_prefix_of_a_frame_has_a_meaning() {
    for case in decode_cases() {
        for frame in decode(&bytes_of(&case, "bytes")).0 {
            for cut in 0..frame.bytes.len() {
                let prefix = &frame.bytes[..cut];
                assert_eq!(
                    Packet::decode(prefix),
                    Ok(None),
                    "{} at {cut}",
                    case["name"]
                );
            }
        }
    }
}

#[test]
fn every_packet_of_a_vector_encodes_to_its_own_frame() {
    for case in decode_cases() {
        for frame in decode(&bytes_of(&case, "bytes")).0 {
            let Ok(Some((packet, []))) = Packet::decode(&frame.bytes) else {
                continue; // malformed, so there is nothing to encode
            };
            let encoded = packet.encode().unwrap();
            assert_eq!(encoded.bytes(), frame.bytes, "{}", case["name"]);
            assert_eq!(packet.encoded_len(), frame.bytes.len(), "{}", case["name"]);
            let built = build(&frame.meaning).unwrap();
            assert_eq!(built.bytes(), frame.bytes, "{}", case["name"]);
        }
    }
}

#[test]
fn every_encode_vector_gives_its_bytes_or_is_refused() {
    for case in cases().into_iter().filter(|case| !case["encode"].is_null()) {
        let name = &case["name"];
        match build(&case["encode"]) {
            Ok(frame) => assert_eq!(frame.bytes(), bytes_of(&case, "bytes"), "{name}"),
            Err(error) => assert_eq!(refusal(error), case["refused"], "{name}"),
        }
    }
}

#[test]
fn packets_print_as_people_read_them() {
    let texts = [
        ("01 00", "CONNECT payload=[]"),
        ("02 01 ff", "DISCONNECT payload=[ff]"),
        ("03 05 01 61 02 62 63", r#"SUBSCRIBE topics=["a", "bc"]"#),
        ("04 00", "UNSUBSCRIBE topics=[]"),
        ("05 04 01 61 aa 55", r#"PUBLISH topic="a" data=[aa 55]"#),
        (
            "05 05 04 0a 1b 22 00",
            r#"PUBLISH topic="\n\u{1b}\"\0" data=[]"#,
        ),
        (
            "05 05 04 f0 9f 98 80",
            "PUBLISH topic=\"\u{1f600}\" data=[]",
        ),
        ("07 02 01 02", "UNKNOWN id=7 payload=[01 02]"),
    ];
    for (hex, text) in texts {
        let bytes = bytes_of_hex(hex);
        let (packet, rest) = Packet::decode(&bytes).unwrap().unwrap();
        assert_eq!((packet.to_string().as_str(), rest), (text, &[][..]));
    }
}

#[test]
fn a_known_id_is_no_unknown_packet() {
    for id in 1..=5 {
        let packet = Packet::Unknown { id, payload: &[] };
        assert_eq!(packet.encode(), Err(EncodeError::KnownId { id }));
    }
}

#[test]
fn only_a_list_takes_topics() {
    let mut publish = FrameBuf::publish("a", b"x").unwrap();
    assert_eq!(
        publish.push_topic("b"),
        Err(EncodeError::NotAList { id: 5 })
    );
    let mut list = FrameBuf::subscribe(["a"]).unwrap();
    list.push_topic("bc").unwrap();
    assert_eq!(list.bytes(), [3, 5, 1, b'a', 2, b'b', b'c']);
}

#[test]
fn the_vectors_are_many_named_once_and_of_two_kinds() {
    let cases = cases();
    let names: BTreeSet<_> = cases
        .iter()
        .map(|case| case["name"].as_str().unwrap())
        .collect();
    assert_eq!(names.len(), cases.len(), "a name is used twice");
    assert!(cases.len() >= 200, "only {} cases", cases.len());
    for case in &cases {
        let decodes = case["frames"].is_array() && case["bytes"].is_string();
        let encodes = case["encode"].is_object()
            && (case["bytes"].is_string() != case["refused"].is_string());
        assert!(decodes != encodes, "{} is neither or both", case["name"]);
    }
}

/// All cases of all files; a file in the directory that is not listed here is a mistake.
fn cases() -> Vec<Value> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let on_disk = fs::read_dir(&directory).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        // Extensions have a runner of their own.
        path.extension().is_some_and(|kind| kind == "json") && !path.ends_with("extensions.json")
    });
    assert_eq!(
        on_disk.count(),
        FILES.len(),
        "list every file of tests/vectors in FILES"
    );

    let mut cases = Vec::new();
    for file in FILES {
        let text = fs::read_to_string(directory.join(file).with_extension("json")).unwrap();
        assert!(
            text.is_ascii(),
            "{file}.json: write \\u escapes, editors normalise characters"
        );
        let document: Value = serde_json::from_str(&text).unwrap();
        cases.extend(document["cases"].as_array().unwrap().iter().cloned());
    }
    cases
}

fn decode_cases() -> impl Iterator<Item = Value> {
    cases().into_iter().filter(|case| case["encode"].is_null())
}

/// The bytes under `key`; none if the key is absent.
fn bytes_of(value: &Value, key: &str) -> Vec<u8> {
    value[key].as_str().map(bytes_of_hex).unwrap_or_default()
}

fn bytes_of_hex(hex: &str) -> Vec<u8> {
    hex.split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

fn hex_of(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

fn decode(bytes: &[u8]) -> (Vec<Decoded>, Vec<u8>) {
    decode_parts([bytes])
}

/// Decodes a stream that arrives in parts, as a receiver does: whole frames leave its buffer.
fn decode_parts<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Decoded>, Vec<u8>) {
    let mut buffer = Vec::new();
    let mut decoded = Vec::new();
    for part in parts {
        buffer.extend_from_slice(part);
        while let Some((frame, rest)) = Frame::split_first(&buffer) {
            decoded.push(Decoded {
                bytes: frame.bytes().to_vec(),
                meaning: meaning(frame.packet()),
            });
            buffer = rest.to_vec();
        }
    }
    (decoded, buffer)
}

fn meaning(packet: Result<Packet<'_>, PacketError>) -> Value {
    let packet = match packet {
        Ok(packet) => packet,
        Err(error) => return serde_json::json!({ "error": error.name() }),
    };
    let name = packet.name().to_lowercase();
    match packet {
        Packet::Connect { payload } | Packet::Disconnect { payload } => {
            serde_json::json!({ "type": name, "payload": hex_of(payload) })
        }
        Packet::Subscribe { topics } | Packet::Unsubscribe { topics } => {
            serde_json::json!({ "type": name, "topics": topics.collect::<Vec<_>>() })
        }
        Packet::Publish { topic, data } => {
            serde_json::json!({ "type": name, "topic": topic, "data": hex_of(data) })
        }
        Packet::Unknown { id, payload } => {
            serde_json::json!({ "type": name, "id": id, "payload": hex_of(payload) })
        }
    }
}

/// Encodes from the parts that an application has in hand, not from a decoded packet.
fn build(packet: &Value) -> Result<FrameBuf, EncodeError> {
    let payload = bytes_of(packet, "payload");
    match packet["type"].as_str().unwrap() {
        "connect" => FrameBuf::connect(&payload),
        "disconnect" => FrameBuf::disconnect(&payload),
        "subscribe" => FrameBuf::subscribe(topics_of(packet)),
        "unsubscribe" => FrameBuf::unsubscribe(topics_of(packet)),
        "publish" => {
            FrameBuf::publish(packet["topic"].as_str().unwrap(), &bytes_of(packet, "data"))
        }
        "unknown" => {
            let id = u8::try_from(packet["id"].as_u64().unwrap()).unwrap();
            Packet::Unknown {
                id,
                payload: &payload,
            }
            .encode()
        }
        other => panic!("{other} is no kind of packet"),
    }
}

fn topics_of(packet: &Value) -> impl Iterator<Item = &str> {
    packet["topics"]
        .as_array()
        .unwrap()
        .iter()
        .map(|topic| topic.as_str().unwrap())
}

fn refusal(error: EncodeError) -> &'static str {
    match error {
        EncodeError::SecretWithoutUser => unreachable!("of an extended CONNECT alone"),
        EncodeError::PayloadTooLong { .. } => "payload_too_long",
        EncodeError::TopicTooLong { .. } => "topic_too_long",
        EncodeError::ListTooLong { .. } => "list_too_long",
        EncodeError::MessageTooLong { .. } => "message_too_long",
        EncodeError::KnownId { .. } => "known_id",
        EncodeError::NotAList { .. } => "not_a_list",
    }
}
