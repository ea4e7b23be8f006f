package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	listen   = ":9443"
	ready    = ":8080"
	interval = 250 * time.Millisecond
	// Longer than a busy machine stalls, because a handshake that times out shows nothing about
	// trust.
	patience = 20 * time.Second
	// After SIGTERM, until every node has removed the pod from its Service.
	linger = 5 * time.Second
)

// A target is a peer to dial: the name that its certificate must have, and its address.
type target struct{ certificate, address string }

// Peer dials the others and is dialled by them, each time with mutual TLS and a full handshake.
type Peer struct {
	name    string
	targets map[string]target
	store   *Store
	teller  *Teller
}

func newPeer() (*Peer, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	peer := &Peer{
		name:    os.Getenv("NAME"),
		targets: map[string]target{},
		store:   &Store{directory: os.Getenv("CERTS"), atStart: os.Getenv("AT_START")},
		teller:  &Teller{url: os.Getenv("COLLECTOR"), pod: host},
	}
	for word := range strings.FieldsSeq(os.Getenv("TARGETS")) {
		names, address, found := strings.Cut(word, "=")
		name, certificate, named := strings.Cut(names, "/")
		if !found || !named {
			return nil, fmt.Errorf("TARGETS: %q is not name/certificate=host:port", word)
		}
		peer.targets[name] = target{certificate, address}
	}
	_, _, err = peer.store.refresh()
	return peer, err
}

func (peer *Peer) live(ctx context.Context) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	// SIGTERM ends dialling at once, and serving a little later.
	later, end := context.WithCancel(context.Background())
	defer end()
	go func() {
		<-ctx.Done()
		time.Sleep(linger)
		peer.teller.tell(Record{Kind: "end", From: peer.name})
		listener.Close()
		end()
	}()
	peer.teller.tell(peer.files("start", peer.store.material()))
	var all sync.WaitGroup
	for name, target := range peer.targets {
		all.Go(func() { peer.dialAlways(ctx, name, target) })
	}
	all.Go(func() { peer.watch(later) })
	all.Go(func() { peer.teller.deliver(later) })
	go serve(ctx, ready, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), linger)
	peer.accept(listener)
	all.Wait()
	return nil
}

func (peer *Peer) files(kind string, material *Material) Record {
	return Record{Kind: kind, From: peer.name, Issuer: material.issuer, Trust: material.trust}
}

// Records the arrival of new files, even if the peer itself does not reload them.
func (peer *Peer) watch(ctx context.Context) {
	for ctx.Err() == nil {
		changed, fresh, err := peer.store.refresh()
		if err != nil {
			fmt.Println("files:", err)
		} else if changed {
			peer.teller.tell(peer.files("files", fresh))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (peer *Peer) dialAlways(ctx context.Context, name string, target target) {
	for {
		peer.teller.tell(peer.dial(name, target))
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval):
		}
	}
}

// A handshake counts as complete when the server's first data arrives: in TLS 1.3 the client learns
// only then that its own certificate was accepted.
func (peer *Peer) dial(name string, target target) Record {
	material := peer.store.material()
	record := Record{Kind: "dial", From: peer.name, To: name, Trust: material.trust}
	connection, err := net.DialTimeout("tcp", target.address, patience)
	if err != nil {
		return record.with("unreachable", err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(patience))
	client := tls.Client(connection, &tls.Config{Certificates: []tls.Certificate{material.pair}, RootCAs: material.roots, ServerName: target.certificate})
	err = client.Handshake()
	if shown := shown(client, err); shown != nil {
		record.Issuer = hex.EncodeToString(shown.AuthorityKeyId)
	}
	if record.Accepted = err == nil; record.Accepted {
		_, err = io.ReadAll(client)
	}
	return record.with(verdict(err), err)
}

func (peer *Peer) accept(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer connection.Close()
			connection.SetDeadline(time.Now().Add(patience))
			if record := peer.answer(connection); record != nil {
				peer.teller.tell(*record)
			}
		}()
	}
}

// Returns no record if the client rejects the server or goes away: the client records that itself.
func (peer *Peer) answer(connection net.Conn) *Record {
	material := peer.store.material()
	server := tls.Server(connection, &tls.Config{
		Certificates: []tls.Certificate{material.pair}, ClientCAs: material.roots,
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true,
	})
	err := server.Handshake()
	client := shown(server, err)
	if client == nil {
		return nil
	}
	record := Record{
		Kind: "accept", From: client.Subject.CommonName, To: peer.name,
		Issuer: hex.EncodeToString(client.AuthorityKeyId), Trust: material.trust,
	}
	if record.Accepted = err == nil; record.Accepted {
		server.Write([]byte("welcome\n"))
		server.Close()
	}
	record = record.with(verdict(err), err)
	return &record
}

func (record Record) with(verdict string, err error) Record {
	record.Verdict = verdict
	if err != nil {
		record.Error = err.Error()
	}
	return record
}

// The certificate of the other side, even if it was refused.
func shown(connection *tls.Conn, err error) *x509.Certificate {
	var refusal *tls.CertificateVerificationError
	if errors.As(err, &refusal) && len(refusal.UnverifiedCertificates) > 0 {
		return refusal.UnverifiedCertificates[0]
	}
	if certificates := connection.ConnectionState().PeerCertificates; err == nil && len(certificates) > 0 {
		return certificates[0]
	}
	return nil
}

func verdict(err error) string {
	var refusal *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &refusal):
		return "refuses"
	case errors.As(err, &alert) && alert.Op == "remote error":
		return "refused"
	default:
		return "broken"
	}
}
