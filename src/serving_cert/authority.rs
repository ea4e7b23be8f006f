//! The CAs in the CA Secret, with the times at which each was added and became active.
//!
//! They are one JSON list under one data key, so every version of the Secret is a consistent state.
//! A replica needs nothing else to continue after a crash.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::inject;
use super::issue::{Authority, IssueError};
use super::objects::CaSecret;
use super::rotation::{CaFacts, MAX_CAS, Observed};
use crate::x509::certs::Fingerprint;

/// The data key of the Secret.
pub(super) const KEY: &str = "authorities.json";

/// Our CAs, in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Authorities(Vec<Authority>);

/// The content of the CA Secret.
#[derive(Debug)]
pub(super) struct CaSecretContent {
    /// The CAs that can be used.
    pub(super) authorities: Authorities,
    /// Whether other content is not usable.
    pub(super) damaged: bool,
}

impl Authorities {
    /// Reads the Secret. Leaves out what cannot be used and reports it as damage, not as an error:
    /// the next write repairs the Secret.
    pub(super) fn of(secret: &CaSecret) -> CaSecretContent {
        let Some(value) = secret.value(KEY).filter(|value| !value.is_empty()) else {
            return CaSecretContent { authorities: Self::default(), damaged: false };
        };
        let bytes = STANDARD.decode(value).unwrap_or_default();
        let Ok(stored) = serde_json::from_slice::<Vec<serde_json::Value>>(&bytes) else {
            return CaSecretContent { authorities: Self::default(), damaged: true };
        };
        let mut damaged = stored.len() > 2 * MAX_CAS;
        let mut usable: Vec<Authority> = Vec::new();
        for value in stored.into_iter().take(2 * MAX_CAS) {
            match StoredAuthority::parse(value) {
                Some(authority) if usable.iter().all(|u| u.facts().id != authority.facts().id) => {
                    usable.push(authority);
                }
                _ => damaged = true,
            }
        }
        let mut authorities = Self(usable);
        authorities.sort();
        CaSecretContent { authorities, damaged }
    }

    /// Writes the CAs into the Secret that was read.
    pub(super) fn store(&self, secret: &mut CaSecret) -> Result<(), IssueError> {
        let stored: Vec<StoredAuthority> = self.0.iter().map(StoredAuthority::of).collect();
        let json = serde_json::to_vec_pretty(&stored).map_err(|_| IssueError::Stored)?;
        secret.set(KEY, STANDARD.encode(json));
        Ok(())
    }

    /// The facts that the rotation needs, with what this process has `observed` of each CA.
    pub(super) fn facts(&self, observed: impl Fn(Fingerprint) -> Observed) -> Vec<CaFacts> {
        let facts = self.0.iter().map(Authority::facts);
        facts.map(|facts| CaFacts { observed: observed(facts.id), ..facts.clone() }).collect()
    }

    /// The certificates, newest first, which most verifiers try first.
    pub(super) fn certificates(&self) -> Vec<rustls_pki_types::CertificateDer<'static>> {
        self.0.iter().rev().map(|authority| authority.certificate().clone()).collect()
    }

    /// Finds a CA.
    pub(super) fn find(&self, id: Fingerprint) -> Option<&Authority> {
        self.0.iter().find(|authority| authority.facts().id == id)
    }

    /// Adds a new CA. The first one is active at once, because it replaces nothing.
    pub(super) fn add(&mut self, mut authority: Authority, now: Timestamp) {
        match self.0.last() {
            None => authority.activate(now),
            // The order of addition must stay, even where the clocks of replicas differ.
            Some(last) => authority.add_after(last.facts().added),
        }
        self.0.push(authority);
    }

    /// Restores CAs that the Secret has lost: copies those of `remembered` whose ids are in `ids`.
    pub(super) fn restore(
        &mut self,
        remembered: &Self,
        ids: &[Fingerprint],
    ) -> Result<(), IssueError> {
        for authority in remembered.0.iter().filter(|a| ids.contains(&a.facts().id)) {
            let StoredAuthority { certificate, key, added, active } =
                StoredAuthority::of(authority);
            self.0.push(Authority::from_pem(&certificate, &key, added, active)?);
        }
        self.sort();
        Ok(())
    }

    /// Records that leaves of a CA are served from `now` on.
    pub(super) fn activate(&mut self, id: Fingerprint, now: Timestamp) {
        for authority in self.0.iter_mut().filter(|authority| authority.facts().id == id) {
            authority.activate(now);
        }
    }

    /// Removes a CA.
    pub(super) fn drop(&mut self, id: Fingerprint) {
        self.0.retain(|authority| authority.facts().id != id);
    }

    fn sort(&mut self) {
        self.0.sort_by_key(|authority| (authority.facts().added, authority.facts().id));
    }
}

/// One entry of the JSON list. Has no `Debug`, because it holds a key.
#[derive(Serialize, Deserialize)]
struct StoredAuthority {
    /// PEM.
    certificate: String,
    /// PKCS#8 PEM.
    key: String,
    added: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<Timestamp>,
}

impl StoredAuthority {
    fn of(authority: &Authority) -> Self {
        Self {
            certificate: inject::bundle([authority.certificate()]),
            key: authority.key_pem(),
            added: authority.facts().added,
            active: authority.facts().active,
        }
    }

    fn parse(value: serde_json::Value) -> Option<Authority> {
        let Self { certificate, key, added, active } = serde_json::from_value(value).ok()?;
        Authority::from_pem(&certificate, &key, added, active).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn secret(value: Option<&str>) -> CaSecret {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "ca-overlap-ca", "resourceVersion": "5", "labels": {"a": "b"}},
        });
        if let Some(value) = value {
            object["data"] = json!({KEY: STANDARD.encode(value), "foreign": "eA=="});
        }
        serde_json::from_value(object).unwrap()
    }

    fn two() -> Authorities {
        let mut authorities = Authorities::default();
        for second in [0, 100] {
            let authority = Authority::generate(at(second), Duration::from_secs(86_400)).unwrap();
            authorities.add(authority, at(second));
        }
        authorities
    }

    #[test]
    fn stored_cas_are_read_again_and_the_rest_of_the_secret_stays() {
        let authorities = two();
        let mut secret = secret(Some("[]"));
        authorities.store(&mut secret).unwrap();
        let stored = serde_json::to_value(&secret).unwrap();
        assert_eq!(stored["data"]["foreign"], "eA==");
        assert_eq!(stored["metadata"]["labels"]["a"], "b");
        assert_eq!(stored["metadata"]["resourceVersion"], "5");
        assert_eq!(stored["type"], "Opaque");

        let found = Authorities::of(&secret);
        assert!(!found.damaged);
        assert_eq!(
            found.authorities.facts(|_| Observed::default()),
            authorities.facts(|_| Observed::default())
        );
        let facts = found.authorities.facts(|_| Observed::default());
        assert_eq!(facts.iter().map(|ca| ca.active).collect::<Vec<_>>(), [Some(at(0)), None]);
        assert_eq!(found.authorities.certificates()[0], authorities.0[1].certificate().clone());
    }

    #[test]
    fn an_empty_secret_is_not_damaged() {
        for secret in [secret(None), secret(Some("[]"))] {
            let found = Authorities::of(&secret);
            assert!(found.authorities.0.is_empty() && !found.damaged);
        }
    }

    #[test]
    fn damaged_entries_are_left_out_and_the_others_are_used() {
        let authorities = two();
        let mut good = secret(None);
        authorities.store(&mut good).unwrap();
        let text = STANDARD.decode(good.value(KEY).unwrap()).unwrap();
        let mut list: Vec<serde_json::Value> = serde_json::from_slice(&text).unwrap();

        for garbage in ["", "{}", "[1, null, {}]", "\u{0}", "[{\"certificate\": \"x\"}]"] {
            let found = Authorities::of(&secret(Some(garbage)));
            assert!(found.authorities.0.is_empty(), "{garbage}");
            assert_eq!(found.damaged, !garbage.is_empty(), "{garbage}");
        }
        // The keys of two CAs swapped on one side, and one entry twice.
        let swapped = list[1]["key"].clone();
        list[0]["key"] = swapped;
        list.push(list[1].clone());
        let found = Authorities::of(&secret(Some(&serde_json::to_string(&list).unwrap())));
        assert!(found.damaged);
        assert_eq!(found.authorities.facts(|_| Observed::default()).len(), 1);
    }

    #[test]
    fn a_lost_ca_is_restored_in_its_place() {
        let remembered = two();
        let facts = remembered.facts(|_| Observed::default());
        let mut secret = secret(None);
        remembered.store(&mut secret).unwrap();
        let mut found = Authorities::of(&secret).authorities;
        found.drop(facts[0].id);
        found.restore(&remembered, &[facts[0].id]).unwrap();
        assert_eq!(found.facts(|_| Observed::default()), facts);
        found.restore(&remembered, &[]).unwrap();
        assert_eq!(found.facts(|_| Observed::default()), facts);
    }

    #[test]
    fn a_slow_clock_does_not_change_the_order() {
        let mut authorities = two();
        let late = Authority::generate(at(-500), Duration::from_secs(86_400)).unwrap();
        let id = late.facts().id;
        authorities.add(late, at(-500));
        let mut secret = secret(None);
        authorities.store(&mut secret).unwrap();
        let found = Authorities::of(&secret).authorities.facts(|_| Observed::default());
        assert_eq!(found.last().unwrap().id, id);
        assert!(found.last().unwrap().active.is_none());
    }

    #[test]
    fn debug_texts_contain_no_key() {
        let authorities = two();
        let text = format!("{authorities:?}");
        assert!(!text.contains("PRIVATE") && !text.contains("key"), "{text}");
    }
}
