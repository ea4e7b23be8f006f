//! `ca-overlap probe` with TLS servers of other projects: the fault is that a server resumes
//! sessions across a certificate rotation.
//!
//! nginx does not have the fault after a reload with a named certificate file, because it binds
//! sessions to the contents of the certificate. It has the fault if the file name contains a
//! variable, because it then binds sessions to the text of the setting.

mod run;
mod servers;

mod mutual;
mod rotation;
mod usage;
