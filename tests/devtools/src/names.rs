//! Copies of the program's names that a control plane needs. A test compares them with the
//! originals.

/// Label: the mode of a Secret.
pub const MODE: &str = "ca-overlap.dev/mode";
/// Annotation: the record of the carried certificates.
pub const CARRIED: &str = "ca-overlap.dev/carried";
/// The namespace of the installation.
pub const NAMESPACE: &str = "ca-overlap";
/// The webhook's Service.
pub const SERVICE: &str = "ca-overlap-webhook";
/// The webhook's registration.
pub const WEBHOOK_CONFIGURATION: &str = "ca-overlap";
/// The webhook's `ServiceAccount`.
pub const WEBHOOK_SERVICE_ACCOUNT: &str = "ca-overlap-webhook";
