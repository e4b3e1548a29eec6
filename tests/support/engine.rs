//! The engine that tests run on: `HVLP_ENGINE`, as the broker's own variable.

use hvlp::Builder;
use hvlp::handler::SessionHandler;

/// Its name.
pub(crate) fn name() -> String {
    std::env::var("HVLP_ENGINE").unwrap_or_else(|_| "mio".into())
}

/// The builder, with the engine that the variable names.
pub(crate) fn chosen<H: SessionHandler>(builder: Builder<H>) -> Builder<H> {
    let assignment = format!("engine={}", name());
    builder.set(&assignment).expect("an engine by its name")
}
