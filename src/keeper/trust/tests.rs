use std::collections::BTreeMap;

use devtools::certs::{CA, Identity};
use serde_json::json;

use super::*;
use crate::kubernetes::issuer::IssuerKind;
use crate::overlap::distrust::Distrust;

const SETTLE: Duration = Duration::from_secs(60);

/// The state and its clock.
struct Fixture {
    trust: Trust,
    now: Instant,
    time: Timestamp,
}

fn certificate(of: &Identity) -> Certificate {
    Certificate::from_der(of.der.to_vec()).unwrap()
}

fn key(text: &str) -> Key {
    let (namespace, name) = text.split_once('/').unwrap();
    Key::new(namespace, name)
}

fn holding(cas: &[&Identity]) -> SourceRead {
    SourceRead {
        exists: true,
        namespace_uid: Some("first".to_owned()),
        held: cas.iter().map(|ca| certificate(ca)).collect(),
        ..SourceRead::default()
    }
}

fn consenting(cas: &[&Identity]) -> SourceRead {
    SourceRead { consents: true, ..holding(cas) }
}

fn annotated(version: &str, annotations: &[(&str, &str)]) -> ObjectMeta {
    let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    ObjectMeta {
        uid: Some("u".to_owned()),
        resource_version: Some(version.to_owned()),
        annotations: Some(annotations.iter().map(own).collect::<BTreeMap<_, _>>()),
        ..ObjectMeta::default()
    }
}

impl Fixture {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(cluster_namespace: Option<&str>) -> Self {
        let own_namespace = "ca-overlap".to_owned();
        let cluster_namespace = cluster_namespace.map(ToOwned::to_owned);
        let trust = Trust::new(cluster_namespace, own_namespace, SETTLE, Overflow::default());
        let mut fixture = Self { trust, now: Instant::now(), time: devtools::certs::now() };
        fixture.trust.secret(Event::Init, fixture.now);
        fixture.trust.secret(Event::InitDone, fixture.now);
        fixture
    }

    /// A write of a Secret that trusts these.
    fn follower(&mut self, name: &str, version: &str, trust: &str, more: &[(&str, &str)]) {
        let meta = annotated(version, &[&[(names::TRUST, trust)], more].concat());
        self.trust.secret(Event::Apply((key(name), meta)), self.now);
    }

    fn read(&mut self, source: &str, read: SourceRead) {
        self.trust.source_read(&key(source), read, self.now);
    }

    /// What is to be announced: fingerprints, with a mark at those that only stay.
    fn wanted(&mut self, follower: &str) -> Option<Vec<String>> {
        let wanted = self.trust.wanted(&key(follower))?;
        let name = |offer: &Offer| {
            let mark = if offer.stays_only { " stays" } else { "" };
            format!("{}{mark}", offer.certificate.fingerprint())
        };
        Some(wanted.offers.iter().map(name).collect())
    }

    /// The follower is compared, and has this leaf.
    fn compare(&mut self, follower: &str, version: &str, leaf: &Identity) {
        self.compare_with(follower, version, leaf, &[], false);
    }

    /// The same, and these are in its `ca.crt`.
    fn compare_with(
        &mut self,
        follower: &str,
        version: &str,
        leaf: &Identity,
        cas: &[&Identity],
        is_left_alone: bool,
    ) {
        use base64::prelude::*;
        let _ = self.trust.wanted(&key(follower));
        let mut secret = json!({
            "metadata": {"uid": "u", "resourceVersion": version},
            "data": {"tls.crt": BASE64_STANDARD.encode(&leaf.pem)},
        });
        if !cas.is_empty() {
            let pem = cas.iter().map(|ca| ca.pem.as_str()).collect::<String>();
            secret["data"]["ca.crt"] = json!(BASE64_STANDARD.encode(pem));
        }
        let secret: SecretView = serde_json::from_value(secret).unwrap();
        let left_alone = Some(is_left_alone);
        let _ = self.trust.compared(&key(follower), &secret, left_alone, self.now, self.time);
    }

    /// These are all issuers, and the Secrets that they sign with.
    fn issuers(&mut self, all: &[(&str, &str)]) {
        for kind in [IssuerKind::ClusterIssuer, IssuerKind::Issuer] {
            self.trust.issuer(kind, Event::Init, self.now);
            for (issuer, secret) in all.iter().filter(|_| kind == IssuerKind::Issuer) {
                let issuer = key(issuer);
                let issuer = json!({
                    "metadata": {"namespace": issuer.namespace(), "name": issuer.name()},
                    "spec": {"ca": {"secretName": secret}},
                });
                let issuer = serde_json::from_value(issuer).unwrap();
                self.trust.issuer(kind, Event::InitApply(issuer), self.now);
            }
            self.trust.issuer(kind, Event::InitDone, self.now);
        }
    }

    /// A write of a Secret that this issuer issues.
    fn issued(&mut self, name: &str, version: &str, issuer: &str) {
        let mut meta = annotated(version, &[(names::CERT_MANAGER_ISSUER[0], issuer)]);
        meta.labels = Some([(names::CERT_MANAGER_OWNED.to_owned(), "true".to_owned())].into());
        self.trust.secret(Event::Apply((key(name), meta)), self.now);
    }

    /// The only cascade: its leaves, what is missing, and whether it is settled.
    fn cascade(&self) -> Option<(Vec<String>, Vec<String>, bool)> {
        let mut cascades = self.trust.cascades(self.time);
        assert!(cascades.len() < 2);
        let names = |keys: &[Key]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        cascades.pop().map(|it| (names(&it.leaves), names(&it.missing), it.is_settled))
    }

    /// The followers that are to be looked at since the last call.
    fn looks(&mut self) -> Vec<String> {
        self.trust.take_todo().followers.iter().map(ToString::to_string).collect()
    }

    fn reads(&mut self) -> Vec<String> {
        self.trust.take_todo().sources.keys().map(ToString::to_string).collect()
    }

    fn refusals(&mut self, follower: &str) -> Vec<Refusal> {
        self.trust.wanted(&key(follower)).unwrap().new_refusals
    }
}

/// What [`Fixture::wanted`] gives if these are to be announced.
#[allow(clippy::unnecessary_wraps, reason = "it is compared with an option")]
fn prints(cas: &[&Identity]) -> Option<Vec<String>> {
    Some(cas.iter().map(|ca| ca.sha256()).collect())
}

#[test]
fn a_follower_is_told_what_its_source_holds_once_all_is_read() {
    let mut fixture = Fixture::new();
    let (one, two) = (CA.self_signed(), CA.self_signed());
    fixture.follower("a/f", "1", "s,t", &[]);
    assert_eq!(fixture.reads(), ["a/s", "a/t"]);
    fixture.read("a/s", holding(&[&one]));
    assert_eq!(fixture.wanted("a/f"), None, "the other source was not read yet");
    fixture.read("a/t", holding(&[&two]));
    assert_eq!(fixture.looks(), ["a/f"]);
    assert_eq!(fixture.wanted("a/f"), prints(&[&one, &two]));
    fixture.compare("a/f", "1", &one.leaf("x"));
    fixture.read("a/s", holding(&[&one]));
    assert_eq!(fixture.looks(), [""; 0], "the source has not changed");
    fixture.follower("a/f", "1", "s,t", &[]);
    assert_eq!(fixture.looks(), [""; 0], "nor has the follower");
    fixture.follower("a/f", "2", "s,t", &[]);
    assert_eq!(fixture.looks(), ["a/f"], "any write of it may have changed ca.crt");
}

#[test]
fn a_source_of_another_namespace_must_consent_and_be_in_the_same_namespace_as_ever() {
    let mut fixture = Fixture::new();
    let ca = CA.self_signed();
    fixture.follower("a/f", "1", "b/s", &[]);
    fixture.read("b/s", holding(&[&ca]));
    assert_eq!(fixture.refusals("a/f"), [Refusal::NoConsent(key("b/s"))]);
    assert_eq!(fixture.refusals("a/f"), [], "it is reported once");
    assert_eq!(fixture.wanted("a/f"), prints(&[]));
    fixture.read("b/s", consenting(&[&ca]));
    let wanted = fixture.trust.wanted(&key("a/f")).unwrap();
    assert_eq!((wanted.offers.len(), wanted.trusted.as_deref()), (1, Some("b=first")));
    // Its namespace is recreated, and a Secret of the same name consents.
    fixture.follower("a/f", "2", "b/s", &[(names::TRUSTED, "b=first")]);
    fixture.read("b/s", SourceRead::default());
    let other = SourceRead { namespace_uid: Some("second".to_owned()), ..consenting(&[&ca]) };
    fixture.read("b/s", other);
    assert_eq!(fixture.refusals("a/f"), [Refusal::OtherNamespace(key("b/s"))]);
    assert_eq!(fixture.wanted("a/f"), prints(&[]));
    let wanted = fixture.trust.wanted(&key("a/f")).unwrap();
    assert_eq!(wanted.trusted.as_deref(), Some("b=first"), "it stays until trust is set again");
    fixture.follower("a/f", "3", "b/s", &[]);
    assert_eq!(fixture.wanted("a/f"), prints(&[&ca]));
}

#[test]
fn what_a_source_holds_no_more_lingers_and_ends() {
    let mut fixture = Fixture::new();
    let (one, two) = (CA.self_signed(), CA.self_signed());
    fixture.follower("a/f", "1", "s", &[]);
    fixture.read("a/s", holding(&[&one]));
    fixture.compare("a/f", "1", &two.leaf("x"));
    fixture.read("a/s", SourceRead::default());
    assert_eq!(fixture.wanted("a/f"), Some(vec![format!("{} stays", one.sha256())]));
    assert_eq!(fixture.reads(), ["a/s"], "when it ends");
    fixture.now += SETTLE;
    fixture.read("a/s", SourceRead::default());
    assert_eq!(fixture.wanted("a/f"), prints(&[]));
    // What the source itself distrusts goes at once.
    fixture.read("a/s", holding(&[&one]));
    let mut distrust = Distrust::default();
    distrust.add(certificate(&one).fingerprint());
    fixture.read("a/s", SourceRead { distrust, ..holding(&[&two]) });
    assert_eq!(fixture.wanted("a/f"), prints(&[&two]));
}

#[test]
fn a_previous_ca_is_offered_as_long_as_a_follower_has_a_leaf_of_it() {
    let mut fixture = Fixture::new();
    let (old, new) = (CA.self_signed(), CA.self_signed());
    for follower in ["a/f", "a/g"] {
        fixture.follower(follower, "1", "s", &[]);
    }
    let since = fixture.time;
    let renewed = SourceRead { previous: vec![(certificate(&old), since)], ..holding(&[&new]) };
    fixture.read("a/s", renewed.clone());
    let stays = Some(vec![new.sha256(), format!("{} stays", old.sha256())]);
    assert_eq!(fixture.wanted("a/f"), stays, "no follower was read yet");
    let _ = fixture.looks();
    fixture.compare("a/f", "1", &old.leaf("x"));
    assert_eq!(fixture.looks(), ["a/f", "a/g"]);
    assert_eq!(fixture.wanted("a/g"), prints(&[&new, &old]));
    fixture.compare("a/g", "1", &new.leaf("x"));
    fixture.compare("a/f", "2", &new.leaf("x"));
    assert_eq!(fixture.wanted("a/g"), stays, "pods can still show the leaf");
    fixture.now += SETTLE;
    fixture.read("a/s", renewed.clone());
    assert_eq!(fixture.wanted("a/g"), prints(&[&new]));
    // A follower that comes later and has not been read changes nothing, until it has such a leaf.
    fixture.follower("a/h", "1", "s", &[]);
    assert_eq!(fixture.wanted("a/g"), prints(&[&new]));
    fixture.compare("a/h", "1", &old.leaf("x"));
    assert_eq!(fixture.wanted("a/g"), prints(&[&new, &old]));
    fixture.trust.secret(Event::Delete((key("a/h"), annotated("2", &[]))), fixture.now);
    assert_eq!(fixture.wanted("a/g"), stays);
}

#[test]
fn an_expired_leaf_needs_nothing() {
    let mut fixture = Fixture::new();
    let (old, new) = (CA.self_signed(), CA.self_signed());
    fixture.follower("a/f", "1", "s", &[]);
    let since = fixture.time;
    fixture
        .read("a/s", SourceRead { previous: vec![(certificate(&old), since)], ..holding(&[&new]) });
    let leaf = old.leaf("x");
    fixture.time = Timestamp::from_second(certificate(&leaf).not_after()).unwrap();
    fixture.compare("a/f", "1", &leaf);
    let stays = Some(vec![new.sha256(), format!("{} stays", old.sha256())]);
    assert_eq!(fixture.wanted("a/f"), stays, "a keeper that has just begun takes nothing back");
    fixture.now += SETTLE;
    fixture
        .read("a/s", SourceRead { previous: vec![(certificate(&old), since)], ..holding(&[&new]) });
    assert_eq!(fixture.wanted("a/f"), prints(&[&new]));
}

#[test]
fn the_secrets_of_one_namespace_follow_a_limited_number_of_others() {
    let mut fixture = Fixture::new();
    for number in 0..MAX_FOREIGN {
        fixture.follower(&format!("a/{number}"), "1", &format!("b/{number}"), &[]);
    }
    fixture.follower("a/more", "1", "b/more,local", &[]);
    assert!(fixture.trust.source(&key("b/more")).is_none());
    fixture.read("a/local", holding(&[]));
    assert_eq!(fixture.refusals("a/more"), [Refusal::TooMany(key("b/more"))]);
    // Those of other namespaces are not affected.
    fixture.follower("c/f", "1", "b/more", &[]);
    assert!(fixture.trust.source(&key("b/more")).is_some());
    fixture.trust.secret(Event::Delete((key("a/0"), annotated("2", &[]))), fixture.now);
    assert!(fixture.trust.source(&key("b/0")).is_none());
    fixture.follower("a/last", "1", "b/last", &[]);
    assert!(fixture.trust.source(&key("b/last")).is_some());
}

#[test]
fn a_secret_that_trusts_nothing_any_more_is_told_so() {
    let mut fixture = Fixture::new();
    let record = format!(
        r#"[{{"sha256":"{}","since":"2026-01-01T00:00:00Z","announced":"keeper"}}]"#,
        "0".repeat(64)
    );
    let meta = annotated("1", &[(names::CARRIED, &record)]);
    fixture.trust.secret(Event::Apply((key("a/f"), meta)), fixture.now);
    assert_eq!(fixture.looks(), ["a/f"]);
    assert_eq!(fixture.wanted("a/f"), prints(&[]));
    fixture.trust.secret(Event::Apply((key("a/f"), annotated("2", &[]))), fixture.now);
    assert_eq!(fixture.wanted("a/f"), None);
}

#[test]
fn what_a_list_does_not_show_any_more_is_forgotten() {
    let mut fixture = Fixture::new();
    fixture.follower("a/f", "1", "s", &[]);
    fixture.read("a/s", holding(&[]));
    fixture.trust.secret(Event::Init, fixture.now);
    assert!(fixture.wanted("a/f").is_some(), "until the list is complete");
    fixture.trust.secret(Event::InitDone, fixture.now);
    assert!(fixture.wanted("a/f").is_none() && fixture.trust.sources.iter().next().is_none());
    assert!(fixture.trust.foreign.is_empty());
}

#[test]
fn the_secrets_for_which_the_webhook_is_never_called_follow_nothing() {
    let mut fixture = Fixture::new();
    for name in ["kube-system/f", "ca-overlap/f"] {
        fixture.follower(name, "1", "s", &[]);
        assert!(fixture.reads().is_empty(), "{name}");
    }
}

/// With issuers: their events, and a Secret that cert-manager owns.
mod of_issuers {
    use super::*;

    fn fixture() -> Fixture {
        let trust = Trust::new(
            Some("cert-manager".to_owned()),
            "ca-overlap".to_owned(),
            SETTLE,
            Overflow::default(),
        );
        let mut fixture = Fixture { trust, now: Instant::now(), time: devtools::certs::now() };
        fixture.trust.secret(Event::Init, fixture.now);
        fixture.trust.secret(Event::InitDone, fixture.now);
        fixture
    }

    fn owned(fixture: &mut Fixture, name: &str, kind: &str) {
        let mut meta = annotated(
            "1",
            &[("cert-manager.io/issuer-name", "ca"), ("cert-manager.io/issuer-kind", kind)],
        );
        let label = ("controller.cert-manager.io/fao".to_owned(), "true".to_owned());
        meta.labels = Some(BTreeMap::from([label]));
        fixture.trust.secret(Event::Apply((key(name), meta)), fixture.now);
    }

    fn issuer(namespace: &str, spec: &serde_json::Value) -> Issuer {
        let meta = if namespace.is_empty() {
            json!({"name": "ca"})
        } else {
            json!({"name": "ca", "namespace": namespace})
        };
        serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
    }

    fn list(fixture: &mut Fixture, kind: IssuerKind, all: Vec<Issuer>) {
        fixture.trust.issuer(kind, Event::Init, fixture.now);
        for one in all {
            fixture.trust.issuer(kind, Event::InitApply(one), fixture.now);
        }
        fixture.trust.issuer(kind, Event::InitDone, fixture.now);
    }

    #[test]
    fn the_secret_of_its_issuer_is_a_source_without_any_consent() {
        let mut fixture = fixture();
        let ca = CA.self_signed();
        owned(&mut fixture, "shop/web", "ClusterIssuer");
        owned(&mut fixture, "shop/api", "Issuer");
        assert!(fixture.reads().is_empty());
        assert_eq!(fixture.wanted("shop/web"), None, "the issuers are not known yet");
        let spec = json!({"ca": {"secretName": "root"}});
        list(&mut fixture, IssuerKind::ClusterIssuer, vec![issuer("", &spec)]);
        assert_eq!(fixture.reads(), ["cert-manager/root"]);
        assert_eq!(fixture.trust.label_rule(&key("cert-manager/root")), LabelRule::Issuer);
        fixture.read("cert-manager/root", holding(&[&ca]));
        assert_eq!(fixture.wanted("shop/web"), prints(&[&ca]));
        assert_eq!(fixture.wanted("shop/api"), None);
        list(&mut fixture, IssuerKind::Issuer, Vec::new());
        assert_eq!(fixture.wanted("shop/api"), prints(&[]), "there is no such issuer");
        // It is created later, and signs with another Secret still later.
        let created = issuer("shop", &spec);
        fixture.trust.issuer(IssuerKind::Issuer, Event::Apply(created), fixture.now);
        assert_eq!(fixture.reads(), ["shop/root"]);
        let other = issuer("shop", &json!({"ca": {"secretName": "other"}}));
        fixture.trust.issuer(IssuerKind::Issuer, Event::Apply(other), fixture.now);
        assert!(fixture.reads().contains(&"shop/other".to_owned()));
        assert!(fixture.trust.source(&key("shop/root")).is_none());
        assert_eq!(fixture.trust.label_rule(&key("shop/root")), LabelRule::NotIssuer);
        let other = issuer("shop", &json!({"selfSigned": {}}));
        fixture.trust.issuer(IssuerKind::Issuer, Event::Apply(other), fixture.now);
        assert_eq!(fixture.wanted("shop/api"), prints(&[]));
    }

    #[test]
    fn the_label_of_a_source_goes_when_no_issuer_signs_with_it() {
        let mut fixture = fixture();
        let mut meta = annotated("1", &[]);
        let label = (names::SOURCE.to_owned(), names::SOURCE_ISSUER.to_owned());
        meta.labels = Some(BTreeMap::from([label]));
        fixture.trust.secret(Event::Apply((key("shop/root"), meta)), fixture.now);
        list(&mut fixture, IssuerKind::ClusterIssuer, Vec::new());
        assert!(fixture.reads().is_empty(), "an Issuer may");
        list(&mut fixture, IssuerKind::Issuer, Vec::new());
        assert_eq!(fixture.reads(), ["shop/root"]);
        assert_eq!(fixture.trust.label_rule(&key("shop/root")), LabelRule::NotIssuer);
    }

    #[test]
    fn what_is_no_name_of_a_secret_leads_nowhere() {
        for name in ["", "../../other/secrets/root", "root?x=", "Root"] {
            let mut fixture = fixture();
            list(&mut fixture, IssuerKind::ClusterIssuer, Vec::new());
            let spec = json!({"ca": {"secretName": name}});
            list(&mut fixture, IssuerKind::Issuer, vec![issuer("shop", &spec)]);
            owned(&mut fixture, "shop/web", "Issuer");
            assert!(fixture.reads().is_empty(), "{name}");
        }
    }

    #[test]
    fn a_source_gets_its_label_as_long_as_a_secret_of_its_issuer_follows() {
        let mut fixture = fixture();
        let root = key("shop/root");
        list(&mut fixture, IssuerKind::ClusterIssuer, Vec::new());
        let spec = json!({"ca": {"secretName": "root"}});
        list(&mut fixture, IssuerKind::Issuer, vec![issuer("shop", &spec)]);
        fixture.follower("shop/other", "1", "root", &[]);
        assert_eq!(fixture.trust.label_rule(&root), LabelRule::Any);
        owned(&mut fixture, "shop/web", "Issuer");
        assert_eq!(fixture.trust.label_rule(&root), LabelRule::Issuer);
        let gone = Event::Delete((key("shop/web"), annotated("2", &[])));
        fixture.trust.secret(gone, fixture.now);
        assert_eq!(fixture.trust.label_rule(&root), LabelRule::Any);
    }
}

/// The result of [`Fixture::cascade`].
#[allow(clippy::unnecessary_wraps, reason = "it is compared with an option")]
fn cascade(
    leaves: &[&str],
    missing: &[&str],
    is_settled: bool,
) -> Option<(Vec<String>, Vec<String>, bool)> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    Some((own(leaves), own(missing), is_settled))
}

#[test]
fn leaves_are_renewed_when_every_secret_of_the_issuer_has_trusted_the_new_ca_for_the_settle_time() {
    let mut fixture = Fixture::with(Some("cert-manager"));
    let (old, new) = (CA.self_signed(), CA.self_signed());
    fixture.issuers(&[("a/ca", "root")]);
    for leaf in ["a/f", "a/g", "a/off"] {
        fixture.issued(leaf, "1", "ca");
    }
    fixture.read("a/root", holding(&[&old]));
    for leaf in ["a/f", "a/g", "a/off"] {
        fixture.compare_with(leaf, "1", &old.leaf("x"), &[&old], leaf == "a/off");
    }
    assert_eq!(fixture.cascade(), None, "every leaf is of the present CA");

    let since = fixture.time;
    let renewed = SourceRead { previous: vec![(certificate(&old), since)], ..holding(&[&new]) };
    fixture.read("a/root", renewed);
    assert_eq!(fixture.cascade(), cascade(&["a/f", "a/g"], &["a/f", "a/g"], false));
    fixture.compare_with("a/f", "2", &old.leaf("x"), &[&old, &new], false);
    fixture.time += SETTLE;
    assert_eq!(fixture.cascade(), cascade(&["a/f", "a/g"], &["a/g"], false));
    fixture.compare_with("a/g", "2", &old.leaf("x"), &[&old, &new], false);
    fixture.time += SETTLE / 2;
    assert_eq!(fixture.cascade(), cascade(&["a/f", "a/g"], &[], false));
    fixture.time += SETTLE / 2;
    assert_eq!(fixture.cascade(), cascade(&["a/f", "a/g"], &[], true));

    // What it trusted while the CA was announced, it trusts all the time.
    fixture.compare_with("a/g", "3", &new.leaf("x"), &[&new, &old], false);
    assert_eq!(fixture.cascade(), cascade(&["a/f"], &[], true));
    // Nobody who comes later is passed over.
    fixture.issued("a/late", "1", "ca");
    assert_eq!(fixture.cascade(), cascade(&["a/f"], &["a/late"], false));
    fixture.compare_with("a/late", "1", &new.leaf("x"), &[&new, &old], false);
    assert_eq!(fixture.cascade(), cascade(&["a/f"], &[], false), "it settles first");
    fixture.time += SETTLE;
    assert_eq!(fixture.cascade(), cascade(&["a/f"], &[], true));
    fixture.compare_with("a/f", "3", &new.leaf("x"), &[&new, &old], false);
    assert_eq!(fixture.cascade(), None);
}

#[test]
fn an_intermediate_is_renewed_when_its_own_followers_trust_the_new_root() {
    let mut fixture = Fixture::with(Some("cert-manager"));
    let (old, new) = (CA.self_signed(), CA.self_signed());
    let intermediate = old.intermediate("int");
    fixture.issuers(&[("a/root", "root"), ("a/int", "int")]);
    // The leaf is seen first.
    fixture.issued("a/leaf", "1", "int");
    fixture.read("a/int", holding(&[&old]));
    fixture.issued("a/int", "1", "root");
    assert_eq!(fixture.wanted("a/leaf"), None, "the root was not read yet");
    fixture.read("a/root", holding(&[&old]));
    assert_eq!(fixture.wanted("a/leaf"), prints(&[&old]));
    let mut leaf = intermediate.leaf("x");
    leaf.pem += &intermediate.pem;
    fixture.compare_with("a/int", "1", &intermediate, &[&old], false);
    fixture.compare_with("a/leaf", "1", &leaf, &[&old], false);
    let _ = fixture.looks();

    fixture.read("a/root", holding(&[&new]));
    assert_eq!(fixture.looks(), ["a/int", "a/leaf"]);
    let stays = format!("{} stays", old.sha256());
    assert_eq!(fixture.wanted("a/int"), Some(vec![new.sha256(), stays]));
    assert_eq!(fixture.wanted("a/leaf"), prints(&[&old, &new]));
    fixture.compare_with("a/int", "2", &intermediate, &[&old, &new], false);
    fixture.time += SETTLE;
    assert_eq!(fixture.cascade(), cascade(&["a/int"], &["a/leaf"], false));
    fixture.compare_with("a/leaf", "2", &leaf, &[&old, &new], false);
    fixture.time += SETTLE;
    assert_eq!(fixture.cascade(), cascade(&["a/int"], &[], true));

    // Now the leaves of the intermediate follow, and their peers have trusted the root for long.
    let renewed = new.intermediate("int");
    fixture.compare_with("a/int", "3", &renewed, &[&new, &old], false);
    fixture.read("a/int", holding(&[&new]));
    fixture.compare_with("a/leaf", "3", &leaf, &[&old, &new], false);
    assert_eq!(fixture.cascade(), cascade(&["a/leaf"], &[], true));
}

#[test]
fn two_intermediates_that_issue_each_other_end_no_loop() {
    let mut fixture = Fixture::with(Some("cert-manager"));
    let ca = CA.self_signed();
    fixture.issuers(&[("a/one", "one"), ("a/two", "two")]);
    fixture.issued("a/one", "1", "two");
    fixture.issued("a/two", "1", "one");
    fixture.issued("a/leaf", "1", "one");
    fixture.read("a/one", holding(&[&ca]));
    fixture.read("a/two", holding(&[&ca]));
    assert_eq!(fixture.wanted("a/leaf"), prints(&[&ca]));
    fixture.compare_with("a/leaf", "1", &ca.leaf("x"), &[&ca], false);
    assert_eq!(fixture.cascade(), None);
}
