//go:build linux

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// Who talks to the API server, by a token each: name, user, group.
var identities = [][3]string{
	{"admin", "ca-overlap-test", "system:masters"},
	{"controller-manager", "system:kube-controller-manager", ""},
	{"scheduler", "system:kube-scheduler", ""},
	{"proxy", "system:kube-proxy", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
}

const nodeName = "n1"

// PKI is the node's CA and what it has issued, as files in one directory.
type PKI struct {
	directory string
	key       *ecdsa.PrivateKey
	ca        *x509.Certificate
	// Bearer token of the administrator, for the node's own questions.
	admin string
}

func makePKI(directory string, addresses Addresses) (*PKI, error) {
	pki := &PKI{directory: directory}
	steps := []func() error{
		pki.makeAuthority,
		func() error {
			names := "kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local localhost"
			own := []netip.Addr{addresses.Node, addresses.API, netip.MustParseAddr("127.0.0.1")}
			return pki.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, strings.Fields(names), own)
		},
		func() error {
			return pki.issue("kubelet", pkix.Name{CommonName: nodeName}, []string{nodeName}, []netip.Addr{addresses.Node})
		},
		func() error {
			name := pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}
			return pki.issue("kubelet-client", name, nil, nil)
		},
		func() error {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				return err
			}
			return pki.writeKey("sa.key", key)
		},
		func() error { return pki.makeTokens(addresses) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, fmt.Errorf("certificates of the node: %w", err)
		}
	}
	return pki, nil
}

func (pki *PKI) path(name string) string { return filepath.Join(pki.directory, name) }

func (pki *PKI) makeAuthority() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate(pkix.Name{CommonName: "ca-overlap-node"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	pki.key = key
	if pki.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	if err := pki.writeKey("ca.key", key); err != nil {
		return err
	}
	return pki.writePEM("ca.crt", "CERTIFICATE", der)
}

func (pki *PKI) issue(file string, name pkix.Name, names []string, addresses []netip.Addr) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := certificate(name)
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	template.DNSNames = names
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, pki.ca, key.Public(), pki.key)
	if err != nil {
		return err
	}
	if err := pki.writeKey(file+".key", key); err != nil {
		return err
	}
	return pki.writePEM(file+".crt", "CERTIFICATE", der)
}

func certificate(name pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	now := time.Now()
	return &x509.Certificate{SerialNumber: serial, Subject: name, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0)}
}

func (pki *PKI) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return pki.writePEM(name, "EC PRIVATE KEY", der)
}

func (pki *PKI) writePEM(name, kind string, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	return write(pki.path(name), string(text), 0o600)
}

func (pki *PKI) makeTokens(addresses Addresses) error {
	var table strings.Builder
	for _, identity := range identities {
		name, user, group := identity[0], identity[1], identity[2]
		bytes := make([]byte, 16)
		if _, err := rand.Read(bytes); err != nil {
			return err
		}
		token := hex.EncodeToString(bytes)
		if name == "admin" {
			pki.admin = token
		}
		fmt.Fprintf(&table, "%s,%s,%s,%q\n", token, user, user, group)
		config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
  - name: node
    cluster: {server: "https://%s:6443", certificate-authority: %q}
users:
  - name: %s
    user: {token: %s}
contexts:
  - name: node
    context: {cluster: node, user: %s}
current-context: node
`, addresses.Node, pki.path("ca.crt"), name, token, name)
		if err := write(pki.path(name+".kubeconfig"), config, 0o600); err != nil {
			return err
		}
	}
	return write(pki.path("tokens.csv"), table.String(), 0o600)
}
