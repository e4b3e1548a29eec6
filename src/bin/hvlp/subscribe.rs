//! `hvlp sub`: prints the messages of some topics.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use hvlp::client::{Client, Message, Reconnect};
use hvlp::packet::{Extensions, Status};
use jiff::Timestamp;

use super::exit::{Exit, Failure};
use super::interruption::Interruption;
use super::output::{Layout, Output, Piece, parse_format, talk};
use super::server::{Server, duration};

/// Print the messages of one or more topics
#[derive(Debug, clap::Args)]
#[command(after_help = FORMAT_HELP)]
pub(crate) struct Subscribe {
    /// Topics; in one like 'a/+/b' or 'a/#' a level `+` is any one level, and a last `#` all others
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Print the topic before the data
    #[arg(short, long)]
    verbose: bool,
    /// Print each message like this (see below)
    #[arg(short = 'F', long, value_parser = format_argument)]
    #[arg(conflicts_with_all = ["output", "json", "verbose"])]
    format: Option<Format>,
    /// What a line looks like
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
    /// The same as -o json
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Stop after so many messages
    #[arg(short = 'C', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Stop after this time; exit code 5 if -C asked for more than came
    #[arg(short = 'W', long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
    /// Print how many messages a second come, instead of the messages
    #[arg(long, conflicts_with_all = ["format", "verbose", "no_newline"])]
    rate: bool,
    /// No newline behind a message
    #[arg(short = 'N', long)]
    no_newline: bool,
    /// Come back when the connection is lost
    #[arg(long)]
    reconnect: bool,
    /// Take `+` and `#` as they are written
    #[arg(long)]
    exact: bool,
}

const FORMAT_HELP: &str = "\
Formats: %t topic, %p data, %x data in hexadecimal, %l its length in bytes, %I time (ISO 8601),
%U time (seconds since 1970), %n number of the message, %% percent sign; \\n \\t \\0 \\\\ as usual.
A newline follows each message unless -N is given.";

/// A format as clap keeps it.
#[derive(Clone, Debug)]
struct Format(Vec<Piece>);

fn format_argument(text: &str) -> Result<Format, String> {
    parse_format(text).map(Format)
}

impl Subscribe {
    pub(crate) fn run(&self, server: &Server) -> Result<Exit, Failure> {
        if self.rate && matches!(self.output, Output::Raw | Output::Hex) {
            return Err(Failure::Usage(
                "--rate prints no data: leave -o out, or write -o json".into(),
            ));
        }
        let bare = matches!(self.output(), Output::Json | Output::Raw);
        if bare && (self.verbose || self.no_newline) {
            return Err(Failure::Usage(
                "-v and -N are for text and hex: JSON has the topic, raw is the data alone".into(),
            ));
        }
        let mut builder = server.builder()?;
        if self.reconnect {
            builder = builder.reconnect(Reconnect::default());
        }
        if self.has_wildcards() {
            builder = builder.extensions(Extensions::ACK | Extensions::WILD);
        }
        let mut client = builder.connect()?;
        server.announce(&client);
        let interruption = Interruption::closing(client.sender())?;
        self.subscribe(&mut client)?;
        if !server.quiet {
            talk("subscribed, waiting");
        }
        let exit = match self.print(&mut client, server.quiet, &interruption) {
            // Nobody reads any more, which is an end of its own.
            Err(failure @ Failure::Output(_)) => return Err(failure),
            printed => {
                interruption.end_if_it_came()?;
                printed?
            }
        };
        // All that was asked for has been printed; how the broker takes the end does not matter.
        let _ = client.disconnect();
        Ok(exit)
    }

    /// Whether some topic looks as if it had any.
    fn has_wildcards(&self) -> bool {
        let is_filter = |topic: &String| {
            let mut levels = topic.split('/');
            levels.any(|level| matches!(level, "+" | "#"))
        };
        !self.exact && self.topics.iter().any(is_filter)
    }

    fn subscribe(&self, client: &mut Client) -> Result<(), Failure> {
        let extensions = client.extensions();
        if self.has_wildcards() && !extensions.contains(Extensions::WILD) {
            return Err(Failure::Other(format!(
                "the broker at {} has no wildcards; --exact takes + and # as they are written",
                client.broker()
            )));
        }
        if !extensions.contains(Extensions::ACK) {
            client.subscribe(&self.topics)?;
            return Ok(());
        }
        let statuses = client.subscribe_acked(&self.topics)?;
        for (topic, status) in self.topics.iter().zip(statuses) {
            let why = match status {
                Status::Ok => continue,
                Status::Malformed => {
                    "a wildcard is a level of its own, and # the last one; --exact takes it as it \
                     is written"
                        .into()
                }
                other => other.to_string(),
            };
            return Err(Failure::Other(format!("topic {topic:?}: {why}")));
        }
        Ok(())
    }

    /// Prints until the end, whatever kind it is; nothing that came stays in a buffer.
    fn print(
        &self,
        client: &mut Client,
        quiet: bool,
        interruption: &Interruption,
    ) -> Result<Exit, Failure> {
        let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        let mut printer = Printer {
            layout: self.layout(),
            rate: self.rate.then(|| Rate::new(self.output())),
            count: 0,
        };
        let received = self.receive(client, quiet, interruption, &mut printer, &mut out);
        let ended = printer.end(&mut out);
        received?;
        ended?;
        Ok(match self.count {
            Some(asked) if printer.count < asked => Exit::TimedOut,
            _ => Exit::Done,
        })
    }

    fn receive(
        &self,
        client: &mut Client,
        quiet: bool,
        interruption: &Interruption,
        printer: &mut Printer,
        out: &mut impl Write,
    ) -> Result<(), Failure> {
        let end = self.wait.and_then(|wait| Instant::now().checked_add(wait));
        let mut reconnects = 0;
        while self.count.is_none_or(|asked| printer.count < asked) && !interruption.came() {
            let message = match client.receive(Duration::ZERO)? {
                Some(message) => message,
                None => {
                    // Nothing more at once: whoever reads our output gets what there is.
                    out.flush()?;
                    let wait = end.map(|end| end.saturating_duration_since(Instant::now()));
                    let wait = wait.into_iter().chain(printer.rate_due()).min();
                    match client.receive(wait)? {
                        Some(message) => message,
                        None if printer.rate_due().is_some_and(|left| left.is_zero()) => {
                            printer.print_rate(out)?;
                            continue;
                        }
                        None => break,
                    }
                }
            };
            if client.reconnects() > reconnects {
                reconnects = client.reconnects();
                if !quiet {
                    talk("connected again");
                }
            }
            printer.print(out, &message)?;
            // A flood never lets the socket run empty, but the time is up all the same.
            if printer.count.is_multiple_of(256) && end.is_some_and(|end| Instant::now() >= end) {
                break;
            }
        }
        Ok(())
    }

    fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }

    fn layout(&self) -> Layout {
        Layout {
            output: self.output(),
            format: self.format.clone().map(|format| format.0),
            topic: self.verbose,
            newline: !self.no_newline,
            escape: io::stdout().is_terminal(),
        }
    }
}

/// Where messages end: as lines of their own, or in a rate.
struct Printer {
    layout: Layout,
    rate: Option<Rate>,
    count: u64,
}

impl Printer {
    fn print(&mut self, out: &mut impl Write, message: &Message) -> io::Result<()> {
        self.count += 1;
        let Some(rate) = &mut self.rate else {
            return self.layout.write(out, self.count, message);
        };
        if rate.count(message.data().len()) {
            rate.print(out)?;
        }
        Ok(())
    }

    /// How long until the next line with a rate.
    fn rate_due(&self) -> Option<Duration> {
        self.rate.as_ref().map(Rate::left)
    }

    fn print_rate(&mut self, out: &mut impl Write) -> io::Result<()> {
        self.rate.as_mut().map_or(Ok(()), |rate| rate.print(out))
    }

    /// The last line, of less than a whole second, and all that is still in a buffer.
    fn end(&mut self, out: &mut impl Write) -> io::Result<()> {
        if self.rate.as_ref().is_some_and(|rate| rate.messages > 0) {
            self.print_rate(out)?;
        }
        out.flush()
    }
}

/// What came since the last line of `--rate`.
struct Rate {
    output: Output,
    messages: u64,
    bytes: usize,
    since: Instant,
}

impl Rate {
    fn new(output: Output) -> Self {
        Self {
            output,
            messages: 0,
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// Counts a message; whether a line is due.
    fn count(&mut self, len: usize) -> bool {
        self.messages += 1;
        self.bytes += len;
        // Looking at the clock for each message would cost more than the message.
        self.messages.is_multiple_of(256) && self.left().is_zero()
    }

    fn left(&self) -> Duration {
        RATE_INTERVAL.saturating_sub(self.since.elapsed())
    }

    fn print(&mut self, out: &mut impl Write) -> io::Result<()> {
        let seconds = self.since.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss, reason = "a rate is rounded anyway")]
        let (messages, bytes) = (self.messages as f64 / seconds, self.bytes as f64 / seconds);
        if self.output == Output::Json {
            write!(out, "{{\"ts\":\"{:.6}\"", Timestamp::now())?;
            write!(out, ",\"messages_per_s\":{messages:.1}")?;
            writeln!(out, ",\"bytes_per_s\":{bytes:.1}}}")?;
        } else {
            writeln!(out, "{messages:.0} msg/s  {bytes:.0} B/s")?;
        }
        out.flush()?;
        *self = Self::new(self.output);
        Ok(())
    }
}

const RATE_INTERVAL: Duration = Duration::from_secs(1);
