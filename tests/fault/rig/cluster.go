package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"
)

// Cluster is a real API server with the manifests and a webhook: the program attacked-cluster.
type Cluster struct {
	KeeperConfig string // the kubeconfig of the keeper's ServiceAccount

	server, token string
	client        *http.Client
	command       *exec.Cmd
	stdin         io.Closer
}

// StartCluster starts the cluster. It ends with ctx and with the rig.
func StartCluster(ctx context.Context, program, product string, log io.Writer) (*Cluster, error) {
	command := exec.CommandContext(ctx, program, "--product", product, "--", "--staged", "--settle", settle.String())
	command.SysProcAttr = ownChild()
	command.Stderr = log
	stdin, stdout, err := startPiped(command)
	if err != nil {
		return nil, err
	}
	c := &Cluster{command: command, stdin: stdin}
	line, err := stdout.ReadBytes('\n')
	if err == nil {
		err = c.read(line)
	}
	if err != nil {
		c.Stop()
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return c, nil
}

func (c *Cluster) read(line []byte) error {
	var files struct{ Admin, Keeper string }
	if err := json.Unmarshal(line, &files); err != nil {
		return err
	}
	c.KeeperConfig = files.Keeper
	text, err := os.ReadFile(files.Admin)
	if err != nil {
		return err
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     string `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Token string `json:"token"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	if len(config.Clusters) != 1 || len(config.Users) != 1 {
		return errors.New("the kubeconfig has not one cluster and one user")
	}
	ca, err := base64.StdEncoding.DecodeString(config.Clusters[0].Cluster.CA)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c.server, c.token = config.Clusters[0].Cluster.Server, config.Users[0].User.Token
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 50}
	c.client = &http.Client{Transport: transport, Timeout: 30 * time.Second}
	return nil
}

// Stop ends the API server, etcd and the webhook.
func (c *Cluster) Stop() {
	_ = c.stdin.Close()
	_ = c.command.Wait()
}

// Object is a JSON object of the API.
type Object = map[string]any

// Send sends a request. An answer that is not 2xx is an error.
func (c *Cluster) Send(ctx context.Context, method, path, kind string, body any) (Object, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	request.Header.Set("Content-Type", kind)
	response, err := c.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer Object
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %v", method, path, response.Status, answer["message"])
	}
	return answer, nil
}

const (
	asJSON  = "application/json"
	asMerge = "application/merge-patch+json"
)

// Namespace creates a namespace.
func (c *Cluster) Namespace(ctx context.Context, name string) error {
	object := Object{"apiVersion": "v1", "kind": "Namespace", "metadata": Object{"name": name}}
	_, err := c.Send(ctx, http.MethodPost, "/api/v1/namespaces", asJSON, object)
	return err
}

// Secret is a Secret of a generator.
type Secret struct {
	Namespace, Name     string
	Labels, Annotations map[string]string
	Data                map[string]any
}

func (s Secret) path() string { return secretsOf(s.Namespace) + "/" + s.Name }

func secretsOf(namespace string) string { return "/api/v1/namespaces/" + namespace + "/secrets" }

func (s Secret) object() Object {
	return Object{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": s.Data, "metadata": Object{
		"namespace": s.Namespace, "name": s.Name, "labels": s.Labels, "annotations": s.Annotations,
	}}
}

// Create creates a Secret.
func (c *Cluster) Create(ctx context.Context, secret Secret) error {
	_, err := c.Send(ctx, http.MethodPost, secretsOf(secret.Namespace), asJSON, secret.object())
	return err
}

// Put replaces a Secret, as a generator does.
func (c *Cluster) Put(ctx context.Context, secret Secret) error {
	_, err := c.Send(ctx, http.MethodPut, secret.path(), asJSON, secret.object())
	return err
}

// Annotate sets an annotation.
func (c *Cluster) Annotate(ctx context.Context, secret Secret, key, value string) error {
	patch := Object{"metadata": Object{"annotations": Object{key: value}}}
	_, err := c.Send(ctx, http.MethodPatch, secret.path(), asMerge, patch)
	return err
}

// Delete deletes a Secret.
func (c *Cluster) Delete(ctx context.Context, secret Secret) error {
	_, err := c.Send(ctx, http.MethodDelete, secret.path(), asJSON, nil)
	return err
}

// Empty deletes all Secrets of a namespace.
func (c *Cluster) Empty(ctx context.Context, namespace string) error {
	_, err := c.Send(ctx, http.MethodDelete, secretsOf(namespace), asJSON, nil)
	return err
}

// Events returns the number of Events in a namespace.
func (c *Cluster) Events(ctx context.Context, namespace string) (int, error) {
	path := "/apis/events.k8s.io/v1/namespaces/" + namespace + "/events"
	answer, err := c.Send(ctx, http.MethodGet, path, asJSON, nil)
	items, _ := answer["items"].([]any)
	return len(items), err
}

// Read returns the value of a data key, decoded, and the label that names the phase.
func (c *Cluster) Read(ctx context.Context, secret Secret, key string) (value, phase string, err error) {
	answer, err := c.Send(ctx, http.MethodGet, secret.path(), asJSON, nil)
	if err != nil {
		return "", "", err
	}
	data, _ := answer["data"].(Object)
	encoded, _ := data[key].(string)
	decoded, err := base64.StdEncoding.DecodeString(encoded)
	metadata, _ := answer["metadata"].(Object)
	labels, _ := metadata["labels"].(Object)
	phase, _ = labels[phaseLabel].(string)
	return string(decoded), phase, err
}
