package main

import (
	"crypto/x509"
	"fmt"
	"time"
)

// leafRotations renews the leaf repeatedly under 200 calls a second.
func leafRotations(count int) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
		if err != nil {
			return nil, err
		}
		defer service.Stop()
		load := NewLoad(env.ctx, review)
		load.Steady(service.Client(), 150)
		// These clients have one connection each to one replica: a rotation costs them one
		// handshake.
		var solo []*APIServer
		for range 10 {
			bundle := service.Bundle()
			client := NewAPIServer(bundle, service.CallLog, service.Replicas()[0].Address)
			solo = append(solo, client)
			load.Solo(client, 190*time.Millisecond)
		}
		result, corrupt := &Result{CallLog: service.CallLog}, 0
		for i := range count {
			if err := service.Renew(service.authority, 100*time.Millisecond); err != nil {
				result.Problem("rotation %d: %v", i+1, err)
				break
			}
			if i%10 == 9 {
				corrupt++
				if err := stillServed(env, service); err != nil {
					result.Problem("corrupt pair: %v", err)
				}
			}
			pause(env.ctx, 300*time.Millisecond)
		}
		load.Stop()
		most := int64(0)
		for _, client := range solo {
			most = max(most, client.dials.Load())
		}
		if most > int64(count)+1 {
			result.Problem("a client with one connection dialled %d times in %d rotations", most, count)
		}
		result.Note = fmt.Sprintf("%d rotations, %d corrupt pairs between them; at most %d handshakes of a client with one connection",
			count, corrupt, most)
		return result, nil
	}
}

// stillServed mounts a certificate with a wrong key and checks that the previous leaf stays in
// service.
func stillServed(env *Env, service *Service) error {
	if err := service.Corrupt(); err != nil {
		return err
	}
	pause(env.ctx, 200*time.Millisecond) // ten reload intervals
	for _, replica := range service.Replicas() {
		if err := replica.Serves(env.ctx, service.pair); err != nil {
			return err
		}
	}
	return nil
}

// caRotations replaces the CA in the right order: first the trust, then the leaf.
func caRotations(count int) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		return rotateCA(env, count, func(rotation *caRotation) error {
			rotation.trust(rotation.service.Bundle(rotation.next))
			pause(env.ctx, 300*time.Millisecond)
			if err := rotation.serve(); err != nil {
				return err
			}
			pause(env.ctx, 300*time.Millisecond)
			rotation.trust(Bundle(rotation.next))
			pause(env.ctx, pick(env.Full, 12*time.Second, time.Second))
			return nil
		})
	}
}

// leafFirst replaces the CA in the wrong order.
func leafFirst(env *Env) (*Result, error) {
	return rotateCA(env, 1, func(rotation *caRotation) error {
		if err := rotation.serve(); err != nil {
			return err
		}
		pause(env.ctx, 500*time.Millisecond)
		rotation.trust(Bundle(rotation.next))
		pause(env.ctx, 500*time.Millisecond)
		return nil
	})
}

// caRotation is one replacement of the CA.
type caRotation struct {
	service *Service
	clients []*APIServer
	next    *Authority
}

// trust changes the caBundle on the API servers, one after the other.
func (r *caRotation) trust(caBundle *x509.CertPool) {
	for _, client := range r.clients {
		client.SetBundle(caBundle)
	}
}

func (r *caRotation) serve() error {
	return r.service.Renew(r.next, 100*time.Millisecond)
}

func rotateCA(env *Env, count int, steps func(*caRotation) error) (*Result, error) {
	service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load := NewLoad(env.ctx, review)
	var clients []*APIServer
	for range 3 {
		client := service.Client()
		clients = append(clients, client)
		load.Steady(client, 50)
	}
	for range 10 {
		client := service.Client()
		clients = append(clients, client)
		load.Solo(client, 190*time.Millisecond)
	}
	result := &Result{CallLog: service.CallLog}
	for i := range count {
		next, err := NewAuthority()
		if err != nil {
			return nil, err
		}
		if err := steps(&caRotation{service, clients, next}); err != nil {
			result.Problem("rotation %d: %v", i+1, err)
			break
		}
	}
	load.Stop()
	result.Note = fmt.Sprintf("%d rotations of the CA", count)
	return result, nil
}
