//! What readers do with a bundle: for each CA that is carried, all of them load the file and verify
//! a leaf of the new CA, as they do without it. Without the check of what is carried they do not.

pub mod odd;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use ca_overlap::overlap::announcement::Announcing;
use ca_overlap::overlap::record::Record;
use ca_overlap::overlap::settings::{Defaults, RawSettings, Settings};
use ca_overlap::overlap::{Contents, Decision, Warning, Write, decide};
use ca_overlap::x509::certs::Certificate;
use ca_overlap::x509::issuer::Issuers;
use devtools::certs::{self, pem_of};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::skip;

/// The decision about a rotation from `stored` to `incoming`.
fn rotation(stored: &str, incoming: &str) -> Decision {
    let settings = Settings::read(RawSettings::default(), &Defaults::default());
    let contents = |text: &str| text.as_bytes().to_vec();
    let (stored, incoming) = (contents(stored), contents(incoming));
    decide(&Write {
        now: certs::now(),
        stored: Contents { ca_crt: Some(&stored), tls_crt: None },
        incoming: Contents { ca_crt: Some(&incoming), tls_crt: None },
        record: Some(&Record::new(Vec::new())),
        settings: &settings,
        may_change_data: true,
        room: usize::MAX,
        repair: &[],
        announcing: Announcing::AsBefore,
        issuers: &Issuers::default(),
    })
}

#[test]
fn a_ca_that_some_reader_refuses_is_not_carried_and_a_warning_says_why() {
    let new = certs::ca_named("New CA").pem;
    for odd::Case { name, flaw, der } in odd::all() {
        let decision = rotation(&pem_of(&der, 64, "\n"), &new);
        let warnings: Vec<_> = flaw.map(Warning::Flawed).into_iter().collect();
        assert_eq!(decision.warnings, warnings, "{name}");
        assert_eq!(decision.appended, usize::from(flaw.is_none()), "{name}");
        assert_eq!(Certificate::from_der(der).unwrap().flaw(), flaw, "{name}");
    }
}

#[test]
fn a_refused_ca_makes_room_for_the_next() {
    let refused = odd::all().into_iter().find(|case| case.name == "negative-serial").unwrap();
    let (old, new) = (certs::ca_named("Old CA").pem, certs::ca_named("New CA").pem);
    let decision = rotation(&format!("{}{old}", pem_of(&refused.der, 64, "\n")), &new);
    let stored = String::from_utf8(decision.ca_crt.unwrap()).unwrap();
    assert_eq!(stored, format!("{new}{old}"));
    assert_eq!(decision.warnings, [Warning::Flawed(refused.flaw.unwrap())]);
}

#[test]
fn every_reader_accepts_what_is_carried_and_some_reader_refuses_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let new = certs::ca_named("New CA");
    let leaf = dir.path().join("leaf.pem");
    std::fs::write(&leaf, new.leaf("localhost").pem).unwrap();
    let cases = odd::all();
    let bundle = |name: &str| dir.path().join(format!("{name}.ca"));
    for case in &cases {
        let old = pem_of(&case.der, 64, "\n");
        let decided = rotation(&old, &new.pem).ca_crt;
        std::fs::write(bundle(case.name), decided.unwrap_or(new.pem.clone().into())).unwrap();
        let control = format!("{}{old}", new.pem);
        std::fs::write(bundle(&format!("{}.control", case.name)), control).unwrap();
    }
    let mut refusals: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (reader, found) in readers(dir.path(), &leaf) {
        for line in found {
            let name = line.split(' ').next().unwrap_or_default().to_owned();
            refusals.entry(name).or_default().push(format!("{reader}: {line}"));
        }
    }
    for case in &cases {
        assert_eq!(refusals.get(case.name), None, "as decided");
    }
    let flawed: Vec<_> = cases.iter().filter(|case| case.flaw.is_some()).collect();
    let is_refused = |name: &str| refusals.contains_key(&format!("{name}.control"));
    let accepted: Vec<_> =
        flawed.iter().filter(|case| !is_refused(case.name)).map(|case| case.name).collect();
    assert!(accepted.len() * 10 <= flawed.len(), "no reader rejects {accepted:?}");
}

/// For each reader that is installed, a line for each bundle of `dir` that it refuses. The line
/// begins with the name of the bundle.
fn readers(dir: &Path, leaf: &Path) -> Vec<(&'static str, Vec<String>)> {
    let source =
        |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/readers").join(name);
    let once = |program: &str, arguments: &[&OsStr]| {
        let output = Command::new(program).args(arguments).arg(dir).output();
        let Ok(output) = output else { return skip("readers", &format!("no {program}")) };
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{program}: {}", text(&output.stderr));
        let all = text(&output.stdout);
        assert!(all.contains("bundles read"), "{program}: {all}");
        Some(all.lines().filter(|line| !line.starts_with("all ")).map(str::to_owned).collect())
    };
    let each = |program: &str, arguments: &dyn Fn(&Path) -> Command| {
        let is_there = Command::new(program).arg("--version").output().is_ok();
        if !is_there {
            return skip("readers", &format!("no {program}"));
        }
        let refused = bundles(dir).into_iter().filter(|bundle| {
            !arguments(bundle).output().is_ok_and(|output| output.status.success())
        });
        Some(refused.map(|bundle| name(&bundle)).collect())
    };
    let openssl = |bundle: &Path| {
        let mut command = Command::new("openssl");
        command.args(["verify", "-CAfile"]).arg(bundle).arg(leaf);
        command
    };
    let gnutls = |bundle: &Path| {
        let mut command = Command::new("certtool");
        command.args(["--verify", "--load-ca-certificate"]).arg(bundle).arg("--infile").arg(leaf);
        command
    };
    let go = source("main.go");
    let java = source("Readers.java");
    [
        ("Go", once("go", &["run".as_ref(), go.as_os_str()])),
        ("Java", once("java", &[java.as_os_str()])),
        ("OpenSSL", each("openssl", &openssl)),
        ("GnuTLS", each("certtool", &gnutls)),
        (
            "rustls",
            Some(bundles(dir).iter().filter(|b| !rustls_loads(b)).map(|b| name(b)).collect()),
        ),
    ]
    .into_iter()
    .filter_map(|(reader, found)| Some((reader, found?)))
    .collect()
}

fn bundles(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "ca")).collect()
}

fn name(bundle: &Path) -> String {
    bundle.file_stem().unwrap().to_string_lossy().into_owned()
}

fn rustls_loads(bundle: &Path) -> bool {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(bundle).unwrap();
    certificates.into_iter().all(|certificate| roots.add(certificate.unwrap()).is_ok())
}
