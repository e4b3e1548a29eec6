//! HVLP: publish/subscribe of tiny messages.
#![cfg_attr(not(any(feature = "client", feature = "broker")), no_std)]

#[cfg(any(feature = "client", feature = "broker"))]
pub mod address;
#[cfg(feature = "broker")]
pub mod arena;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
pub mod config;
#[cfg(feature = "broker")]
pub mod deadline;
#[cfg(feature = "broker")]
pub mod handler;
#[cfg(feature = "broker")]
pub mod metrics;
#[cfg(feature = "broker")]
mod outbound;
pub mod packet;
#[cfg(feature = "broker")]
mod reactor;
#[cfg(feature = "broker")]
pub mod register;
#[cfg(feature = "broker")]
pub mod session;
#[cfg(feature = "broker")]
pub mod shard;

#[cfg(feature = "broker")]
pub use broker::{Broker, BrokerError, BrokerHandle, Builder, RegisterSnapshot};
