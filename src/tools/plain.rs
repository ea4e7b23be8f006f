//! Requests whose answers are plain JSON: the code that reads whole types would add a hundred
//! kilobytes for each.

use http::header::CONTENT_TYPE;
use kube::Client;
use serde_json::Value;

/// Reads an object or a list; `None` if there is none.
pub(crate) async fn get(client: &Client, path: &str) -> Result<Option<Value>, kube::Error> {
    match client.request(http::Request::get(path).body(Vec::new()).map_err(wrong)?).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the items of a list.
pub(crate) async fn list(client: &Client, path: &str) -> Result<Vec<Value>, kube::Error> {
    Ok(get(client, path).await?.map(|mut list| items(&mut list["items"])).unwrap_or_default())
}

/// Sends an object, and reads the answer.
pub(crate) async fn post(
    client: &Client,
    path: &str,
    object: &Value,
) -> Result<Value, kube::Error> {
    let request = http::Request::post(path).header(CONTENT_TYPE, "application/json");
    client.request(request.body(object.to_string().into_bytes()).map_err(wrong)?).await
}

pub(crate) fn wrong(error: http::Error) -> kube::Error {
    kube::Error::HttpError(error)
}

/// The items of an array; none if it is something else.
pub(crate) fn items(value: &mut Value) -> Vec<Value> {
    match value.take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}
