//! cert-manager's own controllers beside the product: the root of a CA issuer is renewed, and the
//! leaves later, one by one.
//!
//! A *family* is a root with the leaves that its issuers issue. All families share one control plane.

mod cascade;
mod family;
mod peers;
mod rig;

use devtools::handshake::Tls;
use devtools::secrets::secret;

use family::{Family, Kind};
use rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_cert_manager_are_renewed() {
    let Some(mut rig) = Rig::start("roots_of_cert_manager_are_renewed").await else { return };
    let keeper = rig.setup.leading_keeper(&[]).await;
    let (.., early) = tokio::join!(
        control(&rig, "control", Kind::ECDSA, 20),
        control(&rig, "control-rsa", Kind::RSA, 6),
        control(&rig, "control-int", Kind::INTERMEDIATE, 6),
        too_early(&rig, "early"),
    );
    drop(keeper);
    let keeper = rig.setup.leading_keeper(&["--follow-issuers"]).await;
    tokio::join!(
        announced(&rig, "ecdsa", Kind::ECDSA, 20),
        announced(&rig, "rsa", Kind::RSA, 6),
        announced(&rig, "int", Kind::INTERMEDIATE, 6),
        rolled_back(&rig, "back"),
        distrusted(&rig, "distrust"),
        created(&rig, "created"),
        announced_late(early),
    );

    // Whoever restarts looks at every Secret again. All have done so before one more family is served.
    announced(&rig, "before", Kind::ECDSA, 3).await;
    let before = rig.versions().await;
    drop(keeper);
    rig.restart_controllers().await;
    let _keeper = rig.setup.leading_keeper(&["--follow-issuers"]).await;
    announced(&rig, "after", Kind::ECDSA, 3).await;
    let after = rig.versions().await;
    for (secret, version) in &before {
        assert_eq!(after.get(secret), Some(version), "{secret} was written in the steady state");
    }
}

/// Nothing is announced: each leaf that is renewed separates its peer from those with old files.
async fn control(rig: &Rig, name: &'static str, kind: Kind, leaves: usize) {
    let mut family = Family::begin(rig, name, kind, leaves).await;
    family.renew_root().await;
    if kind.has_intermediate {
        family.renew_intermediate().await;
    }
    assert_eq!(family.step().await.tried, 0, "{name}: no leaf was renewed yet");
    let all = family.order();
    let failed = renew(&mut family, &all).await;
    assert!(failed > 0, "{name}: no handshake fails, so the others prove nothing");
    family.assert_managed_by_cert_manager().await;
}

/// The new root is announced, and the leaves are renewed after the settle time.
async fn announced(rig: &Rig, name: &'static str, kind: Kind, leaves: usize) {
    let mut family = Family::followed(rig, name, kind, leaves).await;
    family.renew_root().await;
    let requests = family.requests().await;
    if kind.has_intermediate {
        family.intermediate_trusts_root().await;
        family.renew_intermediate().await;
    }
    family.trusts_root().await;
    assert_eq!(family.requests().await, requests, "{name}: announcements made cert-manager issue");
    let all = family.order();
    renew_safely(&mut family, &all).await;
    family.assert_managed_by_cert_manager().await;
}

/// A person restores the old root when half of the leaves are renewed.
async fn rolled_back(rig: &Rig, name: &'static str) {
    let mut family = Family::followed(rig, name, Kind::ECDSA, 6).await;
    let old = family.root.stored().await;
    family.renew_root().await;
    family.trusts_root().await;
    let all = family.order();
    renew_safely(&mut family, &all[..3]).await;

    // Otherwise cert-manager would issue a third root.
    rig.delete_certificate(&family.root.secrets.namespace, &family.root.name).await;
    let data = ["ca.crt", "tls.crt", "tls.key"].map(|key| (key, old.data(key).unwrap()));
    let data = data.each_ref().map(|(key, value)| (*key, value.as_slice()));
    let restored = secret(&family.root.name, "kubernetes.io/tls", &data);
    family.root.secrets.put(&family.root.name, &restored).await.ok();
    renew_safely(&mut family, &all).await;
    for leaf in &family.leaves {
        let ca = leaf.stored().await.pem("ca.crt");
        assert!(ca.starts_with(&old.pem("tls.crt")), "{}", leaf.name);
    }
}

/// A person distrusts the old root when half of the leaves are renewed.
async fn distrusted(rig: &Rig, name: &'static str) {
    let mut family = Family::followed(rig, name, Kind::ECDSA, 6).await;
    let old = family.root.stored().await.pem("tls.crt");
    family.renew_root().await;
    family.trusts_root().await;
    let all = family.order();
    let (renewed, others) = all.split_at(3);
    renew_safely(&mut family, renewed).await;

    family.distrust(&old);
    let tally = family.step().await;
    assert!(tally.succeeded < tally.tried, "{name}: the old root is still trusted: {tally:?}");
    family.settle();
    for leaf in others {
        family.renew(*leaf).await;
        family.step().await;
        // Renewed peers talk to each other all the time, and the others accept them.
        let until = all.iter().position(|it| it == leaf).unwrap();
        family.meets(Tls::Mutual, &all[..=until], &all[..=until]).await;
        family.meets(Tls::OneWay, &all, &all[..=until]).await;
    }
    for leaf in &family.leaves {
        assert!(!leaf.stored().await.pem("ca.crt").contains(&old), "{}", leaf.name);
    }
    family.assert_managed_by_cert_manager().await;
}

/// A leaf is ordered between the renewal of the root and that of the others.
async fn created(rig: &Rig, name: &'static str) {
    let mut family = Family::followed(rig, name, Kind::ECDSA, 6).await;
    let old = family.root.stored().await.pem("tls.crt");
    family.renew_root().await;
    family.trusts_root().await;
    family.step().await;
    family.settle();
    family.add_leaf().await;
    family.leaves[6].wait(rig).await;
    family.leaves[6].trusts(&old).await;
    let all = family.order();
    renew_safely(&mut family, &all).await;
    family.assert_managed_by_cert_manager().await;
}

/// A leaf is renewed before its CA is announced: its peer is separated until then.
async fn too_early<'r>(rig: &'r Rig, name: &'static str) -> Family<'r> {
    let mut family = Family::begin(rig, name, Kind::ECDSA, 6).await;
    family.renew_root().await;
    let failed = renew(&mut family, &[0]).await;
    assert!(failed > 0, "{name}: documented as a limit");
    family
}

async fn announced_late(mut family: Family<'_>) {
    family.trusts_root().await;
    let all = family.order();
    renew_safely(&mut family, &all).await;
    family.assert_managed_by_cert_manager().await;
}

/// Renews these leaves after the settle time. No handshake fails.
async fn renew_safely(family: &mut Family<'_>, leaves: &[usize]) {
    let announcement = family.step().await;
    assert_eq!(announcement.succeeded, announcement.tried, "{}", family.name);
    family.settle();
    assert_eq!(renew(family, leaves).await, 0, "{}", family.name);
}

/// Renews leaves one by one. Returns how many handshakes failed.
async fn renew(family: &mut Family<'_>, leaves: &[usize]) -> usize {
    let (mut tried, mut failed) = (0, 0);
    for leaf in leaves {
        family.renew(*leaf).await;
        let tally = family.step().await;
        tried += tally.tried;
        failed += tally.tried - tally.succeeded;
    }
    println!("{}: {failed} of {tried} handshakes fail", family.name);
    failed
}
