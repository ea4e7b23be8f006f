//! Input files: Secrets and admission reviews as JSON or YAML, certificates as PEM or DER.

use std::io::{self, Read};
use std::path::Path;

use base64::prelude::*;
use serde_json::{Map, Value};

use super::error::ToolError;
use crate::x509::certs::Certificate;
use crate::x509::pem;

/// In bytes. Larger than any admission review that an API server sends.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

/// Reads a whole file; `-` is standard input.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ToolError> {
    content(path).map_err(|error| ToolError::Read { path: path.to_owned(), error })
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

/// The JSON or YAML objects in a text; none if it holds anything else. Tries JSON first, because
/// its parser is exact about large documents. Does not say what is wrong: an error would quote the
/// text, which can hold private keys.
pub(crate) fn documents(text: &[u8]) -> Vec<Value> {
    let read: Vec<Value> = match serde_json::from_slice(text) {
        Ok(document) => vec![document],
        Err(_) => serde_saphyr::from_slice_multiple(text).unwrap_or_default(),
    };
    if read.iter().all(Value::is_object) { read } else { Vec::new() }
}

/// Turns PEM or one DER certificate into PEM; `None` if the text is neither.
pub(crate) fn as_pem(text: Vec<u8>) -> Option<Vec<u8>> {
    if pem::blocks(&text).next().is_some() {
        return Some(text);
    }
    let certificate = Certificate::from_der(text)?;
    let mut text = Vec::new();
    pem::encode_certificate(certificate.der(), &mut text);
    Some(text)
}

/// Moves `stringData` into `data` and adds missing metadata, as the API server does before
/// admission.
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
    fn documents_are_read_from_json_and_from_yaml() {
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
