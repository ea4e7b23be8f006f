//! Exempt Secrets are stored as they are written.

use base64::prelude::*;
use serde_json::{Value, json};

use super::setup::{NAME, Setup};
use crate::support::{cluster, namespace};
use devtools::certs::{self, Identity};
use devtools::secrets::{MERGE, Secrets, secret};

async fn is_as_written(secrets: &Secrets, name: &str, ca: &Identity) {
    let patch = json!({"data": {"ca.crt": BASE64_STANDARD.encode(&ca.pem)}});
    let answer = secrets.patch(name, MERGE, "", &patch).await.ok();
    assert_eq!(answer.pem("ca.crt"), ca.pem);
    assert_eq!(answer.annotation("ca-overlap.dev/carried"), None, "there is no record");
}

#[tokio::test]
async fn an_immutable_secret_is_refused_by_the_api_server_alone() {
    let Some(cluster) = cluster("immutable").await else { return };
    let setup = Setup::new(cluster.namespace("immutable").await);
    let mut fixed = setup.fresh("CA1", &setup.leaf("CA1"));
    fixed["immutable"] = true.into();
    setup.secrets.create(&fixed).await.ok();
    let patch = json!({"data": {"ca.crt": BASE64_STANDARD.encode(setup.pem("CA2"))}});
    let answer = setup.secrets.patch(NAME, MERGE, "", &patch).await;
    assert_eq!(answer.status, 422);
    let answer = setup.annotate(json!({"ca-overlap.dev/keep": "2"})).await;
    assert_eq!(answer.annotation("ca-overlap.dev/carried"), None);
    // The write that rotates also makes the Secret immutable.
    let setup = Setup::new(cluster.namespace("becomes-immutable").await);
    setup.create("CA1", None).await;
    let mut fixed = setup.fresh("CA2", &setup.leaf("CA2"));
    fixed["immutable"] = true.into();
    setup.secrets.put(NAME, &fixed).await.ok();
    assert_eq!(setup.stored().await, "CA2");
}

#[tokio::test]
async fn a_service_account_token_is_left_alone() {
    let Some(cluster) = cluster("token").await else { return };
    let secrets = cluster.namespace("token").await;
    let path = format!("/api/v1/namespaces/{}/serviceaccounts", secrets.namespace);
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}});
    let account = cluster.plane.json("POST", &path, &account).await.unwrap();
    let (old, new) = (certs::ca_named("cluster"), certs::ca_named("cluster"));
    let mut token = secret(
        "app-token",
        "kubernetes.io/service-account-token",
        &[("ca.crt", old.pem.as_bytes())],
    );
    token["metadata"]["annotations"] = json!({
        "kubernetes.io/service-account.name": "app",
        "kubernetes.io/service-account.uid": account["metadata"]["uid"],
    });
    secrets.create(&token).await.ok();
    is_as_written(&secrets, "app-token", &new).await;
}

#[tokio::test]
async fn signing_secrets_are_left_alone() {
    let Some(cluster) = cluster("signers").await else { return };
    let secrets = cluster.namespace("signers").await;
    for key in ["ca.key", "ca-key.pem", "cakey.pem", "issuer.key"] {
        let ca = certs::ca_named("signer");
        let name = format!("signer-{}", key.replace('.', "-"));
        let private = ca.key.clone();
        let data = [("ca.crt", ca.pem.as_bytes()), (key, private.as_bytes())];
        secrets.create(&secret(&name, "Opaque", &data)).await.ok();
        is_as_written(&secrets, &name, &certs::ca_named("signer")).await;
    }
    // A CA Secret of cert-manager: ca.crt and tls.crt are the same CA certificate.
    let authority = |ca: &Identity| {
        let (pem, key) = (ca.pem.clone(), ca.key.clone());
        secret(
            "authority",
            "Opaque",
            &[("ca.crt", pem.as_bytes()), ("tls.crt", pem.as_bytes()), ("tls.key", key.as_bytes())],
        )
    };
    secrets.create(&authority(&certs::ca_named("authority"))).await.ok();
    let next = certs::ca_named("authority");
    let answer = secrets.put("authority", &authority(&next)).await.ok();
    assert_eq!(answer.pem("ca.crt"), next.pem);
    assert_eq!(answer.annotation("ca-overlap.dev/carried"), None);
}

#[tokio::test]
async fn the_label_off_on_a_secret_protects_its_data_and_survives_a_put() {
    let Some(cluster) = cluster("off").await else { return };
    let setup = Setup::new(cluster.namespace("off").await);
    setup.create("CA1", None).await;
    let off = json!({"metadata": {"labels": {"ca-overlap.dev/mode": "off"}}});
    setup.secrets.patch(NAME, MERGE, "", &off).await.ok();
    for bundle in ["CA2", "CA3"] {
        let answer = setup.put(bundle).await;
        assert_eq!(
            (setup.bundle(&answer).as_str(), answer.label("ca-overlap.dev/mode")),
            (bundle, Some("off"))
        );
    }
    let on = json!({"metadata": {"labels": {"ca-overlap.dev/mode": null}}});
    setup.secrets.patch(NAME, MERGE, "", &on).await.ok();
    setup.put("CA4").await;
    assert_eq!(setup.stored().await, "CA4 CA3*");
}

#[tokio::test]
async fn the_webhook_is_not_called_for_our_namespace_or_one_with_the_label_off() {
    let Some(cluster) = cluster("namespaces").await else { return };
    let labels = json!({"ca-overlap.dev/mode": "off"});
    let off = namespace(&cluster.plane, "namespace-off", &labels).await;
    let own = Secrets::new(cluster.plane.client().await.unwrap(), "ca-overlap".into());
    let system = Secrets::new(cluster.plane.client().await.unwrap(), "kube-system".into());
    for secrets in [off, own, system] {
        let setup = Setup::new(secrets);
        setup.create("CA1", None).await;
        setup.put("CA2").await;
        assert_eq!(setup.stored().await, "CA2", "{}", setup.secrets.namespace);
    }
}

#[tokio::test]
async fn a_secret_without_ca_crt_is_stored_unchanged() {
    let Some(cluster) = cluster("hmac").await else { return };
    let secrets = cluster.namespace("hmac").await;
    let hmac = |value: &[u8]| secret("hmac", "Opaque", &[("hmac-secret", value)]);
    secrets.create(&hmac(b"one")).await.ok();
    for value in [&b"two"[..], b"two", b"three"] {
        let answer = secrets.put("hmac", &hmac(value)).await.ok();
        assert_eq!(answer.data("hmac-secret").unwrap(), value);
        let metadata = &answer.body["metadata"];
        assert_eq!((&metadata["labels"], &metadata["annotations"]), (&Value::Null, &Value::Null));
    }
}
