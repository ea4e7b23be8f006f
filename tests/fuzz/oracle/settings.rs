//! The settings: any text is read, always alike, and a printed value reads back the same.

use ca_overlap::overlap::settings::{Defaults, RawSettings, Settings};

use super::rule::Checked;

/// Up to six values, separated by NUL: mode, keep, window, distrust, announce, trust. One that begins
/// with `\x01` is not set.
pub fn check(bytes: &[u8]) -> Checked {
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    let mut values = text.split('\0').map(|v| (!v.starts_with('\u{1}')).then_some(v));
    let mut next = || values.next().flatten();
    let raw = RawSettings {
        mode: next(),
        keep: next(),
        window: next(),
        distrust: next(),
        announce: next(),
        trust: next(),
    };
    let defaults = Defaults::default();
    let settings = Settings::read(raw, &defaults);
    rule!(settings == Settings::read(raw, &defaults), "read in two ways");
    rule!(settings.keep.count() <= 8, "keep is {}", settings.keep.count());
    let longest = 10 * 366 * 24 * 60 * 60;
    let sane = settings.window.length().is_none_or(|l| (1..=longest).contains(&l.as_secs()));
    rule!(sane, "the window is {}", settings.window);
    rule!(settings.warnings.len() <= 7, "{} warnings", settings.warnings.len());
    let listed = raw.distrust.unwrap_or_default().len();
    rule!(settings.distrust.own().len() <= listed / 64, "more fingerprints than the text can hold");

    let (mode, keep) = (settings.mode.to_string(), settings.keep.to_string());
    let window = settings.window.to_string();
    let distrust =
        settings.distrust.own().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let announced = raw.announce.unwrap_or_default().len();
    let size = settings.announce.iter().map(|one| one.der.len()).sum::<usize>();
    rule!(size <= announced.min(16 * 1024) / 4 * 3, "more is announced than the text can hold");
    let announce = settings.announce.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    rule!(settings.trust.len() <= 8, "{} sources", settings.trust.len());
    let trust = settings.trust.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let printed = RawSettings {
        mode: Some(&mode),
        keep: Some(&keep),
        window: Some(&window),
        distrust: Some(&distrust),
        announce: Some(&announce),
        trust: Some(&trust),
    };
    let again = Settings::read(printed, &defaults);
    rule!(again.warnings.is_empty(), "what was printed is not understood: {window}");
    rule!(
        (again.mode, again.keep, again.window, &again.distrust, &again.announce, &again.trust)
            == (
                settings.mode,
                settings.keep,
                settings.window,
                &settings.distrust,
                &settings.announce,
                &settings.trust
            ),
        "read back otherwise: {mode} {keep} {window}"
    );
    Ok(())
}
