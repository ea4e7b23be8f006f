//! Settings: what a person sets on a Secret (docs/settings.md), and the defaults that flags set.
//! [`Settings::read`] uses the default where the Secret has no setting.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::announcement::Announcement;
use super::distrust::{Distrust, DistrustList};
use super::trust::{self, Trusted};
use super::warning::{Warning, push_once};
use crate::x509::certs::Fingerprint;

/// The largest value of `keep`.
pub const MAX_KEEP: u8 = 8;

/// The settings of a Secret that sets none itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// `--default-mode`
    pub mode: Mode,
    /// `--keep`
    pub keep: Keep,
    /// `--window`
    pub window: Window,
    /// What `--distrusted` lists. It counts for every Secret, whatever the Secret sets itself.
    pub distrusted: Arc<DistrustList>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { mode: Mode::Bundle, keep: Keep(1), window: Window::NONE, distrusted: Arc::default() }
    }
}

/// The settings of one Secret, defaults included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What to do on a rotation.
    pub mode: Mode,
    /// Whether the Secret itself sets the mode `bundle`. Then it is not exempt, even if it belongs
    /// to a signer.
    pub explicit_bundle: bool,
    /// How many previous CAs to carry.
    pub keep: Keep,
    /// How long previous CAs are carried.
    pub window: Window,
    /// Certificates that are never carried.
    pub distrust: Distrust,
    /// CAs to trust ahead of time.
    pub announce: Vec<Announcement>,
    /// The sources whose CAs the readers of this Secret trust as well.
    pub trust: Vec<Trusted>,
    /// The settings that did not parse.
    pub warnings: Vec<Warning>,
}

/// The text of the settings on a Secret, not parsed yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawSettings<'a> {
    /// Label `ca-overlap.dev/mode`.
    pub mode: Option<&'a str>,
    /// Annotation `ca-overlap.dev/keep`.
    pub keep: Option<&'a str>,
    /// Annotation `ca-overlap.dev/window`.
    pub window: Option<&'a str>,
    /// Annotation `ca-overlap.dev/distrust`.
    pub distrust: Option<&'a str>,
    /// Annotation `ca-overlap.dev/announce`.
    pub announce: Option<&'a str>,
    /// Annotation `ca-overlap.dev/trust`.
    pub trust: Option<&'a str>,
}

impl Settings {
    /// Parses the settings. An empty value means the default. A value that does not parse also
    /// means the default, and adds a warning.
    pub fn read(raw: RawSettings<'_>, defaults: &Defaults) -> Self {
        let mut warnings = Vec::new();
        let mode = parse_or(raw.mode, defaults.mode, Warning::ModeUnreadable, &mut warnings);
        let keep = parse_or(raw.keep, defaults.keep, Warning::KeepUnreadable, &mut warnings);
        let window =
            parse_or(raw.window, defaults.window, Warning::WindowUnreadable, &mut warnings);
        let mut distrust = Distrust::listed(&defaults.distrusted);
        for item in raw.distrust.unwrap_or_default().split(',').map(str::trim) {
            match Fingerprint::parse(item) {
                Some(fingerprint) if distrust.add(fingerprint) => {}
                Some(_) => {
                    push_once(&mut warnings, Warning::DistrustTooLong);
                    break;
                }
                None if item.is_empty() => {}
                None => push_once(&mut warnings, Warning::DistrustUnreadable),
            }
        }
        let (announce, is_readable) = Announcement::parse_list(raw.announce.unwrap_or_default());
        if !is_readable {
            push_once(&mut warnings, Warning::AnnounceUnreadable);
        }
        let (trust, is_readable) = trust::parse_list(raw.trust.unwrap_or_default());
        if !is_readable {
            push_once(&mut warnings, Warning::TrustUnreadable);
        }
        let explicit_bundle = raw.mode.is_some_and(|text| text.trim() == "bundle");
        Self { mode, explicit_bundle, keep, window, distrust, announce, trust, warnings }
    }
}

fn parse_or<T: FromStr>(
    text: Option<&str>,
    default: T,
    warning: Warning,
    warnings: &mut Vec<Warning>,
) -> T {
    match text.map(str::trim) {
        None | Some("") => default,
        Some(text) => text.parse().unwrap_or_else(|_| {
            push_once(warnings, warning);
            default
        }),
    }
}

/// The value of the label `ca-overlap.dev/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The previous CA stays beside the new one.
    Bundle,
    /// ca-overlap never changes the data.
    Off,
    /// Like `Bundle`, and the new leaf waits until its peers trust the new CA.
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

/// How long to carry a previous CA. `none` means until the next rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(Option<Duration>);

impl Window {
    /// Until the next rotation.
    pub const NONE: Self = Self(None);
    /// Ten years: longer than any useful overlap, and far below the limits of a timestamp.
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
            Some(length) => f.write_str(&time_to_text(length)),
        }
    }
}

/// A time as people write it in a flag, in the largest unit of which it is a multiple: `90m`, `36h`, `7d`.
pub(crate) fn time_to_text(time: Duration) -> String {
    const UNITS: [(u128, &str); 4] =
        [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let millis = time.as_millis();
    let is_whole = |(unit, _): &&(u128, &str)| millis > 0 && millis.is_multiple_of(*unit);
    let (unit, name) = UNITS.iter().find(is_whole).unwrap_or(&(1, "ms"));
    format!("{}{name}", millis / unit)
}

/// The longest time that a flag accepts: 100 years. Then no sum or multiple of times overflows.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Parses the time of a flag, such as `90m` or `7d`, up to 100 years.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time > LONGEST { Err("must be at most 100 years".to_owned()) } else { Ok(time) }
}

/// The error for a setting that does not parse. It says what is expected and never quotes the
/// value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSettingError {
    /// Not a number from 0 to 8.
    #[error("expected a number from 0 to 8")]
    Keep,
    /// Not one of the modes.
    #[error("expected bundle, staged or off")]
    Mode,
    /// Not a duration.
    #[error("expected a duration such as 90m, 24h or 7d, at most 10 years, or none")]
    Window,
}

#[cfg(test)]
mod tests {
    use super::super::distrust::MAX_OWN;
    use super::*;

    #[test]
    fn a_time_is_shown_in_one_unit_and_can_be_read_again() {
        for text in ["1ms", "1500ms", "59s", "90m", "36h", "1d", "7d", "3650d"] {
            assert_eq!(time_to_text(parse_time(text).unwrap()), text);
        }
        assert_eq!(time_to_text(parse_time("24h").unwrap()), "1d");
    }

    fn read(raw: RawSettings<'_>) -> Settings {
        Settings::read(raw, &Defaults::default())
    }

    #[test]
    fn missing_and_empty_settings_mean_the_defaults() {
        let empty = RawSettings {
            mode: Some(""),
            keep: Some(""),
            window: Some(" "),
            distrust: Some(" , "),
            announce: Some(""),
            trust: Some(" ,"),
        };
        for raw in [RawSettings::default(), empty] {
            let settings = read(raw);
            assert_eq!(settings.mode, Mode::Bundle);
            assert_eq!(settings.keep.count(), 1);
            assert_eq!(settings.window, Window::NONE);
            assert!(settings.distrust.is_empty() && settings.warnings.is_empty());
            assert!(!settings.explicit_bundle);
        }
    }

    #[test]
    fn a_setting_that_does_not_parse_means_the_default_and_a_warning() {
        let raw = RawSettings {
            mode: Some("on"),
            keep: Some("9"),
            window: Some("soon"),
            distrust: Some("abc,def"),
            announce: Some("%"),
            trust: Some("CA"),
        };
        let settings = read(raw);
        assert_eq!((settings.mode, settings.keep.count()), (Mode::Bundle, 1));
        assert_eq!(
            settings.warnings,
            [
                Warning::ModeUnreadable,
                Warning::KeepUnreadable,
                Warning::WindowUnreadable,
                Warning::DistrustUnreadable,
                Warning::AnnounceUnreadable,
                Warning::TrustUnreadable,
            ]
        );
        for keep in ["-1", "10", "1.0", "+1", "08"] {
            let settings = read(RawSettings { keep: Some(keep), ..RawSettings::default() });
            assert_eq!(settings.warnings, [Warning::KeepUnreadable], "{keep}");
        }
    }

    #[test]
    fn distrust_accepts_fingerprints_as_tools_print_them() {
        let fingerprint = Fingerprint::of(b"x");
        let plain = fingerprint.to_string();
        let pairs: Vec<_> =
            plain.as_bytes().chunks(2).map(|p| str::from_utf8(p).unwrap()).collect();
        let colons = pairs.join(":").to_uppercase();
        let other = Fingerprint::of(b"y");
        let text = format!("{colons}, nonsense ,{other}");
        let settings = read(RawSettings { distrust: Some(&text), ..RawSettings::default() });
        assert_eq!(settings.distrust.own(), [fingerprint, other]);
        assert_eq!(settings.warnings, [Warning::DistrustUnreadable]);
    }

    #[test]
    fn distrust_is_limited_and_says_so() {
        let text: Vec<_> =
            (0..=MAX_OWN).map(|n| Fingerprint::of(&n.to_be_bytes()).to_string()).collect();
        let settings =
            read(RawSettings { distrust: Some(&text.join(",")), ..RawSettings::default() });
        assert_eq!(settings.distrust.own().len(), MAX_OWN);
        assert_eq!(settings.warnings, [Warning::DistrustTooLong]);
    }

    #[test]
    fn a_window_accepts_the_usual_units() {
        for (text, hours) in [("90m", 1.5), ("24h", 24.0), ("7d", 168.0), ("1h 30m", 1.5)] {
            let window: Window = text.parse().unwrap();
            assert_eq!(window.length(), Some(Duration::from_secs_f64(hours * 3600.0)), "{text}");
            assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
        }
        assert!("3660days".parse::<Window>().is_ok());
        for text in ["0s", "10ms", "-1h", "7", "3661days", "", "None"] {
            assert_eq!(text.parse::<Window>(), Err(ParseSettingError::Window), "{text}");
        }
        assert_eq!("none".parse::<Window>().unwrap().to_string(), "none");
    }

    #[test]
    fn modes_and_keep_parse_back() {
        for mode in [Mode::Bundle, Mode::Off, Mode::Staged] {
            assert_eq!(mode.to_string().parse::<Mode>().unwrap(), mode);
        }
        assert_eq!("8".parse::<Keep>().unwrap().to_string(), "8");
        assert_eq!("8".parse::<Keep>().unwrap().count(), usize::from(MAX_KEEP));
    }
}
