package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// Files are the contents of a Secret's volume at one time.
type Files struct {
	ca, certificate, key []byte
}

// The kubelet replaces the link `..data`, so files that are read through one target are consistent.
func readFiles(directory string) (Files, error) {
	if target, err := os.Readlink(filepath.Join(directory, "..data")); err == nil {
		directory = filepath.Join(directory, target)
	}
	files := Files{}
	for name, content := range map[string]*[]byte{"ca.crt": &files.ca, "tls.crt": &files.certificate, "tls.key": &files.key} {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return files, err
		}
		*content = text
	}
	return files, nil
}

func (files Files) equal(other Files) bool {
	return bytes.Equal(files.ca, other.ca) && bytes.Equal(files.certificate, other.certificate) && bytes.Equal(files.key, other.key)
}

// Material is the parsed content of files.
type Material struct {
	pair  tls.Certificate
	roots *x509.CertPool
	// The key ids of the roots and of the leaf's issuer.
	trust  []string
	issuer string
	name   string
}

func parse(files Files) (*Material, error) {
	pair, err := tls.X509KeyPair(files.certificate, files.key)
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("tls.crt: %w", err)
	}
	material := &Material{pair: pair, roots: x509.NewCertPool(), issuer: hex.EncodeToString(leaf.AuthorityKeyId), name: leaf.Subject.CommonName}
	for rest := files.ca; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("ca.crt: %w", err)
		}
		material.roots.AddCert(ca)
		material.trust = append(material.trust, hex.EncodeToString(ca.SubjectKeyId))
	}
	if len(material.trust) == 0 {
		return nil, fmt.Errorf("ca.crt contains no certificate")
	}
	return material, nil
}

// Store provides the material for each connection, and reloads the files that the peer reloads.
type Store struct {
	directory, atStart string

	guard   sync.Mutex
	seen    Files
	current *Material
}

// Whether the files have changed since the last call, even if the peer does not reload them.
func (store *Store) refresh() (bool, *Material, error) {
	files, err := readFiles(store.directory)
	if err != nil {
		return false, nil, err
	}
	store.guard.Lock()
	defer store.guard.Unlock()
	if files.equal(store.seen) {
		return false, store.current, nil
	}
	fresh, err := parse(files)
	if err != nil {
		return false, store.current, err
	}
	store.seen = files
	used := *fresh
	if store.current != nil {
		switch store.atStart {
		case "all":
			used = *store.current
		case "ca":
			used.roots, used.trust = store.current.roots, store.current.trust
		}
	}
	store.current = &used
	return true, fresh, nil
}

func (store *Store) material() *Material {
	store.guard.Lock()
	defer store.guard.Unlock()
	return store.current
}
