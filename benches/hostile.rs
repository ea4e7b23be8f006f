//! Hostile reviews of any size, which a webhook must answer in time linear in the size of the body.
//!
//! `make linear` compares the instruction counts of one size and of twice that size, and
//! `tests/pure/admission/hostile.rs` checks the answers. Certificates are built from their DER parts,
//! so that they can be as large, deep or alike as needed. Their signatures do not verify.

use std::fmt::Write as _;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ca_overlap::x509::certs::Fingerprint;

/// Generates the body of a request of about so many bytes.
pub type Generate = fn(usize) -> Vec<u8>;

/// Every shape, by its name.
#[allow(clippy::too_many_lines, reason = "a table")]
pub fn cases() -> Vec<(&'static str, Generate)> {
    vec![
        ("json arrays in data", |n| data("x", &nested("[", "", "]", n))),
        ("json objects in data", |n| data("x", &nested(r#"{"a":"#, "0", "}", n))),
        ("json arrays in managed fields", |n| {
            metadata(&format!(r#""managedFields":{}"#, nested("[", "", "]", n)))
        }),
        ("json arrays as body", |n| nested("[", "", "]", n).into_bytes()),
        ("json string without end", |n| format!("{{\"kind\":\"{}", "\\\\".repeat(n / 2)).into()),
        ("json number in data", |n| data("x", &"7".repeat(n))),
        ("json white space", |n| data("x", &format!("{}\"\"", " \n".repeat(n / 2)))),
        ("json escapes in a data key", |n| data(&"\\u00e9".repeat(n / 6), r#""""#)),
        ("many data keys", |n| data_keys(n, |i| format!("k{i}"))),
        ("one data key many times", |n| data_keys(n, |_| "ca.key".to_owned())),
        ("many annotations", |n| {
            annotations(&repeat(n, 20, |i, out| write!(out, r#""k{i}":"value","#)))
        }),
        ("one annotation many times", |n| {
            annotations(&repeat(n, 30, |_, out| write!(out, r#""ca-overlap.dev/keep":"2","#)))
        }),
        ("one label many times", |n| {
            let labels = repeat(n, 30, |_, out| write!(out, r#""ca-overlap.dev/mode":"bundle","#));
            metadata(&format!(r#""labels":{{{}}}"#, labels.trim_end_matches(',')))
        }),
        ("one owner many times", |n| {
            let owner = r#"{"apiVersion":"secrets.hashicorp.com/v1","uid":"u"},"#;
            let owners = repeat(n, owner.len(), |_, out| write!(out, "{owner}"));
            metadata(&format!(r#""ownerReferences":[{}]"#, owners.trim_end_matches(',')))
        }),
        ("a long owner", |n| {
            metadata(&format!(r#""ownerReferences":[{{"apiVersion":"{}"}}]"#, "a/".repeat(n / 2)))
        }),
        ("escapes in an annotation", |n| {
            annotations(&format!(r#""k":"{}","#, "\\u00e9\\n".repeat(n / 8)))
        }),
        ("a uid of escapes", |n| {
            review(&"\\u00e9".repeat(n / 6), &old_secret(), &secret("", &root(2).pem(), ""))
        }),
        ("tiny certificate blocks", |n| incoming(&flood("CERTIFICATE", n))),
        ("tiny other blocks", |n| incoming(&flood("X", n))),
        ("begin lines without end", |n| incoming(&fill("-----BEGIN CERTIFICATE-----\n", n))),
        ("begin lines without end, stored", |n| {
            stored(&fill("-----BEGIN CERTIFICATE-----\n", n), "", "")
        }),
        ("begin lines of many labels", |n| {
            let text = repeat(base64_part(n), 24, |i, out| writeln!(out, "-----BEGIN L{i}-----"));
            incoming(&(root(2).pem() + &text))
        }),
        ("one begin and many other ends", |n| {
            incoming(&format!("{}-----BEGIN X-----\n{}", root(2).pem(), fill("-----END Y\n", n)))
        }),
        ("half boundaries", |n| incoming(&(root(2).pem() + &fill("-----BEGIN \n-----END\n", n)))),
        ("dashes", |n| incoming(&(root(2).pem() + &fill("-", n)))),
        ("empty lines in a block", |n| {
            let text = root(2).pem().replace("-----\n", &format!("-----\n{}", fill("\r\n", n / 2)));
            incoming(&text)
        }),
        ("base64 with white space", |n| {
            let text = root(2).pem() + &fill("# a comment of a generator\n", n / 3);
            let spaced: Vec<_> =
                BASE64_STANDARD.encode(text).chars().map(|c| c.to_string()).collect();
            let new = secret("", "", "").replace(r#""ca.crt":"""#, &ca_crt(&spaced.join("\\n")));
            review("u", &old_secret(), &new)
        }),
        ("base64 that is none", |n| {
            let new = secret("", "", "").replace(r#""ca.crt":"""#, &ca_crt(&"!".repeat(n)));
            review("u", &old_secret(), &new)
        }),
        ("a large certificate", |n| incoming(&padded(2, base64_twice(n)).pem())),
        ("a large certificate, stored", |n| stored(&padded(1, base64_twice(n)).pem(), "", "")),
        ("one certificate many times", |n| {
            incoming(&padded(2, base64_twice(n) / 120).pem().repeat(120))
        }),
        ("many extensions", |n| {
            let extension = tlv(0x30, &[tlv(6, &[42, 3, 4]), tlv(4, &[])].concat());
            incoming(&Cert { extensions: extension.repeat(base64_twice(n) / 9), ..root(2) }.pem())
        }),
        ("many parts of a name", |n| {
            let part = tlv(0x31, &tlv(0x30, &[tlv(6, &[85, 4, 3]), tlv(12, b"x")].concat()));
            let subject = part.repeat(base64_twice(n) / 24);
            incoming(&Cert { issuer: subject.clone(), subject, ..root(2) }.pem())
        }),
        ("asn.1 nested 64 times", |n| {
            let nested = nested_der(64);
            let extensions = extension(&[42, 3, 4], &nested).repeat(base64_twice(n) / 240);
            incoming(&Cert { extensions, ..root(2) }.pem())
        }),
        ("asn.1 nested in a name", |n| {
            let subject = deep_name(base64_twice(n) / 10);
            incoming(&Cert { issuer: subject.clone(), subject, ..root(2) }.pem())
        }),
        ("look-alike authorities", |n| {
            let cas: String = (1..=60).map(|i| padded(i, base64_twice(n) / 76).pem()).collect();
            let leaves: String = (61..=76).map(|i| padded(i, base64_twice(n) / 76).pem()).collect();
            stored(&cas, &leaves, r#""ca-overlap.dev/keep":"8","#)
        }),
        ("authorities that issue each other", |n| {
            let ring =
                |i| Cert { key_ids: KeyIds::AuthorityOnly, ..padded(i, base64_twice(n) / 60) };
            let cas: String = (1..=60).map(|i| ring(i).pem()).collect();
            stored(&cas, "", r#""ca-overlap.dev/keep":"8","#)
        }),
        ("a long chain of authorities", |n| {
            let link = |i: u64| Cert {
                subject: name(&format!("ca {i}")),
                issuer: name(&format!("ca {}", i + 1)),
                ..padded(i, base64_twice(n) / 60)
            };
            let cas: String = (1..=60).map(|i| link(i).pem()).collect();
            stored(&cas, "", r#""ca-overlap.dev/keep":"8","#)
        }),
        ("a long record", |n| {
            stored(
                &root(1).pem(),
                "",
                &format!(r#""ca-overlap.dev/carried":"[{}]","#, absent_entries(n / 110)),
            )
        }),
        ("a full record, and white space", |n| {
            let all: Vec<_> = (1..=60).map(root).collect();
            let bundle: String = all.iter().map(Cert::pem).collect();
            let space = " ".repeat(n.saturating_sub(90_000));
            let record = format!("{space}[{},{}]", absent_entries(450), entries(&all[1..]));
            stored(&bundle, "", &format!(r#""ca-overlap.dev/carried":"{record}","#))
        }),
        ("a long list of distrust", |n| {
            let list = repeat(n, 65, |i, out| write!(out, "{i:064x},"));
            retired(&format!(r#""ca-overlap.dev/distrust":"{list}","#))
        }),
        ("a list of commas", |n| {
            retired(&format!(r#""ca-overlap.dev/distrust":"{}","#, ", ".repeat(n / 2)))
        }),
        ("a list of colons", |n| {
            retired(&format!(r#""ca-overlap.dev/distrust":"{}","#, ":".repeat(n)))
        }),
        ("a long window", |n| {
            retired(&format!(r#""ca-overlap.dev/window":"{}","#, "1ns ".repeat(n / 4)))
        }),
        ("a flood of leaf certificates", |n| {
            let leaves = flood("CERTIFICATE", n / 2);
            review("u", &secret("", &root(1).pem(), &leaves), &secret("", &root(2).pem(), &leaves))
        }),
        ("a third pair while one waits", third_pair),
    ]
}

// The parts of a review.

fn review(uid: &str, old: &str, new: &str) -> Vec<u8> {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"{uid}","kind":{{"group":"","version":"v1","kind":"Secret"}},"name":"envoy","namespace":"gateway","operation":"UPDATE","userInfo":{{"username":"system:serviceaccount:gateway:certgen"}},"options":{{"kind":"UpdateOptions"}},"object":{new},"oldObject":{old}}}}}"#
    )
    .into()
}

/// `annotations` ends with a comma unless it is empty.
fn secret(annotations: &str, ca: &str, leaf: &str) -> String {
    let annotations = annotations.trim_end_matches(',');
    let (ca, leaf) = (BASE64_STANDARD.encode(ca), BASE64_STANDARD.encode(leaf));
    format!(
        r#"{{"type":"kubernetes.io/tls","metadata":{{"name":"envoy","annotations":{{{annotations}}}}},"data":{{"ca.crt":"{ca}","tls.crt":"{leaf}"}}}}"#
    )
}

fn old_secret() -> String {
    secret("", &root(1).pem(), "")
}

/// A rotation from one root to this bundle.
fn incoming(ca: &str) -> Vec<u8> {
    review("u", &old_secret(), &secret("", ca, ""))
}

/// A rotation from this bundle to one root.
fn stored(ca: &str, leaf: &str, annotations: &str) -> Vec<u8> {
    review("u", &secret(annotations, ca, leaf), &secret("", &root(1000).pem(), ""))
}

/// A write that leaves `ca.crt` with one own and sixty carried certificates alone.
fn retired(annotations: &str) -> Vec<u8> {
    let all: Vec<_> = (1..=61).map(root).collect();
    let bundle: String = all.iter().map(Cert::pem).collect();
    let record = format!(r#""ca-overlap.dev/carried":"[{}]","#, entries(&all[1..]));
    let new = secret(&format!("{record}{annotations}"), &bundle, "");
    review("u", &secret(&record, &bundle, ""), &new)
}

/// A rotation to a third pair while one waits: look-alike CAs, long chains and keys, and the longest
/// group that is restored.
fn third_pair(n: usize) -> Vec<u8> {
    let chain = |serial| root(serial).pem() + &flood("CERTIFICATE", n / 6);
    let pair = |prefix: &str, chain: &str, key: &str| {
        let (chain, key) = (BASE64_STANDARD.encode(chain), key.repeat(n / 6));
        format!(r#""{prefix}tls.crt":"{chain}","{prefix}tls.key":"{key}","#)
    };
    let (held, waiting) = (chain(100), chain(101));
    let sha256 = |chain: &str| Fingerprint::of(chain.as_bytes()).to_string();
    let stage = format!(
        r#"{{\"since\":\"2029-12-31T00:00:00Z\",\"held\":\"{}\",\"pending\":\"{}\",\"moved\":0}}"#,
        sha256(&held),
        sha256(&waiting)
    );
    let marks = format!(
        r#""ca-overlap.dev/staged":"{stage}","ca-overlap.dev/keep":"8","ca-overlap.dev/group":"{}","#,
        "g".repeat(4096)
    );
    let object = |annotations: &str, ca: &str, pairs: &str| {
        secret(annotations, ca, "")
            .replace(r#","tls.crt":"""#, "")
            .replace(r#""metadata":{"#, r#""metadata":{"labels":{"ca-overlap.dev/mode":"staged"},"#)
            .replace(r#""data":{"#, &format!(r#""data":{{{pairs}"#))
    };
    let cas: String = (1..=12).map(|serial| root(serial).pem()).collect();
    let stored = pair("", &held, "A") + &pair("pending.", &waiting, "B");
    let new = object("", &root(1000).pem(), &pair("", &chain(102), "C"));
    review("u", &object(&marks, &cas, &stored), &new)
}

fn data(key: &str, value: &str) -> Vec<u8> {
    with_data(&format!(r#","{key}":{value}"#))
}

fn with_data(others: &str) -> Vec<u8> {
    let new = secret("", &root(2).pem(), "");
    let body = new.strip_suffix("}}").unwrap_or_default();
    review("u", &old_secret(), &format!("{body}{others}}}}}"))
}

fn data_keys(n: usize, key: impl Fn(usize) -> String) -> Vec<u8> {
    with_data(&repeat(n, 17, |i, out| write!(out, r#","{}":"QQ==""#, key(i))))
}

fn metadata(members: &str) -> Vec<u8> {
    let new = secret("", &root(2).pem(), "")
        .replace(r#""metadata":{"#, &format!(r#""metadata":{{{members},"#));
    review("u", &old_secret(), &new)
}

fn annotations(members: &str) -> Vec<u8> {
    review("u", &old_secret(), &secret(members, &root(2).pem(), ""))
}

fn ca_crt(base64: &str) -> String {
    format!(r#""ca.crt":"{base64}""#)
}

/// The entries of `count` certificates that are not stored.
fn absent_entries(count: usize) -> String {
    (0..count).map(|i| entry(&format!("{i:064x}"))).collect::<Vec<_>>().join(",")
}

/// The entries of these certificates.
fn entries(certificates: &[Cert]) -> String {
    let fingerprint = |c: &Cert| Fingerprint::of(&c.der()).to_string();
    certificates.iter().map(|c| entry(&fingerprint(c))).collect::<Vec<_>>().join(",")
}

fn entry(sha256: &str) -> String {
    format!(r#"{{\"sha256\":\"{sha256}\",\"since\":\"2026-01-01T00:00:00Z\"}}"#)
}

// Repetitions.

fn nested(open: &str, core: &str, close: &str, n: usize) -> String {
    let levels = n / (open.len() + close.len());
    format!("{}{core}{}", open.repeat(levels), close.repeat(levels))
}

/// Items of about `each` bytes that together fill `n` bytes.
fn repeat(n: usize, each: usize, item: impl Fn(usize, &mut String) -> std::fmt::Result) -> String {
    let mut out = String::with_capacity(n + 2 * each);
    for index in 0..n / each {
        // Writing to a string cannot fail.
        let _ = item(index, &mut out);
    }
    out
}

/// `text` repeated so that its base64 fills `n` bytes.
fn fill(text: &str, n: usize) -> String {
    text.repeat(base64_part(n) / text.len())
}

fn flood(label: &str, n: usize) -> String {
    fill(&format!("-----BEGIN {label}-----\nQQ==\n-----END {label}-----\n"), n)
}

/// How many bytes have `n` bytes of base64.
fn base64_part(n: usize) -> usize {
    n / 4 * 3
}

/// How many bytes of DER have `n` bytes in a review, as PEM within base64.
fn base64_twice(n: usize) -> usize {
    n * 55 / 100
}

// Certificates.

/// The parts in which the certificates differ.
struct Cert {
    serial: u64,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    key_ids: KeyIds,
    /// Encoded extensions, put before the usual ones.
    extensions: Vec<u8>,
}

enum KeyIds {
    None,
    /// An authority key id and no subject key id: any such CA may have issued any other.
    AuthorityOnly,
}

/// A root with the same name as all others, without key ids.
fn root(serial: u64) -> Cert {
    let name = name("Legacy CA");
    Cert {
        serial,
        issuer: name.clone(),
        subject: name,
        key_ids: KeyIds::None,
        extensions: Vec::new(),
    }
}

/// A root of about `size` bytes. It differs from the others only at its end.
fn padded(serial: u64, size: usize) -> Cert {
    let extensions = extension(&[42, 3, 4], &vec![0; size.saturating_sub(400)]);
    Cert { extensions, ..root(serial) }
}

impl Cert {
    fn pem(&self) -> String {
        let encoded = BASE64_STANDARD.encode(self.der());
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(std::str::from_utf8(line).unwrap_or_default());
            pem.push('\n');
        }
        pem + "-----END CERTIFICATE-----\n"
    }

    fn der(&self) -> Vec<u8> {
        let ecdsa_with_sha256 = tlv(0x30, &tlv(6, &[42, 134, 72, 206, 61, 4, 3, 2]));
        let validity = [tlv(0x17, b"200101000000Z"), tlv(0x17, b"490101000000Z")].concat();
        let mut extensions = self.extensions.clone();
        if matches!(self.key_ids, KeyIds::AuthorityOnly) {
            extensions.extend(extension(&[85, 29, 35], &tlv(0x30, &tlv(0x80, &[7; 20]))));
        }
        extensions.extend(extension(&[85, 29, 19], &tlv(0x30, &tlv(1, &[255]))));
        let to_be_signed = [
            tlv(0xa0, &tlv(2, &[2])),
            tlv(2, &[1]),
            ecdsa_with_sha256.clone(),
            tlv(0x30, &self.issuer),
            tlv(0x30, &validity),
            tlv(0x30, &self.subject),
            public_key(),
            tlv(0xa3, &tlv(0x30, &extensions)),
        ]
        .concat();
        // An ECDSA signature is two integers. The serial number in the second makes the
        // certificate unique at its end.
        let mut scalar = vec![1; 32];
        scalar[24..].copy_from_slice(&self.serial.to_be_bytes());
        let signature = tlv(0x30, &[tlv(2, &[1; 32]), tlv(2, &scalar)].concat());
        let signature = tlv(3, &[vec![0], signature].concat());
        tlv(0x30, &[tlv(0x30, &to_be_signed), ecdsa_with_sha256, signature].concat())
    }
}

/// The base point of P-256 (SEC 2, §2.4.2), a valid key, so that a verifier computes with it.
fn public_key() -> Vec<u8> {
    const X: u128 = 0x6b17_d1f2_e12c_4247_f8bc_e6e5_63a4_40f2;
    const X_LOW: u128 = 0x7703_7d81_2deb_33a0_f4a1_3945_d898_c296;
    const Y: u128 = 0x4fe3_42e2_fe1a_7f9b_8ee7_eb4a_7c0f_9e16;
    const Y_LOW: u128 = 0x2bce_3357_6b31_5ece_cbb6_4068_37bf_51f5;
    let mut point = vec![0, 4];
    for part in [X, X_LOW, Y, Y_LOW] {
        point.extend(part.to_be_bytes());
    }
    let algorithm =
        [tlv(6, &[42, 134, 72, 206, 61, 2, 1]), tlv(6, &[42, 134, 72, 206, 61, 3, 1, 7])].concat();
    tlv(0x30, &[tlv(0x30, &algorithm), tlv(3, &point)].concat())
}

fn name(common_name: &str) -> Vec<u8> {
    name_of(&tlv(12, common_name.as_bytes()))
}

fn name_of(value: &[u8]) -> Vec<u8> {
    tlv(0x31, &tlv(0x30, &[tlv(6, &[85, 4, 3]), value.to_vec()].concat()))
}

/// A name whose value is nested `levels` deep.
fn deep_name(levels: usize) -> Vec<u8> {
    name_of(&nested_der(levels))
}

/// Sequences nested `levels` deep. Written backwards, so that a header costs no copy of its content.
fn nested_der(levels: usize) -> Vec<u8> {
    let mut backwards: Vec<u8> = Vec::new();
    for _ in 0..levels {
        let mut header = header(0x30, backwards.len());
        header.reverse();
        backwards.extend(header);
    }
    backwards.reverse();
    backwards
}

fn extension(oid: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(6, oid), tlv(4, value)].concat())
}

/// Tag, length and value, as DER writes them.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = header(tag, value.len());
    out.extend_from_slice(value);
    out
}

fn header(tag: u8, len: usize) -> Vec<u8> {
    let bytes = len.to_be_bytes();
    let significant = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    match (len, significant) {
        (0..=127, _) => vec![tag, u8::try_from(len).unwrap_or_default()],
        (_, significant) => {
            let count = 0x80 | u8::try_from(significant.len()).unwrap_or_default();
            [&[tag, count], significant].concat()
        }
    }
}
