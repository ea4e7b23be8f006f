//! Peers that take as much as they can get: places, memory for bodies, time.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::server::{Client, GENEROUS, SHORT, TestServer, dial_from, until, within};
use ca_overlap::server::accept::Limits;

/// A request without an answer.
const NEVER: &[u8] = b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn one_peer_cannot_hold_every_place() {
    let server = TestServer::start(Limits { max_connections: 8, ..GENEROUS }).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut client = server.client_at(2).await;
        client.send(NEVER).await.unwrap();
        held.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..20 {
        waiting.push(dial_from(2, server.address).await);
    }
    for _ in 0..4 {
        let mut other = within(server.client_at(3)).await;
        assert_eq!(other.get("/").await.unwrap().status, 200);
        held.push(other);
    }
    let evicted = server.count("connections_evicted_total{reason=\"silent\"}");
    assert_eq!(evicted, 0, "the places were free");
}

#[tokio::test]
async fn the_peer_with_the_most_connections_makes_room_for_another_and_loses_no_request() {
    let limits = Limits { max_connections: 8, request_timeout: SHORT, ..GENEROUS };
    let server = TestServer::start(limits).await;
    // The oldest one is in use.
    let mut many = vec![server.client_at(2).await];
    many[0].send(NEVER).await.unwrap();
    for n in 1..8 {
        let mut client = server.client_at(2 + n % 2).await;
        assert_eq!(client.get("/").await.unwrap().status, 200);
        many.push(client);
    }
    let mut other = within(server.client_at(4)).await;
    assert_eq!(within(other.get("/")).await.unwrap().status, 200);
    let mut next = within(server.client_at(5)).await;
    assert_eq!(within(next.get("/")).await.unwrap().status, 200);
    let mut closed = Vec::new();
    for (n, client) in many.iter_mut().enumerate().skip(1) {
        if client.get("/").await.is_err() {
            closed.push(n);
        }
    }
    closed.sort_unstable();
    assert_eq!(closed, [1, 2], "the oldest idle one of each");
}

#[tokio::test]
async fn a_connection_whose_answer_is_not_read_is_closed() {
    let server = TestServer::start(Limits { request_timeout: SHORT, ..GENEROUS }).await;
    let mut deaf = server.client().await;
    // More than the sockets hold.
    deaf.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    until(|| server.count("connection_timeouts_total{phase=\"answer\"}") == 1).await;
    until(|| server.drain.connections() == 0).await;
    let patient = TestServer::start(GENEROUS).await;
    let answer = patient.client().await.get("/large").await.unwrap();
    assert_eq!(answer.body.len(), 16 << 20, "who reads gets it");
}

/// Memory for four large bodies.
const MEMORY: Limits = Limits { body_memory: 1 << 20, max_body: LARGE, ..GENEROUS };
const LARGE: usize = 200 << 10;

#[tokio::test]
async fn bodies_that_arrive_slowly_delay_no_other_peer() {
    let server = TestServer::start(MEMORY).await;
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(announce(&server, 2, LARGE).await);
    }
    let full = 4 * LARGE;
    until(|| server.count("body_memory_bytes") == full).await;
    let mut other = server.client_at(3).await;
    assert_eq!(within(echo(&mut other, 8 << 10)).await, 200, "a small body has room");
    assert_eq!(within(echo(&mut other, LARGE)).await, 200, "a large one takes the oldest one's");
    let refused = within(slow[0].answer()).await.unwrap();
    assert_eq!((refused.status, refused.asks_to_close()), (503, true));
    assert!(!refused.head.contains("retry-after"), "{}", refused.head);
    for client in &mut slow[1..] {
        client.send(&vec![b'x'; LARGE - 1]).await.unwrap();
        assert_eq!(within(client.answer()).await.unwrap().status, 200, "the others are kept");
    }
    until(|| server.count("body_memory_bytes") == 0).await;
    assert_eq!(server.count("bodies_refused_total{reason=\"displaced\"}"), 1);
}

#[tokio::test]
async fn a_body_that_finds_no_memory_in_time_gets_503() {
    let server = TestServer::start(Limits { request_timeout: SHORT, ..MEMORY }).await;
    let mut held = Vec::new();
    for peer in 2..6 {
        held.push(announce(&server, peer, LARGE).await);
    }
    let full = 4 * LARGE;
    until(|| server.count("body_memory_bytes") == full).await;
    // Each of the others holds as much, so none has to give way.
    let refused = within(announce(&server, 6, LARGE).await.answer()).await.unwrap();
    assert_eq!((refused.status, refused.asks_to_close()), (503, true));
    assert_eq!(server.count("bodies_refused_total{reason=\"no_memory\"}"), 1);
}

#[tokio::test]
async fn the_memory_of_an_answer_that_is_not_read_goes_to_another_peer() {
    let server = TestServer::start(MEMORY).await;
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = server.client_at(2).await;
        let head = "POST /much HTTP/1.1\r\nHost: x\r\nContent-Length: ";
        client.send(format!("{head}{LARGE}\r\n\r\n").as_bytes()).await.unwrap();
        client.send(&vec![b'x'; LARGE]).await.unwrap();
        deaf.push(client);
    }
    let full = 4 * LARGE;
    until(|| server.count("body_memory_bytes") == full).await;
    let mut other = server.client_at(3).await;
    assert_eq!(within(echo(&mut other, LARGE)).await, 200);
}

#[tokio::test]
async fn a_body_of_unknown_size_counts_as_the_largest() {
    let server = TestServer::start(MEMORY).await;
    let mut client = server.client().await;
    let head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    client.send(head).await.unwrap();
    until(|| server.count("body_memory_bytes") == LARGE).await;
    client.send(b"0\r\n\r\n").await.unwrap();
    assert_eq!(client.answer().await.unwrap().body, b"x");
    until(|| server.count("body_memory_bytes") == 0).await;
}

/// A client from 127.0.0.`peer` that announces a body of this size and sends one byte of it.
async fn announce(server: &TestServer, peer: u8, size: usize) -> Client<TlsStream<TcpStream>> {
    let mut client = server.client_at(peer).await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\nx");
    client.send(head.as_bytes()).await.unwrap();
    client
}

/// The status of the answer to a body of this size.
async fn echo(client: &mut Client<TlsStream<TcpStream>>, size: usize) -> u16 {
    let head = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    client.send(head.as_bytes()).await.unwrap();
    client.send(&vec![b'x'; size]).await.unwrap();
    client.answer().await.unwrap().status
}
