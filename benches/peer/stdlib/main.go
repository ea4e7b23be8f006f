// The bundling webhook on Go's standard library alone, as an experienced programmer writes it:
// partial structs, so that encoding/json skips what is not needed.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"time"

	"ca-overlap.dev/bench/peer/bundle"
)

const maxBody = 8 << 20

type review struct {
	Request *request `json:"request"`
}

type request struct {
	UID       string `json:"uid"`
	Operation string `json:"operation"`
	Object    secret `json:"object"`
	OldObject secret `json:"oldObject"`
}

type secret struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Data struct {
		CACert  []byte `json:"ca.crt"`
		TLSCert []byte `json:"tls.crt"`
	} `json:"data"`
}

type answer struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Response   response `json:"response"`
}

type response struct {
	UID       string `json:"uid"`
	Allowed   bool   `json:"allowed"`
	PatchType string `json:"patchType,omitempty"`
	Patch     []byte `json:"patch,omitempty"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address of the webhook")
	cert := flag.String("tls-cert", "tls.crt", "certificate chain, PEM")
	key := flag.String("tls-key", "tls.key", "private key, PEM")
	flag.Parse()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /mutate", mutate)
	server := http.Server{
		Addr:              *listen,
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       120 * time.Second,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
	}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

func mutate(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	if r.ContentLength > 0 && r.ContentLength <= maxBody {
		// Without bytes.MinRead spare bytes ReadFrom would double the buffer.
		body.Grow(int(r.ContentLength) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		http.Error(w, "the body cannot be read", http.StatusRequestEntityTooLarge)
		return
	}
	var review review
	if err := json.Unmarshal(body.Bytes(), &review); err != nil || review.Request == nil {
		http.Error(w, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	text, err := json.Marshal(answer{
		APIVersion: "admission.k8s.io/v1",
		Kind:       "AdmissionReview",
		Response:   respond(review.Request),
	})
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(text)
}

func respond(r *request) response {
	allowed := response{UID: r.UID, Allowed: true}
	if r.Operation != "UPDATE" {
		return allowed
	}
	object, old := &r.Object, &r.OldObject
	result := bundle.Decide(old.Data.CACert, object.Data.CACert, old.Data.TLSCert, time.Now())
	if result == nil {
		return allowed
	}
	var operations []operation
	if result.CACert != nil {
		operations = append(operations, operation{"add", "/data/ca.crt", result.CACert})
		operations = append(operations,
			set(object.Metadata.Labels, "labels", bundle.Phase, bundle.Overlap, "ca-overlap.dev~1phase"))
	}
	operations = append(operations,
		set(object.Metadata.Annotations, "annotations", bundle.Carried, result.Record, "ca-overlap.dev~1carried"))
	patch, err := json.Marshal(operations)
	if err != nil {
		return allowed
	}
	allowed.PatchType, allowed.Patch = "JSONPatch", patch
	return allowed
}

// set adds one entry to a map of the metadata, or the map where there is none.
func set(existing map[string]string, name, key, value, escaped string) operation {
	if existing == nil {
		return operation{"add", "/metadata/" + name, map[string]string{key: value}}
	}
	return operation{"add", "/metadata/" + name + "/" + escaped, value}
}
