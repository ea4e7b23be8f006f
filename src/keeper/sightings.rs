//! When the keeper first saw the present `ca.crt` of each Secret. The settle time counts from there
//! where the webhook wrote no date, so that a write of anything else does not delay a promotion.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::fair::Fair;
use super::overflow::{Budget, Overflow};
use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::outlook::Sighting;
use crate::x509::certs::Fingerprint;

/// How long a Secret that no watch shows is kept after it was last read: far longer than the pause
/// between two reads of a group.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The most sightings.
const MAX: usize = 100_000;

/// The sightings of all Secrets, in the watches and in groups. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Sightings {
    all: Arc<Mutex<Fair<Key, SeenSecret>>>,
    overflow: Overflow,
}

#[derive(Debug)]
struct SeenSecret {
    /// The hash of `ca.crt`.
    ca_crt: Fingerprint,
    sighting: Sighting,
    /// When it was last read.
    read: Timestamp,
}

impl Sightings {
    /// No sightings yet. What does not fit is reported to `overflow`.
    pub(crate) fn new(overflow: Overflow) -> Self {
        Self { all: Arc::new(Mutex::new(Fair::new(MAX))), overflow }
    }

    /// Notes that a Secret was read, and returns when its `ca.crt` was first seen as it is now.
    pub(crate) fn see(&self, secret: &SecretView, now: Timestamp) -> Sighting {
        let ca_crt = Fingerprint::of(secret.view().ca_crt.unwrap_or_default());
        let key = Key::of(secret);
        let mut all = self.lock();
        if let Some(seen) = all.get_mut(key.namespace(), &key) {
            if seen.ca_crt != ca_crt {
                (seen.ca_crt, seen.sighting) = (ca_crt, Sighting::Changed(now));
            }
            seen.read = now;
            return seen.sighting;
        }
        let sighting = Sighting::Found(now);
        let seen = SeenSecret { ca_crt, sighting, read: now };
        let inserted = all.insert(key.namespace(), key.clone(), seen, 1);
        for (key, _) in inserted.dropped(key) {
            self.overflow.note(Budget::Sightings, key.namespace());
        }
        sighting
    }

    /// Notes that a Secret is still as it was when it was last read.
    pub(crate) fn is_same(&self, key: &Key, now: Timestamp) {
        if let Some(seen) = self.lock().get_mut(key.namespace(), key) {
            seen.read = now;
        }
    }

    /// Forgets the Secrets that are not watched and were not read for long.
    pub(crate) fn expire(&self, now: Timestamp, is_watched: impl Fn(&Key) -> bool) {
        let is_old = |seen: &SeenSecret| now.duration_since(seen.read) >= FORGET_AFTER;
        let mut all = self.lock();
        let old = all.iter().filter(|(key, seen)| is_old(seen) && !is_watched(key));
        for key in old.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            all.remove(key.namespace(), &key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fair<Key, SeenSecret>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::names;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_772_355_600 + second).unwrap()
    }

    fn secret(ca_crt: &str, touched: u64) -> SecretView {
        let object = json!({
            "metadata": {
                "name": "s", "namespace": "n", "resourceVersion": touched.to_string(),
                "annotations": {names::KEEP: touched.to_string()},
            },
            "data": {"ca.crt": BASE64_STANDARD.encode(ca_crt)},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_a_change_of_ca_crt_is_a_new_sighting() {
        let sightings = Sightings::new(Overflow::default());
        assert_eq!(sightings.see(&secret("CA1", 1), at(0)), Sighting::Found(at(0)));
        assert_eq!(sightings.see(&secret("CA1", 2), at(9)), Sighting::Found(at(0)));
        assert_eq!(sightings.see(&secret("CA2", 3), at(10)), Sighting::Changed(at(10)));
        assert_eq!(sightings.clone().see(&secret("CA2", 4), at(99)), Sighting::Changed(at(10)));
    }

    #[test]
    fn a_secret_that_is_neither_watched_nor_read_is_forgotten() {
        let sightings = Sightings::new(Overflow::default());
        sightings.see(&secret("CA1", 1), at(0));
        sightings.expire(at(3599), |_| false);
        sightings.expire(at(9999), |_| true);
        assert_eq!(sightings.see(&secret("CA1", 1), at(10_000)), Sighting::Found(at(0)));
        sightings.expire(at(13_600), |_| false);
        assert_eq!(sightings.see(&secret("CA1", 1), at(13_600)), Sighting::Found(at(13_600)));
    }
}
