//! Hostile bodies and instruction counts.

use anyhow::Result;
use base64::prelude::*;

use crate::profile::{self, Asked, callgrind, collected};
use crate::results::{Hostile, Instructions, OURS};
use crate::reviews::wire;
use crate::server::Kind;
use crate::session::Session;

const MIB: usize = 1024 * 1024;

impl Session<'_> {
    /// The CPU time of our program for hostile bodies, each in two sizes, to show its growth.
    pub async fn hostile(&mut self) -> Result<()> {
        const TIMES: u32 = 50;
        let Some(ours) = self.subjects.iter().find(|subject| subject.name == OURS) else {
            return Ok(());
        };
        for (what, body) in hostile_bodies() {
            let mut server = ours.ready(self.serving).await?;
            let wire = wire(&body);
            let mut connection = server.dial().await?;
            let before = server.cpu()?;
            let mut status = 0;
            for _ in 0..TIMES {
                status = connection.exchange(&wire).await?.0;
                if status != 200 {
                    // A refusal may end its connection.
                    connection = server.dial().await?;
                }
            }
            let cpu = server.cpu()?.saturating_sub(before) / TIMES;
            let millis = cpu.as_secs_f64() * 1e3;
            self.results.hostile.push(Hostile { what, bytes: body.len(), status, millis });
        }
        Ok(())
    }

    /// Instructions per request of the whole server by callgrind: the difference between 2N and N
    /// requests.
    pub async fn instructions(&mut self) -> Result<()> {
        const REQUESTS: u64 = 500;
        if !profile::has_valgrind(&mut self.results) {
            return Ok(());
        }
        let subjects: Vec<_> =
            self.distinct().filter(|subject| subject.kind != Kind::Peer).cloned().collect();
        for subject in subjects {
            for (what, review) in
                [("bundling", &self.reviews.bundle_8k), ("nothing to do", &self.reviews.nothing_8k)]
            {
                let asked = Asked { review, again: false };
                let mut counts = [0, 0];
                for (count, requests) in counts.iter_mut().zip([REQUESTS, 2 * REQUESTS]) {
                    let out = callgrind(&subject, self.serving, asked, requests).await?;
                    *count = collected(&out)?;
                }
                self.results.instructions.push(Instructions {
                    program: subject.name.into(),
                    what: what.into(),
                    per_request: counts[1].saturating_sub(counts[0]) / REQUESTS,
                });
            }
        }
        Ok(())
    }
}

/// Bodies that are costly to answer, each in half and in full size.
fn hostile_bodies() -> Vec<(String, Vec<u8>)> {
    let review = |object: &str, old: &str| {
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"UPDATE","namespace":"n","name":"x","kind":{{"group":"","version":"v1","kind":"Secret"}},"options":{{"kind":"UpdateOptions"}},"userInfo":{{"username":"x"}},"object":{object},"oldObject":{old}}}}}"#
        )
    };
    let pem = |block: &str, size: usize, tail: &str| {
        let text = format!("{}{tail}", block.repeat(size / block.len()));
        let text = BASE64_STANDARD.encode(text);
        format!(r#"{{"metadata":{{}},"data":{{"ca.crt":"{text}"}}}}"#)
    };
    let annotations = |size: usize| {
        let entry = r#""a":"b","#;
        let entries = entry.repeat(size / 2 / entry.len());
        format!(r#"{{"metadata":{{"annotations":{{{entries}"z":""}}}},"data":{{"ca.crt":""}}}}"#)
    };
    let escapes = |size: usize| {
        let text = r"\u0041".repeat(size / 2 / 6);
        format!(r#"{{"metadata":{{}},"data":{{"ca.crt":"{text}"}}}}"#)
    };
    let mut bodies = Vec::new();
    let mut add = |what: &str, size: usize, body: &dyn Fn(usize) -> String| {
        for size in [size / 2, size] {
            bodies.push((what.to_owned(), body(size).into_bytes()));
        }
    };
    add("nested lists", 7 * MIB, &|size| "[".repeat(size));
    add("short annotations", 7 * MIB, &|size| review(&annotations(size), &annotations(size)));
    add("escaped characters", 7 * MIB, &|size| review(&escapes(size), &escapes(size)));
    add("PEM: BEGIN lines alone", MIB, &|size| {
        let block = "-----BEGIN CERTIFICATE-----\n";
        review(&pem(block, size, "a"), &pem(block, size, "b"))
    });
    add("PEM: tiny blocks", MIB, &|size| {
        let block = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n";
        review(&pem(block, size, "a"), &pem(block, size, "b"))
    });
    add("PEM: one large block", MIB, &|size| {
        let line = "A".repeat(64) + "\n";
        let body = line.repeat(size / line.len());
        let block = |tail: &str| {
            let text =
                format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n{tail}");
            let text = BASE64_STANDARD.encode(text);
            format!(r#"{{"metadata":{{}},"data":{{"ca.crt":"{text}"}}}}"#)
        };
        review(&block("a"), &block("b"))
    });
    bodies
}
