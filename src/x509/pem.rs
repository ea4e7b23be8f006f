//! The PEM blocks of a bundle, with their positions.
//!
//! PEM libraries return only a block's content. ca-overlap needs its position, too, because it
//! removes a carried certificate while every other byte stays. Blocks follow RFC 7468, as leniently
//! as Go's `encoding/pem` and OpenSSL, which read these bundles: a boundary is at the start of a
//! line, text between blocks is ignored, and lines have any width and end in LF or CRLF. A byte
//! order mark is skipped where OpenSSL skips it: at the start of the text, and right after a block.

use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::{GeneralPurposeConfig, Simd};
use memchr::memchr;
use memchr::memmem::Finder;

/// Base64 that allows trailing bits, as Go and OpenSSL do: this module must see every certificate
/// that they read.
static BASE64: LazyLock<Simd> = LazyLock::new(|| {
    Simd::standard(GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true))
});

/// The byte order mark of UTF-8, with which some editors begin a file.
pub const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The length in bytes of the shortest block that claims to be a certificate: a `BEGIN` line alone.
pub const MIN_BLOCK: usize = b"-----BEGIN CERTIFICATE-----".len();

/// A PEM block in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// The label after `BEGIN`, such as `CERTIFICATE`.
    pub label: &'a [u8],
    /// From the first byte of the `BEGIN` line to the end of the `END` line, its line end included.
    pub span: Range<usize>,
    body: Option<&'a [u8]>,
}

impl Block<'_> {
    /// Whether this block has the label `CERTIFICATE`.
    pub fn is_certificate(&self) -> bool {
        self.label == b"CERTIFICATE"
    }

    /// Whether some reader can take this block for a certificate. OpenSSL also reads
    /// `X509 CERTIFICATE` and `TRUSTED CERTIFICATE`.
    pub fn is_certificate_to_some(&self) -> bool {
        self.label.ends_with(b"CERTIFICATE")
    }

    /// The decoded content. `None` if the block is not terminated, has headers (RFC 1421, which
    /// Go's certificate pools skip) or is not base64.
    pub fn contents(&self) -> Option<Vec<u8>> {
        let body = self.body?;
        // Most tools write lines of one width. These are joined without a search for each line end.
        // If the widths differ, a line end stays within the text, and decoding fails.
        let mut compact = Vec::with_capacity(body.len());
        let width = memchr(b'\n', body).map_or(body.len(), |end| end + 1).max(1);
        for line in body.chunks(width) {
            compact.extend_from_slice(line.trim_ascii_end());
        }
        if let Ok(contents) = BASE64.decode(&compact) {
            return Some(contents);
        }
        // A colon is not base64, so a block with headers fails here, too.
        compact.clear();
        compact.extend_from_slice(body);
        compact.retain(|b| !b.is_ascii_whitespace());
        BASE64.decode(&compact).ok()
    }
}

/// Finds the blocks of `text` in order, in time linear in its size. A `BEGIN` without its `END` is
/// a block without content, which ends where the next block begins.
pub fn blocks(text: &[u8]) -> impl Iterator<Item = Block<'_>> {
    Blocks { text, position: 0 }
}

/// Appends the canonical PEM of a certificate to `out`: 64 columns, LF (RFC 7468 §3).
pub fn encode_certificate(der: &[u8], out: &mut Vec<u8>) {
    const COLUMNS: usize = 64;
    let encoded = BASE64.encode(der);
    out.reserve(encoded_len(der.len()));
    out.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(COLUMNS) {
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.extend_from_slice(b"-----END CERTIFICATE-----\n");
}

/// The decoded size of standard base64 text. It is exact for text from the API server, which always
/// encodes data itself.
pub fn decoded_len(base64: &str) -> usize {
    let padding = base64.bytes().rev().take(2).take_while(|&b| b == b'=').count();
    (base64.len() / 4 * 3 + (base64.len() % 4 * 3) / 4).saturating_sub(padding)
}

/// The size of the canonical PEM of a certificate of `der_len` bytes.
pub fn encoded_len(der_len: usize) -> usize {
    let base64 = der_len.div_ceil(3) * 4;
    base64
        + base64.div_ceil(64)
        + b"-----BEGIN CERTIFICATE-----\n".len()
        + b"-----END CERTIFICATE-----\n".len()
}

struct Blocks<'a> {
    text: &'a [u8],
    position: usize,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        if self.text[self.position..].starts_with(BYTE_ORDER_MARK) {
            self.position += BYTE_ORDER_MARK.len();
        }
        while self.next_dashes().is_some() {
            let begin = self.line();
            if let Some(label) = boundary(&self.text[begin.clone()], b"-----BEGIN ") {
                return Some(self.rest_of_block(begin, label));
            }
        }
        None
    }
}

impl<'a> Blocks<'a> {
    /// Reads the next line, with its line end.
    fn line(&mut self) -> Range<usize> {
        let start = self.position;
        let rest = &self.text[start..];
        let len = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        self.position = start + len;
        start..self.position
    }

    fn rest_of_block(&mut self, begin: Range<usize>, label: &'a [u8]) -> Block<'a> {
        let body_start = begin.end;
        // Goes from boundary to boundary, because the lines between them need no check.
        while let Some(line_start) = self.next_dashes() {
            let line = self.line();
            let bytes = &self.text[line.clone()];
            if boundary(bytes, b"-----BEGIN ").is_some() {
                self.position = line_start;
                return Block { label, span: begin.start..line_start, body: None };
            }
            if bytes.starts_with(b"-----END ") {
                let matches = boundary(bytes, b"-----END ") == Some(label);
                let body = matches.then(|| &self.text[body_start..line_start]);
                return Block { label, span: begin.start..line.end, body };
            }
        }
        Block { label, span: begin.start..self.position, body: None }
    }

    /// Goes to the start of the next line that begins with dashes, which can be the current
    /// position; to the end of the text if there is none.
    fn next_dashes(&mut self) -> Option<usize> {
        const DASHES: &[u8] = b"-----";
        if !self.text[self.position..].starts_with(DASHES) {
            // The position is at the start of a line. The line end before it is part of the
            // pattern.
            let from = self.position.saturating_sub(1);
            let found = DASHES_LINE.find(&self.text[from..]);
            self.position = found.map_or(self.text.len(), |at| from + at + 1);
        }
        (self.position < self.text.len()).then_some(self.position)
    }
}

/// Finds a line that begins with dashes, together with the line end before it.
static DASHES_LINE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\n-----"));

/// The label of a boundary line, if `line` is one that begins with `prefix`.
fn boundary<'a>(line: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(prefix)?.trim_ascii_end().strip_suffix(b"-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Vec<(String, bool)> {
        blocks(text.as_bytes())
            .map(|b| (String::from_utf8(b.label.to_vec()).unwrap(), b.contents().is_some()))
            .collect()
    }

    #[test]
    fn blocks_between_text_are_found_with_exact_spans() {
        let text = "note\n-----BEGIN A-----\nQUJD\n-----END A-----\nmore\n-----BEGIN B-----\r\nQQ==\r\n-----END B-----";
        let found: Vec<_> = blocks(text.as_bytes()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(&text[found[0].span.clone()], "-----BEGIN A-----\nQUJD\n-----END A-----\n");
        assert_eq!(found[0].contents().unwrap(), b"ABC");
        assert_eq!(found[1].span.end, text.len());
        assert_eq!(found[1].contents().unwrap(), b"A");
    }

    #[test]
    fn a_begin_without_its_end_is_a_block_without_content() {
        let text = "-----BEGIN A-----\nQUJD\n-----BEGIN B-----\nQUJD\n-----END B-----\n";
        assert_eq!(labels(text), [("A".into(), false), ("B".into(), true)]);
        assert_eq!(labels("-----BEGIN A-----\nQUJD\n"), [("A".into(), false)]);
        assert_eq!(labels("-----BEGIN A-----"), [("A".into(), false)]);
    }

    #[test]
    fn an_end_of_another_label_ends_the_block_without_content() {
        let text =
            "-----BEGIN A-----\nQUJD\n-----END B-----\n-----BEGIN C-----\nQUJD\n-----END C-----\n";
        assert_eq!(labels(text), [("A".into(), false), ("C".into(), true)]);
    }

    #[test]
    fn a_byte_order_mark_is_skipped_where_openssl_skips_it() {
        let block = "-----BEGIN A-----\nQUJD\n-----END A-----\n";
        let text = format!("\u{feff}{block}\u{feff}{block}note\n\u{feff}{block}{block}");
        let starts: Vec<_> = blocks(text.as_bytes()).map(|found| found.span.start).collect();
        assert_eq!(starts, [3, 6 + block.len(), text.len() - block.len()]);
        assert_eq!(labels("\u{feff}"), []);
        assert_eq!(labels(&format!("\u{feff}\u{feff}{block}")), []);
    }

    #[test]
    fn headers_and_bad_base64_leave_a_block_without_content() {
        assert_eq!(
            labels("-----BEGIN A-----\nProc-Type: 4\n\nQUJD\n-----END A-----\n"),
            [("A".into(), false)]
        );
        assert_eq!(labels("-----BEGIN A-----\nQUJ*\n-----END A-----\n"), [("A".into(), false)]);
    }

    #[test]
    fn a_boundary_counts_only_at_the_start_of_a_line() {
        assert_eq!(labels(" -----BEGIN A-----\nQUJD\n-----END A-----\n"), []);
        assert_eq!(labels("x-----BEGIN A-----\n"), []);
        assert_eq!(labels("-----BEGIN A\n"), []);
    }

    #[test]
    fn any_line_width_is_read_and_64_columns_are_written() {
        let der = vec![7_u8; 100];
        let mut canonical = Vec::new();
        encode_certificate(&der, &mut canonical);
        assert_eq!(canonical.len(), encoded_len(der.len()));
        let text = String::from_utf8(canonical.clone()).unwrap();
        assert!(text.lines().all(|l| l.len() <= 64));
        assert_eq!(text.lines().nth(1).unwrap().len(), 64);
        let one_line = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----",
            BASE64.encode(&der)
        );
        assert_eq!(blocks(one_line.as_bytes()).next().unwrap().contents().unwrap(), der);
        assert_eq!(blocks(&canonical).next().unwrap().contents().unwrap(), der);
    }

    #[test]
    fn white_space_within_base64_is_ignored() {
        for body in ["QU\nJDQUJD\n", " QUJD\n  QUJD\n", "Q UJD\r\n\r\nQ\tUJD\n"] {
            let text = format!("-----BEGIN A-----\n{body}-----END A-----\n");
            let found = blocks(text.as_bytes()).next().unwrap();
            assert_eq!(found.contents().as_deref(), Some(&b"ABCABC"[..]), "{body:?}");
        }
    }

    #[test]
    fn encoded_len_is_the_encoded_size() {
        for len in [0, 1, 2, 3, 47, 48, 49, 96, 1000] {
            let mut out = Vec::new();
            encode_certificate(&vec![1; len], &mut out);
            assert_eq!(out.len(), encoded_len(len), "{len} bytes");
        }
    }
}
