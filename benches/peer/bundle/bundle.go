// Package bundle is the decision of both webhooks: the new CA first, then the previous one.
//
// It has the core of ca-overlap's rules, without settings, guards, retirements and rollbacks. What
// it leaves out makes it faster.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"
	"time"
)

// The labels and annotations that ca-overlap writes.
const (
	Carried = "ca-overlap.dev/carried"
	Phase   = "ca-overlap.dev/phase"
	Overlap = "overlap"
)

// maxOwn is how many certificates make a trust store, which is no rotation.
const maxOwn = 64

// Result is the change to a write that changes ca.crt.
type Result struct {
	// CACert is the bundle to store; nil if the written one stays.
	CACert []byte
	// Record is the value of the annotation Carried.
	Record string
}

type entry struct {
	SHA256 string    `json:"sha256"`
	Since  time.Time `json:"since"`
}

// Decide returns what is to be stored, or nil if nothing changes. The arguments are ca.crt as stored and
// as written, and the stored tls.crt, all decoded.
func Decide(stored, incoming, leaf []byte, now time.Time) *Result {
	if len(stored) == 0 || len(incoming) == 0 || bytes.Equal(stored, incoming) {
		return nil
	}
	added, ok := parse(incoming)
	if !ok {
		return &Result{Record: "[]"}
	}
	if len(added) == 0 {
		return nil
	}
	previous, ok := parse(stored)
	if !ok {
		return &Result{Record: "[]"}
	}
	introduced := without(added, previous)
	gone := without(previous, added)
	active := issuersOf(leaf, previous, introduced)
	if len(introduced) == 0 || overlaps(active, added) {
		return &Result{Record: "[]"}
	}
	for _, candidate := range slices.Concat(active, gone) {
		if contains(added, candidate) || !now.Before(candidate.NotAfter) {
			continue
		}
		return &Result{CACert: appended(incoming, candidate), Record: record(candidate, now)}
	}
	return &Result{Record: "[]"}
}

// parse reads the certificates of a bundle; false if there are too many.
func parse(text []byte) ([]*x509.Certificate, bool) {
	var certificates []*x509.Certificate
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			return certificates, true
		}
		if block.Type != "CERTIFICATE" || len(block.Headers) > 0 {
			continue
		}
		if len(certificates) == maxOwn {
			return nil, false
		}
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			certificates = append(certificates, certificate)
		}
	}
}

// issuersOf finds those of among that issued the leaf: by name and key identifiers, and by the
// signature where these leave more than one, rivals included.
func issuersOf(leaf []byte, among, rivals []*x509.Certificate) []*x509.Certificate {
	block, _ := pem.Decode(leaf)
	if block == nil {
		return nil
	}
	child, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil
	}
	couldHaveIssued := func(issuer *x509.Certificate) bool {
		return bytes.Equal(issuer.RawSubject, child.RawIssuer) &&
			(len(child.AuthorityKeyId) == 0 || len(issuer.SubjectKeyId) == 0 ||
				bytes.Equal(child.AuthorityKeyId, issuer.SubjectKeyId))
	}
	var issuers []*x509.Certificate
	for _, candidate := range among {
		if couldHaveIssued(candidate) {
			issuers = append(issuers, candidate)
		}
	}
	if len(issuers) == 0 || len(issuers) == 1 && !slices.ContainsFunc(rivals, couldHaveIssued) {
		return issuers
	}
	return slices.DeleteFunc(issuers, func(issuer *x509.Certificate) bool {
		return child.CheckSignatureFrom(issuer) != nil
	})
}

func contains(certificates []*x509.Certificate, certificate *x509.Certificate) bool {
	return slices.ContainsFunc(certificates, certificate.Equal)
}

func overlaps(some, others []*x509.Certificate) bool {
	return slices.ContainsFunc(some, func(c *x509.Certificate) bool { return contains(others, c) })
}

func without(all, others []*x509.Certificate) []*x509.Certificate {
	var left []*x509.Certificate
	for _, certificate := range all {
		if !contains(others, certificate) {
			left = append(left, certificate)
		}
	}
	return left
}

func appended(text []byte, certificate *x509.Certificate) []byte {
	result := slices.Clone(text)
	if !bytes.HasSuffix(result, []byte("\n")) {
		result = append(result, '\n')
	}
	return append(result, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
}

func record(certificate *x509.Certificate, now time.Time) string {
	sum := sha256.Sum256(certificate.Raw)
	entries := []entry{{SHA256: hex.EncodeToString(sum[:]), Since: now.UTC().Truncate(time.Second)}}
	text, err := json.Marshal(entries)
	if err != nil {
		return "[]"
	}
	return string(text)
}
