//! Negative controls: each oracle rejects the faults that it has to find.

use base64::prelude::*;
use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::oracle::answer::{CANARY, has_over, judge};
use super::oracle::pool::AUTHORITIES;
use super::oracle::{certificate, pem, review, x509};
use ca_overlap::x509::certs::Certificate;

/// A rotation from the second CA of the pool, which carries the first, to the third.
fn rotation() -> Value {
    let carried =
        json!([{"sha256": x509::sha256(&AUTHORITIES[0]), "since": "2026-01-01T00:00:00Z"}]);
    let old = json!({
        "metadata": {
            "annotations": {"ca-overlap.dev/carried": carried.to_string()},
            "labels": {"ca-overlap.dev/phase": "overlap"},
        },
        "data": {"ca.crt": pem_of(&[1, 0]), "tls.key": "QQ=="},
    });
    let new = json!({
        "metadata": {"annotations": {}, "labels": {}},
        "data": {"ca.crt": pem_of(&[2]), "tls.key": "QQ=="},
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "UPDATE", "namespace": "n",
            "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "options": {"kind": "UpdateOptions"}, "object": new, "oldObject": old,
        }
    })
}

/// A write that leaves `ca.crt` alone and distrusts the carried CA.
fn distrust() -> Value {
    let mut review = rotation();
    let mut object = review["request"]["oldObject"].clone();
    object["metadata"]["annotations"]["ca-overlap.dev/distrust"] =
        x509::sha256(&AUTHORITIES[0]).into();
    review["request"]["object"] = object;
    review
}

fn pem_of(indexes: &[usize]) -> String {
    let text: String = indexes.iter().map(|i| x509::canonical(&AUTHORITIES[*i])).collect();
    BASE64_STANDARD.encode(text)
}

fn now() -> Timestamp {
    Timestamp::from_second(review::NOW).unwrap()
}

/// The correct answer, and its patch.
fn answer(review: &Value) -> (Value, Vec<Value>) {
    let bytes = review::admit(review.to_string().as_bytes(), now()).unwrap();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    let patch = BASE64_STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
    (answer, serde_json::from_slice(&patch).unwrap())
}

/// Judges an answer with this patch.
fn with_patch(review: &Value, patch: &Value) -> Result<(), String> {
    // All answers have the same envelope.
    let (mut answer, _) = answer(&rotation());
    answer["response"]["patch"] = BASE64_STANDARD.encode(patch.to_string()).into();
    judge(&review["request"], answer.to_string().as_bytes(), now()).map(|_| ())
}

fn with_ca_crt(review: &Value, base64: &str) -> Result<(), String> {
    with_patch(review, &json!([{"op": "add", "path": "/data/ca.crt", "value": base64}]))
}

#[track_caller]
fn says(result: Result<(), String>, words: &str) {
    let wrong = result.expect_err(words);
    assert!(wrong.contains(words), "{wrong:?} is not about {words:?}");
}

#[test]
fn correct_answers_pass() {
    for review in [rotation(), distrust()] {
        let (answer, patch) = answer(&review);
        assert!(!patch.is_empty());
        let judged = judge(&review["request"], answer.to_string().as_bytes(), now()).unwrap();
        assert_eq!(judged.appended + judged.cut, 1);
        assert!(review::check(review.to_string().as_bytes()).unwrap().is_some());
    }
}

#[test]
fn a_doctored_envelope_is_detected() {
    let review = rotation();
    for (pointer, value, words) in [
        ("/apiVersion", json!("admission.k8s.io/v1beta1"), "version"),
        ("/kind", json!("Review"), "kind"),
        ("/response/uid", json!("v"), "uid"),
        ("/response/allowed", json!(false), "not allowed"),
        ("/response/patchType", json!("MergePatch"), "patch type"),
        ("/response/patch", json!("!"), "base64"),
        ("/response/warnings", json!(["w".repeat(121)]), "a warning of 121"),
        ("/response/status", json!({}), "unknown member"),
        ("/response/auditAnnotations", json!({}), "no decision"),
    ] {
        let (mut answer, _) = answer(&review);
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        answer.pointer_mut(parent).unwrap()[member] = value;
        let judged = judge(&review["request"], answer.to_string().as_bytes(), now());
        says(judged.map(|_| ()), words);
    }
    let mut leaking = review.clone();
    leaking["request"]["object"]["data"]["tls.key"] = CANARY.into();
    let (mut told, _) = answer(&leaking);
    told["response"]["warnings"] = json!([CANARY]);
    says(judge(&leaking["request"], told.to_string().as_bytes(), now()).map(|_| ()), "private key");
    let cut_short = answer(&review).0.to_string();
    says(judge(&review["request"], &cut_short.as_bytes()[1..], now()).map(|_| ()), "not JSON");
}

/// A source that signs renews its CA.
fn renewal() -> Value {
    let mut review = rotation();
    for (object, ca) in [("oldObject", 0), ("object", 1)] {
        let metadata = json!({"labels": {"ca-overlap.dev/source": "true"}, "annotations": {}});
        let data = json!({"tls.crt": pem_of(&[ca]), "tls.key": "QQ=="});
        review["request"][object] = json!({"metadata": metadata, "data": data});
    }
    review
}

#[test]
fn a_wrong_previous_ca_is_detected() {
    let review = renewal();
    let (told, patch) = answer(&review);
    judge(&review["request"], told.to_string().as_bytes(), now()).unwrap();
    let path = "/metadata/annotations/ca-overlap.dev~1previous";
    assert_eq!((patch.len(), &patch[0]["path"]), (1, &json!(path)));
    let item =
        |ca: usize| format!("{}@2026-03-01T00:00:00Z", BASE64_STANDARD.encode(&AUTHORITIES[ca]));
    let forged = |review: &Value, value: &str| {
        with_patch(review, &json!([{"op": "add", "path": path, "value": value}]))
    };
    forged(&review, &item(0)).unwrap();
    says(forged(&review, &item(2)), "did not hold");
    says(forged(&review, &[item(0), item(0), item(0)].join(",")), "3 are previous");
    says(forged(&review, &"x".repeat(17_000)), "bytes are previous");
    let mut distrusting = review.clone();
    distrusting["request"]["object"]["metadata"]["annotations"]["ca-overlap.dev/distrust"] =
        x509::sha256(&AUTHORITIES[0]).into();
    says(forged(&distrusting, &item(0)), "is over");
    let mut other = review;
    other["request"]["oldObject"]["metadata"]["labels"] = json!({});
    says(forged(&other, &item(0)), "it is no source");
}

#[test]
fn foreign_patch_operations_are_detected() {
    let review = rotation();
    for operation in [
        json!({"op": "add", "path": "/data/tls.key", "value": "QQ=="}),
        json!({"op": "replace", "path": "/data/ca.crt", "value": "QQ=="}),
        json!({"op": "test", "path": "/data/tls.key", "value": "QQ=="}),
        json!({"op": "remove", "path": "/data/ca.crt"}),
        json!({"op": "add", "path": "/metadata/annotations", "value": {"ca-overlap.dev/keep": "1"}}),
        json!({"op": "add", "path": "/metadata/annotations/ca-overlap.dev~1other", "value": "1"}),
        json!({"op": "add", "path": "/metadata/labels/ca-overlap.dev~1phase", "value": 1}),
        json!({"op": "add", "path": "/metadata/name", "value": "x"}),
    ] {
        says(with_patch(&review, &json!([operation])), "is not ours to do");
    }
    let missing = json!([{"op": "remove", "path": "/metadata/labels/ca-overlap.dev~1mode"}]);
    says(with_patch(&review, &missing), "does not apply");
    let twice = json!({"op": "add", "path": "/data/ca.crt", "value": pem_of(&[2, 1])});
    says(with_patch(&review, &json!([twice, twice])), "touched twice");
    says(with_patch(&review, &json!([])), "an empty patch");
    let mut foreign = review.clone();
    foreign["request"]["object"]["metadata"]["annotations"] = Value::Null;
    let map = json!([{"op": "add", "path": "/metadata/annotations", "value": {"other": "1"}}]);
    says(with_patch(&foreign, &map), "is not ours to do");
}

#[test]
fn a_doctored_bundle_is_detected() {
    let review = rotation();
    let encode = |text: String| BASE64_STANDARD.encode(text);
    let (own, previous) = (x509::canonical(&AUTHORITIES[2]), x509::canonical(&AUTHORITIES[1]));
    with_ca_crt(&review, &pem_of(&[2, 1])).unwrap();
    says(with_ca_crt(&review, &pem_of(&[1, 2])), "incoming bytes were changed");
    says(with_ca_crt(&review, &pem_of(&[1])), "incoming bytes were changed");
    says(with_ca_crt(&review, &encode(own.replace('\n', "\r\n") + &previous)), "were changed");
    says(with_ca_crt(&review, &encode(format!("{own}# note\n{previous}"))), "more than canonical");
    let crlf = x509::pem("CERTIFICATE", &AUTHORITIES[1], 64, "\r\n");
    says(with_ca_crt(&review, &encode(own.clone() + &crlf)), "more than canonical");
    let key = x509::pem("PRIVATE KEY", &[1; 48], 64, "\n");
    says(with_ca_crt(&review, &encode(own.clone() + &key)), "more than canonical");
    says(with_ca_crt(&review, &pem_of(&[2, 1, 1])), "appended twice");
    says(with_ca_crt(&review, &pem_of(&[2, 2])), "appended twice");
    says(with_ca_crt(&review, &pem_of(&[2, 3])), "was not stored");
    says(with_ca_crt(&review, "!"), "not base64");

    let with = |edit: &dyn Fn(&mut Value)| {
        let mut review = rotation();
        edit(&mut review["request"]);
        review
    };
    let expired = with(&|r| r["oldObject"]["data"]["ca.crt"] = pem_of(&[1, 5]).into());
    says(with_ca_crt(&expired, &pem_of(&[2, 5])), "is expired");
    let set = |key: &str, value: String| {
        with(&|r| {
            r["object"]["metadata"]["annotations"][format!("ca-overlap.dev/{key}")] =
                value.clone().into();
        })
    };
    let distrusted = set("distrust", x509::sha256(&AUTHORITIES[1]).to_uppercase());
    says(with_ca_crt(&distrusted, &pem_of(&[2, 1])), "is distrusted");
    says(with_ca_crt(&set("keep", "0".into()), &pem_of(&[2, 1])), "nothing is to be kept");
    let off = with(&|r| r["object"]["metadata"]["labels"]["ca-overlap.dev/mode"] = "off".into());
    says(with_ca_crt(&off, &pem_of(&[2, 1])), "mode off");
    let open = with(&|r| {
        r["object"]["data"]["ca.crt"] = BASE64_STANDARD.encode(own.trim_end()).into();
    });
    says(with_ca_crt(&open, &encode(own.trim_end().to_owned() + &previous)), "glued");
    let full = with(&|r| r["object"]["data"]["x"] = "AAAA".repeat(349_500).into());
    says(with_ca_crt(&full, &pem_of(&[2, 1])), "bytes of data");
}

#[test]
fn a_wrong_cut_is_detected() {
    let review = distrust();
    with_ca_crt(&review, &pem_of(&[1])).unwrap();
    says(with_ca_crt(&review, &pem_of(&[0])), "first certificate is cut");
    says(with_ca_crt(&review, &pem_of(&[1, 0, 2])), "added, and not announced");
    let first = x509::canonical(&AUTHORITIES[1]);
    says(with_ca_crt(&review, &BASE64_STANDARD.encode(first + "note\n")), "more than canonical");
    let mut trusted = review.clone();
    trusted["request"]["object"]["metadata"]["annotations"]["ca-overlap.dev/distrust"] = "".into();
    let mut own = review.clone();
    own["request"]["oldObject"]["metadata"]["annotations"] = json!({});
    says(with_ca_crt(&trusted, &pem_of(&[1])), "not over");
    says(with_ca_crt(&own, &pem_of(&[1])), "not carried");
    assert!(has_over(&review["request"]["object"], now()));
    assert!(!has_over(&review["request"]["oldObject"], now()));
}

#[test]
fn a_wrong_announcement_is_detected() {
    let announce = |index: usize| {
        let mut review = rotation();
        let mut object = review["request"]["oldObject"].clone();
        object["metadata"]["annotations"]["ca-overlap.dev/announce"] =
            BASE64_STANDARD.encode(&AUTHORITIES[index]).into();
        review["request"]["object"] = object;
        review
    };
    let review = announce(2);
    let (answer, _) = answer(&review);
    let judged = judge(&review["request"], answer.to_string().as_bytes(), now()).unwrap();
    assert_eq!((judged.appended, judged.cut), (1, 0));
    with_ca_crt(&review, &pem_of(&[1, 0, 2])).unwrap();
    says(with_ca_crt(&review, &pem_of(&[1, 0, 3])), "added, and not announced");
    says(with_ca_crt(&review, &pem_of(&[1, 0, 2, 2])), "appended twice");
    says(with_ca_crt(&review, &pem_of(&[2, 1, 0])), "cut");
    says(with_ca_crt(&announce(5), &pem_of(&[1, 0, 5])), "is expired");

    // A person who takes it back has no other way.
    let mut taken_back = announce(2);
    let entry = |by: &str| {
        let sha256 = x509::sha256(&AUTHORITIES[0]);
        json!([{"sha256": sha256, "since": "2026-01-01T00:00:00Z", "announced": by}]).to_string()
    };
    let old = &mut taken_back["request"]["oldObject"]["metadata"]["annotations"];
    old["ca-overlap.dev/carried"] = entry("person").into();
    with_ca_crt(&taken_back, &pem_of(&[1])).unwrap();
    let old = &mut taken_back["request"]["oldObject"]["metadata"]["annotations"];
    old["ca-overlap.dev/carried"] = entry("keeper").into();
    says(with_ca_crt(&taken_back, &pem_of(&[1])), "not over");
}

#[test]
fn a_false_record_is_detected() {
    let review = rotation();
    let path = |map: &str, key: &str| format!("/metadata/{map}/ca-overlap.dev~1{key}");
    let patch = |record: &str, phase: &str| {
        json!([
            {"op": "add", "path": "/data/ca.crt", "value": pem_of(&[2, 1])},
            {"op": "add", "path": path("annotations", "carried"), "value": record},
            {"op": "add", "path": path("labels", "phase"), "value": phase},
        ])
    };
    let record = |index: usize| {
        let sha256 = x509::sha256(&AUTHORITIES[index]);
        json!([{"sha256": sha256, "since": "2026-03-01T10:00:00Z"}]).to_string()
    };
    with_patch(&review, &patch(&record(1), "overlap")).unwrap();
    says(with_patch(&review, &patch(&record(2), "overlap")), "names the first");
    says(with_patch(&review, &patch(&record(3), "overlap")), "what is not there");
    says(with_patch(&review, &patch(&record(1), "staged")), "phase");
    says(with_patch(&review, &patch("[]", "overlap")), "phase");
    says(with_patch(&review, &patch("{", "overlap")), "not JSON");
    says(with_patch(&review, &patch("[{}]", "overlap")), "no list of entries");
    let mut full = rotation();
    full["request"]["object"]["metadata"]["annotations"]["x"] = "x".repeat(262_100).into();
    says(with_patch(&full, &patch(&record(1), "overlap")), "bytes of annotations");
}

type Edit = fn(&mut certificate::Fields);

#[test]
fn wrong_certificate_fields_are_detected() {
    for der in AUTHORITIES.iter() {
        let (_, theirs) = X509Certificate::from_der(der).unwrap();
        let ours = || certificate::fields(&Certificate::from_der(der.clone()).unwrap());
        certificate::same(&ours(), &theirs).unwrap();
        let edits: [(Edit, &str); 6] = [
            (|f| f.subject.push(0), "subject"),
            (|f| f.issuer.push(0), "issuer"),
            (|f| f.not_after += 1, "notAfter"),
            (|f| f.is_ca = !f.is_ca, "is a CA"),
            (|f| f.subject_key_id = Some(vec![1]), "subject key id"),
            (|f| f.authority_key_id = Some(vec![1]), "authority key id"),
        ];
        for (edit, words) in edits {
            let mut fields = ours();
            edit(&mut fields);
            says(certificate::same(&fields, &theirs), words);
        }
    }
}

#[test]
fn well_formed_pem_is_told_from_other_text() {
    let one = x509::canonical(&AUTHORITIES[0]);
    assert_eq!(pem::well_formed(format!("note\r\n{one}\n{one}").as_bytes()).unwrap().len(), 2);
    for text in [
        one.replace("-----END CERTIFICATE-----\n", ""),
        one.replace("END CERTIFICATE", "END CERT"),
        format!("{one}-----END CERTIFICATE-----\n"),
        format!("{one} -----BEGIN X-----\n"),
        one.replacen('\n', "\nProc-Type: 4\n\n", 1),
        one.replacen("MII", "M*I", 1),
        format!("lone\rreturn\n{one}"),
    ] {
        assert!(pem::well_formed(text.as_bytes()).is_none(), "{text}");
    }
}
