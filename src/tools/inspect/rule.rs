//! The lint rules: their names and severities. `docs/lint.md` explains each rule.

use clap::ValueEnum;

use crate::x509::strict::Flaw;

/// A lint rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Rule {
    /// The leaf does not verify against ca.crt
    LeafNotChained,
    /// The leaf verifies against a carried CA only: the CA was renewed, the leaf was not
    LeafNeedsCarriedCa,
    /// The leaf lives longer than the CA that issued it
    LeafOutlivesCa,
    /// The leaf is expired
    LeafExpired,
    /// The leaf expires soon
    LeafExpiring,
    /// The leaf is not valid yet
    LeafNotYetValid,
    /// The leaf has no subject alternative names
    LeafWithoutNames,
    /// The root in tls.crt has the key of a CA in ca.crt but is another certificate
    RootInChainDiffers,
    /// A CA is expired
    CaExpired,
    /// A CA of the generator expires soon
    CaExpiring,
    /// A CA is not valid yet
    CaNotYetValid,
    /// A certificate in ca.crt is not a CA
    NotACa,
    /// CAs with the same subject have different keys
    SameSubject,
    /// CAs with the same subject have different keys and no key ids
    SameSubjectWithoutKeyIds,
    /// Certificates of the same issuer have the same serial number
    ReusedSerial,
    /// The CA that the leaf needs is not the first in ca.crt
    ActiveCaNotFirst,
    /// A private key is among the certificates
    PrivateKeyInBundle,
    /// Some readers cannot read a block of ca.crt or tls.crt
    UnreadableBlock,
    /// A certificate is not exact DER
    NotDer,
    /// A name in a certificate is empty or malformed
    InvalidText,
    /// A serial number is negative
    NegativeSerial,
    /// A certificate has an extension twice
    DuplicateExtension,
    /// A date in a certificate is malformed
    InvalidDate,
    /// A public key is damaged, or some readers do not support it
    UnreadableKey,
    /// The signing Secret of a CA holds a bundle
    BundleInSigner,
    /// A keystore or truststore differs from ca.crt or tls.crt
    StaleTruststore,
    /// The Secret is close to the limit of 1 MiB
    NearSizeLimit,
    /// The generator writes a distrusted CA
    DistrustedCa,
    /// A carried CA has ended, but the leaf needs it
    RetireBlocked,
    /// The record of carried CAs does not parse
    RecordUnreadable,
    /// A setting does not parse
    SettingUnreadable,
    /// The state of a staged rotation does not parse
    StageUnreadable,
    /// A staged leaf waits too long
    StageOverdue,
    /// The webhook did not act on an ask of the keeper
    AskNotSeen,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Peers are rejected now, or a private key is exposed.
    Error,
    /// Some readers fail, or all of them fail later.
    Warning,
}

impl Rule {
    /// The name of the rule, such as `leaf-not-chained`.
    pub fn id(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(super) fn of_flaw(flaw: Flaw) -> Self {
        match flaw {
            Flaw::NotDer => Self::NotDer,
            Flaw::InvalidText => Self::InvalidText,
            Flaw::NegativeSerial => Self::NegativeSerial,
            Flaw::DuplicateExtension => Self::DuplicateExtension,
            Flaw::InvalidDate => Self::InvalidDate,
            Flaw::UnreadableKey => Self::UnreadableKey,
        }
    }

    pub(super) fn severity(self) -> Severity {
        match self {
            Self::LeafNotChained
            | Self::LeafExpired
            | Self::LeafNotYetValid
            | Self::CaExpired
            | Self::PrivateKeyInBundle
            | Self::BundleInSigner
            | Self::DistrustedCa => Severity::Error,
            _ => Severity::Warning,
        }
    }
}

impl Severity {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}
