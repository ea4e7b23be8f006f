//! Our state and the settings: what is restored, obeyed and refused.

use base64::prelude::*;
use serde_json::{Value, json};

use super::endpoint::{admit, annotate, as_patch, label, review, secret};
use devtools::certs::{self, Identity};

fn carrying(new: &Identity, old: &Identity) -> Value {
    let record = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z"}]);
    let stored = annotate(secret(&certs::bundle(&[new, old])), "carried", &record.to_string());
    label(stored, "phase", "overlap")
}

#[tokio::test]
async fn a_put_gets_missing_settings_back_and_a_patch_is_obeyed() {
    let (old, new) = (certs::ca(), certs::ca());
    let settings = [
        ("keep", "2"),
        ("window", "7d"),
        ("distrust", ""),
        ("restart", "deployment/x"),
        ("group", "g"),
    ];
    let mut stored = label(secret(&old.pem), "mode", "bundle");
    for (key, value) in settings {
        stored = annotate(stored, key, value);
    }
    let put = admit(&review(&stored, &secret(&new.pem))).await;
    assert_eq!(put.label("mode"), Some("bundle"));
    for (key, value) in settings {
        assert_eq!(put.annotation(key), Some(value), "{key}");
    }
    // The restored window applies to this write.
    assert!(put.annotation("carried").unwrap().contains("until"));
    let patch = admit(&as_patch(review(&stored, &secret(&old.pem)))).await;
    assert_eq!((patch.label("mode"), patch.annotation("keep")), (None, None));
    assert!(patch.warnings().is_empty());
}

/// An object that was made from the stored one: it has its uid and managed fields.
fn made_from_stored(mut secret: Value, uid: &str) -> Value {
    secret["metadata"]["uid"] = uid.into();
    secret["metadata"]["managedFields"] = json!([{}]);
    secret
}

#[tokio::test]
async fn a_write_that_changes_ca_crt_takes_no_setting_away() {
    let (old, new) = (certs::ca(), certs::ca());
    let bare = made_from_stored(secret(&old.pem), "1");
    let distrust = annotate(bare.clone(), "distrust", &old.sha256());
    for person in [label(bare.clone(), "mode", "off"), distrust] {
        // The record begins with the write of the person, in every mode.
        let set = admit(&as_patch(review(&bare, &person))).await;
        assert_eq!(set.annotation("carried"), Some("[]"));
        assert_eq!(set.ca_crt(), old.pem);
        // A controller keeps the uid, and replaces data, labels and annotations.
        let replaced = made_from_stored(secret(&new.pem), "1");
        for stored in [&person, &set.stored] {
            for review in [review(stored, &replaced), as_patch(review(stored, &replaced))] {
                let rotated = admit(&review).await;
                assert_eq!(rotated.ca_crt(), new.pem, "nothing is carried");
                let (labels, annotations) = ("/metadata/labels", "/metadata/annotations");
                let set = |key: &str| person.pointer(key).and_then(Value::as_str);
                let mode = set(&format!("{labels}/ca-overlap.dev~1mode"));
                let distrust = set(&format!("{annotations}/ca-overlap.dev~1distrust"));
                assert_eq!(
                    (rotated.label("mode"), rotated.annotation("distrust")),
                    (mode, distrust)
                );
                assert_eq!(rotated.annotation("carried"), Some("[]"));
                let again = admit(&super::endpoint::review(&rotated.stored, &replaced)).await;
                for map in [labels, annotations] {
                    assert_eq!(again.stored.pointer(map), rotated.stored.pointer(map));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_setting_that_came_back_draws_a_warning_where_it_may_be_removed_on_purpose() {
    let (old, new) = (certs::ca(), certs::ca());
    let plain = made_from_stored(secret(&old.pem), "1");
    let stored = annotate(annotate(plain, "keep", "2"), "carried", "[]");
    let edited = annotate(made_from_stored(secret(&new.pem), "1"), "carried", "[]");
    let kept = |outcome: &super::endpoint::Outcome| {
        outcome.warnings().iter().filter(|w| w.contains("removes no setting")).count()
    };
    let outcome = admit(&review(&stored, &edited)).await;
    assert_eq!((outcome.annotation("keep"), kept(&outcome)), (Some("2"), 1));
    // The writer of a fresh object did not read the setting.
    let outcome = admit(&review(&stored, &secret(&new.pem))).await;
    assert_eq!((outcome.annotation("keep"), kept(&outcome)), (Some("2"), 0));
    // An edit that leaves `ca.crt` alone removes it.
    let edited = annotate(made_from_stored(secret(&old.pem), "1"), "carried", "[]");
    let outcome = admit(&review(&stored, &edited)).await;
    assert_eq!((outcome.annotation("keep"), kept(&outcome)), (None, 0));
}

#[tokio::test]
async fn a_record_names_the_uid_of_its_secret_and_one_of_another_secret_is_not_believed() {
    let (old, new) = (certs::ca(), certs::ca());
    let with_uid = |uid: &str| {
        let mut stored = carrying(&new, &old);
        stored["metadata"]["uid"] = "1".into();
        let entry = json!([{"sha256": old.sha256(), "since": "2026-01-01T00:00:00Z", "uid": uid}]);
        annotate(stored, "carried", &entry.to_string())
    };
    // Of the first edition: believed, and completed once.
    let mut stored = carrying(&new, &old);
    stored["metadata"]["uid"] = "1".into();
    let reapply = secret(&new.pem);
    let completed = admit(&review(&stored, &reapply)).await;
    assert_eq!(completed.ca_crt(), certs::bundle(&[&new, &old]));
    assert!(completed.annotation("carried").unwrap().contains(r#""uid":"1"}]"#));
    let again = admit(&review(&completed.stored, &reapply)).await;
    assert_eq!(again.annotation("carried"), completed.annotation("carried"));
    // Our own.
    let outcome = admit(&review(&with_uid("1"), &reapply)).await;
    assert_eq!(outcome.stored["metadata"]["annotations"], with_uid("1")["metadata"]["annotations"]);
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    // Of another Secret: its certificate is an own one, which its generator drops.
    let outcome = admit(&review(&with_uid("2"), &reapply)).await;
    assert_eq!((outcome.decision(), outcome.ca_crt()), ("retirement", new.pem.clone()));
    assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (Some("[]"), None));
    // A write that leaves `ca.crt` alone drops the record, too.
    let touched = admit(&as_patch(review(&with_uid("2"), &with_uid("2")))).await;
    assert_eq!((touched.annotation("carried"), touched.label("phase")), (Some("[]"), None));
    assert_eq!(touched.ca_crt(), certs::bundle(&[&new, &old]));
}

#[tokio::test]
async fn a_setting_of_the_writer_overrides_the_stored_one() {
    let ca = certs::ca();
    let stored = annotate(secret(&ca.pem), "keep", "2");
    let outcome = admit(&review(&stored, &annotate(secret(&ca.pem), "keep", ""))).await;
    assert_eq!((outcome.annotation("keep"), outcome.annotation("carried")), (Some(""), Some("[]")));
    assert_eq!(outcome.operations.len(), 1);
}

#[tokio::test]
async fn an_oversized_setting_is_not_restored() {
    let ca = certs::ca();
    for (len, comes_back) in [(4096, true), (4097, false)] {
        let stored = annotate(secret(&ca.pem), "group", &"g".repeat(len));
        let outcome = admit(&review(&stored, &secret(&ca.pem))).await;
        assert_eq!(outcome.annotation("group").is_some(), comes_back, "{len}");
        assert_eq!(outcome.warnings().is_empty(), comes_back, "{len}");
    }
}

#[tokio::test]
async fn our_state_is_restored_and_a_forged_one_is_replaced() {
    let (old, new, evil) = (certs::ca(), certs::ca(), certs::ca());
    let stored = carrying(&new, &old);
    let bare = secret(&certs::bundle(&[&new, &old]));
    let forged = carrying(&old, &evil);
    let mut forged_state = bare.clone();
    forged_state["metadata"]["annotations"] = forged["metadata"]["annotations"].clone();
    for incoming in [&bare, &forged_state] {
        for review in [review(&stored, incoming), as_patch(review(&stored, incoming))] {
            let outcome = admit(&review).await;
            assert_eq!(
                outcome.stored["metadata"]["annotations"],
                stored["metadata"]["annotations"]
            );
            assert_eq!(outcome.label("phase"), Some("overlap"));
            assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
        }
    }
    // If nothing is recorded, a forged record is removed.
    let outcome = admit(&review(&bare, &label(forged_state, "phase", "staged"))).await;
    assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (None, None));
}

#[tokio::test]
async fn our_state_is_removed_with_ca_crt() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = annotate(carrying(&new, &old), "keep", "2");
    let mut without = stored.clone();
    without["data"].as_object_mut().unwrap().remove("ca.crt");
    let outcome = admit(&as_patch(review(&stored, &without))).await;
    assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (None, None));
    assert_eq!(outcome.annotation("keep"), Some("2"));
}

#[tokio::test]
async fn a_reapply_makes_the_write_a_no_op() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = carrying(&new, &old);
    let outcome = admit(&review(&stored, &secret(&new.pem))).await;
    assert_eq!(outcome.stored["data"], stored["data"]);
    assert_eq!(outcome.stored["metadata"]["annotations"], stored["metadata"]["annotations"]);
    assert_eq!(outcome.stored["metadata"]["labels"], stored["metadata"]["labels"]);
    assert_eq!(outcome.decision(), "same");
}

#[tokio::test]
async fn an_equal_record_in_another_format_is_not_rewritten() {
    let (old, new) = (certs::ca(), certs::ca());
    // Spaces as Python writes them, a time with an offset, and an unknown field.
    let text = format!(
        r#"[{{"since": "2026-01-01T00:00:00+00:00", "sha256": "{}", "more": 1}}]"#,
        old.sha256().to_uppercase()
    );
    let stored = annotate(secret(&certs::bundle(&[&new, &old])), "carried", &text);
    let stored = label(stored, "phase", "overlap");
    let outcome = admit(&review(&stored, &secret(&new.pem))).await;
    assert_eq!(outcome.stored, stored, "a no-op, which the API server drops");
}

#[tokio::test]
async fn distrust_acts_with_the_write_that_sets_it() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = carrying(&new, &old);
    let distrusting = annotate(stored.clone(), "distrust", &old.sha256());
    let outcome = admit(&as_patch(review(&stored, &distrusting))).await;
    assert_eq!(outcome.ca_crt(), new.pem);
    assert_eq!((outcome.annotation("carried"), outcome.label("phase")), (Some("[]"), None));
    // The next PUT of the generator neither removes the setting nor brings the CA back.
    let next = admit(&review(&outcome.stored, &secret(&new.pem))).await;
    assert_eq!(next.ca_crt(), new.pem);
    assert_eq!(next.annotation("distrust"), Some(old.sha256().as_str()));
}

#[tokio::test]
async fn a_record_that_does_not_parse_counts_as_absent_with_a_warning() {
    let (old, new) = (certs::ca(), certs::ca());
    let stored = annotate(secret(&certs::bundle(&[&new, &old])), "carried", "CANARY{");
    let outcome = admit(&review(&stored, &secret(&new.pem))).await;
    assert_eq!(outcome.decision(), "first_contact");
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert!(outcome.warnings()[0].contains("ca-overlap.dev/carried"));
    assert!(!outcome.response.to_string().contains("CANARY"));
}

#[tokio::test]
async fn an_unreadable_setting_is_named_and_the_default_used() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut incoming = annotate(secret(&new.pem), "keep", "CANARY");
    incoming = annotate(incoming, "window", "CANARY");
    incoming = label(incoming, "mode", "CANARY");
    let outcome = admit(&review(&secret(&old.pem), &incoming)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert_eq!(outcome.warnings().len(), 3);
    assert!(!outcome.warnings().concat().contains("CANARY"));
}

#[tokio::test]
async fn mode_staged_is_bundled_with_a_warning_where_staging_is_off() {
    let (old, new) = (certs::ca(), certs::ca());
    let outcome =
        admit(&review(&secret(&old.pem), &label(secret(&new.pem), "mode", "staged"))).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert!(outcome.warnings()[0].contains("mode=staged"));
}

#[tokio::test]
async fn without_room_for_the_record_nothing_is_carried() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut full = secret(&new.pem);
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - 10).into();
    let outcome = admit(&review(&annotate(secret(&old.pem), "keep", "3"), &full)).await;
    assert!(outcome.operations.is_empty(), "{:?}", outcome.operations.len());
    assert_eq!(outcome.ca_crt(), new.pem);
    let of_room = |w: &&&str| w.contains("annotations have no room");
    assert_eq!(outcome.warnings().iter().filter(of_room).count(), 1);
    // A record that fits to the byte is written.
    let record = admit(&review(&secret(&old.pem), &secret(&new.pem))).await;
    let needed = "ca-overlap.dev/carried".len() + record.annotation("carried").unwrap().len();
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - needed).into();
    let outcome = admit(&review(&secret(&old.pem), &full)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
}

#[tokio::test]
async fn settings_without_room_are_left_out_with_one_warning() {
    let (old, new) = (certs::ca(), certs::ca());
    let mut stored = annotate(secret(&old.pem), "keep", "2");
    for key in ["group", "restarted"] {
        stored = annotate(stored, key, &"x".repeat(4096));
    }
    let mut nearly_full = secret(&new.pem);
    nearly_full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 4096).into();
    let outcome = admit(&review(&stored, &nearly_full)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&new, &old]));
    assert_eq!(outcome.annotation("keep"), Some("2"));
    assert_eq!((outcome.annotation("group"), outcome.annotation("restarted")), (None, None));
    assert!(outcome.warnings()[0].contains("annotations have no room"));
    assert_eq!(outcome.warnings().len(), 1);
}

#[tokio::test]
async fn a_setting_without_room_applies_only_to_its_own_write() {
    let (first, second, third) = (certs::ca(), certs::ca(), certs::ca());
    let stored = annotate(carrying(&second, &first), "keep", "2");
    let roomy = admit(&review(&stored, &secret(&third.pem))).await;
    let record = roomy.annotation("carried").unwrap().len();
    let mut full = secret(&third.pem);
    let needed = "ca-overlap.dev/carried".len() + record + "ca-overlap.dev/keep".len();
    full["metadata"]["annotations"]["big"] = "x".repeat(262_144 - 3 - needed).into();
    let outcome = admit(&review(&stored, &full)).await;
    assert_eq!(outcome.ca_crt(), certs::bundle(&[&third, &second, &first]));
    assert_eq!(outcome.annotation("keep"), None);
    assert!(outcome.warnings()[0].contains("annotations have no room"));
    let again = admit(&review(&outcome.stored, &full)).await;
    assert_eq!(again.ca_crt(), certs::bundle(&[&third, &second]));
}

#[tokio::test]
async fn a_ca_crt_that_is_not_base64_is_admitted_unchanged() {
    let mut bad = secret("");
    bad["data"]["ca.crt"] = "%%%".into();
    let outcome = admit(&review(&secret(&certs::ca().pem), &bad)).await;
    assert_eq!(outcome.decision(), "not_readable");
    assert_eq!(outcome.stored["data"]["ca.crt"], "%%%");
    // Go ignores line breaks in base64, and so does the webhook.
    let ca = certs::ca();
    let mut spaced = secret("");
    let mut text = BASE64_STANDARD.encode(&ca.pem);
    text.insert_str(10, "\r\n");
    spaced["data"]["ca.crt"] = text.into();
    let old = certs::ca();
    assert_eq!(
        admit(&review(&secret(&old.pem), &spaced)).await.ca_crt(),
        certs::bundle(&[&ca, &old])
    );
}

#[tokio::test]
async fn only_the_keeper_may_change_the_progress_of_a_restart() {
    let ca = certs::ca();
    let with = |restart: Option<&str>, restarted: Option<&str>| {
        let settings = [("restart", restart), ("restarted", restarted)];
        let settings = settings.into_iter().filter_map(|(key, value)| Some((key, value?)));
        settings.fold(secret(&ca.pem), |secret, (key, value)| annotate(secret, key, value))
    };
    let stored = with(Some("deployment/x"), Some("T1"));
    // A generator that sets `restart`, and an exported manifest: by PUT and by PATCH.
    for incoming in [with(Some("deployment/x"), None), with(Some("deployment/y"), Some("T0"))] {
        for review in [review(&stored, &incoming), as_patch(review(&stored, &incoming))] {
            let outcome = admit(&review).await;
            assert_eq!(outcome.annotation("restarted"), Some("T1"));
            assert_eq!(outcome.annotation("restart"), with_restart(&incoming));
        }
    }
    let mut progress = as_patch(review(&stored, &with(Some("deployment/x"), Some("T2"))));
    progress["request"]["userInfo"]["username"] =
        "system:serviceaccount:ca-overlap:ca-overlap-keeper".into();
    let outcome = admit(&progress).await;
    assert_eq!(outcome.annotation("restarted"), Some("T2"));
    assert!(outcome.operations.is_empty());
    // A person may remove it together with `restart`.
    let outcome = admit(&as_patch(review(&stored, &with(None, None)))).await;
    assert_eq!(outcome.annotation("restarted"), None);
}

fn with_restart(secret: &Value) -> Option<&str> {
    secret["metadata"]["annotations"]["ca-overlap.dev/restart"].as_str()
}

#[tokio::test]
async fn a_typo_in_restart_draws_a_warning() {
    let ca = certs::ca();
    let plain = secret(&ca.pem);
    let many: Vec<String> = (0..17).map(|number| format!("deployment/a{number}")).collect();
    for (restart, warns) in [
        ("deployment/a, statefulset/b,daemonset/c", false),
        ("", false),
        ("deploymnt/a", true),
        ("deployment/a,pod/b", true),
        (&many.join(","), true),
    ] {
        let incoming = annotate(plain.clone(), "restart", restart);
        let outcome = admit(&as_patch(review(&plain, &incoming))).await;
        let warned = outcome.warnings().iter().any(|w| w.contains("restart: expected"));
        assert_eq!(warned, warns, "{restart}");
        assert_eq!(outcome.annotation("restart"), Some(restart), "obeyed anyway");
        // A restored value draws the warning, too.
        let outcome = admit(&review(&incoming, &plain)).await;
        assert_eq!(!outcome.warnings().is_empty(), warns, "{restart}");
    }
}
