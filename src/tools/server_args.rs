//! Flags that tell a command how webhook and keeper are configured.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;

use crate::overlap::outlook::Rules;
use crate::overlap::settings::{Defaults, Window, parse_time};

/// Flags of webhook and keeper that decide what happens next to a Secret.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerArgs {
    /// The webhook's --window: how long it carries a previous CA by default
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_WINDOW", default_value = "none", value_parser = Window::from_str)]
    window: Window,

    /// The keeper's --settle: how long it waits before it promotes a new leaf
    #[arg(long, value_name = "DURATION", env = "CA_OVERLAP_SETTLE", default_value = "300s", value_parser = parse_time)]
    settle: Duration,
}

impl ServerArgs {
    pub(crate) fn rules(&self) -> Rules {
        let defaults = Defaults { window: self.window, ..Defaults::default() };
        Rules { defaults, settle: self.settle }
    }
}
