//! What the keeper, the serving certificate and the commands share of the Kubernetes API.

pub mod secret_view;
