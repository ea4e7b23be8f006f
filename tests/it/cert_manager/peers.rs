//! Peers that mount the Secrets of a family, each with its present files and, until all have
//! synced, the files before.

use devtools::handshake::{Files, Tally, Tls, meet};

#[derive(Default)]
pub struct Peers {
    /// The states of each peer's files, the present one last.
    states: Vec<Vec<Files>>,
}

impl Peers {
    /// The files of peer `index` are these now. Where they have changed, a peer with these files
    /// meets all states of all peers, as client and as server.
    pub async fn see(&mut self, index: usize, files: Files) -> Tally {
        if index == self.states.len() {
            self.states.push(Vec::new());
        }
        let own = &mut self.states[index];
        if own.last() == Some(&files) {
            return Tally::default();
        }
        own.push(files.clone());
        let outdated = own.len().saturating_sub(2);
        own.drain(..outdated);
        let (new, all) = ([files], self.states.concat());
        let mut tally = meet(Tls::Mutual, &new, &all).await.unwrap();
        add(&mut tally, meet(Tls::Mutual, &all, &new).await.unwrap());
        tally
    }

    /// The present files of these peers.
    pub fn present(&self, peers: &[usize]) -> Vec<Files> {
        peers.iter().map(|peer| self.states[*peer].last().unwrap().clone()).collect()
    }

    /// All peers have read their present files: what the settle time waits for.
    pub fn settle(&mut self) {
        for states in &mut self.states {
            states.drain(..states.len() - 1);
        }
    }
}

pub fn add(sum: &mut Tally, more: Tally) {
    sum.succeeded += more.succeeded;
    sum.tried += more.tried;
}
