//! `hvlp pub`: messages from the command line, from a file or from standard input.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hvlp::client::{Batch, Client, ClientError};
use hvlp::packet::{EncodeError, Extensions, TOPIC_LEN_MAX};
use jiff::Timestamp;

use super::exit::{Exit, Failure};
use super::output::talk;
use super::server::{Server, duration};

/// Publish one message, or many
#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// What to publish to (DATA if -t gives the topic)
    #[arg(value_name = "TOPIC", allow_negative_numbers = true)]
    first: Option<String>,
    /// What to publish; `-` is all of standard input
    #[arg(value_name = "DATA", allow_negative_numbers = true)]
    second: Option<String>,
    /// The topic
    #[arg(short, long)]
    topic: Option<String>,
    /// The data
    #[arg(
        short,
        long,
        value_name = "DATA",
        group = "source",
        allow_hyphen_values = true
    )]
    message: Option<String>,
    /// All of standard input is one message
    #[arg(long, group = "source")]
    stdin: bool,
    /// Each line of standard input is a message, sent as soon as it is there
    #[arg(short, long, group = "source", conflicts_with_all = ["count", "interval"])]
    lines: bool,
    /// The whole file is one message
    #[arg(short, long, group = "source")]
    file: Option<PathBuf>,
    /// A message without data
    #[arg(short, long, group = "source")]
    null: bool,
    /// The data is written in hexadecimal, as in "aa55" or "aa 55"
    #[arg(long)]
    hex: bool,
    /// Publish it so many times [default: 1, with --interval until interrupted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Wait between two of them
    #[arg(long, value_name = "TIME", value_parser = duration)]
    interval: Option<Duration>,
    /// In the data, {ts} stands for the time and n in braces for the number of the message
    #[arg(long)]
    template: bool,
    /// Wait until the broker has given all of it to those who want it, and say so
    #[arg(long)]
    confirm: bool,
}

impl Publish {
    pub(crate) fn run(&self, server: &Server) -> Result<Exit, Failure> {
        let (topic, source) = self.topic_and_source()?;
        if topic.len() > TOPIC_LEN_MAX {
            let len = topic.len();
            return Err(Failure::Client(EncodeError::TopicTooLong { len }.into()));
        }
        let mut publisher = Publisher {
            topic,
            hex: self.hex,
            template: self.template,
            number: 0,
            batch: Batch::new(),
            confirms: self.confirm.then_some(!server.quiet),
        };
        let data = match source {
            Source::Lines => {
                let client = self.connect(server)?;
                return publisher.publish_lines(client, io::stdin().lock());
            }
            Source::Data(data) => data.into_bytes(),
            Source::Stdin => read_all(io::stdin().lock(), "standard input")?,
            Source::File(path) => read_file(path)?,
        };
        // Before connecting: what does not fit is a usage error, whoever listens.
        publisher.add(&data)?;
        publisher.batch.clear();
        publisher.number = 0;
        let client = self.connect(server)?;
        let count = self.count.unwrap_or(match self.interval {
            Some(_) => u64::MAX,
            None => 1,
        });
        publisher.publish_repeated(client, &data, count, self.interval)
    }

    /// Nothing is published that could not be confirmed if that was asked for.
    fn connect(&self, server: &Server) -> Result<Client, Failure> {
        if !self.confirm {
            return server.connect();
        }
        let client = server.connect_asking(Extensions::ACK)?;
        match client.extensions().contains(Extensions::ACK) {
            true => Ok(client),
            false => Err(Failure::Client(ClientError::NotGranted {
                address: client.broker().clone(),
                missing: Extensions::ACK,
            })),
        }
    }

    fn topic_and_source(&self) -> Result<(&str, Source<'_>), Failure> {
        let (first, second) = (self.first.as_deref(), self.second.as_deref());
        let (topic, word) = match (&self.topic, first, second) {
            (Some(_), Some(_), Some(_)) => return Err(usage("topic twice: TOPIC excludes -t")),
            (Some(topic), word, None) => (topic.as_str(), word),
            (None, Some(topic), word) => (topic, word),
            _ => return Err(usage("which topic? hvlp pub TOPIC DATA")),
        };
        let option = match (&self.message, &self.file) {
            (Some(data), _) => Some(Source::Data(data.clone())),
            (_, Some(path)) => Some(Source::File(path)),
            _ if self.stdin => Some(Source::Stdin),
            _ if self.lines => Some(Source::Lines),
            _ if self.null => Some(Source::Data(String::new())),
            _ => None,
        };
        let source = match (word, option) {
            (Some("-"), None) => Source::Stdin,
            (Some(data), None) => Source::Data(data.into()),
            (None, Some(source)) => source,
            (Some(_), Some(_)) => {
                return Err(usage(
                    "data twice: DATA excludes -m, -l, -f, -n and --stdin",
                ));
            }
            (None, None) => {
                return Err(usage(
                    "publish what? Give DATA, or -l or --stdin (standard input), -f FILE, \
                     -n (no data)",
                ));
            }
        };
        Ok((topic, source))
    }
}

/// Where the data comes from.
enum Source<'a> {
    Data(String),
    File(&'a Path),
    Stdin,
    Lines,
}

/// Turns data into messages, and collects what can go out together.
struct Publisher<'a> {
    topic: &'a str,
    hex: bool,
    template: bool,
    number: u64,
    batch: Batch,
    /// Whether the end is confirmed, and that told.
    confirms: Option<bool>,
}

impl Publisher<'_> {
    fn publish_repeated(
        &mut self,
        mut client: Client,
        data: &[u8],
        count: u64,
        interval: Option<Duration>,
    ) -> Result<Exit, Failure> {
        let mut due = Instant::now();
        for left in (0..count).rev() {
            self.add(data)?;
            if let Some(interval) = interval
                && left > 0
            {
                client.send_batch(&mut self.batch)?;
                // On an absolute schedule, so that the time of sending does not add up.
                due += interval;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            } else if self.batch.bytes_len() >= BATCH_BYTES {
                client.send_batch(&mut self.batch)?;
            }
        }
        self.finish(client)
    }

    /// One message a line, and what is wrong with a line is told with its number.
    fn publish_lines(&mut self, mut client: Client, input: impl Read) -> Result<Exit, Failure> {
        let read = self.send_lines(&mut client, input);
        // The lines before a wrong one were all right.
        let finished = self.finish(client);
        match read {
            Err(Failure::Usage(text)) => {
                Err(Failure::Usage(format!("line {}: {text}", self.number)))
            }
            Err(failure) => Err(failure),
            Ok(()) => finished,
        }
    }

    /// Whatever one read has brought goes out together, so a fast producer gets few system calls
    /// and a slow one's line goes out at once.
    fn send_lines(&mut self, client: &mut Client, mut input: impl Read) -> Result<(), Failure> {
        let mut buffer = vec![0; BATCH_BYTES];
        let mut line_start = Vec::new();
        loop {
            let read = match input.read(&mut buffer) {
                Ok(len) => buffer.get(..len).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(unreadable("standard input", source)),
            };
            if read.is_empty() {
                break;
            }
            let mut lines = read.split(|&byte| byte == b'\n');
            let rest = lines.next_back().unwrap_or_default();
            for line in lines {
                if line_start.is_empty() {
                    self.add(line)?;
                } else {
                    line_start.extend_from_slice(line);
                    self.add(&std::mem::take(&mut line_start))?;
                }
            }
            client.send_batch(&mut self.batch)?;
            line_start.extend_from_slice(rest);
            if line_start.len() > LINE_LEN_MAX {
                self.number += 1;
                return Err(self.too_long(line_start.len()));
            }
        }
        if line_start.is_empty() {
            Ok(())
        } else {
            self.add(&line_start)
        }
    }

    fn finish(&mut self, mut client: Client) -> Result<Exit, Failure> {
        client.send_batch(&mut self.batch)?;
        if let Some(is_told) = self.confirms {
            client.barrier()?;
            if is_told {
                talk(format_args!("confirmed, messages: {}", self.number));
            }
        }
        client.disconnect()?;
        Ok(Exit::Done)
    }

    fn add(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.number += 1;
        let data = self.render(data)?;
        match self.batch.publish(self.topic, &data) {
            Ok(()) => Ok(()),
            Err(EncodeError::MessageTooLong { data_len, .. }) => Err(self.too_long(data_len)),
            Err(error) => Err(Failure::Client(error.into())),
        }
    }

    fn render<'a>(&self, data: &'a [u8]) -> Result<Cow<'a, [u8]>, Failure> {
        let mut data = Cow::Borrowed(data);
        if self.template {
            let text = String::from_utf8_lossy(&data)
                .replace("{n}", &self.number.to_string())
                .replace("{ts}", &format!("{:.6}", Timestamp::now()));
            data = Cow::Owned(text.into_bytes());
        }
        if self.hex {
            let bytes = parse_hex(&data).ok_or_else(|| {
                usage("--hex takes pairs of hexadecimal digits, as in \"aa55\" or \"aa 55\"")
            })?;
            data = Cow::Owned(bytes);
        }
        Ok(data)
    }

    fn too_long(&self, len: usize) -> Failure {
        let fits = TOPIC_LEN_MAX.saturating_sub(self.topic.len());
        Failure::Usage(format!(
            "message is {len} bytes; with topic {:?} one PUBLISH carries at most {fits}",
            self.topic
        ))
    }
}

/// What goes out with one system call at most.
const BATCH_BYTES: usize = 64 * 1024;
/// A longer line cannot become a message, not even in hexadecimal with gaps or as a template.
const LINE_LEN_MAX: usize = 4096;

/// Pairs of hexadecimal digits; white space between pairs does not matter.
pub(crate) fn parse_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u32>> = digits.map(|&byte| char::from(byte).to_digit(16)).collect();
    let digits = digits?;
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => u8::try_from(high * 16 + low).ok(),
        _ => None,
    });
    pairs.collect()
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|source| unreadable(&name, source))?;
    read_all(file, &name)
}

/// All of it, as long as it may still become a message.
fn read_all(input: impl Read, name: &str) -> Result<Vec<u8>, Failure> {
    let mut data = Vec::new();
    let mut bounded = input.take(READ_MAX_BYTES);
    let read = bounded.read_to_end(&mut data);
    read.map_err(|source| unreadable(name, source))?;
    Ok(data)
}

/// Far more than fits into a message; the error then tells a length of at least this.
const READ_MAX_BYTES: u64 = 1024 * 1024;

fn unreadable(name: &str, source: io::Error) -> Failure {
    let name = name.into();
    Failure::Input { name, source }
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.into())
}
