//! The options that say which broker, common to all subcommands.

use std::time::Duration;

use hvlp::address::Address;
use hvlp::client::{Client, ClientBuilder};
use hvlp::packet::Extensions;

use super::exit::Failure;
use super::output::talk;

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Server {
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(short, long, global = true, value_name = "URL", help = SERVER_HELP)]
    server: Option<Address>,
    /// Its host alone
    #[arg(short = 'H', long, global = true)]
    host: Option<String>,
    /// Its port alone
    #[arg(short, long, global = true)]
    port: Option<u16>,
    /// How long it may take to answer
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    connect_timeout: Duration,
    /// Only data and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// More about errors and connections
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

const SERVER_HELP: &str = "\
Broker: hvlp://HOST:PORT, HOST:PORT, [V6]:PORT or unix:/PATH [default: 127.0.0.1:65432]";

impl Server {
    /// The broker's address, from whichever options were given.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        let address = self.server.clone().unwrap_or_default();
        match (address, &self.host, self.port) {
            (address, None, None) => Ok(address),
            (Address::Tcp { host, port }, other_host, other_port) => Ok(Address::Tcp {
                host: other_host.clone().unwrap_or(host),
                port: other_port.unwrap_or(port),
            }),
            (address @ Address::Unix(_), _, _) => Err(Failure::Usage(format!(
                "{address} has no host and no port: leave -H and -p out"
            ))),
        }
    }

    pub(crate) fn builder(&self) -> Result<ClientBuilder, Failure> {
        let builder = Client::builder().address(self.address()?)?;
        Ok(builder.connect_timeout(self.connect_timeout))
    }

    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        let client = self.builder()?.connect()?;
        self.announce(&client);
        Ok(client)
    }

    /// As `connect`, asking for extensions; the client says what was granted.
    pub(crate) fn connect_asking(&self, want: Extensions) -> Result<Client, Failure> {
        let client = self.builder()?.extensions(want).connect()?;
        self.announce(&client);
        Ok(client)
    }

    /// Tells where we are connected to, if that much is wanted.
    pub(crate) fn announce(&self, client: &Client) {
        if self.debug {
            let local = client.local_address();
            let local = local.map_or_else(|| "a unix socket".into(), |local| local.to_string());
            let broker = client.broker();
            talk(format_args!("hvlp: connected to {broker} from {local}"));
        }
    }
}

const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// A time with its unit; 0 is no time.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("0 is no time; leave the option out".into()),
        // Beyond it the clock's arithmetic ends.
        Ok(duration) if duration > DURATION_MAX => Err("a century is the most".into()),
        Ok(duration) => Ok(duration),
        Err(_) if text.bytes().all(|byte| byte.is_ascii_digit()) => Err(format!(
            "{text} has no unit; write \"{text}s\" or \"{text}ms\""
        )),
        Err(error) => Err(error.to_string()),
    }
}
