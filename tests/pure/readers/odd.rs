//! CA certificates as they are found in the field, ordinary and odd, with what is wrong with them.

use ca_overlap::x509::strict::Flaw;
use devtools::certs::pem_of;
use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm};

/// A CA, and why some readers reject it; `None` if all accept it.
pub struct Case {
    pub name: &'static str,
    pub flaw: Option<Flaw>,
    pub der: Vec<u8>,
}

pub fn all() -> Vec<Case> {
    let case = |flaw| move |(name, ca): (&'static str, Ca)| Case { name, flaw, der: ca.der() };
    let mut all: Vec<Case> = sound().into_iter().map(case(None)).collect();
    for (flaw, cases) in [
        (Flaw::NotDer, not_der()),
        (Flaw::InvalidText, invalid_text()),
        (Flaw::DuplicateExtension, vec![("duplicate-extension", ca().with(extension(14, KEY_ID)))]),
        (Flaw::InvalidDate, invalid_date()),
        (Flaw::UnreadableKey, unreadable_key()),
        (Flaw::NegativeSerial, vec![("negative-serial", Ca { serial: vec![0x80, 1], ..ca() })]),
    ] {
        all.extend(cases.into_iter().map(case(Some(flaw))));
    }
    all
}

/// The PEM of one of these.
pub fn pem(name: &str) -> String {
    let case = all().into_iter().find(|case| case.name == name).unwrap();
    pem_of(&case.der, 64, "\n")
}

type Cases = Vec<(&'static str, Ca)>;

fn sound() -> Cases {
    let name = |tag, text: &[u8]| ca().named(&attribute(3, tag, text));
    let constraint = tlv(0xa0, &tlv(0x30, &tlv(0x82, b"example.org")));
    let policy = tlv(0x30, &tlv(0x06, &[0x55, 0x1d, 32, 0]));
    let point = tlv(0xa0, &tlv(0xa0, &tlv(0x86, b"http://example.org/crl")));
    let private = [tlv(0x06, &[0x2a, 3, 4]), tlv(0x01, &[0xff]), tlv(0x04, b"x")];
    let pair = [attribute_pair(3, 0x0c, b"one"), attribute_pair(11, 0x0c, b"two")].concat();
    vec![
        ("p256", ca()),
        ("p384", Ca { key: key(&rcgen::PKCS_ECDSA_P384_SHA384), ..ca() }),
        ("p521", Ca { key: key(&rcgen::PKCS_ECDSA_P521_SHA512), ..ca() }),
        ("ed25519", Ca { key: key(&rcgen::PKCS_ED25519), ..ca() }),
        ("rsa-2048", Ca { key: rsa(256, &[1, 0, 1], NULL), ..ca() }),
        ("rsa-4096", Ca { key: rsa(512, &[3], NULL), ..ca() }),
        ("rsa-1024", Ca { key: rsa(128, &[1, 0, 1], NULL), ..ca() }),
        ("version-1", Ca { version: vec![], extensions: vec![], ..ca() }),
        ("no-key-ids", Ca { extensions: vec![basic_constraints(&[0xff])], ..ca() }),
        ("no-extensions", Ca { extensions: vec![], ..ca() }),
        ("serial-of-20-bytes", Ca { serial: vec![0x7f; 20], ..ca() }),
        ("serial-zero", Ca { serial: vec![0], ..ca() }),
        ("t61-name", name(0x14, b"M\xfcller")),
        ("bmp-name", name(0x1e, b"\0M\0\xfc")),
        ("utf8-name", name(0x0c, "Zertifizierungsstelle Müller".as_bytes())),
        ("long-name", name(0x0c, &[b'x'; 60].repeat(3))),
        ("wildcard-in-printable", name(0x13, b"*.example.org & more")),
        ("ia5-name", name(0x16, b"ca@example.org")),
        ("numeric-name", name(0x12, b"12 34")),
        ("two-in-a-set", ca().named(&tlv(0x31, &pair))),
        ("no-well-defined-expiry", Ca { not_after: time(0x18, "99991231235959Z"), ..ca() }),
        ("begins-1950", Ca { not_before: time(0x17, "500101000000Z"), ..ca() }),
        ("p224", Ca { key: curve(P224_ID, &hex(P224)), ..ca() }),
        ("critical-unknown-extension", ca().with(tlv(0x30, &private.concat()))),
        ("policy-constraints", ca().with(critical_extension(36, &[0x30, 3, 0x80, 1, 0]))),
        ("inhibit-any-policy", ca().with(critical_extension(54, &[2, 1, 0]))),
        (
            "spiffe-uri",
            ca().with(extension(17, &tlv(0x30, &tlv(0x86, b"spiffe://example.org/ca")))),
        ),
        ("unknown-extension", ca().with(extension(99, b"\x04\x01x"))),
        ("name-constraints", ca().with(critical_extension(30, &tlv(0x30, &constraint)))),
        ("policies", ca().with(extension(32, &tlv(0x30, &policy)))),
        ("distribution-points", ca().with(extension(31, &tlv(0x30, &tlv(0x30, &point))))),
        ("subject-alternative-name", ca().with(extension(17, &tlv(0x30, &tlv(0x82, b"ca"))))),
        ("expiring-in-utc-time", Ca { not_after: time(0x17, "491231235959Z"), ..ca() }),
    ]
}

fn not_der() -> Cases {
    let sha384 = tlv(0x30, &tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03]));
    let policy = tlv(0x30, &tlv(0x06, &[0x55, 0x1d, 32, 0]));
    let access = [tlv(0x06, &[0x2b, 6, 1, 5, 5, 7, 1, 1]), tlv(0x04, &[0x30, 2, 0x30, 0])];
    let access = tlv(0x30, &access.concat());
    let huge = [tlv(0x06, &[0x69, 0x88, 0x80, 0x80, 0x80, 0]), tlv(0x0c, b"CA")];
    let huge = tlv(0x31, &tlv(0x30, &huge.concat()));
    let long_form = [&[0x30, 0x81, 5][..], &[0x06, 3, 0x55, 4, 3]].concat();
    vec![
        ("padded-serial", Ca { serial: vec![0, 0, 0x64], ..ca() }),
        ("long-form-length", ca().with([&[0x30, 0x81][..], &extension(99, b"x")[1..]].concat())),
        ("long-form-in-extension", ca().with(extension(37, &long_form))),
        (
            "boolean-01",
            Ca { extensions: vec![basic_constraints(&[0x01]), extension(14, KEY_ID)], ..ca() },
        ),
        ("other-inner-algorithm", Ca { inner_algorithm: sha384, ..ca() }),
        ("version-1-with-extensions", Ca { version: vec![], ..ca() }),
        ("version-4", Ca { version: vec![0xa0, 3, 2, 1, 3], ..ca() }),
        ("unused-bits-set", ca().with(critical_extension(15, &[3, 2, 1, 7]))),
        ("authority-key-id-critical", ca().with(critical_extension(35, b"\x30\x03\x80\x01x"))),
        ("unreadable-critical", ca().with(critical_extension(18, b"\x30\x03\x01\x01\xff"))),
        ("unique-id", Ca { key: [ca().key, tlv(0x81, &[0, 1])].concat(), ..ca() }),
        ("version-as-text", Ca { version: vec![0xa0, 3, 4, 1, 2], ..ca() }),
        ("larger-than-64-kib", ca().with(extension(99, &vec![7; 0xfff0]))),
        ("policy-twice", ca().with(extension(32, &tlv(0x30, &policy.repeat(2))))),
        ("huge-policy-skip", ca().with(extension(36, &[0x30, 9, 0x80, 7, 1, 1, 1, 1, 1, 1, 1]))),
        ("empty-name-constraints", ca().with(extension(30, b"\x30\0"))),
        ("mapping-without-id", ca().with(extension(33, b"\x30\x02\x30\0"))),
        ("access-without-id", ca().with(access)),
        ("huge-attribute-id", ca().named(&huge)),
        ("empty-key-id", Ca { extensions: vec![extension(14, b"")], ..ca() }),
    ]
}

fn invalid_text() -> Cases {
    let constraint =
        |tag, text: &[u8]| extension(30, &tlv(0x30, &tlv(0xa0, &tlv(0x30, &tlv(tag, text)))));
    let name = |tag, text: &[u8]| ca().named(&attribute(3, tag, text));
    vec![
        ("latin-1-in-utf8", name(0x0c, b"M\xfcller")),
        ("at-sign-in-printable", name(0x13, b"ca@example.org")),
        ("underscore-in-printable", name(0x13, b"my_ca")),
        ("utf8-in-ia5", name(0x16, "Müller".as_bytes())),
        ("odd-length-bmp", name(0x1e, b"\0M\0")),
        ("letters-in-numeric", name(0x12, b"one")),
        ("empty-subject", ca().named(b"")),
        ("not-a-character", name(0x1e, b"\xff\xfe")),
        ("space-in-uri", ca().with(extension(17, &tlv(0x30, &tlv(0x86, b"http://a b/"))))),
        ("empty-label", ca().with(constraint(0x82, b"example..org"))),
        ("mask-with-a-hole", ca().with(constraint(0x87, &[10, 0, 0, 0, 255, 0, 255, 0]))),
        ("latin-1-host", ca().with(extension(17, &tlv(0x30, &tlv(0x82, b"m\xfcller"))))),
    ]
}

fn invalid_date() -> Cases {
    let begins = |tag, text| Ca { not_before: time(tag, text), ..ca() };
    vec![
        ("30-february", begins(0x17, "200230000000Z")),
        ("hour-24", begins(0x17, "200101240000Z")),
        ("without-seconds", begins(0x17, "2001010000Z")),
        ("with-an-offset", begins(0x17, "200101000000+0000")),
        ("with-fractions", begins(0x18, "20200101000000.5Z")),
    ]
}

fn unreadable_key() -> Cases {
    let with = |key| Ca { key, ..ca() };
    let curve = |id: &[u8], point: &[u8]| with(curve(id, point));
    let dsa = tlv(0x06, &[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01]);
    let p256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    vec![
        ("rsa-without-null", with(rsa(256, &[1, 0, 1], b""))),
        ("rsa-256-bits", with(rsa(32, &[1, 0, 1], NULL))),
        ("rsa-exponent-1", with(rsa(256, &[1], NULL))),
        ("secp256k1", curve(&[0x2b, 0x81, 0x04, 0x00, 0x0a], &hex(SECP256K1))),
        ("not-on-the-curve", curve(&p256, &[&[4][..], &[7; 64]].concat())),
        ("compressed-point", curve(&p256, &[&[2][..], &[7; 32]].concat())),
        ("dsa-without-parameters", with(spki(&dsa, &[2, 1, 5]))),
        ("damaged-point", curve(&p256, &[4, 1, 2])),
        ("short-ed25519", with(spki(&tlv(0x06, &[0x2b, 0x65, 0x70]), &[1; 31]))),
    ]
}

/// The fields of a certificate. Names, keys, extensions and times are whole DER elements.
struct Ca {
    version: Vec<u8>,
    serial: Vec<u8>,
    inner_algorithm: Vec<u8>,
    name: Vec<u8>,
    not_before: Vec<u8>,
    not_after: Vec<u8>,
    key: Vec<u8>,
    extensions: Vec<Vec<u8>>,
}

/// An ordinary CA: version 3, P-256, key id.
fn ca() -> Ca {
    Ca {
        version: vec![0xa0, 3, 2, 1, 2],
        serial: vec![0x64],
        inner_algorithm: tlv(0x30, &tlv(0x06, ECDSA_WITH_SHA256)),
        name: tlv(0x30, &attribute(3, 0x0c, b"Odd CA")),
        not_before: time(0x17, "200101000000Z"),
        not_after: time(0x18, "20900101000000Z"),
        key: key(&rcgen::PKCS_ECDSA_P256_SHA256),
        extensions: vec![basic_constraints(&[0xff]), extension(14, KEY_ID)],
    }
}

impl Ca {
    fn with(mut self, extension: Vec<u8>) -> Self {
        self.extensions.push(extension);
        self
    }

    fn named(mut self, attributes: &[u8]) -> Self {
        self.name = tlv(0x30, attributes);
        self
    }

    /// The certificate. Its signature is none: no reader checks that of a trust anchor.
    fn der(self) -> Vec<u8> {
        let extensions = self.extensions.concat();
        let extensions = match extensions.len() {
            0 => Vec::new(),
            _ => tlv(0xa3, &tlv(0x30, &extensions)),
        };
        let tbs = [
            self.version,
            tlv(0x02, &self.serial),
            self.inner_algorithm,
            self.name.clone(),
            tlv(0x30, &[self.not_before, self.not_after].concat()),
            self.name,
            self.key,
            extensions,
        ];
        let algorithm = tlv(0x30, &tlv(0x06, ECDSA_WITH_SHA256));
        let signature = tlv(0x03, &[&[0][..], &[0x30, 6, 2, 1, 1, 2, 1, 1]].concat());
        tlv(0x30, &[tlv(0x30, &tbs.concat()), algorithm, signature].concat())
    }
}

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const NULL: &[u8] = &[0x05, 0];
/// An octet string of four bytes.
const KEY_ID: &[u8] = &[0x04, 4, 1, 2, 3, 4];
/// The base points of the curves.
const SECP256K1: &str = "0479be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798\
                         483ada7726a3c4655da4fbfc0e1108a8fd17b448a68554199c47d08ffb10d4b8";
const P224_ID: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x21];
const P224: &str = "04b70e0cbd6bb4bf7f321390b94a03c1d356c21122343280d6115c1d21\
                    bd376388b5f723fb4c22dfe6cd4375a05a07476444d5819985007e34";

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let low = |shift: usize| u8::try_from((length >> shift) & 0xff).unwrap();
    let header = match length {
        0..0x80 => vec![tag, low(0)],
        0x80..0x100 => vec![tag, 0x81, low(0)],
        0x100..0x1_0000 => vec![tag, 0x82, low(8), low(0)],
        _ => vec![tag, 0x83, low(16), low(8), low(0)],
    };
    [&header, content].concat()
}

fn time(tag: u8, text: &str) -> Vec<u8> {
    tlv(tag, text.as_bytes())
}

fn attribute_pair(id: u8, tag: u8, text: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x06, &[0x55, 4, id]), tlv(tag, text)].concat())
}

fn attribute(id: u8, tag: u8, text: &[u8]) -> Vec<u8> {
    tlv(0x31, &attribute_pair(id, tag, text))
}

fn extension(id: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x06, &[0x55, 0x1d, id]), tlv(0x04, value)].concat())
}

fn critical_extension(id: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x06, &[0x55, 0x1d, id]), tlv(0x01, &[0xff]), tlv(0x04, value)].concat())
}

fn basic_constraints(is_ca: &[u8]) -> Vec<u8> {
    critical_extension(19, &tlv(0x30, &tlv(0x01, is_ca)))
}

fn key(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
    KeyPair::generate_for(algorithm).unwrap().subject_public_key_info()
}

fn spki(algorithm: &[u8], key: &[u8]) -> Vec<u8> {
    tlv(0x30, &[tlv(0x30, algorithm), tlv(0x03, &[&[0], key].concat())].concat())
}

fn curve(id: &[u8], point: &[u8]) -> Vec<u8> {
    spki(&[tlv(0x06, EC), tlv(0x06, id)].concat(), point)
}

/// An RSA key whose modulus has this many bytes. No reader checks that it has two prime factors.
fn rsa(bytes: usize, exponent: &[u8], parameters: &[u8]) -> Vec<u8> {
    let numbers = [tlv(0x02, &[&[0][..], &vec![0xc5; bytes]].concat()), tlv(0x02, exponent)];
    spki(&[&tlv(0x06, RSA), parameters].concat(), &tlv(0x30, &numbers.concat()))
}

fn hex(digits: &str) -> Vec<u8> {
    let byte = |pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.as_bytes().chunks(2).map(byte).collect()
}
