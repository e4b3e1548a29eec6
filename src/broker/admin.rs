//! The admin endpoint's socket, bound before anything is served.

use crate::broker::BrokerError;
use crate::config::Admin;
use crate::control::Endpoint;

/// The endpoint that is asked for, if there is one.
pub(super) fn bind(admin: &Admin) -> Result<Option<Endpoint>, BrokerError> {
    match admin {
        Admin::Off => Ok(None),
        Admin::At(address) => {
            let endpoint = Endpoint::bind(address).map_err(|source| BrokerError::Admin {
                address: address.clone(),
                source,
            })?;
            Ok(Some(endpoint))
        }
        Admin::IfFree(address) => match Endpoint::bind(address) {
            Ok(endpoint) => Ok(Some(endpoint)),
            Err(error) => {
                tracing::warn!(
                    "no metrics are served: {address}: {error}; choose an address with --admin, \
                     or none with --no-admin"
                );
                Ok(None)
            }
        },
    }
}
