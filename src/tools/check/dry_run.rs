//! A write that the webhook answers, and that nobody stores.

use http::header::{CONTENT_TYPE, WARNING};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::report::Line;
use crate::names;
use crate::tools::plain;

const NAME: &str = "dryRun";

/// Creates a Secret by a dry run, with a record that no webhook wrote. The webhook removes it; with
/// `--audit`, it warns of it.
pub(super) async fn write(client: &Client, namespace: &str) -> Line {
    match answer(client, namespace).await {
        Err(error) => Line::unread(NAME, &error),
        Ok((201, _, answer)) if answer["metadata"]["annotations"][names::CARRIED].is_null() => {
            Line::good(
                NAME,
                format!("the webhook answered a dry-run write in namespace {namespace}"),
            )
        }
        Ok((201, true, _)) => {
            let what = "the webhook answered a dry-run write, and left it as it was (--audit)";
            Line::good(NAME, what)
        }
        Ok((201, ..)) => Line::bad(
            NAME,
            format!("the webhook did not answer a dry-run write in namespace {namespace}"),
            "if all else is well, namespace or network is the cause: -n tries another namespace; \
             the log of the API server says why a call failed (failed calling webhook)",
        ),
        Ok((_, _, status)) => {
            let message = status["message"].as_str().unwrap_or("the API server rejected it");
            let is_ours =
                message.contains("failed calling webhook") && message.contains(names::WEBHOOK);
            if is_ours {
                Line::bad(
                    NAME,
                    message,
                    "the registration has failurePolicy Fail, and the call failed",
                )
            } else {
                Line::unknown(NAME, message)
            }
        }
    }
}

/// The status of the answer, whether it has our warning, and its body.
async fn answer(client: &Client, namespace: &str) -> Result<(u16, bool, Value), kube::Error> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "generateName": "ca-overlap-check-",
            // For a registration that is opt-in.
            "labels": {names::MODE: "bundle"},
            "annotations": {names::CARRIED: "check"},
        },
    });
    let path =
        format!("/api/v1/namespaces/{namespace}/secrets?dryRun=All&fieldManager=ca-overlap-check");
    let request = http::Request::post(path).header(CONTENT_TYPE, "application/json");
    let body = Body::from(secret.to_string().into_bytes());
    let answer = client.send(request.body(body).map_err(plain::wrong)?).await?;
    let warnings = answer.headers().get_all(WARNING).iter();
    let is_warned = warnings.filter_map(|it| it.to_str().ok()).any(|it| it.contains("ca-overlap"));
    let status = answer.status().as_u16();
    let body = answer.into_body().collect_bytes().await?;
    Ok((status, is_warned, serde_json::from_slice(&body).unwrap_or_default()))
}
