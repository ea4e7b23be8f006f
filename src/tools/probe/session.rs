//! What a server gives a client to come back with: tickets and sessions, held one by one.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Something that may resume. It is used once: RFC 8446 wants that of tickets, and servers that
/// keep sessions (RFC 5077 calls them stateful) may forget one that was used.
pub(super) enum Session {
    /// A session ID, a ticket (RFC 5077), or both.
    Tls12(Box<Tls12ClientSessionValue>),
    /// A ticket.
    Tls13(Box<Tls13ClientSessionValue>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its contents are keys.
        f.write_str(match self {
            Self::Tls12(_) => "Tls12(..)",
            Self::Tls13(_) => "Tls13(..)",
        })
    }
}

/// The store of one connection: offers what it was given, and collects what comes. Nothing passes
/// from one connection to another by itself, so a handshake that shall be full is full.
#[derive(Debug)]
pub(super) struct Store {
    offered: Mutex<Option<Session>>,
    received: Mutex<Vec<Session>>,
}

impl Store {
    pub(super) fn new(offered: Option<Session>) -> Self {
        Self { offered: Mutex::new(offered), received: Mutex::new(Vec::new()) }
    }

    /// What came, oldest first.
    pub(super) fn take_received(&self) -> Vec<Session> {
        std::mem::take(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn receive(&self, session: Session) {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

impl ClientSessionStore for Store {
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
        // rustls asks for either kind, whatever the version: the other one has to stay.
        let is_ticket = |offered: &mut Session| matches!(offered, Session::Tls13(_));
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        match offered.take_if(is_ticket) {
            Some(Session::Tls13(value)) => Some(*value),
            _ => None,
        }
    }
}
