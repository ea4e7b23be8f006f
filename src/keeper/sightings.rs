//! When the keeper first saw the present `ca.crt` of each Secret. The settle time counts from there
//! where the webhook wrote no date, so that a write of anything else does not delay a promotion.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use crate::kubernetes::key::Key;
use crate::kubernetes::secret_view::SecretView;
use crate::overlap::outlook::Sighting;
use crate::x509::certs::Fingerprint;

/// How long a Secret that no watch shows is kept after it was last read: far longer than the pause
/// between two reads of a group.
const FORGET_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The sightings of all Secrets, in the watches and in groups. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sightings(Arc<Mutex<HashMap<Key, SeenSecret>>>);

#[derive(Debug)]
struct SeenSecret {
    /// The hash of `ca.crt`.
    ca_crt: Fingerprint,
    sighting: Sighting,
    /// When it was last read.
    read: Timestamp,
}

impl Sightings {
    /// Notes that a Secret was read, and returns when its `ca.crt` was first seen as it is now.
    pub(crate) fn see(&self, secret: &SecretView, now: Timestamp) -> Sighting {
        let ca_crt = Fingerprint::of(secret.view().ca_crt.unwrap_or_default());
        let mut all = self.lock();
        let seen = all.entry(Key::of(secret)).or_insert(SeenSecret {
            ca_crt,
            sighting: Sighting::Found(now),
            read: now,
        });
        if seen.ca_crt != ca_crt {
            (seen.ca_crt, seen.sighting) = (ca_crt, Sighting::Changed(now));
        }
        seen.read = now;
        seen.sighting
    }

    /// Forgets the Secrets that are not watched and were not read for long.
    pub(crate) fn expire(&self, now: Timestamp, is_watched: impl Fn(&Key) -> bool) {
        let is_old = |seen: &SeenSecret| now.duration_since(seen.read) >= FORGET_AFTER;
        self.lock().retain(|key, seen| !is_old(seen) || is_watched(key));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, SeenSecret>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let sightings = Sightings::default();
        assert_eq!(sightings.see(&secret("CA1", 1), at(0)), Sighting::Found(at(0)));
        assert_eq!(sightings.see(&secret("CA1", 2), at(9)), Sighting::Found(at(0)));
        assert_eq!(sightings.see(&secret("CA2", 3), at(10)), Sighting::Changed(at(10)));
        assert_eq!(sightings.clone().see(&secret("CA2", 4), at(99)), Sighting::Changed(at(10)));
    }

    #[test]
    fn a_secret_that_is_neither_watched_nor_read_is_forgotten() {
        let sightings = Sightings::default();
        sightings.see(&secret("CA1", 1), at(0));
        sightings.expire(at(3599), |_| false);
        sightings.expire(at(9999), |_| true);
        assert_eq!(sightings.see(&secret("CA1", 1), at(10_000)), Sighting::Found(at(0)));
        sightings.expire(at(13_600), |_| false);
        assert_eq!(sightings.see(&secret("CA1", 1), at(13_600)), Sighting::Found(at(13_600)));
    }
}
