//! The Kubernetes API, as the keeper, the serving certificate and the commands use it.

pub mod call;
pub(crate) mod client;
pub(crate) mod explain;
pub(crate) mod issuer;
pub mod key;
pub(crate) mod list;
pub(crate) mod pages;
pub(crate) mod pod_secrets;
pub mod reason;
pub mod secret_view;
pub mod stage_end;
