//! The Events about a change of a Secret, whoever wrote it.

use std::time::Duration;

use ca_overlap::keeper::tracked::TrackedSecret;
use ca_overlap::kubernetes::reason::Reason;
use ca_overlap::kubernetes::secret_view::SecretView;
use ca_overlap::names;
use ca_overlap::overlap::outlook::{Rules, outlook};
use ca_overlap::overlap::settings::Defaults;
use ca_overlap::overlap::staged::Stage;
use ca_overlap::x509::certs::Fingerprint;
use jiff::Timestamp;
use serde_json::{Value, json};

use devtools::certs::{self, Identity, bundle};
use devtools::secrets::tls_secret;

const SINCE: &str = "2026-03-01T10:00:00Z";
const UNTIL: &str = "2026-03-02T10:00:00Z";

fn secret(
    cas: &[&Identity],
    leaf: &Identity,
    annotations: &Value,
    phase: Option<&str>,
) -> SecretView {
    let mut object = tls_secret("envoy", &bundle(cas), leaf);
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["annotations"] = annotations.clone();
    if let Some(phase) = phase {
        object["metadata"]["labels"] = json!({names::PHASE: phase});
    }
    serde_json::from_value(object).unwrap()
}

fn carrying(cas: &[&Identity], until: Option<&str>) -> Value {
    let entry = |ca: &&Identity| {
        let mut entry = json!({"sha256": ca.sha256(), "since": SINCE});
        entry["until"] = json!(until);
        entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        entry
    };
    json!({names::CARRIED: cas.iter().map(entry).collect::<Value>().to_string()})
}

fn news(before: Option<&SecretView>, after: &SecretView, now: &str) -> Vec<(Reason, String)> {
    let rules = Rules { defaults: Defaults::default(), settle: Duration::from_secs(120) };
    let now: Timestamp = now.parse().unwrap();
    let at = |secret: &SecretView| outlook(&secret.view(), &rules, now);
    let before = before.map(|before| TrackedSecret::of(before, &at(before)));
    let outlook = at(after);
    TrackedSecret::of(after, &outlook).news(before.as_ref(), after, &outlook, now)
}

fn reasons(news: &[(Reason, String)]) -> Vec<Reason> {
    news.iter().map(|(reason, _)| *reason).collect()
}

#[test]
fn an_event_says_why_a_carried_ca_went() {
    let [one, two, three] = ["CA1", "CA2", "CA3"].map(certs::ca_named);
    let leaf = two.leaf("envoy");
    let overlap = secret(&[&two, &one], &leaf, &carrying(&[&one], Some(UNTIL)), Some("overlap"));
    assert_eq!(reasons(&news(None, &overlap, SINCE)), [Reason::Overlapping]);
    assert!(news(Some(&overlap), &overlap, SINCE).is_empty());

    let retired = secret(&[&two], &leaf, &carrying(&[], None), None);
    let said = news(Some(&overlap), &retired, UNTIL);
    assert_eq!(reasons(&said), [Reason::Retired]);
    let fingerprint = one.sha256();
    assert!(said[0].1.contains(&fingerprint) && said[0].1.ends_with("its overlap has ended"));
    // Before its deadline: the generator has ended the overlap.
    let said = news(Some(&overlap), &retired, SINCE);
    assert!(reasons(&said) == [Reason::Retired] && said[0].1.contains("the generator ended"));
    // A later rotation.
    let third = secret(&[&three, &two], &leaf, &carrying(&[&two], None), Some("overlap"));
    assert_eq!(
        reasons(&news(Some(&overlap), &third, SINCE)),
        [Reason::Overlapping, Reason::Retired]
    );
    // Distrusted.
    let mut distrust = carrying(&[], None);
    distrust[names::DISTRUST] = json!(fingerprint);
    let gone = secret(&[&two], &leaf, &distrust, None);
    assert_eq!(reasons(&news(Some(&overlap), &gone, UNTIL)), [Reason::Distrusted]);
    // The carried CA becomes the generator's own.
    let own = secret(&[&two, &one], &leaf, &carrying(&[], None), None);
    assert!(news(Some(&overlap), &own, UNTIL).is_empty());
}

#[test]
fn a_stage_counts_as_promoted_only_if_the_waiting_leaf_serves() {
    let [one, two] = ["CA1", "CA2"].map(certs::ca_named);
    let [held, pending, third] = [&one, &two, &two].map(|ca| ca.leaf("envoy"));
    let stage = Stage {
        since: SINCE.parse().unwrap(),
        held: Fingerprint::of(held.pem.as_bytes()),
        pending: Fingerprint::of(pending.pem.as_bytes()),
        moved: 0,
    };
    let mut annotations = carrying(&[&one], None);
    let overlap = annotations.clone();
    annotations[names::STAGED] = json!(stage.to_annotation(None));
    let cas = [&two, &one];
    let staged = secret(&cas, &held, &annotations, Some("staged"));
    assert!(reasons(&news(None, &staged, SINCE)).contains(&Reason::Staged));
    for (leaf, expected) in
        [(&pending, Reason::Promoted), (&held, Reason::StageEnded), (&third, Reason::StageEnded)]
    {
        let after = secret(&cas, leaf, &overlap, Some("overlap"));
        assert_eq!(reasons(&news(Some(&staged), &after, SINCE)), [expected]);
    }
}

#[test]
fn an_event_says_who_announces_a_ca_and_why_it_went() {
    let [own, next] = ["CA1", "CA2"].map(certs::ca_named);
    let leaf = own.leaf("envoy");
    let record = |announced: Option<&str>| {
        let mut entry = json!({"sha256": next.sha256(), "since": SINCE, "until": UNTIL});
        entry["announced"] = json!(announced);
        entry.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        json!({names::CARRIED: json!([entry]).to_string()})
    };
    let plain = secret(&[&own], &leaf, &json!({names::CARRIED: "[]"}), None);
    for (by, who) in [("person", "a person"), ("keeper", "the keeper")] {
        let announced = secret(&[&own, &next], &leaf, &record(Some(by)), Some("overlap"));
        let said = news(Some(&plain), &announced, SINCE);
        assert_eq!(reasons(&said), [Reason::Announced]);
        let text = &said[0].1;
        assert!(text.starts_with(who) && text.contains(&next.sha256()) && text.ends_with(UNTIL));
        for (now, why) in [(SINCE, "it was taken back"), (UNTIL, "its announcement has ended")] {
            let said = news(Some(&announced), &plain, now);
            assert_eq!(reasons(&said), [Reason::Withdrawn]);
            assert!(said[0].1.ends_with(why), "{}", said[0].1);
        }
        // It is the generator's own now.
        let used = secret(&[&next, &own], &leaf, &carrying(&[&own], None), Some("overlap"));
        assert_eq!(reasons(&news(Some(&announced), &used, SINCE)), [Reason::Overlapping]);
        let previous = secret(&[&own, &next], &leaf, &record(None), Some("overlap"));
        assert_eq!(reasons(&news(Some(&announced), &previous, SINCE)), [Reason::Overlapping]);
    }
}
