//! HVLP: publish/subscribe of tiny messages. A two-byte header, frames of at most 257 bytes, and a
//! broker that gives each message to thousands of subscribers in microseconds.
//!
//! This page is the architecture; every module below begins with what it is for.
//!
//! ```text
//!    packet            core: no I/O, no clock, no threads                      shell
//!  ┌──────────┐   ┌───────────────────────────────────────────────┐   ┌────────────────────┐
//!  │ bytes ⇄  │◀──│ register   session   outbound   arena   shard │◀──│ reactor   broker   │
//!  │ meaning  │   │ who wants it, what they are owed, in order    │   │ sockets, threads   │
//!  └──────────┘   └───────────────────────────────────────────────┘   └────────────────────┘
//!       ▲
//!       └── client
//! ```
//!
//! # The way of a message
//!
//! ```text
//! publisher's socket ─read→ arena (segments of this turn)       the session's remainder in front
//!    ─Frame::split_first→ frame ─same topic as before?→ extend the run
//!    ─Register::route→ subscribers                              one lookup per run
//!         ─Outbound::push(piece)→ the session is dirty          adjacent pieces merge
//!    ─Interest::shards→ other shards ─mesh→ their fan-out       one copy per shard that wants it
//! end of turn: dirty sessions ─in place or gathered→ one send   refused bytes go to the backlog
//!              arena voided: no reference counts anywhere
//! ```
//!
//! The frame that arrived is the frame that leaves: nothing is encoded again, nothing on this path
//! allocates, locks, logs or counts references per message. Every delivery ends in exactly one
//! counter ([`metrics::Counters`]).
//!
//! # Modules, in the order of the flow
//!
//! | module | what it holds |
//! |---|---|
//! | [`packet`] | the wire: frames, packets, encoding; `no_std`, all that is left without features |
//! | [`address`] | `host:port`, `[v6]:port`, `unix:/path` |
//! | [`loopback`] | TCP within one host |
//! | [`arena`] | the bytes of one turn |
//! | [`register`] | topic -> subscribers, session -> topics |
//! | [`outbound`] | what one session is owed |
//! | [`session`] | keys, states, close reasons |
//! | [`mesh`] | shard to shard |
//! | [`shard`] | the broker, in memory |
//! | [`handler`] | `SessionHandler`: where behaviour is added |
//! | [`deadline`], [`metrics`], [`config`] | time, counters, settings |
//! | `reactor` | one thread's loop, its sockets and transports |
//! | [`Broker`] | built, spawned, asked, stopped |
//! | `control` | metrics, health and status over HTTP, on a thread of its own |
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | `client` | the client library |
//! | `broker` | the core, the reactor and [`Broker`] |
//! | `control` | [`Builder::admin`]: metrics, health and status over HTTP; with it `broker` |
//! | `cli` | what the programs `hvlp-broker` and `hvlp` need |
//! | `uring` | the second engine, on Linux |
//! | `tokio` | `client::AsyncClient`, the client as futures; the only one that is off by default |
//! | `tls`, `websocket` | nothing yet: names kept for those parts |
//!
//! With none of them the crate is the packet codec alone, without `std` and
//! without `alloc`.
#![cfg_attr(not(any(feature = "client", feature = "broker")), no_std)]

#[cfg(any(feature = "client", feature = "broker"))]
pub mod address;
#[cfg(feature = "broker")]
pub mod arena;
#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "broker")]
pub mod config;
#[cfg(feature = "control")]
mod control;
#[cfg(feature = "broker")]
pub mod deadline;
#[cfg(feature = "broker")]
pub mod handler;
#[cfg(feature = "broker")]
mod label;
#[cfg(any(feature = "client", feature = "broker"))]
pub mod loopback;
#[cfg(feature = "broker")]
pub mod mesh;
#[cfg(feature = "broker")]
pub mod metrics;
#[cfg(feature = "broker")]
pub mod outbound;
pub mod packet;
#[cfg(feature = "broker")]
mod pages;
#[cfg(feature = "broker")]
mod reactor;
#[cfg(feature = "broker")]
pub mod register;
#[cfg(feature = "broker")]
pub mod session;
#[cfg(feature = "broker")]
pub mod shard;
#[cfg(feature = "broker")]
mod sync;
#[cfg(any(feature = "client", feature = "broker"))]
mod topic_frames;

#[cfg(feature = "broker")]
pub use broker::{
    Broker, BrokerError, BrokerHandle, Builder, Delivery, ProcessError, RegisterSnapshot,
    Subscription,
};
#[cfg(feature = "client")]
pub use client::Client;

/// The README's program runs as a test.
#[cfg(all(doctest, feature = "client", feature = "broker"))]
#[doc = include_str!("../README.md")]
struct Readme;
