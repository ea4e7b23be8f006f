package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"syscall"
	"time"
)

// Settings are the settings of a scenario's Service.
type Settings struct {
	Program     []string      // the command with its fixed arguments
	Environment []string      // NAME=value
	Arguments   []string      // additional flags
	Latency     time.Duration // of the proxy, one way
	// Lateness is the longest time until the proxy knows that a replica is terminating.
	Lateness time.Duration
	Unready  bool // do not wait for readiness
}

const replicas = 2

// Service is two replicas behind a proxy, with certificate files.
type Service struct {
	ServiceProxy *ServiceProxy
	CallLog      *CallLog

	ctx      context.Context
	settings Settings
	dir      string
	log      io.Writer
	random   *rand.Rand

	authority *Authority
	pair      *Pair
	replicas  []*Replica // the current ones
	leaving   []*Replica // those that got SIGTERM
	started   int
}

// StartService starts the replicas and waits until they are ready.
func StartService(env *Env, settings Settings) (*Service, error) {
	authority, err := NewAuthority()
	if err != nil {
		return nil, err
	}
	pair, err := authority.Leaf()
	if err != nil {
		return nil, err
	}
	proxy, err := NewServiceProxy(settings.Latency)
	if err != nil {
		return nil, err
	}
	s := &Service{
		ServiceProxy: proxy, CallLog: &CallLog{}, ctx: env.ctx, settings: settings, dir: env.Dir(),
		log: env.Log, random: env.Random, authority: authority, pair: pair,
	}
	for range replicas {
		replica, err := s.start()
		if err != nil {
			s.Stop()
			return nil, err
		}
		s.replicas = append(s.replicas, replica)
	}
	return s, nil
}

// Stop kills all replicas.
func (s *Service) Stop() {
	s.ServiceProxy.Close()
	for _, replica := range append(s.replicas, s.leaving...) {
		replica.Kill()
	}
}

// Client returns an API server that calls this Service and trusts its CA.
func (s *Service) Client() *APIServer {
	return NewAPIServer(Bundle(s.authority), s.CallLog, s.ServiceProxy.Address())
}

// DirectClient returns an API server that dials the current replicas without the proxy, which costs
// more CPU time than they do: kube-proxy forwards in the kernel, and ours copies.
func (s *Service) DirectClient() *APIServer {
	var addresses []string
	for _, replica := range s.replicas {
		addresses = append(addresses, replica.Address)
	}
	return NewAPIServer(Bundle(s.authority), s.CallLog, addresses...)
}

// Replicas are the current replicas.
func (s *Service) Replicas() []*Replica { return s.replicas }

// Rollout replaces each replica like a Deployment with maxSurge 1 and maxUnavailable 0: it starts a
// new one, waits until it is ready, and terminates an old one. The proxy learns of that late.
func (s *Service) Rollout() error {
	for i, old := range s.replicas {
		replica, err := s.start()
		if err != nil {
			return err
		}
		s.replicas[i] = replica
		s.leaving = append(s.leaving, old)
		if err := s.terminate(old); err != nil {
			return err
		}
	}
	return nil
}

// Gone waits until every terminated replica has ended, without an error and without open
// connections. It returns their number.
func (s *Service) Gone() (int, error) {
	for _, replica := range s.leaving {
		if err := replica.Ended(s.ctx); err != nil {
			return 0, err
		}
		if replica.cut {
			return 0, fmt.Errorf("%s ended with connections open", replica.Name)
		}
	}
	return len(s.leaving), nil
}

// Renew gives every replica a new leaf of the CA, each after a random delay, and waits until all
// serve it.
func (s *Service) Renew(authority *Authority, spread time.Duration) error {
	pair, err := authority.Leaf()
	if err != nil {
		return err
	}
	s.authority, s.pair = authority, pair
	failed := make(chan error, len(s.replicas))
	for _, replica := range s.replicas {
		wait := time.Duration(s.random.Int64N(int64(spread) + 1))
		go func() {
			time.Sleep(wait)
			err := replica.mount.Swap(pair.certPEM, pair.keyPEM)
			if err == nil {
				err = replica.Serves(s.ctx, pair)
			}
			failed <- err
		}()
	}
	for range s.replicas {
		if failure := <-failed; failure != nil {
			err = failure
		}
	}
	return err
}

// Corrupt writes a certificate with a wrong key into the mounts.
func (s *Service) Corrupt() error {
	other, err := s.authority.Leaf()
	if err != nil {
		return err
	}
	for _, replica := range s.replicas {
		if err := replica.mount.Swap(other.certPEM, s.pair.keyPEM); err != nil {
			return err
		}
	}
	return nil
}

// Bundle is the caBundle of the current CA and of others.
func (s *Service) Bundle(others ...*Authority) *x509.CertPool {
	return Bundle(append(others, s.authority)...)
}

func (s *Service) terminate(replica *Replica) error {
	lateness := time.Duration(s.random.Int64N(int64(s.settings.Lateness) + 1))
	s.ServiceProxy.Remove(replica.Name, lateness)
	return replica.Signal(syscall.SIGTERM)
}

func (s *Service) start() (*Replica, error) {
	s.started++
	name := fmt.Sprintf("replica-%d", s.started)
	mount, err := NewMount(filepath.Join(s.dir, name), s.pair)
	if err != nil {
		return nil, err
	}
	argv := append(s.settings.Program[:len(s.settings.Program):len(s.settings.Program)], s.settings.Arguments...)
	replica, err := StartReplica(s.ctx, name, mount, argv, s.settings.Environment, s.log)
	if err != nil {
		return nil, err
	}
	if err := replica.Ready(s.ctx, !s.settings.Unready); err != nil {
		replica.Kill()
		return nil, err
	}
	s.ServiceProxy.Add(name, replica.Address)
	return replica, nil
}

// KillOne kills a replica, removes its endpoint at once, and starts another replica.
func (s *Service) KillOne() (string, error) {
	victim := s.replicas[0]
	if err := victim.Signal(syscall.SIGKILL); err != nil {
		return "", err
	}
	s.ServiceProxy.Remove(victim.Name, 0)
	replica, err := s.start()
	if err != nil {
		return "", err
	}
	s.replicas = append(s.replicas[1:], replica)
	<-victim.ended
	return victim.Name, nil
}
