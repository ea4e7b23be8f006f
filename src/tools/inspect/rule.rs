//! The rules of lint: their names, and how much they weigh. `docs/lint.md` says why each matters.

use clap::ValueEnum;

/// A rule of lint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Rule {
    /// The leaf does not verify against ca.crt
    LeafNotChained,
    /// The leaf verifies against a carried CA alone: it was not renewed with the CA
    LeafNeedsCarriedCa,
    /// The leaf lives longer than the CA that issued it
    LeafOutlivesCa,
    /// The leaf is expired
    LeafExpired,
    /// The leaf expires soon
    LeafExpiring,
    /// The leaf is not valid yet
    LeafNotYetValid,
    /// The leaf names no host in its subject alternative names
    LeafWithoutNames,
    /// The chain in tls.crt brings another certificate for the key of a CA in ca.crt
    RootInChainDiffers,
    /// A CA is expired
    CaExpired,
    /// A CA of the generator expires soon
    CaExpiring,
    /// A CA is not valid yet
    CaNotYetValid,
    /// A certificate in ca.crt is no CA
    NotACa,
    /// CAs with the same subject have different keys
    SameSubject,
    /// Certificates of the same issuer have the same serial number
    ReusedSerial,
    /// The CA that the leaf needs is not the first in ca.crt
    ActiveCaNotFirst,
    /// A private key stands among the certificates
    PrivateKeyInBundle,
    /// A block among the certificates is none that all readers take
    UnreadableBlock,
    /// A bundle in a CA's signing Secret
    BundleInSigner,
    /// A keystore or truststore does not hold what ca.crt and tls.crt hold
    StaleTruststore,
    /// The Secret is close to the limit of 1 MiB
    NearSizeLimit,
    /// The generator writes a CA that is distrusted
    DistrustedCa,
    /// A carried CA is over, and the leaf needs it
    RetireBlocked,
    /// The record of what is carried does not parse
    RecordUnreadable,
    /// A setting does not parse
    SettingUnreadable,
    /// The state of a staged rotation does not parse
    StageUnreadable,
    /// A staged leaf waits for too long
    StageOverdue,
    /// The webhook did not see what the keeper asked
    AskNotSeen,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Peers are refused, or a secret is public: now.
    Error,
    /// Some readers fail, or all of them later.
    Warning,
}

impl Rule {
    /// How it is called, such as `leaf-not-chained`.
    pub fn id(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
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
