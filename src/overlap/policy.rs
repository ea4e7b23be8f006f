//! What a person sets on a Secret (DESIGN §4.3), with the defaults that the operator sets by flags.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The most previous CAs that `keep` can ask for.
pub const MAX_KEEP: u8 = 8;

/// What to do with the Secrets that do not say it themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `--default-mode`.
    pub mode: Mode,
    /// `--keep`: how many previous CAs to carry, 0–8.
    pub keep: Keep,
    /// `--window`: how long to carry.
    pub window: Window,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { mode: Mode::Bundle, keep: Keep(1), window: Window::NONE }
    }
}

/// The value of the label `ca-overlap.dev/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The previous CA stays beside the new one.
    Bundle,
    /// Data is never changed.
    Off,
    /// As `Bundle`, and the new leaf waits until the trust has spread.
    Staged,
}

impl FromStr for Mode {
    type Err = ParseSettingError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "bundle" => Ok(Self::Bundle),
            "off" => Ok(Self::Off),
            "staged" => Ok(Self::Staged),
            _ => Err(ParseSettingError::Mode),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "bundle",
            Self::Off => "off",
            Self::Staged => "staged",
        })
    }
}

/// How many previous CAs to carry, 0–8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep(u8);

impl Keep {
    /// The number, at most [`MAX_KEEP`].
    pub fn count(self) -> usize {
        usize::from(self.0)
    }
}

impl FromStr for Keep {
    type Err = ParseSettingError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.as_bytes() {
            [digit @ b'0'..=b'8'] => Ok(Self(digit - b'0')),
            _ => Err(ParseSettingError::Keep),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How long to carry a previous CA; `none` means until the next rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(Option<Duration>);

impl Window {
    /// Until the next rotation.
    pub const NONE: Self = Self(None);
    /// Ten years: longer than any overlap makes sense, and far from the limits of a timestamp.
    const MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

    /// The length, in whole seconds; `None` for `none`.
    pub fn length(self) -> Option<Duration> {
        self.0
    }
}

impl FromStr for Window {
    type Err = ParseSettingError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s == "none" {
            return Ok(Self::NONE);
        }
        let length = humantime::parse_duration(s).map_err(|_| ParseSettingError::Window)?;
        let whole = Duration::from_secs(length.as_secs());
        if whole.is_zero() || whole > Self::MAX {
            return Err(ParseSettingError::Window);
        }
        Ok(Self(Some(whole)))
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(length) => humantime::format_duration(length).fmt(f),
        }
    }
}

/// A setting that does not parse. Says what is expected, never what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSettingError {
    /// Not a number from 0 to 8.
    #[error("expected a number from 0 to 8")]
    Keep,
    /// Not one of the modes.
    #[error("expected bundle, staged or off")]
    Mode,
    /// Not a duration.
    #[error("expected a duration such as 90m, 24h or 7d, or none")]
    Window,
}
