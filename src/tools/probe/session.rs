//! The session store of one connection: it offers one session and collects the new ones.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// A session or ticket that may resume. It is used once: RFC 8446 (appendix C.4) asks clients not
/// to reuse tickets, and servers with a session cache may forget a session that was used.
pub(super) enum Session {
    /// A session ID, a ticket (RFC 5077), or both.
    Tls12(Box<Tls12ClientSessionValue>),
    /// A ticket (RFC 8446 §4.6.1).
    Tls13(Box<Tls13ClientSessionValue>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The contents are keys.
        f.write_str(match self {
            Self::Tls12(_) => "Tls12(..)",
            Self::Tls13(_) => "Tls13(..)",
        })
    }
}

/// The store of one connection. It offers the session that it was made with and collects those that
/// the server sends. Connections share no store, so only a chosen session can resume.
#[derive(Debug)]
pub(super) struct SessionStore {
    offered: Mutex<Option<Session>>,
    received: Mutex<Vec<Session>>,
}

impl SessionStore {
    pub(super) fn new(offered: Option<Session>) -> Self {
        Self { offered: Mutex::new(offered), received: Mutex::new(Vec::new()) }
    }

    /// Takes the sessions that the server sent, oldest first.
    pub(super) fn take_received(&self) -> Vec<Session> {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn receive(&self, session: Session) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl ClientSessionStore for SessionStore {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.receive(Session::Tls12(Box::new(value)));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        match &*self.offered.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(Session::Tls12(value)) => Some((**value).clone()),
            _ => None,
        }
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.receive(Session::Tls13(Box::new(value)));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        // rustls asks for both kinds in any version, so a session of the other kind must stay.
        let is_ticket = |offered: &mut Session| matches!(offered, Session::Tls13(_));
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        match offered.take_if(is_ticket) {
            Some(Session::Tls13(value)) => Some(*value),
            _ => None,
        }
    }
}
