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

// Settings are how a scenario's Service differs from the ordinary.
type Settings struct {
	Program     []string      // with the arguments that are its own
	Environment []string      // NAME=value
	Arguments   []string      // further flags
	Latency     time.Duration // of the proxy, one way
	// Lateness is the longest time until the proxy knows that a replica is leaving.
	Lateness time.Duration
	Unready  bool // starts without ever being ready
}

const replicas = 2

// Service is two replicas behind a proxy, with certificates as files.
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
	replicas  []*Replica // those that are to stay
	leaving   []*Replica
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

// Stop kills what still runs.
func (s *Service) Stop() {
	s.ServiceProxy.Close()
	for _, replica := range append(s.replicas, s.leaving...) {
		replica.Kill()
	}
}

// Client is an API server that calls this Service and trusts its CA.
func (s *Service) Client() *APIServer {
	return NewAPIServer(s.ServiceProxy.Address(), Bundle(s.authority), s.CallLog)
}

// Replicas are those that are to stay.
func (s *Service) Replicas() []*Replica { return s.replicas }

// Rollout replaces each replica, as a Deployment with maxSurge 1 and maxUnavailable 0: start a new
// one, wait until it is ready, terminate an old one, which the proxy learns late.
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

// Gone waits until every replica that was told to end has ended, well, and with nothing open.
// Returns how many there were.
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

// Renew gives every replica a new leaf of the CA, each after a little while of its own, and waits
// until it is served.
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

// Corrupt puts a certificate and the key of another into the mounts.
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

// Bundle is the caBundle of the CA in use and of others.
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

// KillOne kills a replica, whose endpoint goes at once, and starts another in its place.
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
