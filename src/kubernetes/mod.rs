//! What the keeper, the serving certificate and the commands share of the Kubernetes API.

pub mod call;
pub(crate) mod client;
pub(crate) mod explain;
pub mod key;
pub(crate) mod list;
pub mod secret_view;
