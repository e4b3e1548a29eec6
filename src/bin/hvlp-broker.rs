//! The broker daemon: arguments become a `Config`, a `Config` becomes a broker.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Parser, ValueEnum};
#[cfg(feature = "control")]
use hvlp::config::Admin;
use hvlp::config::{Config, ConfigError, Listen};
use hvlp::metrics::Counters;
use hvlp::outbound::SlowConsumer;
use hvlp::{Broker, BrokerError, BrokerHandle};
use jiff::Timestamp;
use serde_json::json;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::WorkerGuard;

/// Publish/subscribe of tiny messages: fan-out to thousands of subscribers in microseconds.
#[derive(Debug, Parser)]
#[command(name = "hvlp-broker", version, max_term_width = 100)]
struct Args {
    #[arg(
        short,
        long,
        help = LISTEN_HELP,
        value_name = "ADDR",
        env = "HVLP_LISTEN",
        value_delimiter = ','
    )]
    listen: Vec<Listen>,

    /// Permit addresses that other hosts can reach, although nobody has to log in
    #[arg(long, env = "HVLP_INSECURE_ANONYMOUS", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    insecure_anonymous: bool,

    /// Threads that serve, 1 to 63 [default: the CPUs that this process may use]
    #[arg(short, long, value_name = "N", env = "HVLP_REACTORS")]
    reactors: Option<String>,

    /// What reactors wait with: mio (epoll, kqueue), uring (io_uring, Linux 6.1 or later) or auto
    /// [default: mio]
    #[arg(short, long, value_name = "ENGINE", env = "HVLP_ENGINE")]
    engine: Option<String>,

    /// Keep each reactor on a CPU of its own
    #[arg(long, env = "HVLP_PIN", action = ArgAction::SetTrue,
          value_parser = BoolishValueParser::new())]
    pin: bool,

    /// What one session may be owed before it counts as slow [default: 8MiB]
    #[arg(long, value_name = "SIZE", env = "HVLP_OUTBOUND_MAX")]
    outbound_max: Option<String>,

    /// Look for events this long before sleeping: less latency, a busy core [default: off]
    #[arg(long, value_name = "DURATION", env = "HVLP_BUSY_POLL")]
    busy_poll: Option<String>,

    /// Address that serves /metrics, /healthz and /v1/snapshot over HTTP: host:port, or off
    /// [default: 127.0.0.1:9644 if it is free]
    #[cfg(feature = "control")]
    #[arg(long, value_name = "ADDR", env = "HVLP_ADMIN")]
    admin: Option<Admin>,

    /// Serve none of that, whatever --admin says
    #[cfg(feature = "control")]
    #[arg(long)]
    no_admin: bool,

    /// Set any key, repeatable: --set limits.sessions_max=5000; `--set help` lists them
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,

    /// Form of log lines
    #[arg(long, value_enum, default_value_t = LogForm::Text, env = "HVLP_LOG")]
    log: LogForm,

    /// Least severe level that is logged: off, error, warn, info, debug, trace
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "HVLP_LOG_LEVEL"
    )]
    log_level: LevelFilter,
}

/// Why not a doc comment: documentation would take `[v6]` for a link.
const LISTEN_HELP: &str = "Address to listen on, repeatable: host:port, [v6]:port, unix:/path \
                           [default: 127.0.0.1:65432]";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogForm {
    Text,
    Json,
}

/// What the process ends with.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const CONFIG: u8 = 3;
    pub(super) const BIND: u8 = 4;
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if error.use_stderr() => {
            let _ = writeln!(io::stderr(), "hvlp-broker: {}", one_line(&error));
            return ExitCode::from(exit::USAGE);
        }
        // Help and version, which were asked for.
        Err(asked) => asked.exit(),
    };
    if args.set.iter().any(|assignment| assignment == "help") {
        return print_keys();
    }
    let form = args.log;
    let logs = start_logging(form, args.log_level);
    let broker = config(args).map_err(BrokerError::from);
    let ended = broker.and_then(|config| {
        let who = Audience::of(&config);
        Broker::builder()
            .config(config)
            .run(|broker| greet(form, broker, &who))
    });
    if let Ok(counters) = &ended {
        log_counters(counters);
    }
    // What is still in the queue comes before the last line.
    drop(logs);
    match ended {
        Ok(counters) => {
            say_within(LAST_LINE, move || part(form, &counters));
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "hvlp-broker: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// How long whoever reads the log has for the last line.
const LAST_LINE: Duration = Duration::from_secs(1);

/// Says something to a reader who may have stopped reading, which is no reason not to end.
fn say_within(patience: Duration, say: impl FnOnce() + Send + 'static) {
    let (said, is_said) = mpsc::channel();
    thread::spawn(move || {
        say();
        // Nobody may wait for it any more.
        let _ = said.send(());
    });
    let _ = is_said.recv_timeout(patience);
}

/// What is wrong with the arguments and what would be right, without the usage text.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let told: Vec<_> = told.collect();
    format!(
        "{}; see hvlp-broker --help",
        told.join("; ").trim_start_matches("error: ")
    )
}

fn config(args: Args) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.insecure_anonymous = args.insecure_anonymous;
    config.pin = args.pin;
    #[cfg(feature = "control")]
    {
        config.admin = match (args.no_admin, args.admin) {
            (true, _) => Admin::Off,
            (false, admin) => admin.unwrap_or_else(Admin::of_daemon),
        };
    }
    if let Some(count) = args.reactors {
        config.set(&format!("reactors={count}"))?;
    }
    if let Some(engine) = args.engine {
        config.set(&format!("engine={engine}"))?;
    }
    if let Some(size) = args.outbound_max {
        config.set(&format!("listener.outbound_max={size}"))?;
    }
    if let Some(duration) = args.busy_poll {
        config.set(&format!("busy_poll={duration}"))?;
    }
    // Last: what is typed goes before a variable, and these have none.
    for assignment in &args.set {
        config.set(assignment)?;
    }
    Ok(config)
}

/// Lines go through a queue and a thread of their own: a reactor never waits for a log.
fn start_logging(form: LogForm, level: LevelFilter) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let builder = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false);
    match form {
        LogForm::Text => builder.init(),
        LogForm::Json => builder.json().flatten_event(true).init(),
    }
    guard
}

/// What a user is told of who is served, and by how much.
struct Audience {
    insecure: bool,
    reactors: usize,
    outbound_max: String,
    slow: &'static str,
}

impl Audience {
    fn of(config: &Config) -> Self {
        Self {
            insecure: config.insecure_anonymous,
            reactors: config.reactors,
            outbound_max: config.show("listener.outbound_max").unwrap_or_default(),
            slow: match config.listener.slow_consumer {
                SlowConsumer::Disconnect => "is closed",
                SlowConsumer::DropNewest => "loses what is newest",
                SlowConsumer::DropOldest => "loses what is oldest",
                SlowConsumer::Conflate => "gets the newest of each topic",
                SlowConsumer::Pause => "holds its publishers",
            },
        }
    }
}

/// What listens; for people one screen: who may connect, what becomes of the slow, what to type.
fn greet(form: LogForm, broker: &BrokerHandle, audience: &Audience) {
    let Audience {
        insecure,
        reactors,
        outbound_max,
        slow,
    } = audience;
    let addresses = broker.local_addrs().iter();
    let listening: Vec<_> = addresses.map(ToString::to_string).collect();
    let admin = admin_address(broker);
    match form {
        LogForm::Text => {
            let who = match insecure {
                true => "everyone who can reach it, without login",
                false => "this host alone",
            };
            let threads = if *reactors == 1 { "" } else { "s" };
            let engine = broker.engine();
            let memory = broker.memory_bound().in_all();
            let server = &listening[0];
            let admin = admin.map_or_else(String::new, |admin| {
                format!("\n  metrics: http://{admin}/metrics")
            });
            // Talk, which nobody need be there to read.
            let _ = writeln!(
                io::stderr(),
                "hvlp-broker {} listening on {}\n  {reactors} reactor{threads} on {engine}, serves {who}; a \
                 subscriber that is owed {outbound_max} {slow}; {memory} of memory at \
                 most{admin}\n  try: hvlp -s {server} sub hello\n       hvlp -s {server} pub \
                 hello world",
                env!("CARGO_PKG_VERSION"),
                listening.join(", "),
            );
        }
        LogForm::Json => say_json(
            "listening",
            &json!({ "addresses": listening, "admin": admin, "engine": broker.engine() }),
        ),
    }
    if *insecure {
        tracing::warn!("--insecure-anonymous: everyone who can reach a listener reads and writes");
    }
}

/// Where metrics are served, if they are.
#[cfg(feature = "control")]
fn admin_address(broker: &BrokerHandle) -> Option<String> {
    broker.admin_addr().map(|address| address.to_string())
}

#[cfg(not(feature = "control"))]
const fn admin_address(_: &BrokerHandle) -> Option<String> {
    None
}

fn log_counters(counters: &Counters) {
    for (name, label, value) in counters
        .samples()
        .into_iter()
        .filter(|(.., value)| *value > 0)
    {
        tracing::debug!(label, value, "{name}");
    }
}

fn part(form: LogForm, counters: &Counters) {
    let (sessions, written, dropped) = (
        counters.sessions_opened,
        counters.deliveries_written,
        counters.deliveries_dropped.total(),
    );
    match form {
        LogForm::Text => {
            let _ = writeln!(
                io::stderr(),
                "hvlp-broker stopped: {sessions} sessions served, {written} deliveries written, \
                 {dropped} dropped",
            );
        }
        LogForm::Json => say_json(
            "stopped",
            &json!({ "sessions": sessions, "written": written, "dropped": dropped }),
        ),
    }
}

/// A line like those of the log, whatever its level: who starts a broker waits for the first one.
fn say_json(message: &str, fields: &serde_json::Value) {
    let now = format!("{:.6}", Timestamp::now());
    let mut line = json!({ "timestamp": now, "level": "INFO", "message": message });
    if let (Some(line), Some(fields)) = (line.as_object_mut(), fields.as_object()) {
        line.extend(fields.clone());
    }
    let _ = writeln!(io::stderr(), "{line}");
}

fn print_keys() -> ExitCode {
    let config = Config::default();
    let mut out = io::stdout().lock();
    for key in hvlp::config::KEYS {
        let line = format!("{}={}\n    {}", key.name, key.show(&config), key.reason);
        if writeln!(out, "{line}").is_err() {
            // Whoever read this has seen enough.
            break;
        }
    }
    ExitCode::SUCCESS
}

const fn exit_code(error: &BrokerError) -> u8 {
    match error {
        BrokerError::Config(_)
        | BrokerError::OpenBind { .. }
        | BrokerError::Memory(_)
        | BrokerError::Engine(_) => exit::CONFIG,
        BrokerError::AddressInUse { .. } | BrokerError::Bind { .. } | BrokerError::Admin { .. } => {
            exit::BIND
        }
        BrokerError::Start(_) | BrokerError::Reactor(_) | BrokerError::Panicked(_) => exit::FAILED,
    }
}
