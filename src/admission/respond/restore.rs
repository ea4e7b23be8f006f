//! Which settings come back: many generators write a fresh object without them (docs/design.md,
//! "Restore").

use super::Update;
use crate::names;
use crate::overlap::ask::Ask;
use crate::overlap::settings::RawSettings;
use crate::overlap::source;

impl Update<'_> {
    /// Whether this is an update of a source.
    pub(super) fn is_source(&self) -> bool {
        source::is_source(self.old.label(names::SOURCE))
    }

    /// Whether this write sets another `trust`. What the keeper noted about the one before does not
    /// count for it.
    pub(super) fn sets_trust_anew(&self) -> bool {
        let is_noted_again = match self.ask_outcome.ask() {
            Some(Ask::Repair(repair)) => repair.setting(names::TRUSTED).is_some(),
            _ => false,
        };
        self.setting(names::TRUST) != self.old.annotation(names::TRUST) && !is_noted_again
    }

    /// The settings as they will be stored.
    pub(super) fn raw_settings(&self) -> RawSettings<'_> {
        let (new, old) = (self.object.label(names::MODE), self.old.label(names::MODE));
        RawSettings {
            mode: self.restored(names::MODE, new, old).or(new),
            keep: self.setting(names::KEEP),
            window: self.setting(names::WINDOW),
            distrust: self.setting(names::DISTRUST),
            announce: self.setting(names::ANNOUNCE),
            trust: self.setting(names::TRUST),
        }
    }

    /// An annotation as it will be stored.
    pub(super) fn setting(&self, key: &'static str) -> Option<&str> {
        let (new, old) = (self.object.annotation(key), self.old.annotation(key));
        self.restored(key, new, old).or(new)
    }

    /// Whether this write brings a setting to a Secret with a `ca.crt`, or one came back.
    pub(super) fn brings_a_setting(&self) -> bool {
        let brings = |(key, new, old)| {
            let after = self.restored(key, new, old).or(new);
            after.is_some() && (after != old || new.is_none())
        };
        self.object.ca_crt().is_some() && self.settings_of_people().any(brings)
    }

    /// Whether this write may not remove settings, and lacks one with a stored value that `is`.
    pub(super) fn lacks_a_setting(&self, is: impl Fn(&str, &str) -> bool) -> bool {
        let lacks = |(key, new, old): (_, Option<&str>, Option<&str>)| {
            new.is_none() && old.is_some_and(|old| is(key, old))
        };
        self.keeps_settings() && self.settings_of_people().any(lacks)
    }

    /// The settings that people set: each key, with its incoming and its stored value.
    fn settings_of_people(
        &self,
    ) -> impl Iterator<Item = (&'static str, Option<&str>, Option<&str>)> {
        let labels = names::LABEL_SETTINGS.into_iter();
        let labels = labels.map(|key| (key, self.object.label(key), self.old.label(key)));
        let keys = names::SETTINGS.into_iter().filter(|key| !names::NOTES.contains(key));
        let values = |key| (key, self.object.annotation(key), self.old.annotation(key));
        labels.chain(keys.map(values))
    }

    /// Whether this write removes no settings. A fresh object lacks them because its writer did not
    /// read them. So may a write that changes `ca.crt`, or the pair of a source without one: many
    /// controllers read the Secret, then replace its data, labels and annotations.
    fn keeps_settings(&self) -> bool {
        self.is_fresh_object
            || self.object.ca_crt() != self.old.ca_crt()
            || (self.is_source() && self.object.tls_crt() != self.old.tls_crt())
    }

    /// The value that replaces the incoming one, if any: the one that the keeper asks to restore,
    /// or the stored one where a fresh object lacks it.
    pub(super) fn restored<'b>(
        &'b self,
        key: &'static str,
        new: Option<&'b str>,
        old: Option<&'b str>,
    ) -> Option<&'b str> {
        if let Some(Ask::Repair(repair)) = self.ask_outcome.ask()
            && let Some(value) = repair.setting(key)
        {
            return Some(value);
        }
        let old = old.filter(|value| names::is_restored(key, value))?;
        let is_wiped = new.is_none() && self.keeps_settings();
        (is_wiped || (new != Some(old) && self.only_keeper_may_change(key))).then_some(old)
    }

    /// Whether this writer must not change an annotation. Only the keeper changes its notes about a
    /// setting that there is. Many controllers replace all annotations at each write; the keeper
    /// would have to write the notes again each time.
    fn only_keeper_may_change(&self, key: &str) -> bool {
        let setting = match key {
            names::RESTARTED => names::RESTART,
            names::TRUSTED => names::TRUST,
            _ => return false,
        };
        self.setting(setting).is_some() && self.request.user() != self.keeper_user
    }
}
