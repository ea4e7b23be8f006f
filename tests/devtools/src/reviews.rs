//! Admission reviews, as an API server sends them.

use serde_json::{Value, json};

/// The review of the creation of `new` by `user`.
pub fn create(new: &Value, user: &str) -> Value {
    let mut review = update(&Value::Null, new, user);
    review["request"]["operation"] = "CREATE".into();
    review["request"]["options"]["kind"] = "CreateOptions".into();
    review
}

/// The review of a PUT by `user` that replaces the Secret `old` with `new`.
pub fn update(old: &Value, new: &Value, user: &str) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "0a1b",
            "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "resource": {"group": "", "version": "v1", "resource": "secrets"},
            "name": "envoy", "namespace": "gateway", "operation": "UPDATE", "dryRun": false,
            "userInfo": {"username": user},
            "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
            "object": new, "oldObject": old,
        }
    })
}
