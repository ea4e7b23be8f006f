//! Generates the certificates of `tests/fuzz/pool`. Ed25519 keys from fixed seeds have deterministic
//! signatures, so the files can be generated again and compared.

use std::fmt::Write as _;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer,
    KeyPair, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::oracle::x509;

struct Generated {
    name: &'static str,
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
}

struct Recipe {
    name: &'static str,
    subject: &'static str,
    key: u8,
    expires: (i32, u8, u8),
    is_ca: bool,
    key_ids: bool,
}

impl Recipe {
    fn authority(name: &'static str, subject: &'static str, key: u8) -> Self {
        Self { name, subject, key, expires: (2090, 1, 1), is_ca: true, key_ids: true }
    }

    fn leaf(name: &'static str, key: u8) -> Self {
        Self { is_ca: false, ..Self::authority(name, "envoy.gateway.svc", key) }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.subject);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(self.expires.0, self.expires.1, self.expires.2);
        // The serial number comes from the name, so certificates of one key and subject differ.
        params.serial_number = Some(SerialNumber::from_slice(&self.name.as_bytes()[..3]));
        params.use_authority_key_identifier_extension = self.key_ids;
        match (self.is_ca, self.key_ids) {
            (true, true) => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            // rcgen gives every CA a subject key id; older generators give none.
            (true, false) => {
                let mut ca_true =
                    CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
                ca_true.set_criticality(true);
                params.custom_extensions = vec![ca_true];
            }
            (false, _) => params.is_ca = IsCa::ExplicitNoCa,
        }
        params
    }

    fn self_signed(self) -> Generated {
        let (params, key) = (self.params(), key(self.key));
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Generated { name: self.name, params, key, der }
    }

    fn signed_by(self, issuer: &Generated) -> Generated {
        let (params, key) = (self.params(), key(self.key));
        let issuer = Issuer::from_params(&issuer.params, &issuer.key);
        let der = params.signed_by(&key, &issuer).unwrap().der().to_vec();
        Generated { name: self.name, params, key, der }
    }
}

/// RFC 8410 §7: a private key is 32 bytes behind a fixed header.
fn key(seed: u8) -> KeyPair {
    let mut der = vec![0x30, 46, 2, 1, 0, 0x30, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
    der.extend([seed; 32]);
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519).unwrap()
}

/// The CAs and the leaves. Fuzz inputs refer to them by index, so new ones are added at the end.
fn generate() -> (Vec<Generated>, Vec<Generated>) {
    const NAME: &str = "Legacy CA";
    let a = Recipe::authority("a", NAME, 1);
    let a = Recipe { name: "a, with key ids", ..a }.self_signed();
    let b = Recipe::authority("b, the same name, with key ids", NAME, 2).self_signed();
    let bare = |name, key| Recipe { key_ids: false, ..Recipe::authority(name, NAME, key) };
    let c = bare("c, the same name, without key ids", 3).self_signed();
    let d = bare("d, the same name, without key ids", 4).self_signed();
    let renewed = Recipe::authority("renewed: the key and name of a", NAME, 1).self_signed();
    let expires = |name, key, expires| Recipe { expires, ..Recipe::authority(name, NAME, key) };
    let expired = expires("expired in 2021", 5, (2021, 1, 1)).self_signed();
    let soon = expires("soon over: on 2 March 2026", 6, (2026, 3, 2)).self_signed();
    let root = Recipe::authority("root of the intermediates", "Root", 7).self_signed();
    let intermediate =
        Recipe::authority("intermediate, by the root", "Intermediate", 8).signed_by(&root);
    let second = Recipe::authority("second intermediate, by the first", "Second", 9)
        .signed_by(&intermediate);
    let b_by_a = Recipe::authority("cross: the key of b, by a", NAME, 2).signed_by(&a);
    let a_by_b = Recipe::authority("other cross: the key of a, by b", NAME, 1).signed_by(&b);
    let leaves = vec![
        Recipe::leaf("leaf of a", 20).signed_by(&a),
        Recipe::leaf("leaf of b", 21).signed_by(&b),
        Recipe { key_ids: false, ..Recipe::leaf("leaf of c, without key ids", 22) }.signed_by(&c),
        Recipe { key_ids: false, ..Recipe::leaf("leaf of d, without key ids", 23) }.signed_by(&d),
        Recipe::leaf("leaf of the second intermediate", 24).signed_by(&second),
        Recipe::leaf("leaf of the one soon over", 25).signed_by(&soon),
    ];
    let authorities =
        vec![a, b, c, d, renewed, expired, soon, root, intermediate, second, b_by_a, a_by_b];
    (authorities, leaves)
}

fn text(made: &[Generated]) -> String {
    let mut text = String::new();
    for made in made {
        write!(text, "# {}\n{}", made.name, x509::canonical(&made.der)).unwrap();
    }
    text
}

/// Compares the files, or writes them if `CA_OVERLAP_RECORD` is set.
#[test]
fn the_committed_pool_equals_the_generated_one() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/pool");
    let (authorities, leaves) = generate();
    for (file, made) in [("authorities.pem", authorities), ("leaves.pem", leaves)] {
        let path = directory.join(file);
        if std::env::var_os("CA_OVERLAP_RECORD").is_some() {
            std::fs::write(&path, text(&made)).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text(&made), "{file}");
    }
}
