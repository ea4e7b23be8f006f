//! The names of the program that a control plane needs; a test compares them with the program's.

/// Label: how a Secret is treated.
pub const MODE: &str = "ca-overlap.dev/mode";
/// Annotation: what is carried.
pub const CARRIED: &str = "ca-overlap.dev/carried";
/// The namespace of the installation.
pub const NAMESPACE: &str = "ca-overlap";
/// The webhook's Service.
pub const SERVICE: &str = "ca-overlap-webhook";
/// The webhook's registration.
pub const WEBHOOK_CONFIGURATION: &str = "ca-overlap";
/// The webhook's `ServiceAccount`.
pub const WEBHOOK_SERVICE_ACCOUNT: &str = "ca-overlap-webhook";
