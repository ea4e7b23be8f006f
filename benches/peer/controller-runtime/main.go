// The bundling webhook on controller-runtime, as its users write it: decode the object, change it,
// and let the library find the patch.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"ca-overlap.dev/bench/peer/bundle"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8443", "address of the webhook")
	cert := flag.String("tls-cert", "tls.crt", "certificate chain, PEM")
	key := flag.String("tls-key", "tls.key", "private key, PEM; in the directory of the certificate")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())

	host, service, err := net.SplitHostPort(*listen)
	if err != nil {
		log.Fatal(err)
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		log.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		log.Fatal(err)
	}
	server := webhook.NewServer(webhook.Options{
		Host:     host,
		Port:     port,
		CertDir:  filepath.Dir(*cert),
		CertName: filepath.Base(*cert),
		KeyName:  filepath.Base(*key),
		// As kubebuilder's scaffolding does: no HTTP/2.
		TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	})
	server.Register("/mutate", &webhook.Admission{Handler: &bundler{admission.NewDecoder(scheme)}})
	log.Fatal(server.Start(ctrl.SetupSignalHandler()))
}

type bundler struct {
	decoder admission.Decoder
}

func (b *bundler) Handle(_ context.Context, request admission.Request) admission.Response {
	var secret, old corev1.Secret
	if err := b.decoder.Decode(request, &secret); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if err := b.decoder.DecodeRaw(request.OldObject, &old); err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	result := bundle.Decide(old.Data["ca.crt"], secret.Data["ca.crt"], old.Data["tls.crt"], time.Now())
	if result == nil {
		return admission.Allowed("")
	}
	if result.CACert != nil {
		secret.Data["ca.crt"] = result.CACert
		set(&secret.Labels, bundle.Phase, bundle.Overlap)
	}
	set(&secret.Annotations, bundle.Carried, result.Record)
	changed, err := json.Marshal(&secret)
	if err != nil {
		return admission.Errored(http.StatusInternalServerError, err)
	}
	return admission.PatchResponseFromRaw(request.Object.Raw, changed)
}

func set(entries *map[string]string, key, value string) {
	if *entries == nil {
		*entries = map[string]string{}
	}
	(*entries)[key] = value
}
