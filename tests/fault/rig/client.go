package main

import (
	"bytes"
	"context"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// callTimeout is the timeoutSeconds in the manifests.
const callTimeout = 3 * time.Second

// apiServerIdle is how long the API server's client keeps an idle connection.
const apiServerIdle = 90 * time.Second

// APIServer calls a webhook as kube-apiserver does: with client-go's transport settings, HTTP/1.1
// alone, no TLS resumption, no retries except those of net/http, and a new transport for each
// caBundle. The connections of an old transport stay until their idle timeout.
type APIServer struct {
	addresses []string // one of them for each dial
	idle      time.Duration
	log       *CallLog

	current atomic.Pointer[generation]
	dials   atomic.Int64
}

// generation is the client of one caBundle.
type generation struct {
	transport *http.Transport
	calls     atomic.Int64 // in flight
}

// NewAPIServer makes a client of the webhook at these addresses. It records its calls in log.
func NewAPIServer(caBundle *x509.CertPool, log *CallLog, addresses ...string) *APIServer {
	a := &APIServer{addresses: addresses, idle: apiServerIdle, log: log}
	a.SetBundle(caBundle)
	return a
}

// SetBundle updates the caBundle as in the registration. It returns when the previous client has no
// call in flight.
func (a *APIServer) SetBundle(caBundle *x509.CertPool) {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	previous := a.current.Swap(&generation{transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			a.dials.Add(1)
			conn, err := dialer.DialContext(ctx, "tcp", a.addresses[rand.IntN(len(a.addresses))])
			if call, ok := ctx.Value(callKey{}).(*call); ok && err == nil {
				call.dialled.Store(conn.LocalAddr().String())
				if call.onDial != nil {
					call.onDial()
				}
			}
			return conn, err
		},
		TLSClientConfig: &tls.Config{
			RootCAs:    caBundle,
			ServerName: serverName,
			NextProtos: []string{"http/1.1"},
		},
		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 25,
		IdleConnTimeout:     a.idle,
		DisableCompression:  true,
	}})
	for previous != nil && previous.calls.Load() > 0 {
		time.Sleep(time.Millisecond) // at most callTimeout
	}
}

// Close closes idle connections.
func (a *APIServer) Close() { a.current.Load().transport.CloseIdleConnections() }

// Call sends the review, records the result, and returns whether the call succeeded.
func (a *APIServer) Call(ctx context.Context, review *Review) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	call, start := &call{}, time.Now()
	err := a.send(ctx, review, call)
	entry := Entry{Start: start, Took: time.Since(start)}
	if err != nil {
		entry.Err, entry.Kind, entry.Client = err.Error(), kindOf(err), call.address()
	}
	a.log.Add(entry)
	return err == nil
}

// DialAhead leaves an unused connection in the pool. net/http does so if a call gets a free
// connection while it waits for its own dial.
func (a *APIServer) DialAhead(ctx context.Context, review *Review) {
	ctx, cancel := context.WithCancel(ctx)
	_ = a.send(ctx, review, &call{onDial: cancel})
}

type callKey struct{}

// call has the addresses of a call's connection.
type call struct {
	dialled, used atomic.Value
	onDial        func()
}

func (c *call) address() string {
	for _, value := range []*atomic.Value{&c.used, &c.dialled} {
		if address, ok := value.Load().(string); ok {
			return address
		}
	}
	return ""
}

func (a *APIServer) send(ctx context.Context, review *Review, call *call) error {
	client := a.current.Load()
	client.calls.Add(1)
	defer client.calls.Add(-1)
	ctx = context.WithValue(ctx, callKey{}, call)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { call.used.Store(got.Conn.LocalAddr().String()) },
	})
	uid := newUID()
	url := "https://" + serverName + ":443/mutate?timeout=3s"
	body := bytes.NewReader(review.Body(uid))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json, */*")
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "kube-apiserver-admission")
	response, err := client.transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return &answerError{kind: fmt.Sprintf("status %d", response.StatusCode)}
	}
	if response.Header.Get("Retry-After") != "" {
		return &answerError{kind: "answer", text: "the answer has a Retry-After header"}
	}
	if err := review.Check(uid, answer); err != nil {
		return &answerError{kind: "answer", text: err.Error()}
	}
	return nil
}

type answerError struct{ kind, text string }

func (e *answerError) Error() string { return strings.TrimSpace(e.kind + " " + e.text) }

// Kinds of failure. Each negative control must fail with its own kind.
const (
	kindClosed  = "closed"  // the connection was closed during the call, or refused
	kindTrust   = "trust"   // the certificate does not verify
	kindALPN    = "alpn"    // no common protocol
	kindTimeout = "timeout" // longer than timeoutSeconds
	kindOther   = "other"
)

func kindOf(err error) string {
	var answer *answerError
	var verification *tls.CertificateVerificationError
	var timeout net.Error
	switch {
	case errors.As(err, &answer):
		return answer.kind
	case errors.As(err, &verification):
		return kindTrust
	case strings.Contains(err.Error(), "no application protocol"):
		return kindALPN
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return kindTimeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ECONNREFUSED),
		strings.Contains(err.Error(), "server closed idle connection"):
		return kindClosed
	}
	return kindOther
}

func newUID() string {
	var raw [16]byte
	_, _ = cryptorand.Read(raw[:]) // never fails since Go 1.24
	return fmt.Sprintf("%x-%x-%x-%x-%x", raw[:4], raw[4:6], raw[6:8], raw[8:10], raw[10:])
}
