//! A DNS server (RFC 1035) that knows a few addresses and answers NXDOMAIN for all other names.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};

const HEADER: usize = 12;
const TYPE_A: [u8; 2] = [0, 1];
/// The flags of a response, with recursion desired and available.
const FLAGS: [u8; 2] = [0x81, 0x80];
const NO_ERROR: u8 = 0;
const NAME_ERROR: u8 = 3;

/// Answers on 127.0.0.1:53 until the process ends.
pub(crate) struct Dns {
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    pub(crate) fn start(addresses: &[(&str, Ipv4Addr)]) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        let addresses: HashMap<_, _> =
            addresses.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            loop {
                let (length, client) = socket.recv_from(&mut query).unwrap();
                let (name, end) = question(&query[..length]);
                let answer = answer(&query[..end], addresses.get(&name));
                seen.lock().unwrap().push(name);
                socket.send_to(&answer, client).unwrap();
            }
        });
        Self { asked }
    }

    /// The requested names in order.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// The requested name, and the offset after the question.
fn question(query: &[u8]) -> (String, usize) {
    let (mut labels, mut at) = (Vec::new(), HEADER);
    while query[at] != 0 {
        let end = at + 1 + usize::from(query[at]);
        labels.push(str::from_utf8(&query[at + 1..end]).unwrap());
        at = end;
    }
    // Skip the empty label, type and class.
    (labels.join("."), at + 5)
}

fn answer(query: &[u8], address: Option<&Ipv4Addr>) -> Vec<u8> {
    let asks_for_a = query[query.len() - 4..query.len() - 2] == TYPE_A;
    let found = address.filter(|_| asks_for_a);
    let code = if address.is_some() { NO_ERROR } else { NAME_ERROR };
    let mut answer = query[..2].to_vec();
    answer.extend([FLAGS[0], FLAGS[1] | code]);
    answer.extend([0, 1, 0, u8::from(found.is_some()), 0, 0, 0, 0]);
    answer.extend(&query[HEADER..]);
    if let Some(address) = found {
        // A pointer to the name, type A, class IN, TTL 5 s, 4 bytes of data.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    answer
}
