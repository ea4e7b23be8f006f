//! The PEM scanner: laws for any bytes, and agreement with another reader on well-formed text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::x509::pem;

use super::rule::Checked;
use super::x509;

/// A block of well-formed text.
pub struct Strict<'a> {
    pub label: &'a [u8],
    pub span: std::ops::Range<usize>,
    pub der: Vec<u8>,
}

pub fn check(text: &[u8]) -> Checked {
    let blocks: Vec<_> = pem::blocks(text).collect();
    let mut end = 0;
    for block in &blocks {
        let span = block.span.clone();
        rule!(end <= span.start && span.start < span.end, "spans overlap or are empty: {span:?}");
        rule!(span.end <= text.len(), "{span:?} is out of bounds");
        let inner = &text[span.clone()];
        rule!(inner.starts_with(b"-----BEGIN "), "a block begins with its boundary");
        // OpenSSL skips a byte order mark at the start of the text and after a block.
        let mark = text[..span.start].strip_suffix(b"\xef\xbb\xbf").filter(|t| t.len() == end);
        let at_line = mark.is_some() || span.start == 0 || text[span.start - 1] == b'\n';
        rule!(at_line, "a block begins at the start of a line");
        let ends = span.end == text.len() || text[span.end - 1] == b'\n';
        rule!(ends, "a block ends with a line");
        rule!(!block.is_certificate() || block.is_certificate_to_some(), "the labels disagree");
        if let Some(der) = block.contents() {
            rule!(der.len() < inner.len(), "more content than text");
            round_trip(&der)?;
        }
        end = span.end;
    }
    rule!(pem::blocks(text).eq(blocks.iter().cloned()), "a second scan finds something else");
    let Some(strict) = well_formed(text) else { return Ok(()) };
    agree(text, &strict, &blocks)
}

fn round_trip(der: &[u8]) -> Checked {
    let mut encoded = Vec::new();
    pem::encode_certificate(der, &mut encoded);
    rule!(encoded.len() == pem::encoded_len(der.len()), "the size was foretold wrongly");
    rule!(encoded == x509::canonical(der).as_bytes(), "not the canonical form");
    let mut again = pem::blocks(&encoded);
    let block = again.next().ok_or("what was encoded is no block")?;
    rule!(block.is_certificate() && block.span == (0..encoded.len()), "another block came back");
    rule!(block.contents().as_deref() == Some(der), "other content came back");
    rule!(again.next().is_none(), "more than one block came back");
    Ok(())
}

fn agree(text: &[u8], strict: &[Strict<'_>], blocks: &[pem::Block<'_>]) -> Checked {
    rule!(strict.len() == blocks.len(), "{} blocks, not {}", blocks.len(), strict.len());
    for (want, found) in strict.iter().zip(blocks) {
        rule!(want.label == found.label && want.span == found.span, "another block was found");
        rule!(found.contents().as_ref() == Some(&want.der), "other content was found");
    }
    let certificates: Vec<_> =
        strict.iter().filter(|b| b.label == b"CERTIFICATE").map(|b| b.der.clone()).collect();
    rule!(x509::certificates(text) == certificates, "rustls-pki-types finds other certificates");
    Ok(())
}

/// The blocks of a text that all readers read alike: exact boundaries, only canonical base64 between
/// them, no other boundary. `None` for any other text.
pub fn well_formed(text: &[u8]) -> Option<Vec<Strict<'_>>> {
    let mut blocks = Vec::new();
    let mut open: Option<(&[u8], usize, Vec<u8>)> = None;
    let mut start = 0;
    for whole in text.split_inclusive(|&b| b == b'\n') {
        let end = start + whole.len();
        let line = whole.strip_suffix(b"\n").unwrap_or(whole);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let boundary = |prefix: &[u8]| line.strip_prefix(prefix)?.strip_suffix(b"-----");
        let is_label = |l: &[u8]| {
            l.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ')
                && !l.is_empty()
                && l.trim_ascii() == l
        };
        if let Some(label) = boundary(b"-----BEGIN ") {
            (open.is_none() && is_label(label)).then_some(())?;
            open = Some((label, start, Vec::new()));
        } else if let Some(label) = boundary(b"-----END ") {
            let (begun, span_start, body) = open.take()?;
            (begun == label).then_some(())?;
            let der = BASE64_STANDARD.decode(body).ok()?;
            blocks.push(Strict { label, span: span_start..end, der });
        } else if let Some((_, _, body)) = &mut open {
            body.extend_from_slice(line);
        } else {
            let harmless = !line.windows(5).any(|w| w == b"-----") && !line.contains(&b'\r');
            harmless.then_some(())?;
        }
        start = end;
    }
    open.is_none().then_some(blocks)
}
