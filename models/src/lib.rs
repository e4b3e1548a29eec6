//! Models of what reactors share: the broker's own files, run in every order of its threads.
//!
//! `src/sync.rs` is the one file that is another one here. Its stand-ins tell a checker of each
//! access, and the checker decides who goes on and what a load may still see: `loom` tries all
//! of it for few threads and weak memory, `shuttle` draws orders at random for more of them.
//!
//! A model is a function here, and a test in `tests/` that says what it proves.
#![allow(
    dead_code,
    unused_imports,
    reason = "no model needs all of the files that are the broker's"
)]

/// Those without sockets, clocks and threads.
#[path = "../../src"]
mod broker {
    pub mod address;
    pub mod arena;
    pub mod config;
    pub mod deadline;
    pub mod handler;
    pub mod label;
    pub mod mesh;
    pub mod metrics;
    pub mod outbound;
    pub mod packet;
    pub mod pages;
    pub mod reactor {
        pub mod ending;
    }
    pub mod register;
    pub mod session;
    pub mod shard;
}

use broker::{
    address, arena, config, deadline, handler, label, mesh, metrics, outbound, packet, pages,
    reactor, register, session, shard,
};

mod ring;
mod sync;

#[cfg(feature = "loom")]
mod check;
#[cfg(feature = "loom")]
pub mod doorbell;
#[cfg(feature = "loom")]
mod peer;
#[cfg(feature = "loom")]
pub mod shutdown;
#[cfg(feature = "loom")]
pub mod spill;

#[cfg(feature = "shuttle")]
pub mod directory;
#[cfg(feature = "shuttle")]
pub mod guarantee;
#[cfg(feature = "shuttle")]
pub mod last_value;
#[cfg(feature = "shuttle")]
mod node;
#[cfg(feature = "shuttle")]
mod orders;
