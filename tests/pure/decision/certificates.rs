//! The fields of a certificate that are read, and its debug output.

use ca_overlap::overlap::Contents;
use ca_overlap::x509::certs::{Certificate, Fingerprint};
use devtools::certs::{self, CA, Spec};

#[test]
fn the_expiry_of_a_certificate_is_read() {
    let ends = Spec { not_after: (2025, 1, 1), ..CA }.self_signed();
    let certificate = Certificate::from_der(ends.der.to_vec()).unwrap();
    assert_eq!(certificate.not_after(), 1_735_689_600);
}

#[test]
fn debug_output_names_a_certificate_and_shows_no_content() {
    let ca = certs::ca();
    let certificate = Certificate::from_der(ca.der.to_vec()).unwrap();
    let fingerprint = ca.sha256();
    assert_eq!(format!("{certificate:?}"), format!("Certificate({fingerprint})"));
    assert_eq!(format!("{:?}", Fingerprint::of(&ca.der)), fingerprint);
    let contents = Contents { ca_crt: Some(b"CANARY"), tls_crt: None };
    assert_eq!(format!("{contents:?}"), "Contents { ca_crt: true, tls_crt: false }");
}
