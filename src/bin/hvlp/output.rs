//! How a received message is printed.

use std::fmt;
use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use hvlp::client::Message;
use jiff::Timestamp;

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// The data as text
    Text,
    /// One object a line
    Json,
    /// The bytes of the data, and nothing else
    Raw,
    /// The data in hexadecimal
    Hex,
}

/// All that decides how messages are printed.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) output: Output,
    /// Replaces `output` for text.
    pub(crate) format: Option<Vec<Piece>>,
    pub(crate) topic: bool,
    pub(crate) newline: bool,
    /// Escape what a terminal would act on.
    pub(crate) escape: bool,
}

/// A part of a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(String),
    Topic,
    Payload,
    Hex,
    Len,
    IsoTime,
    UnixTime,
    Number,
}

impl Layout {
    /// Prints the `number`-th message.
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        number: u64,
        message: &Message,
    ) -> io::Result<()> {
        if let Some(pieces) = &self.format {
            for piece in pieces {
                self.write_piece(out, piece, number, message)?;
            }
            return self.end_line(out);
        }
        match self.output {
            Output::Json => return write_json(out, number, message),
            Output::Raw => return out.write_all(message.data()),
            Output::Text | Output::Hex => {}
        }
        if self.topic {
            self.write_bytes(out, message.topic().as_bytes())?;
            out.write_all(b" ")?;
        }
        match self.output {
            Output::Hex => write!(out, "{}", Hex(message.data()))?,
            _ => self.write_bytes(out, message.data())?,
        }
        self.end_line(out)
    }

    fn write_piece(
        &self,
        out: &mut impl Write,
        piece: &Piece,
        number: u64,
        message: &Message,
    ) -> io::Result<()> {
        match piece {
            Piece::Literal(text) => out.write_all(text.as_bytes()),
            Piece::Topic => self.write_bytes(out, message.topic().as_bytes()),
            Piece::Payload => self.write_bytes(out, message.data()),
            Piece::Hex => write!(out, "{}", Hex(message.data())),
            Piece::Len => write!(out, "{}", message.data().len()),
            Piece::IsoTime => write!(out, "{:.6}", Timestamp::now()),
            Piece::UnixTime => {
                let now = Timestamp::now().as_microsecond();
                write!(out, "{}.{:06}", now / 1_000_000, now % 1_000_000)
            }
            Piece::Number => write!(out, "{number}"),
        }
    }

    fn write_bytes(&self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        if self.escape {
            write!(out, "{}", Escaped(bytes))
        } else {
            out.write_all(bytes)
        }
    }

    fn end_line(&self, out: &mut impl Write) -> io::Result<()> {
        if self.newline {
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// Reads a format like `%t: %p\n`.
pub(crate) fn parse_format(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut literal) = (Vec::new(), String::new());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let piece = match (char, char_behind(char, &mut chars)?) {
            ('%', Some('t')) => Piece::Topic,
            ('%', Some('p')) => Piece::Payload,
            ('%', Some('x')) => Piece::Hex,
            ('%', Some('l')) => Piece::Len,
            ('%', Some('I')) => Piece::IsoTime,
            ('%', Some('U')) => Piece::UnixTime,
            ('%', Some('n')) => Piece::Number,
            (_, Some(escaped)) => {
                literal.push(escape_of(char, escaped)?);
                continue;
            }
            (plain, None) => {
                literal.push(plain);
                continue;
            }
        };
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(piece);
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

/// The second character of a pair that begins with `%` or `\`.
fn char_behind(char: char, chars: &mut std::str::Chars<'_>) -> Result<Option<char>, String> {
    match char {
        '%' | '\\' => match chars.next() {
            None => Err(format!("{char} at the end: write {char}{char}")),
            behind => Ok(behind),
        },
        _ => Ok(None),
    }
}

fn escape_of(char: char, escaped: char) -> Result<char, String> {
    match (char, escaped) {
        ('%', '%') => Ok('%'),
        ('\\', '\\') => Ok('\\'),
        ('\\', 'n') => Ok('\n'),
        ('\\', 't') => Ok('\t'),
        ('\\', '0') => Ok('\0'),
        _ => Err(format!(
            "{char}{escaped} has no meaning; there are %t %p %x %l %I %U %n %% \\n \\t \\0 \\\\"
        )),
    }
}

/// The line of `-o json`, whose keys and order are stable.
fn write_json(out: &mut impl Write, number: u64, message: &Message) -> io::Result<()> {
    write!(out, "{{\"ts\":\"{:.6}\",\"n\":{number}", Timestamp::now())?;
    out.write_all(b",\"topic\":")?;
    serde_json::to_writer(&mut *out, message.topic())?;
    if let Ok(text) = str::from_utf8(message.data()) {
        out.write_all(b",\"data\":")?;
        serde_json::to_writer(&mut *out, text)?;
    } else {
        write!(out, ",\"data_b64\":\"{}\"", STANDARD.encode(message.data()))?;
    }
    out.write_all(b"}\n")
}

/// A line for people, on standard error. Nobody need be there to read it: that is no failure.
pub(crate) fn talk(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Bytes in hexadecimal, without gaps.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Text that a terminal only shows: whatever would move the cursor, change colours or turn the
/// reading direction is written as an escape.
pub(crate) struct Escaped<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for char in chunk.valid().chars() {
                if is_nasty(char) {
                    write!(f, "{}", char.escape_default())?;
                } else {
                    write!(f, "{char}")?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn is_nasty(char: char) -> bool {
    let turns = matches!(char, '\u{200E}' | '\u{200F}' | '\u{2066}'..='\u{2069}');
    let breaks = matches!(char, '\u{2028}'..='\u{202E}' | '\u{FEFF}');
    char.is_control() || turns || breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a8_what_a_terminal_would_act_on_is_escaped() {
        let nasty = "21.5 °C\x1b[31m\0\n\u{202E}\u{FEFF}e\u{301}".as_bytes();
        let shown = Escaped(&[nasty, &[0xFF]].concat()).to_string();
        let expected = "21.5 °C\\u{1b}[31m\\u{0}\\n\\u{202e}\\u{feff}e\u{301}\\xff";
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_format_is_read_once_and_its_mistakes_are_named() {
        let pieces = parse_format("%t: %p%%\\n").unwrap();
        let literal = |text: &str| Piece::Literal(text.into());
        assert_eq!(
            pieces,
            [Piece::Topic, literal(": "), Piece::Payload, literal("%\n")]
        );
        for wrong in ["%z", "\\q", "100%", "\\"] {
            assert!(parse_format(wrong).is_err(), "{wrong}");
        }
    }
}
