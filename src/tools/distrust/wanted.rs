//! Which certificates to distrust.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::DistrustError;
use crate::tools::text::{day, subject};
use crate::x509::certs::{Bundle, Certificate, Fingerprint};

/// More than any Secret can hold.
const MAX_INPUT: u64 = 4 * 1024 * 1024;

/// A certificate to distrust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) fingerprint: Fingerprint,
    /// Subject and last day, where the certificate itself was given.
    pub(super) known: Option<(String, String)>,
}

/// Reads a fingerprint, or a file of certificates.
pub(super) fn read(argument: &str) -> Result<Vec<Wanted>, DistrustError> {
    if let Some(fingerprint) = fingerprint(argument) {
        return Ok(vec![Wanted { fingerprint, known: None }]);
    }
    let path = Path::new(argument);
    let content = content(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => DistrustError::NotACa(argument.to_owned()),
        _ => DistrustError::Read { path: path.to_owned(), error },
    })?;
    let certificates = certificates(content);
    if certificates.is_empty() {
        return Err(DistrustError::NoCertificate(path.to_owned()));
    }
    let known = |c: &Certificate| Some((subject(c), day(c.not_after())));
    Ok(certificates
        .iter()
        .map(|c| Wanted { fingerprint: c.fingerprint(), known: known(c) })
        .collect())
}

/// Also as tools print it: `sha256 Fingerprint=5E:2C:…`, `SHA256:5e2c…`.
fn fingerprint(text: &str) -> Option<Fingerprint> {
    let text = text.trim();
    let value = text.split_once('=').map_or(text, |(_, value)| value);
    let prefix = value.get(..7).filter(|prefix| prefix.eq_ignore_ascii_case("sha256:"));
    Fingerprint::parse(prefix.map_or(value, |prefix| &value[prefix.len()..]))
}

fn certificates(content: Vec<u8>) -> Vec<Certificate> {
    let bundle = Bundle::parse(&content, usize::MAX).unwrap_or_default();
    if bundle.is_empty() {
        return Certificate::from_der(content).into_iter().collect();
    }
    bundle.certificates().to_vec()
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path)?)
    };
    let mut content = Vec::new();
    input.take(MAX_INPUT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_INPUT {
        return Err(io::Error::other(format!("larger than {MAX_INPUT} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
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
