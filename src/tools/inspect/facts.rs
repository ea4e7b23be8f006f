//! The facts about an object at one moment. Pure.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::InspectedObject;
use crate::names;
use crate::overlap::exempt::{Exemption, exemption};
use crate::overlap::outlook::{BundleCertificate, Outlook, Rules, outlook};
use crate::tools::text::printable;
use crate::x509::certs::{Bundle, Certificate};
use crate::x509::issuer::Issuers;

/// The facts about an object.
pub(super) struct Facts<'a> {
    pub(super) object: &'a InspectedObject,
    pub(super) now: Timestamp,
    /// The outlook that keeper and `status` also use.
    pub(super) outlook: Outlook,
    /// The certificates of `ca.crt`; all of them, even if there are more than the webhook reads.
    pub(super) ca: Bundle,
    /// The certificates of `tls.crt`, the leaf first.
    pub(super) chain: Bundle,
    /// The certificates of `pending.tls.crt`.
    pub(super) pending: Bundle,
    /// For each certificate of `ca`, whether the leaf verifies with it as the only trust anchor.
    pub(super) verifies_leaf: Vec<bool>,
    /// The one budget of all checks of the object, but for those of the outlook.
    pub(super) issuers: Issuers,
    /// Why the webhook leaves the object alone.
    pub(super) left_alone: Option<LeftAlone>,
}

/// Why the webhook leaves an object alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftAlone {
    Data(Exemption),
    Immutable,
    OwnNamespace,
    ServiceAccountToken,
}

impl<'a> Facts<'a> {
    pub(super) fn of(object: &'a InspectedObject, rules: &Rules, now: Timestamp) -> Self {
        let outlook = outlook(&object.view(), rules, now);
        let bundle = |text: &Option<Vec<u8>>| {
            let text = text.as_deref();
            text.and_then(|text| Bundle::parse(text, usize::MAX).ok()).unwrap_or_default()
        };
        let (ca, chain) = (bundle(&object.ca_crt), bundle(&object.tls_crt));
        let issuers = Issuers::default();
        Self {
            verifies_leaf: issuers.verifying(chain.certificates(), ca.certificates()),
            issuers,
            pending: bundle(&object.pending_tls_crt),
            left_alone: left_alone(object, &outlook),
            object,
            now,
            outlook,
            ca,
            chain,
        }
    }

    pub(super) fn leaf(&self) -> Option<&Certificate> {
        self.chain.certificates().first()
    }

    /// What the record says about a certificate of `ca.crt`; `None` if `ca.crt` holds too many.
    pub(super) fn known(&self, certificate: &Certificate) -> Option<&BundleCertificate> {
        self.outlook.certificates.iter().find(|known| known.certificate == *certificate)
    }

    pub(super) fn is_carried(&self, certificate: &Certificate) -> bool {
        self.known(certificate).is_some_and(|known| known.carried.is_some())
    }

    /// Whether a certificate is carried, and not announced.
    pub(super) fn is_previous(&self, certificate: &Certificate) -> bool {
        let carried = self.known(certificate).and_then(|known| known.carried);
        carried.is_some_and(|entry| entry.announced.is_none())
    }

    /// Whether a CA is active: it issued the leaf. If none did, the generator's first own CA is
    /// active.
    pub(super) fn is_active(&self, index: usize) -> bool {
        let issued: Vec<bool> =
            self.outlook.certificates.iter().map(|known| known.issued_leaf).collect();
        if issued.contains(&true) {
            return issued.get(index) == Some(&true);
        }
        let own = self.ca.certificates().iter().position(|c| !self.is_carried(c));
        own == Some(index)
    }
}

fn left_alone(object: &InspectedObject, outlook: &Outlook) -> Option<LeftAlone> {
    let identity = object.identity.as_ref()?;
    let view = object.view();
    if view.is_token {
        return Some(LeftAlone::ServiceAccountToken);
    }
    if identity.namespace.as_deref() == Some(names::NAMESPACE) {
        return Some(LeftAlone::OwnNamespace);
    }
    if view.is_immutable {
        return Some(LeftAlone::Immutable);
    }
    exemption(&view, &outlook.settings, view.ca_crt, view.tls_crt).map(LeftAlone::Data)
}

/// A certificate with its extensions; `None` if the library cannot parse one of them.
pub(super) fn in_full(certificate: &Certificate) -> Option<X509Certificate<'_>> {
    X509Certificate::from_der(certificate.der()).ok().map(|(_, parsed)| parsed)
}

/// The subject alternative names of a certificate, as text.
pub(super) fn subject_alternative_names(certificate: &Certificate) -> Option<Vec<String>> {
    let parsed = in_full(certificate)?;
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.iter().map(name).collect());
    Some(names.unwrap_or_default())
}

fn name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => {
            printable(name)
        }
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => std::net::Ipv4Addr::new(a, b, c, d).to_string(),
            _ => <[u8; 16]>::try_from(*bytes)
                .map_or_else(|_| "?".to_owned(), |ip| std::net::Ipv6Addr::from(ip).to_string()),
        },
        _ => "(another kind of name)".to_owned(),
    }
}
