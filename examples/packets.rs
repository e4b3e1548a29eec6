//! Packets: each kind is built, turned into bytes and back, and compared.
//!
//! This needs no broker, no client and no `std` in the library:
//!
//! ```sh
//! cargo run --example packets --no-default-features
//! ```

use std::error::Error;

use hvlp::packet::{EncodeError, Frame, FrameBuf, Packet, Topics};

fn main() -> Result<(), Box<dyn Error>> {
    let payload = &[1, 2, 3, 4, 5];
    // A packet of an id that the protocol does not know survives the way there and back.
    there_and_back(&Packet::Unknown { id: 7, payload })?;
    there_and_back(&Packet::Connect { payload })?;
    there_and_back(&Packet::Disconnect { payload })?;

    let list = FrameBuf::subscribe(["welcome", "home"])?;
    let topics = Topics::parse(list.as_frame().payload())?;
    assert!(topics.eq(["welcome", "home"]));
    there_and_back(&Packet::Subscribe { topics })?;
    there_and_back(&Packet::Unsubscribe { topics })?;

    let topic = "welcome";
    there_and_back(&Packet::Publish {
        topic,
        data: &[0xAA, 0x55],
    })?;

    // What does not fit is refused before there are bytes.
    let (topic_len, data_len) = (7, 248);
    let refused = FrameBuf::publish(topic, &vec![0; data_len]);
    let too_long = EncodeError::MessageTooLong {
        topic_len,
        data_len,
    };
    assert_eq!(refused, Err(too_long));
    println!("refused: {too_long}");

    // A stream is split where its frames end, however it arrives.
    let stream = [0x01, 0x00, 0x05, 0x04, 0x01, 0x61, 0xAA, 0x55, 0x05, 0x04];
    let (first, rest) = Frame::split_first(&stream).ok_or("a whole frame")?;
    let (second, rest) = Frame::split_first(rest).ok_or("a whole frame")?;
    assert_eq!(first.packet()?, Packet::Connect { payload: &[] });
    println!("split:   {}", second.packet()?);
    assert!(
        Frame::split_first(rest).is_none(),
        "the third is not whole yet"
    );
    Ok(())
}

/// Packet to bytes and bytes to packet: nothing is lost and nothing is added.
fn there_and_back(packet: &Packet<'_>) -> Result<(), Box<dyn Error>> {
    let frame = packet.encode()?;
    assert_eq!(frame.bytes().len(), packet.encoded_len());
    println!("{packet}\n    {:02x?}", frame.bytes());
    let (decoded, rest) = Packet::decode(frame.bytes())?.ok_or("a whole frame")?;
    assert_eq!(decoded, *packet);
    assert!(rest.is_empty());
    Ok(())
}
