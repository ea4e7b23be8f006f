package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Review is the body of a call, and the answer that it must get.
type Review struct {
	before, after []byte // around the uid
	wanted        string // the expected ca.crt
}

// NewReview makes the review of a rotation from a review that a real API server sent, with the
// rig's own certificates. ballast is the number of bytes of other data that it adds to both
// objects.
func NewReview(captured string, ballast int) (*Review, error) {
	file, err := os.ReadFile(captured)
	if err != nil {
		return nil, err
	}
	var review struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Request    map[string]any `json:"request"`
	}
	if err := json.Unmarshal(file, &review); err != nil {
		return nil, fmt.Errorf("%s: %w", captured, err)
	}
	review.Request["uid"] = uidMark
	authorities := map[string]*Authority{}
	for _, side := range []string{"oldObject", "object"} {
		secret, ok := review.Request[side].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s has no %s", captured, side)
		}
		authority, err := NewAuthority()
		if err != nil {
			return nil, err
		}
		authorities[side] = authority
		if secret["data"], err = data(authority, ballast); err != nil {
			return nil, err
		}
	}
	body, err := json.Marshal(review)
	if err != nil {
		return nil, err
	}
	before, after, found := bytes.Cut(body, []byte(uidMark))
	if !found {
		return nil, errors.New("the review has no uid")
	}
	wanted := string(authorities["object"].pem) + string(authorities["oldObject"].pem)
	return &Review{before, after, wanted}, nil
}

// Body is the review with this uid.
func (r *Review) Body(uid string) []byte {
	return bytes.Join([][]byte{r.before, r.after}, []byte(uid))
}

// Check returns an error if an answer is wrong.
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
		return errors.New("the answer is not JSON")
	}
	response := review.Response
	switch {
	case review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview":
		return errors.New("the answer is not an AdmissionReview")
	case response.UID != uid:
		return fmt.Errorf("the answer has uid %q", response.UID)
	case !response.Allowed:
		return errors.New("the answer does not allow the write")
	case response.PatchType != "JSONPatch":
		return errors.New("the answer has no patch")
	}
	var patch []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal(response.Patch, &patch); err != nil {
		return errors.New("the patch is not JSON")
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

// data makes the data of a Secret, as a generator such as certgen writes it.
func data(authority *Authority, ballast int) (map[string]any, error) {
	leaf, err := authority.Leaf()
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"ca.crt":  base64.StdEncoding.EncodeToString(authority.pem),
		"tls.crt": base64.StdEncoding.EncodeToString(leaf.certPEM),
		"tls.key": base64.StdEncoding.EncodeToString(leaf.keyPEM),
	}
	if ballast > 0 {
		data["ballast"] = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", ballast)))
	}
	return data, nil
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
