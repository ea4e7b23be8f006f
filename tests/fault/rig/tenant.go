package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"
)

// tenant writes Secrets in a namespace of his own.
type tenant struct {
	ctx       context.Context
	cluster   *Cluster
	namespace string
	authority *Authority
	data      map[string]any
	prefix    string
	turn      atomic.Int64
}

func newTenant(ctx context.Context, cluster *Cluster, namespace string) (*tenant, error) {
	authority, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	data, err := data(authority, 0)
	if err != nil {
		return nil, err
	}
	t := &tenant{ctx: ctx, cluster: cluster, namespace: namespace, authority: authority, data: data, prefix: "s"}
	return t, cluster.Namespace(ctx, namespace)
}

// next is the name of one of the first count Secrets, in turn.
func (t *tenant) next(count int64) string { return fmt.Sprintf("%s%d", t.prefix, t.turn.Add(1)%count) }

func (t *tenant) secret(name string, labels, annotations map[string]string, more map[string]any) Secret {
	data := maps.Clone(t.data)
	maps.Copy(data, more)
	return Secret{t.namespace, name, labels, annotations, data}
}

// create creates count Secrets.
func (t *tenant) create(count int, labels, annotations map[string]string, more map[string]any) error {
	return t.each(count, func(name string) error {
		return t.cluster.Create(t.ctx, t.secret(name, labels, annotations, more))
	})
}

// each writes count Secrets, eight at a time.
func (t *tenant) each(count int, write func(string) error) error {
	names := make(chan string)
	failed := make(chan error, 8)
	for range 8 {
		go func() {
			var err error
			for name := range names {
				if err == nil {
					err = write(name)
				}
			}
			failed <- err
		}()
	}
	for n := range count {
		names <- fmt.Sprintf("%s%d", t.prefix, n)
	}
	close(names)
	var err error
	for range 8 {
		err = errors.Join(err, <-failed)
	}
	return err
}

const groupSize = 8

func (t *tenant) member(n int) Secret {
	return t.secret(fmt.Sprintf("member%d", n), map[string]string{modeLabel: "staged"}, map[string]string{groupAnnotation: "mesh"}, nil)
}

// rotate writes a new CA into all members of the group. The webhook must stage all of them.
func (t *tenant) rotate() error {
	authority, err := NewAuthority()
	if err != nil {
		return err
	}
	for n := range groupSize {
		member := t.member(n)
		if member.Data, err = data(authority, 0); err != nil {
			return err
		}
		if err := t.cluster.Put(t.ctx, member); err != nil {
			return err
		}
		if _, phase, err := t.cluster.Read(t.ctx, member, "ca.crt"); err != nil || phase != "staged" {
			return fmt.Errorf("%s is not staged: %q, %v", member.Name, phase, err)
		}
	}
	return nil
}

// promoted waits until no member is staged, and returns how long that took.
func (t *tenant) promoted(within time.Duration) (time.Duration, error) {
	begin := time.Now()
	for n := range groupSize {
		for {
			_, phase, err := t.cluster.Read(t.ctx, t.member(n), "ca.crt")
			if err != nil {
				return 0, err
			}
			if phase != "staged" {
				break
			}
			if time.Since(begin) > within || !pause(t.ctx, 100*time.Millisecond) {
				return 0, fmt.Errorf("the group is not promoted within %s", within)
			}
		}
	}
	return time.Since(begin), nil
}

// victim is another namespace, whose writes and repairs are measured.
type victim struct {
	*tenant
	repairs int
}

// write replaces the CA of a Secret, up to twenty times a second, and records how long each write took.
func (v *victim) write(ctx context.Context, calls *CallLog) error {
	var secrets []Secret
	for range 2 {
		authority, err := NewAuthority()
		if err != nil {
			return err
		}
		data, err := data(authority, 0)
		if err != nil {
			return err
		}
		secrets = append(secrets, Secret{v.namespace, "written", nil, nil, data})
	}
	if err := v.cluster.Create(ctx, secrets[0]); err != nil {
		return err
	}
	go func() {
		for n := 1; pause(ctx, 50*time.Millisecond); n++ {
			entry := Entry{Start: time.Now()}
			err := v.cluster.Put(context.WithoutCancel(ctx), secrets[n%2])
			entry.Took = time.Since(entry.Start)
			if err != nil {
				entry.Kind, entry.Err = kindOf(err), err.Error()
			}
			calls.Add(entry)
		}
	}()
	return nil
}

// repair deletes and creates a Secret, as generators do that know no update, and returns how long
// it takes until the previous CA is back.
func (v *victim) repair(before func(*Authority) error) (time.Duration, error) {
	v.repairs++
	name := fmt.Sprintf("recreated%d", v.repairs)
	old, err := NewAuthority()
	if err != nil {
		return 0, err
	}
	next, err := NewAuthority()
	if err != nil {
		return 0, err
	}
	secret := v.secret(name, labelled, nil, nil)
	if secret.Data, err = data(old, 0); err != nil {
		return 0, err
	}
	if err := v.cluster.Create(v.ctx, secret); err != nil {
		return 0, err
	}
	if before != nil {
		if err := before(old); err != nil {
			return 0, err
		}
	}
	pause(v.ctx, 2*time.Second) // the keeper sees it
	if err := v.cluster.Delete(v.ctx, secret); err != nil {
		return 0, err
	}
	secret.Labels = nil
	if secret.Data, err = data(next, 0); err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := v.cluster.Create(v.ctx, secret); err != nil {
		return 0, err
	}
	for {
		stored, _, err := v.cluster.Read(v.ctx, secret, "ca.crt")
		if err != nil {
			return 0, err
		}
		if stored == string(next.pem)+string(old.pem) {
			return time.Since(begin), nil
		}
		if time.Since(begin) > repairBar || !pause(v.ctx, 50*time.Millisecond) {
			return 0, fmt.Errorf("not repaired within %s", repairBar)
		}
	}
}
