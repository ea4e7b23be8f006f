//! cert-manager's own controllers beside the product: the root of a CA issuer is renewed, and the
//! leaves later, one by one.
//!
//! A *family* is a root with the leaves that its issuers issue. All families share one control plane.

mod family;
mod peers;
mod rig;

use family::{Family, Kind};
use rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_cert_manager_are_renewed() {
    let Some(rig) = Rig::start("roots_of_cert_manager_are_renewed").await else { return };
    let _keeper = rig.setup.leading_keeper(&[]).await;
    tokio::join!(
        control(&rig, "control", Kind::ECDSA, 20),
        control(&rig, "control-rsa", Kind::RSA, 6),
        control(&rig, "control-int", Kind::INTERMEDIATE, 6),
    );
}

/// Nothing is announced: each leaf that is renewed separates its peer from those with old files.
async fn control(rig: &Rig, name: &'static str, kind: Kind, leaves: usize) {
    let mut family = Family::begin(rig, name, kind, leaves).await;
    family.renew_cas().await;
    assert_eq!(family.step().await.tried, 0, "{name}: no leaf was renewed yet");
    let failed = renew_leaves(&mut family).await;
    assert!(failed > 0, "{name}: no handshake fails, so the others prove nothing");
    family.assert_untouched().await;
}

/// Renews all leaves, one by one. Returns how many handshakes failed.
async fn renew_leaves(family: &mut Family<'_>) -> usize {
    let (mut tried, mut failed) = (0, 0);
    for leaf in family.order() {
        family.renew(leaf).await;
        let tally = family.step().await;
        tried += tally.tried;
        failed += tally.tried - tally.succeeded;
    }
    println!("{}: {failed} of {tried} handshakes fail", family.name);
    failed
}
