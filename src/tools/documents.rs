//! Files that people give: Secrets and reviews as JSON or YAML, certificates as PEM or DER.

use std::io::{self, Read};
use std::path::Path;

use base64::prelude::*;
use serde_json::{Map, Value};

use super::error::Error;
use crate::x509::certs::Certificate;
use crate::x509::pem;

/// More than the API server's own limit for a review.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// All of a file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    content(path).map_err(|error| Error::Read { path: path.to_owned(), error })
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(std::fs::File::open(path)?)
    };
    let mut text = Vec::new();
    input.take(MAX_INPUT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_INPUT {
        return Err(io::Error::other(format!("larger than {MAX_INPUT} bytes")));
    }
    Ok(text)
}

/// The objects in a text; none if it is something else. JSON first: it is exact about large
/// documents. What is wrong is not said, because errors would quote the text.
pub(crate) fn documents(text: &[u8]) -> Vec<Value> {
    let read: Vec<Value> = match serde_json::from_slice(text) {
        Ok(document) => vec![document],
        Err(_) => serde_saphyr::from_slice_multiple(text).unwrap_or_default(),
    };
    if read.iter().all(Value::is_object) { read } else { Vec::new() }
}

/// Certificates as PEM, whatever they came as; `None` if there is neither PEM nor a certificate.
pub(crate) fn as_pem(text: Vec<u8>) -> Option<Vec<u8>> {
    if pem::blocks(&text).next().is_some() {
        return Some(text);
    }
    let certificate = Certificate::from_der(text)?;
    let mut text = Vec::new();
    pem::encode_certificate(certificate.der(), &mut text);
    Some(text)
}

/// As the API server does before admission: `stringData` goes into `data`, and there is metadata.
pub(crate) fn merged(mut secret: Value) -> Value {
    if let Some(Value::Object(strings)) =
        secret.as_object_mut().and_then(|s| s.remove("stringData"))
    {
        if !secret["data"].is_object() {
            secret["data"] = Value::Object(Map::new());
        }
        for (key, value) in strings {
            secret["data"][key] = BASE64_STANDARD.encode(value.as_str().unwrap_or_default()).into();
        }
    }
    if !secret["metadata"].is_object() {
        secret["metadata"] = Value::Object(Map::new());
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_of_one_document_or_more_are_read() {
        for (text, count) in [
            (r#"{"a":1}"#, 1),
            ("a: 1", 1),
            ("a: 1\n---\nb: 2\n", 2),
            ("---\na: 1\n", 1),
            ("", 0),
            ("[1]", 0),
            ("- a\n", 0),
            ("words", 0),
            ("-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n", 0),
            ("a: [", 0),
        ] {
            assert_eq!(documents(text.as_bytes()).len(), count, "{text}");
        }
    }
}
