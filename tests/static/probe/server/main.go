// A TLS server that replaces its certificate on SIGHUP, in one of the ways of Go programs. It
// prints its address, and a line after each replacement.
package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// The part that changes on SIGHUP.
const (
	// Only the certificate. The ticket keys belong to the tls.Config, which stays.
	certificate = "certificate"
	// The whole tls.Config, by GetConfigForClient. It has no ticket keys of its own, so it gets
	// those of the outer one.
	config = "config"
	// The certificate and the ticket keys.
	keys = "keys"
)

func main() {
	pair := flag.String("pair", "", "file with certificate and private `PEM`")
	changes := flag.String("changes", certificate, "what changes on SIGHUP: certificate, config or keys")
	clientCAs := flag.String("client-ca", "", "require client certificates from the CAs in `file`")
	ticketKey := flag.String("ticket-key", "", "a `secret` from which replicas derive one ticket key")
	noTickets := flag.Bool("no-tickets", false, "send no tickets")
	maxVersion := flag.String("max-version", "1.3", "1.2 or 1.3")
	flag.Parse()

	var current atomic.Pointer[tls.Certificate]
	load(*pair, &current)

	outer := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: *noTickets,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return current.Load(), nil
		},
	}
	if *ticketKey != "" {
		outer.SetSessionTicketKeys([][32]byte{sha256.Sum256([]byte(*ticketKey))})
	}
	if *maxVersion == "1.2" {
		outer.MaxVersion = tls.VersionTLS12
	}
	if *clientCAs != "" {
		outer.ClientAuth = tls.RequireAndVerifyClientCert
		outer.ClientCAs = pool(*clientCAs)
	}
	if *changes == config {
		var inner atomic.Pointer[tls.Config]
		outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
			certificate := current.Load()
			if last := inner.Load(); last != nil && &last.Certificates[0].Certificate[0][0] == &certificate.Certificate[0][0] {
				return last, nil
			}
			fresh := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*certificate}}
			inner.Store(fresh)
			return fresh, nil
		}
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			// The certificate changes first: no ticket with a new key may be for an old session.
			load(*pair, &current)
			if *changes == keys {
				var key [32]byte
				_, _ = rand.Read(key[:])
				outer.SetSessionTicketKeys([][32]byte{key})
			}
			fmt.Println("EXCHANGED")
		}
	}()
	fmt.Println("LISTEN", listener.Addr())
	server := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }),
		ErrorLog: log.New(os.Stderr, "", 0),
	}
	check(server.Serve(tls.NewListener(listener, outer)))
}

func load(path string, into *atomic.Pointer[tls.Certificate]) {
	pair, err := tls.LoadX509KeyPair(path, path)
	check(err)
	into.Store(&pair)
}

func pool(path string) *x509.CertPool {
	text, err := os.ReadFile(path)
	check(err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		log.Fatalf("%s contains no certificate", path)
	}
	return pool
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
