//! The keeper: what has to happen to a Secret after the webhook has acted (DESIGN §8).
//!
//! It watches by label, decides by [`due`], and asks by an annotation; the webhook acts. It never
//! writes data, and reads no private key.

pub mod due;
pub mod secret_view;
