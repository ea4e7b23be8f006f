package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Review is the body of a call, and the answer that it must get.
type Review struct {
	before, after []byte // around the uid
	wanted        string // ca.crt as it must be stored
}

// NewReview is an update of a Secret whose generator replaces one CA by another, as the API server
// sends it. ballast adds that many bytes of other data to both objects.
func NewReview(ballast int) (*Review, error) {
	previous, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	next, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	stored, err := secret(previous, "41", ballast)
	if err != nil {
		return nil, err
	}
	written, err := secret(next, "41", ballast)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(envelope(written, stored))
	if err != nil {
		return nil, err
	}
	before, after, found := bytes.Cut(body, []byte(uidMark))
	if !found {
		return nil, errors.New("the review has no uid")
	}
	return &Review{before, after, string(next.pem) + string(previous.pem)}, nil
}

// Body is the review with this uid.
func (r *Review) Body(uid string) []byte {
	return bytes.Join([][]byte{r.before, r.after}, []byte(uid))
}

// Check says what is wrong with an answer, if anything.
func (r *Review) Check(uid string, answer []byte) error {
	var review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Response   struct {
			UID       string `json:"uid"`
			Allowed   bool   `json:"allowed"`
			PatchType string `json:"patchType"`
			Patch     []byte `json:"patch"`
		} `json:"response"`
	}
	if err := json.Unmarshal(answer, &review); err != nil {
		return errors.New("the answer is no JSON")
	}
	response := review.Response
	switch {
	case review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview":
		return errors.New("the answer is no AdmissionReview")
	case response.UID != uid:
		return fmt.Errorf("the answer has uid %q", response.UID)
	case !response.Allowed:
		return errors.New("not allowed")
	case response.PatchType != "JSONPatch":
		return errors.New("no patch")
	}
	var patch []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(response.Patch, &patch); err != nil {
		return errors.New("the patch is no JSON")
	}
	for _, operation := range patch {
		if operation.Op == "add" && operation.Path == "/data/ca.crt" {
			value, _ := operation.Value.(string)
			bundle, err := base64.StdEncoding.DecodeString(value)
			if err != nil || string(bundle) != r.wanted {
				return errors.New("the patch does not store the new CA and then the old one")
			}
			return nil
		}
	}
	return errors.New("the patch does not add ca.crt")
}

const uidMark = "@uid@"

type object = map[string]any

// secret is what certgen-like generators write, with the metadata that the API server adds.
func secret(authority *Authority, version string, ballast int) (object, error) {
	leaf, err := authority.Leaf()
	if err != nil {
		return nil, err
	}
	data := object{
		"ca.crt":  base64.StdEncoding.EncodeToString(authority.pem),
		"tls.crt": base64.StdEncoding.EncodeToString(leaf.certPEM),
		"tls.key": base64.StdEncoding.EncodeToString(leaf.keyPEM),
	}
	if ballast > 0 {
		data["ballast"] = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", ballast)))
	}
	return object{
		"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data,
		"metadata": object{
			"name": "envoy", "namespace": "gateway", "resourceVersion": version,
			"uid":               "6f3b7c3e-2f0a-4f43-9d0c-0f2b1c6d7e8f",
			"creationTimestamp": "2026-01-02T03:04:05Z",
			"labels":            object{"control-plane": "envoy-gateway"},
			"managedFields": []object{{
				"manager": "certgen", "operation": "Update", "apiVersion": "v1",
				"time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
				"fieldsV1": object{
					"f:data":     object{".": object{}, "f:ca.crt": object{}, "f:tls.crt": object{}, "f:tls.key": object{}},
					"f:metadata": object{"f:labels": object{".": object{}, "f:control-plane": object{}}},
					"f:type":     object{},
				},
			}},
		},
	}, nil
}

func envelope(written, stored object) object {
	kind := object{"group": "", "version": "v1", "kind": "Secret"}
	resource := object{"group": "", "version": "v1", "resource": "secrets"}
	return object{
		"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
		"request": object{
			"uid": uidMark, "kind": kind, "resource": resource,
			"requestKind": kind, "requestResource": resource,
			"name": "envoy", "namespace": "gateway", "operation": "UPDATE", "dryRun": false,
			"userInfo": object{
				"username": "system:serviceaccount:gateway:certgen",
				"uid":      "2a3f0c55-7d0d-4f5e-8c1a-3a4c5b6d7e8f",
				"groups": []string{"system:serviceaccounts", "system:serviceaccounts:gateway",
					"system:authenticated"},
			},
			"object": written, "oldObject": stored,
			"options": object{"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
		},
	}
}
