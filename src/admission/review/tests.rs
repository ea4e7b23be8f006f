use base64::prelude::*;

use super::*;

fn review(request: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{request}}}"#
    )
}

fn secret(json: &str) -> ReviewedSecret<'_> {
    let Ok(secret) = serde_json::from_str(json) else { panic!("{json} is not a Secret") };
    secret
}

#[test]
fn each_kind_of_malformed_review_has_its_error() {
    let cases = [
        ("", ReadReviewError::Malformed),
        ("[]", ReadReviewError::WrongKind),
        ("{}", ReadReviewError::WrongKind),
        (
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
            ReadReviewError::WrongKind,
        ),
        (
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            ReadReviewError::NoRequest,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(read(body.as_bytes()).err(), Some(expected), "{body}");
    }
    assert_eq!(read(review(r#"{"uid":""}"#).as_bytes()).err(), Some(ReadReviewError::NoRequest));
    assert_eq!(read(review("{}").as_bytes()).err(), Some(ReadReviewError::Malformed));
    assert_eq!(read(review("null").as_bytes()).err(), Some(ReadReviewError::NoRequest));
}

#[test]
fn unknown_fields_nulls_and_missing_maps_are_accepted() {
    let text = review(
        r#"{"uid":"u","future":{"a":[1]},"kind":null,"namespace":null,"options":null,"userInfo":null,
            "object":{"metadata":{"labels":null,"annotations":null,"managedFields":[{}]},"data":null,"stringData":{"x":"y"}},
            "oldObject":null}"#,
    );
    let request = read(text.as_bytes()).ok().unwrap();
    let object = request.object.unwrap();
    assert!(object.labels().is_none() && object.annotations().is_none());
    assert!(object.ca_crt().is_none() && object.data_size() == 0 && object.has_metadata());
    assert!(request.old_object.is_none() && request.kind.is_none());
}

#[test]
fn only_our_annotations_are_kept_and_all_are_measured() {
    let secret = secret(
        r#"{"metadata":{"annotations":{"a":"12345","ca-overlap.dev/keep":"2","b\n":"\u00e9\\","ca-overlap.dev/x":""}}}"#,
    );
    let annotations = secret.annotations().unwrap();
    assert_eq!((annotations.get("a"), annotations.get("ca-overlap.dev/x")), (None, None));
    assert_eq!(annotations.get("ca-overlap.dev/keep"), Some("2"));
    assert_eq!(annotations.size, 6 + 20 + 2 + 3 + 16);
}

#[test]
fn values_under_other_keys_are_never_read() {
    let secret = secret(
        r#"{"data":{"tls.key":"%%%not base64%%%","n":7,"deep":{"x":[null]},"ca.crt":null,"ca.key":"AAAA"}}"#,
    );
    assert_eq!(secret.ca_crt(), Some(""));
    assert!(secret.has_key("ca.crt") && secret.has_key("ca.key"));
    assert!(!secret.has_key("tls.crt") && !secret.has_key("cakey.pem"));
}

#[test]
fn the_data_size_is_the_sum_of_the_decoded_values() {
    for sizes in [[0, 1, 2], [3, 4, 5], [100, 1001, 4096]] {
        let [a, b, c] = sizes.map(|n| BASE64_STANDARD.encode(vec![7_u8; n]));
        let text = format!(r#"{{"data":{{"ca.crt":"{a}","x":"{b}","tls.crt":"{c}"}}}}"#);
        assert_eq!(secret(&text).data_size(), sizes.iter().sum::<usize>());
    }
    // Without padding, which no API server sends.
    for (value, size) in [("Q", 0), ("QQ", 1), ("QUI", 2), ("QUJDQ", 3), ("QUJDQUI", 5)] {
        assert_eq!(secret(&format!(r#"{{"data":{{"x":"{value}"}}}}"#)).data_size(), size);
    }
}

#[test]
fn fresh_objects_are_distinguished_from_edited_ones() {
    let with = |uid: &str, carried: bool| {
        let annotations = if carried { r#""ca-overlap.dev/carried":"[]""# } else { "" };
        format!(
            r#"{{"metadata":{{"uid":"{uid}","managedFields":[{{}}],"annotations":{{{annotations}}}}}}}"#
        )
    };
    let exported = r#"{"metadata":{"uid":"1"}}"#.to_owned();
    let cases = [
        (with("", false), with("1", false), "UpdateOptions", true, "a fresh object"),
        (with("2", false), with("1", false), "UpdateOptions", true, "of another Secret"),
        (with("1", false), with("1", false), "UpdateOptions", false, "a PATCH or an edit"),
        (with("1", true), with("1", true), "UpdateOptions", false, "with our record"),
        (with("1", false), with("1", true), "UpdateOptions", true, "its annotations replaced"),
        (with("", false), with("", false), "UpdateOptions", true, "no uid at all"),
        (exported.clone(), exported, "UpdateOptions", true, "from no API server"),
        (with("", false), with("1", true), "PatchOptions", false, "the options say PATCH"),
    ];
    for (object, old, kind, is_fresh, why) in cases {
        let text = review(&format!(
            r#"{{"uid":"u","options":{{"kind":"{kind}"}},"object":{object},"oldObject":{old}}}"#
        ));
        assert_eq!(read(text.as_bytes()).ok().unwrap().is_fresh_object(), is_fresh, "{why}");
    }
}

#[test]
fn people_are_distinguished_from_programs() {
    for (user, person) in
        [("kubernetes-admin", true), ("system:serviceaccount:a:b", false), ("", false)]
    {
        let text = review(&format!(r#"{{"uid":"u","userInfo":{{"username":"{user}"}}}}"#));
        assert_eq!(read(text.as_bytes()).ok().unwrap().is_by_person(), person, "{user}");
    }
}
