//! What the keeper, the serving certificate and the commands share of the Kubernetes API.

pub mod call;
pub(crate) mod client;
pub mod key;
pub mod secret_view;
