// Command main reads each bundle DIR/*.ca as Go programs do, and verifies DIR/leaf.pem against it.
// It prints a line for each bundle that is refused, by either of the two ways in use.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	dir := os.Args[1]
	leaf := read(filepath.Join(dir, "leaf.pem"))
	block, _ := pem.Decode(leaf)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	bundles, err := filepath.Glob(filepath.Join(dir, "*.ca"))
	if err != nil {
		log.Fatal(err)
	}
	for _, bundle := range bundles {
		name := strings.TrimSuffix(filepath.Base(bundle), ".ca")
		text := read(bundle)
		lenient := x509.NewCertPool()
		lenient.AppendCertsFromPEM(text)
		if _, err := certificate.Verify(x509.VerifyOptions{Roots: lenient}); err != nil {
			fmt.Println(name, "pool:", err)
		}
		if strict, err := parse(text); err != nil {
			fmt.Println(name, "strict:", err)
		} else if _, err := certificate.Verify(x509.VerifyOptions{Roots: strict}); err != nil {
			fmt.Println(name, "strict:", err)
		}
	}
	fmt.Println("all", len(bundles), "bundles read")
}

// parse refuses the file for one block that does not parse.
func parse(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return pool, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(certificate)
	}
}

func read(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return text
}
