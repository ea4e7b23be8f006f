//! `ca-overlap probe` against TLS servers that are not ours, with the fault and without it.
//!
//! nginx cannot have the fault by a reload of a certificate file alone: what it resumes is bound to
//! the certificate's contents. It has it where the name of the file holds a variable, because then
//! sessions are bound to the text of that setting.

mod run;
mod servers;

mod mutual;
mod rotation;
mod usage;
