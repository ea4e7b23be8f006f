//! Who issued which certificate, and how many signature checks that takes.

use ca_overlap::x509::certs::Certificate;
use ca_overlap::x509::issuer::Issuers;

use super::secret::{TestSecret, secret};
use devtools::certs::{self, CA, Identity, Spec};

/// CAs that differ only in their key, and in its identifier if `key_ids`.
fn look_alikes(count: usize, key_ids: bool) -> Vec<Identity> {
    (0..count).map(|_| Spec { key_ids, ..CA }.self_signed()).collect()
}

/// The index in `stored` of the CA that a rotation carries while these leaves are served.
fn carried(stored: &[Identity], leaves: &[Identity]) -> Option<usize> {
    let mut secret = TestSecret::new();
    let text =
        |all: &[Identity]| all.iter().map(|one| one.pem.as_str()).collect::<String>().into_bytes();
    (secret.ca_crt, secret.tls_crt) = (Some(text(stored)), Some(text(leaves)));
    let result = secret.write("CA2").ca_crt.unwrap();
    let tail = String::from_utf8(result).unwrap().split_off(secret.pem("CA2").len());
    stored.iter().position(|ca| ca.pem == tail)
}

#[test]
fn where_key_ids_identify_the_issuer_no_signature_is_checked() {
    let (stored, foreign) = (look_alikes(64, true), certs::ca());
    // If all 64 were tried for the first leaf, the budget would be spent before the second.
    let leaves = [certs::leaf(&foreign, true), certs::leaf(&stored[63], true)];
    assert_eq!(carried(&stored, &leaves), Some(63));
}

#[test]
fn a_decision_checks_at_most_64_signatures() {
    let (stored, foreign) = (look_alikes(32, false), certs::ca());
    let unknown = || certs::leaf(&foreign, false);
    assert_eq!(carried(&stored, &[unknown(), certs::leaf(&stored[31], false)]), Some(31));
    // Past the budget no issuer is found, so the first CA counts as the active one.
    let leaves = [unknown(), unknown(), certs::leaf(&stored[1], false)];
    assert_eq!(carried(&stored, &leaves), Some(0));
}

#[test]
fn signatures_of_large_certificates_count_by_their_size() {
    let stored = look_alikes(8, false);
    let subject = "x".repeat(40_000);
    let large = |issuer| {
        let spec = Spec { subject: &subject, is_ca: false, key_ids: false, ..CA };
        spec.signed_by(issuer)
    };
    assert_eq!(carried(&stored, &[large(&stored[5])]), Some(5));
    assert_eq!(carried(&stored, &[large(&stored[6])]), Some(0));
}

/// The result of a write with a leaf of `issuer` without key ids. The carried certificates are past
/// their deadline, so they stay only if that leaf needs them.
fn with_leaf_by(issuer: &str, stored: &str, incoming: &str) -> String {
    let mut secret = secret(stored);
    secret.window = "1h";
    let leaf = certs::leaf(secret.get(issuer), false).pem;
    secret.write_bytes(secret.pem(incoming).as_bytes(), Some(leaf.as_bytes()));
    secret.shows()
}

#[test]
fn the_signature_identifies_the_issuer_of_the_incoming_leaf_where_names_do_not() {
    assert_eq!(with_leaf_by("CA1", "CA2 CA1*", "CA3"), "CA3 CA1*");
    assert_eq!(with_leaf_by("CA1", "Root1 CA1*", "CA3"), "CA3 CA1*");
}

#[test]
fn a_leaf_of_an_incoming_ca_needs_no_stored_ca() {
    assert_eq!(with_leaf_by("CA1", "CA2 CA1*", "CA2 CA1renewed"), "CA2 CA1renewed");
}

#[test]
fn a_look_alike_does_not_count_as_the_issuer_of_a_foreign_leaf() {
    assert_eq!(with_leaf_by("CA4", "Root1 CA1*", "Root1 CA3"), "Root1 CA3");
}

#[test]
fn the_only_ca_of_that_name_counts_as_the_issuer_without_a_signature_check() {
    let mut secret = secret("Root1 CA1");
    secret.tls_crt = Some(certs::leaf(secret.get("CA4"), false).pem.clone().into_bytes());
    secret.write_bytes(secret.pem("Root1 Root2").as_bytes(), None);
    assert_eq!(secret.shows(), "Root1 Root2 CA1*");
}

#[test]
fn a_chain_includes_the_root_that_signed_it_and_not_its_namesake() {
    let mut secret = TestSecret::new();
    let twin = || Spec { subject: "twin", key_ids: false, ..CA }.self_signed();
    let (signer, other) = (twin(), twin());
    let low = Spec { subject: "low", key_ids: false, ..CA }.signed_by(&signer);
    for (name, identity) in [("Low", low), ("Other", other), ("Signer", signer)] {
        secret.add(name, identity);
    }
    let mut secret = secret.stored("Low Other Signer");
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 Low* Signer*");
}

#[test]
fn a_root_is_a_chain_of_its_own_though_another_has_its_name_and_key() {
    let mut secret = secret("CA1 CA1renewed");
    secret.write("CA2");
    assert_eq!(secret.shows(), "CA2 CA1*");
}

#[test]
fn a_leaf_verifies_against_its_signer_and_not_against_a_namesake() {
    let signers = look_alikes(2, false);
    let leaf = certs::leaf(&signers[0], false);
    let certificate = |one: &Identity| Certificate::from_der(one.der.to_vec()).unwrap();
    let verifies =
        |signer| Issuers::default().verifies(&[certificate(&leaf)], &[certificate(signer)]);
    assert!(verifies(&signers[0]));
    assert!(!verifies(&signers[1]));
}
