//! HVLP: publish/subscribe of tiny messages.
#![cfg_attr(not(any(feature = "client", feature = "broker")), no_std)]

#[cfg(any(feature = "client", feature = "broker"))]
pub mod address;
pub mod packet;
