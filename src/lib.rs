//! HVLP: publish/subscribe of tiny messages.
#![cfg_attr(not(any(feature = "client", feature = "broker")), no_std)]

#[cfg(any(feature = "client", feature = "broker"))]
pub mod address;
#[cfg(feature = "client")]
pub mod client;
pub mod packet;

#[cfg(feature = "client")]
pub use client::Client;
