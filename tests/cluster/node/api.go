//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Asks again until there is no error, or a daemon has ended, or the time is over.
func (node *Node) poll(ctx context.Context, what string, limit time.Duration, question func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := question()
		if err == nil {
			return nil
		}
		if ended := node.machine.failures(); ended != nil {
			return fmt.Errorf("%s does not get ready", what)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not ready after %s: %w; see %s", what, limit, err, node.options.Logs)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// GET as the administrator.
func (node *Node) ask(path string, answer any) error {
	roots := x509.NewCertPool()
	roots.AddCert(node.pki.ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 2 * time.Second}
	request, err := http.NewRequest(http.MethodGet, "https://"+node.addresses.Node.String()+":6443"+path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+node.pki.admin)
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(text, answer)
}

func (node *Node) nodeReady() error {
	answer := struct {
		Spec   struct{ Taints []struct{ Key string } }
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}{}
	if err := node.ask("/api/v1/nodes/"+nodeName, &answer); err != nil {
		return err
	}
	if len(answer.Spec.Taints) > 0 {
		return fmt.Errorf("the node has the taint %s", answer.Spec.Taints[0].Key)
	}
	for _, condition := range answer.Status.Conditions {
		if condition.Type == "Ready" {
			if condition.Status == "True" {
				return nil
			}
			return errors.New(condition.Message)
		}
	}
	return errors.New("the kubelet has not said anything yet")
}
