//! Certificates from files: which are published, and which are refused.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use ca_overlap::server::tls::{self, Published};
use ca_overlap::serving_cert::files::{CertificateFiles, Reloader};
use ca_overlap::serving_cert::metrics::CertificateMetrics;
use devtools::certs::{self, Identity, LEAF, Spec};

const ON_LOOPBACK: Spec<'_> = Spec { names: &["127.0.0.1"], ..LEAF };

#[test]
fn a_renewed_pair_is_published_once() {
    let mount = Mount::new();
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    mount.write(&one);
    let (mut reloader, published) = mount.publish().unwrap();
    assert_eq!(leaf(&published), *one.der);
    assert!(!reloader.poll(now()), "nothing has changed");
    mount.write(&two);
    assert!(reloader.poll(now()));
    assert_eq!(leaf(&published), *two.der);
    assert!(!reloader.poll(now()), "published already");
}

#[test]
fn every_published_pair_has_its_own_ticket_keys() {
    let mount = Mount::new();
    let ca = certs::ca_named("ca");
    mount.write(&ca.leaf("127.0.0.1"));
    let (mut reloader, published) = mount.publish().unwrap();
    let before = published.borrow().clone().unwrap();
    mount.write(&ca.leaf("127.0.0.1"));
    assert!(reloader.poll(now()));
    let after = published.borrow().clone().unwrap();
    let ticket = before.config().ticketer.encrypt(b"session").unwrap();
    assert_eq!(after.config().ticketer.decrypt(&ticket), None);
}

#[test]
fn a_symbolic_link_swapped_as_the_kubelet_does_is_noticed() {
    let mount = Mount::new();
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    mount.swap("..2026_01", &one);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), mount.path(file)).unwrap();
    }
    let (mut reloader, published) = mount.publish().unwrap();
    assert_eq!(leaf(&published), *one.der);
    mount.swap("..2026_02", &two);
    fs::remove_dir_all(mount.path("..2026_01")).unwrap();
    assert!(reloader.poll(now()));
    assert_eq!(leaf(&published), *two.der);
}

#[test]
fn a_pair_that_cannot_be_served_leaves_the_last_good_one_in_place() {
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    let expired = Spec { not_after: (2021, 1, 1), ..ON_LOOPBACK }.signed_by(&ca);
    let future =
        Spec { not_before: (2090, 1, 1), not_after: (2100, 1, 1), ..ON_LOOPBACK }.signed_by(&ca);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    for (what, cert, key) in [
        ("the certificate came first", two.pem.clone(), one.key.clone()),
        ("the key came first", one.pem.clone(), two.key.clone()),
        ("half a certificate", half(&two.pem), two.key.clone()),
        ("half a key", two.pem.clone(), half(&two.key)),
        ("empty", String::new(), String::new()),
        ("swapped", two.key.clone(), two.pem.clone()),
        ("expired", expired.pem.clone(), expired.key.clone()),
        ("not yet valid", future.pem.clone(), future.key.clone()),
        ("a broken chain", format!("{}{BROKEN}", two.pem), two.key.clone()),
    ] {
        let mount = Mount::new();
        mount.write(&one);
        let (mut reloader, published) = mount.publish().unwrap();
        fs::write(mount.path("tls.crt"), cert).unwrap();
        fs::write(mount.path("tls.key"), key).unwrap();
        assert!(!reloader.poll(now()), "{what}");
        assert!(!reloader.poll(now()), "{what}");
        assert_eq!(leaf(&published), *one.der, "{what}");
        mount.write(&two);
        assert!(reloader.poll(now()), "after {what}");
        assert_eq!(leaf(&published), *two.der, "after {what}");
    }
}

#[test]
fn files_that_vanish_and_come_back_change_nothing() {
    let mount = Mount::new();
    let one = certs::ca_named("ca").leaf("127.0.0.1");
    mount.write(&one);
    let (mut reloader, published) = mount.publish().unwrap();
    fs::remove_file(mount.path("tls.key")).unwrap();
    assert!(!reloader.poll(now()));
    mount.write(&one);
    assert!(!reloader.poll(now()), "this pair is served already");
    assert_eq!(leaf(&published), *one.der);
}

#[test]
fn a_pair_that_is_not_yet_valid_is_served_once_it_is_valid() {
    let mount = Mount::new();
    let ca = certs::ca_named("ca");
    mount.write(&ca.leaf("127.0.0.1"));
    let (mut reloader, published) = mount.publish().unwrap();
    let future =
        Spec { not_before: (2090, 1, 1), not_after: (2100, 1, 1), ..ON_LOOPBACK }.signed_by(&ca);
    mount.write(&future);
    assert!(!reloader.poll(now()));
    assert!(reloader.poll("2091-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(leaf(&published), *future.der);
}

#[test]
fn a_changed_client_ca_publishes_a_new_configuration() {
    let mount = Mount::new();
    mount.write(&certs::ca_named("ca").leaf("127.0.0.1"));
    fs::write(mount.path("ca.crt"), certs::ca_named("clients").pem).unwrap();
    let files = CertificateFiles { client_ca: Some(mount.path("ca.crt")), ..mount.files() };
    let (sender, published) = tls::channel();
    let mut reloader = files.publish(now(), sender, CertificateMetrics::default()).unwrap();
    let before = published.borrow().clone().unwrap();
    fs::write(mount.path("ca.crt"), "nothing").unwrap();
    assert!(!reloader.poll(now()));
    fs::write(mount.path("ca.crt"), certs::ca_named("other clients").pem).unwrap();
    assert!(reloader.poll(now()));
    let after = published.borrow().clone().unwrap();
    assert!(!std::sync::Arc::ptr_eq(before.config(), after.config()));
    assert_eq!(after.leaf(), before.leaf());
}

#[test]
fn a_broken_swap_is_ignored_and_the_next_good_one_is_served() {
    let mount = Mount::new();
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    mount.swap("..1", &one);
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), mount.path(file)).unwrap();
    }
    let (mut reloader, published) = mount.publish().unwrap();
    let mut torn = ca.leaf("127.0.0.1");
    torn.key = ca.leaf("127.0.0.1").key;
    mount.swap("..2", &torn);
    assert!(!reloader.poll(now()), "the key of another");
    // The link is missing while a volume is being removed.
    fs::remove_file(mount.path("..data")).unwrap();
    assert!(!reloader.poll(now()), "nothing");
    assert_eq!(leaf(&published), *one.der);
    mount.swap("..3", &two);
    assert!(reloader.poll(now()));
    assert_eq!(leaf(&published), *two.der);
}

#[test]
fn during_a_write_in_place_one_of_the_two_pairs_is_served() {
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    for order in [["tls.crt", "tls.key"], ["tls.key", "tls.crt"]] {
        let mount = Mount::new();
        mount.write(&one);
        let (mut reloader, published) = mount.publish().unwrap();
        for file in order {
            let whole = if file == "tls.crt" { two.pem.clone() } else { two.key.clone() };
            for written in (0..whole.len()).step_by(7) {
                fs::write(mount.path(file), &whole[..written]).unwrap();
                // A complete file may lack only its final newline.
                if reloader.poll(now()) {
                    assert!(file == order[1] && whole[written..].trim().is_empty());
                }
            }
            fs::write(mount.path(file), whole).unwrap();
            reloader.poll(now());
            let expected = if file == order[1] { &two.der } else { &one.der };
            assert_eq!(leaf(&published), **expected);
        }
    }
}

#[test]
fn keys_of_every_kind_and_encoding_are_served() {
    let ca = certs::ca_named("ca");
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048);
    let leaf_of = |key: rcgen::KeyPair| ON_LOOPBACK.signed_by_with(&ca, &key.serialize_pem());
    let rsa = leaf_of(rsa.unwrap());
    let of = |kind| leaf_of(rcgen::KeyPair::generate_for(kind).unwrap());
    let (p256, p384, ed25519) =
        (ca.leaf("127.0.0.1"), of(&rcgen::PKCS_ECDSA_P384_SHA384), of(&rcgen::PKCS_ED25519));
    for (kind, pair, label, wrapped) in [
        ("RSA in PKCS#8", &rsa, "PRIVATE KEY", true),
        ("RSA in PKCS#1", &rsa, "RSA PRIVATE KEY", false),
        ("P-256 in PKCS#8", &p256, "PRIVATE KEY", true),
        ("P-256 in SEC1", &p256, "EC PRIVATE KEY", false),
        ("P-384 in PKCS#8", &p384, "PRIVATE KEY", true),
        ("P-384 in SEC1", &p384, "EC PRIVATE KEY", false),
        // RFC 8410: there is no other encoding.
        ("Ed25519 in PKCS#8", &ed25519, "PRIVATE KEY", true),
    ] {
        let mount = Mount::new();
        mount.write(&ca.leaf("127.0.0.1"));
        let (mut reloader, published) = mount.publish().unwrap();
        mount.write(pair);
        let key = pair.key_der();
        let der = key.secret_der();
        let der = if wrapped { der.to_vec() } else { inner(der) };
        fs::write(mount.path("tls.key"), pem(label, &der)).unwrap();
        assert!(reloader.poll(now()), "{kind}");
        assert_eq!(leaf(&published), *pair.der, "{kind}");
        assert_eq!(shake_hands(&published, &ca).as_deref(), Some(&*pair.der), "{kind}");
    }
    // openssl writes parameters before a P-256 key. An encrypted key is refused.
    let mount = Mount::new();
    mount.write(&p256);
    let parameters =
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let sec1 = pem("EC PRIVATE KEY", &inner(p256.key_der().secret_der()));
    fs::write(mount.path("tls.key"), format!("{parameters}{sec1}")).unwrap();
    assert_eq!(leaf(&mount.publish().unwrap().1), *p256.der);
    fs::write(mount.path("tls.key"), pem("ENCRYPTED PRIVATE KEY", p256.key_der().secret_der()))
        .unwrap();
    let message = mount.publish().err().unwrap().to_string();
    assert!(message.starts_with("--tls-key") && message.contains("no private key"), "{message}");
}

#[test]
fn an_error_at_start_is_one_line_that_names_the_flag_and_the_file() {
    let ca = certs::ca_named("ca");
    let (one, two) = (ca.leaf("127.0.0.1"), ca.leaf("127.0.0.1"));
    let expired = Spec { not_after: (2021, 1, 1), ..ON_LOOPBACK }.signed_by(&ca);
    let fails = |cert: &str, key: &str, flag: &str, reason: &str| {
        let mount = Mount::new();
        fs::write(mount.path("tls.crt"), cert).unwrap();
        fs::write(mount.path("tls.key"), key).unwrap();
        let message = mount.publish().err().unwrap().to_string();
        assert!(message.starts_with(flag), "{message}");
        assert!(message.contains(reason), "{message}");
        assert!(message.contains(&mount.dir.path().display().to_string()), "{message}");
        assert!(!message.contains('\n') && !message.contains("BEGIN"), "{message}");
    };
    let (cert, key) = (&one.pem, &one.key);
    fails(cert, &two.key, "--tls-cert and --tls-key", "does not belong");
    fails("", key, "--tls-cert", "no certificate found");
    fails(cert, "", "--tls-key", "no private key found");
    fails(BROKEN, key, "--tls-cert", "not readable");
    fails(&expired.pem, &expired.key, "--tls-cert", "expired at 2021-01-01");
    let nothing = Mount::new();
    let message = nothing.publish().err().unwrap().to_string();
    assert!(message.starts_with("--tls-cert /") && message.contains("No such file"), "{message}");
}

/// A block whose content is no certificate.
const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

/// A directory with `tls.crt` and `tls.key`.
struct Mount {
    dir: TempDir,
}

impl Mount {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, pair: &Identity) {
        fs::write(self.path("tls.crt"), &pair.pem).unwrap();
        fs::write(self.path("tls.key"), &pair.key).unwrap();
    }

    /// As the kubelet does: a new directory, and `..data` renamed to point at it.
    fn swap(&self, version: &str, pair: &Identity) {
        fs::create_dir(self.path(version)).unwrap();
        fs::write(self.path(version).join("tls.crt"), &pair.pem).unwrap();
        fs::write(self.path(version).join("tls.key"), &pair.key).unwrap();
        symlink(version, self.path("..data_tmp")).unwrap();
        fs::rename(self.path("..data_tmp"), self.path("..data")).unwrap();
    }

    fn files(&self) -> CertificateFiles {
        CertificateFiles {
            cert: self.path("tls.crt"),
            key: self.path("tls.key"),
            client_ca: None,
            interval: Duration::from_secs(5),
        }
    }

    fn publish(
        &self,
    ) -> Result<(Reloader, Published), ca_overlap::serving_cert::files::FilesError> {
        let (sender, published) = tls::channel();
        let reloader = self.files().publish(now(), sender, CertificateMetrics::default())?;
        Ok((reloader, published))
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn leaf(published: &Published) -> Vec<u8> {
    published.borrow().as_ref().unwrap().leaf().to_vec()
}

/// The certificate that a client of `ca` accepts in a handshake in memory.
fn shake_hands(published: &Published, ca: &Identity) -> Option<Vec<u8>> {
    let config = published.borrow().as_ref()?.config().clone();
    let mut server = rustls::ServerConnection::new(config).ok()?;
    let config = Arc::new(ca.client(rustls::ALL_VERSIONS));
    let name = std::net::IpAddr::from([127, 0, 0, 1]).into();
    let mut client = rustls::ClientConnection::new(config, name).ok()?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).ok()?;
        server.read_tls(&mut bytes.as_slice()).ok()?;
        server.process_new_packets().ok()?;
        bytes.clear();
        server.write_tls(&mut bytes).ok()?;
        client.read_tls(&mut bytes.as_slice()).ok()?;
        client.process_new_packets().ok()?;
    }
    Some(client.peer_certificates()?.first()?.to_vec())
}

/// What a PKCS#8 key wraps: SEC1 for a P-256 key, PKCS#1 for an RSA key (RFC 5208, section 5).
fn inner(pkcs8: &[u8]) -> Vec<u8> {
    let (_, info) = x509_parser::der_parser::parse_der(pkcs8).unwrap();
    info.as_sequence().unwrap()[2].as_slice().unwrap().to_vec()
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
