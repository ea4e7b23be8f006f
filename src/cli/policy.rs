//! What webhook and keeper have to be told alike.

use clap::Args;

use crate::overlap::settings::{Defaults, Keep, Mode, Window};

/// What counts for Secrets that do not say it themselves.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct PolicyArgs {
    /// bundle, staged or off
    #[arg(long, value_name = "MODE", env = "CA_OVERLAP_DEFAULT_MODE", default_value = "bundle")]
    default_mode: Mode,

    /// How many previous CAs to carry, 0 to 8
    #[arg(long, value_name = "N", env = "CA_OVERLAP_KEEP", default_value = "1")]
    keep: Keep,

    /// How long to carry them, such as 24h; none: until the next rotation
    #[arg(long, value_name = "TIME", env = "CA_OVERLAP_WINDOW", default_value = "none")]
    window: Window,
}

impl PolicyArgs {
    pub(super) fn defaults(self) -> Defaults {
        let Self { default_mode, keep, window } = self;
        Defaults { mode: default_mode, keep, window }
    }
}
