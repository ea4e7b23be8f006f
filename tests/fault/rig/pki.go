package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// serverName is the name that the API server requests: <service>.<namespace>.svc.
const serverName = "ca-overlap-webhook.ca-overlap.svc"

// Authority is a CA of the rig.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

// Pair is a leaf certificate and its key, as a kubernetes.io/tls Secret holds them.
type Pair struct {
	certPEM, keyPEM []byte
	der             []byte
}

// NewAuthority makes a CA. All have the same subject, as with most generators.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "fault-rig"},
		NotBefore:             time.Now().Add(-60 * day),
		NotAfter:              time.Now().Add(3650 * day),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	block := &pem.Block{Type: "CERTIFICATE", Bytes: der}
	return &Authority{certificate, key, pem.EncodeToMemory(block)}, nil
}

// Leaf issues a serving certificate with a new key.
func (a *Authority) Leaf() (*Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: serverName},
		DNSNames:     []string{serverName},
		NotBefore:    time.Now().Add(-60 * day),
		NotAfter:     time.Now().Add(60 * day),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Pair{
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		keyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		der:     der,
	}, nil
}

// Bundle is a caBundle of these CAs.
func Bundle(authorities ...*Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, authority := range authorities {
		pool.AddCert(authority.certificate)
	}
	return pool
}

// Mount is a Secret volume as the kubelet manages it: the files are links through `..data`, and an
// update replaces that link.
type Mount struct {
	dir     string
	version int
}

// NewMount makes the volume with a first pair.
func NewMount(dir string, pair *Pair) (*Mount, error) {
	mount := &Mount{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := mount.Swap(pair.certPEM, pair.keyPEM); err != nil {
		return nil, err
	}
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return mount, nil
}

// Swap replaces the content atomically.
func (m *Mount) Swap(certPEM, keyPEM []byte) error {
	m.version++
	name := fmt.Sprintf("..%06d", m.version)
	if err := os.Mkdir(filepath.Join(m.dir, name), 0o700); err != nil {
		return err
	}
	files := map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM}
	for file, content := range files {
		if err := os.WriteFile(filepath.Join(m.dir, name, file), content, 0o600); err != nil {
			return err
		}
	}
	link, next := filepath.Join(m.dir, "..data"), filepath.Join(m.dir, "..data_tmp")
	previous, _ := os.Readlink(link)
	if err := os.Symlink(name, next); err != nil {
		return err
	}
	if err := os.Rename(next, link); err != nil {
		return err
	}
	if previous != "" {
		return os.RemoveAll(filepath.Join(m.dir, previous))
	}
	return nil
}

const day = 24 * time.Hour

func serial() *big.Int {
	// Fails only if the operating system has no randomness.
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return big.NewInt(time.Now().UnixNano())
	}
	return number
}
