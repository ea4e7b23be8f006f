//! Reads the certificates to distrust from the command line.

use std::io;
use std::path::Path;

use crate::tools::documents::{self, as_pem};
use crate::tools::error::ToolError;
use crate::tools::text::subject;
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

/// A certificate to distrust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DistrustedCa {
    pub(super) fingerprint: Fingerprint,
    /// Subject and expiry in seconds, if the certificate itself was given.
    pub(super) known: Option<(String, i64)>,
}

/// Reads a fingerprint or a file of certificates.
pub(super) fn read(argument: &str) -> Result<Vec<DistrustedCa>, ToolError> {
    if let Some(fingerprint) = fingerprint(argument) {
        return Ok(vec![DistrustedCa { fingerprint, known: None }]);
    }
    let path = Path::new(argument);
    let content = documents::read(path).map_err(|error| match error {
        ToolError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound => {
            ToolError::usage(
                "FINGERPRINT|FILE",
                format!("{argument} is neither a SHA-256 fingerprint (64 hex digits) nor a file"),
            )
        }
        error => error,
    })?;
    let bundle = as_pem(content).and_then(|pem| Bundle::parse(&pem, usize::MAX).ok());
    let bundle = bundle.unwrap_or_default();
    if bundle.is_empty() {
        let problem = "no certificate in it, as PEM or DER; give a certificate or its SHA-256";
        return Err(ToolError::failed(path.display(), problem));
    }
    let wanted = |certificate: &Certificate| DistrustedCa {
        fingerprint: certificate.fingerprint(),
        known: Some((subject(certificate), certificate.not_after())),
    };
    Ok(bundle.certificates().iter().map(wanted).collect())
}

/// Parses a SHA-256 fingerprint, also in the forms `sha256 Fingerprint=5E:2C:…` and
/// `SHA256:5e2c…` of other programs.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let text = text.trim();
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    let prefix = value.get(..7).filter(|prefix| prefix.eq_ignore_ascii_case("sha256:"));
    Fingerprint::parse(prefix.map_or(value, |prefix| &value[prefix.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_the_forms_of_other_programs() {
        let plain = Fingerprint::of(b"x");
        let text = plain.to_string();
        let colons: Vec<_> =
            text.as_bytes().chunks(2).map(|two| str::from_utf8(two).unwrap()).collect();
        let colons = colons.join(":").to_uppercase();
        for text in [
            text.clone(),
            format!("sha256:{text}"),
            colons.clone(),
            format!("SHA256 Fingerprint={colons}"),
            format!(" {text}\n"),
        ] {
            assert_eq!(fingerprint(&text), Some(plain), "{text}");
        }
        assert_eq!(fingerprint(&text[1..]), None);
        assert_eq!(fingerprint("ca.pem"), None);
    }
}
