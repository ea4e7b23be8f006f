//! Who issued what, and what it may cost to find out.

use ca_overlap::x509::certs::Certificate;
use ca_overlap::x509::issuer::Issuers;

use super::scene::Scene;
use devtools::certs::{self, CA, Identity, Spec};

/// CAs that only their key, or its identifier, tells apart.
fn look_alikes(count: usize, key_ids: bool) -> Vec<Identity> {
    (0..count).map(|_| Spec { key_ids, ..CA }.self_signed()).collect()
}

/// Which of `stored` is carried beside a new CA, where these leafs are served.
fn carried(stored: &[Identity], leafs: &[Identity]) -> Option<usize> {
    let mut scene = Scene::new();
    let text =
        |all: &[Identity]| all.iter().map(|one| one.pem.as_str()).collect::<String>().into_bytes();
    (scene.ca_crt, scene.tls_crt) = (Some(text(stored)), Some(text(leafs)));
    let result = scene.write("CA2").ca_crt.unwrap();
    let tail = String::from_utf8(result).unwrap().split_off(scene.pem("CA2").len());
    stored.iter().position(|ca| ca.pem == tail)
}

#[test]
fn where_key_ids_tell_the_issuer_no_signature_is_looked_at() {
    let (stored, stranger) = (look_alikes(64, true), certs::ca());
    // Would each of the 64 be tried for the first leaf, nothing would be left for the second.
    let leafs = [certs::leaf(&stranger, true), certs::leaf(&stored[63], true)];
    assert_eq!(carried(&stored, &leafs), Some(63));
}

#[test]
fn a_decision_looks_at_64_signatures_and_no_more() {
    let (stored, stranger) = (look_alikes(32, false), certs::ca());
    let unknown = || certs::leaf(&stranger, false);
    assert_eq!(carried(&stored, &[unknown(), certs::leaf(&stored[31], false)]), Some(31));
    // What is left unknown by then does not count: the first one is taken for the active one.
    let leafs = [unknown(), unknown(), certs::leaf(&stored[1], false)];
    assert_eq!(carried(&stored, &leafs), Some(0));
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

/// What is stored after a write with a leaf that names no key, where the carried are past their
/// deadline: they stay only if that leaf needs them.
fn with_leaf_by(issuer: &str, stored: &str, incoming: &str) -> String {
    let mut scene = Scene::new().stored(stored);
    scene.window = "1h";
    let leaf = certs::leaf(scene.get(issuer), false).pem;
    scene.write_bytes(scene.pem(incoming).as_bytes(), Some(leaf.as_bytes()));
    scene.shows()
}

#[test]
fn the_issuer_of_the_incoming_leaf_is_told_by_signature_where_names_do_not_tell() {
    assert_eq!(with_leaf_by("CA1", "CA2 CA1*", "CA3"), "CA3 CA1*");
    assert_eq!(with_leaf_by("CA1", "Root1 CA1*", "CA3"), "CA3 CA1*");
}

#[test]
fn what_an_incoming_certificate_issued_needs_no_stored_one() {
    assert_eq!(with_leaf_by("CA1", "CA2 CA1*", "CA2 CA1renewed"), "CA2 CA1renewed");
}

#[test]
fn a_look_alike_is_not_taken_for_the_issuer_of_a_leaf_that_nobody_here_issued() {
    assert_eq!(with_leaf_by("CA4", "Root1 CA1*", "Root1 CA3"), "Root1 CA3");
}

#[test]
fn who_alone_bears_the_name_is_believed_without_a_signature() {
    let mut scene = Scene::new().stored("Root1 CA1");
    scene.tls_crt = Some(certs::leaf(scene.get("CA4"), false).pem.clone().into_bytes());
    scene.write_bytes(scene.pem("Root1 Root2").as_bytes(), None);
    assert_eq!(scene.shows(), "Root1 Root2 CA1*");
}

#[test]
fn a_chain_goes_on_to_the_root_that_signed_it_not_to_its_twin() {
    let mut scene = Scene::new();
    let twin = || Spec { subject: "twin", key_ids: false, ..CA }.self_signed();
    let (signer, other) = (twin(), twin());
    let low = Spec { subject: "low", key_ids: false, ..CA }.signed_by(&signer);
    for (name, identity) in [("Low", low), ("Other", other), ("Signer", signer)] {
        scene.add(name, identity);
    }
    let mut scene = scene.stored("Low Other Signer");
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 Low* Signer*");
}

#[test]
fn a_root_is_a_chain_of_its_own_though_another_has_its_name_and_key() {
    let mut scene = Scene::new().stored("CA1 CA1renewed");
    scene.write("CA2");
    assert_eq!(scene.shows(), "CA2 CA1*");
}

#[test]
fn a_leaf_verifies_against_who_signed_it_and_not_against_a_namesake() {
    let signers = look_alikes(2, false);
    let leaf = certs::leaf(&signers[0], false);
    let certificate = |one: &Identity| Certificate::from_der(one.der.to_vec()).unwrap();
    let verifies =
        |signer| Issuers::default().verifies(&[certificate(&leaf)], &[certificate(signer)]);
    assert!(verifies(&signers[0]));
    assert!(!verifies(&signers[1]));
}
