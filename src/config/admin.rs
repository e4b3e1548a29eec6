//! Where metrics, health and status are served over HTTP.

use std::fmt;
use std::str::FromStr;

use crate::address::Address;
use crate::config::ConfigError;

/// Where a broker serves metrics, health and status over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// Nowhere.
    #[default]
    Off,
    /// Here; if it cannot be bound, the broker does not start.
    At(Address),
    /// Here if it can be bound, else nowhere, which is logged.
    IfFree(Address),
}

impl Admin {
    /// What a daemon does that was not told: `127.0.0.1:9644`, unless another one has it.
    pub fn of_daemon() -> Self {
        Self::IfFree(Address::Tcp {
            host: "127.0.0.1".into(),
            port: 9644,
        })
    }
}

/// `off`, or a host and a port.
impl FromStr for Admin {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        // The default port of an address is not one for HTTP.
        let has_port = text
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        match text.parse() {
            Ok(address @ Address::Tcp { .. }) if has_port => Ok(Self::At(address)),
            _ => Err(ConfigError::Admin {
                address: text.into(),
            }),
        }
    }
}

/// Written so that it can be parsed again.
impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) | Self::IfFree(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_off_or_a_host_with_its_port() {
        assert_eq!("off".parse(), Ok(Admin::Off));
        for text in ["127.0.0.1:0", "localhost:9644", "[::1]:9644"] {
            let admin: Admin = text.parse().unwrap();
            assert!(matches!(admin, Admin::At(_)), "{text}");
            assert_eq!(admin.to_string(), text);
        }
        for text in [
            "",
            "on",
            "localhost",
            "[::1]",
            "unix:/run/h.sock",
            "a:b",
            ":1",
        ] {
            let error = text.parse::<Admin>().unwrap_err().to_string();
            assert!(error.contains("write host:port"), "{text}: {error}");
        }
    }
}
