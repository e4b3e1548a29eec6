//! What can be typed into the shell: one table of commands, and the way from a line to one of them.

use std::fmt;

use hvlp::address::Address;

use crate::publish::parse_hex;

/// A line that has a meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Open(Option<Address>),
    Connect(Vec<u8>),
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Publish { topic: String, data: Vec<u8> },
    Send(Vec<u8>),
    Disconnect,
    Close,
    Config(Option<Setting>),
    Sniffer(Option<bool>),
    Help(Option<String>),
    Quit,
}

/// What `config` can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Server(Address),
    Host(String),
    Port(u16),
}

/// The names, how they are used, and what they do; `help` prints just this.
pub(super) const COMMANDS: [(&str, &str, &str); 12] = [
    (
        "open",
        "open [ADDRESS]",
        "connect the socket, and send nothing yet",
    ),
    (
        "connect",
        "connect [PAYLOAD]",
        "send CONNECT, after opening the socket if need be",
    ),
    (
        "subscribe",
        "subscribe TOPIC...",
        "receive the messages of these topics",
    ),
    (
        "unsubscribe",
        "unsubscribe TOPIC...",
        "receive them no more",
    ),
    (
        "publish",
        "publish TOPIC [TEXT | -x HEX]",
        "send one message, `publish a -x aa 55` as bytes",
    ),
    (
        "send",
        "send HEX...",
        "send any bytes as they are: `send 05 02 01 61`",
    ),
    (
        "disconnect",
        "disconnect",
        "send DISCONNECT, and close when the broker has everything",
    ),
    ("close", "close", "close the socket without DISCONNECT"),
    (
        "config",
        "config [server URL | host HOST | port PORT]",
        "show or change where to connect to",
    ),
    (
        "sniffer",
        "sniffer [on | off]",
        "show every packet, in both directions",
    ),
    (
        "help",
        "help [COMMAND]",
        "list the commands, or explain one",
    ),
    (
        "quit",
        "quit",
        "disconnect and leave; so does the end of input",
    ),
];

/// What is wrong with a line. Each tells what to type instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    Unknown { name: String },
    Arguments { usage: &'static str },
    PayloadFormat { text: String },
    Quote,
    Address(String),
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(f, "there is no command {name:?}")?;
                match nearest(name) {
                    Some(nearest) => write!(f, "; did you mean {nearest}?"),
                    None => write!(f, "; help lists them"),
                }
            }
            Self::Arguments { usage } => write!(f, "wrong arguments; write: {usage}"),
            Self::PayloadFormat { text } => write!(
                f,
                "{text:?} is no byte sequence; write two hexadecimal digits a byte, as in aa 55"
            ),
            Self::Quote => f.write_str("a quote is not closed"),
            Self::Address(error) => f.write_str(error),
        }
    }
}

/// Reads a line; `None` for an empty one.
pub(super) fn parse(line: &str) -> Result<Option<Command>, CommandError> {
    let words = split_words(line)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((&name, arguments)) = words.split_first() else {
        return Ok(None);
    };
    let command = match (name, arguments) {
        ("open", []) => Command::Open(None),
        ("open", [address]) => Command::Open(Some(parse_address(address)?)),
        ("connect", payload) => Command::Connect(payload.join(" ").into_bytes()),
        ("subscribe", [_, ..]) => Command::Subscribe(owned(arguments)),
        ("unsubscribe", [_, ..]) => Command::Unsubscribe(owned(arguments)),
        ("publish", [topic, "-x", bytes @ ..]) => Command::Publish {
            topic: (*topic).into(),
            data: bytes_of(bytes)?,
        },
        ("publish", [topic, text @ ..]) => Command::Publish {
            topic: (*topic).into(),
            data: text.join(" ").into_bytes(),
        },
        ("send", [_, ..]) => Command::Send(bytes_of(arguments)?),
        ("disconnect", []) => Command::Disconnect,
        ("close", []) => Command::Close,
        ("config", []) => Command::Config(None),
        ("config", [key, value]) => Command::Config(Some(parse_setting(key, value)?)),
        ("sniffer", []) => Command::Sniffer(None),
        ("sniffer", ["on"]) => Command::Sniffer(Some(true)),
        ("sniffer", ["off"]) => Command::Sniffer(Some(false)),
        ("help", []) => Command::Help(None),
        ("help", [topic]) => Command::Help(Some((*topic).into())),
        ("quit" | "exit", []) => Command::Quit,
        _ => return Err(refuse(name)),
    };
    Ok(Some(command))
}

/// The usage of a command.
pub(super) fn usage(name: &str) -> Option<(&'static str, &'static str)> {
    let found = COMMANDS.iter().find(|(command, ..)| *command == name);
    found.map(|&(_, usage, meaning)| (usage, meaning))
}

fn refuse(name: &str) -> CommandError {
    match usage(name) {
        Some((usage, _)) => CommandError::Arguments { usage },
        None => CommandError::Unknown { name: name.into() },
    }
}

fn parse_setting(key: &str, value: &str) -> Result<Setting, CommandError> {
    match key {
        "server" => Ok(Setting::Server(parse_address(value)?)),
        "host" => Ok(Setting::Host(value.into())),
        "port" => match value.parse() {
            Ok(port) => Ok(Setting::Port(port)),
            Err(_) => Err(CommandError::Address(format!(
                "{value:?} is no port; a port is 1 to 65535"
            ))),
        },
        _ => Err(refuse("config")),
    }
}

fn parse_address(text: &str) -> Result<Address, CommandError> {
    text.parse()
        .map_err(|error| CommandError::Address(format!("{error}")))
}

fn bytes_of(words: &[&str]) -> Result<Vec<u8>, CommandError> {
    let text = words.join(" ");
    parse_hex(text.as_bytes()).ok_or(CommandError::PayloadFormat { text })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).into()).collect()
}

/// Splits at spaces; quotes keep a word together, `""` is an empty one.
fn split_words(line: &str) -> Result<Vec<String>, CommandError> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for char in line.chars() {
        match (char, quote) {
            (_, Some(open)) if char == open => quote = None,
            ('"' | '\'', None) => {
                word.get_or_insert_default();
                quote = Some(char);
            }
            (_, None) if char.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(char),
        }
    }
    if quote.is_some() {
        return Err(CommandError::Quote);
    }
    words.extend(word);
    Ok(words)
}

/// The command that a mistyped one may have been: the same beginning, or one letter off.
fn nearest(name: &str) -> Option<&'static str> {
    let mut names = COMMANDS.iter().map(|&(command, ..)| command);
    names.find(|command| {
        let is_start = name.len() >= 2 && command.starts_with(name);
        is_start || strsim::damerau_levenshtein(command, name) <= 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_of_the_table_is_understood_and_has_its_usage_error() {
        for (name, ..) in COMMANDS {
            let misused = format!("{name} \"");
            assert_eq!(parse(&misused), Err(CommandError::Quote));
            let line = match name {
                "subscribe" | "unsubscribe" | "publish" => format!("{name} a"),
                "send" => format!("{name} 01 00"),
                _ => name.into(),
            };
            assert!(matches!(parse(&line), Ok(Some(_))), "{line}");
        }
        for line in [
            "subscribe",
            "send",
            "close now",
            "config port",
            "sniffer maybe",
        ] {
            assert!(
                matches!(parse(line), Err(CommandError::Arguments { .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn words_may_be_quoted_and_bytes_are_hexadecimal() {
        let publish = |topic: &str, data: &[u8]| {
            let (topic, data) = (topic.into(), data.into());
            Ok(Some(Command::Publish { topic, data }))
        };
        assert_eq!(parse("publish a 1 2"), publish("a", b"1 2"));
        assert_eq!(parse("publish 'a b' \"1  2\""), publish("a b", b"1  2"));
        assert_eq!(parse("publish \"\" -x aa 55"), publish("", &[0xAA, 0x55]));
        assert_eq!(parse("  "), Ok(None));
        let wrong = CommandError::PayloadFormat { text: "zz".into() };
        assert_eq!(parse("send zz"), Err(wrong));
    }

    #[test]
    fn a_mistyped_command_is_answered_with_the_nearest() {
        for (typed, meant) in [
            ("sub", "subscribe"),
            ("publsh", "publish"),
            ("hlep", "help"),
        ] {
            let error = parse(typed).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("did you mean {meant}?")),
                "{error}"
            );
        }
        let error = parse("fly").unwrap_err().to_string();
        assert!(error.ends_with("help lists them"), "{error}");
    }
}
