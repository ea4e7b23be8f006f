package main

import (
	"fmt"
	"sync"
	"syscall"
	"time"
)

// sparse calls so rarely that connections reach the idle limits of hyper (30 s), of common servers
// (90 s) and of the client (90 s).
func sparse(rounds int) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		service, review, err := setUp(env, Settings{
			Program: product(env), Arguments: defaultDrain, Latency: time.Millisecond,
		}, 0)
		if err != nil {
			return nil, err
		}
		defer service.Stop()
		load := NewLoad(env.ctx, review)
		sparseClients(load, service, 5)
		pause(env.ctx, time.Duration(rounds)*sparsest)
		load.Stop()
		return &Result{CallLog: service.CallLog}, nil
	}
}

const sparsest = 91 * time.Second

func sparseClients(load *Load, service *Service, each int) {
	for _, pause := range []time.Duration{31 * time.Second, 45 * time.Second, 89 * time.Second, sparsest} {
		for range each {
			load.Solo(service.Client(), pause)
		}
	}
}

// aimedAtLimits uses 360 connections after they have been idle for the default limit of hyper, of
// the client, or of the product.
func aimedAtLimits(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{
		Program: product(env), Arguments: defaultDrain, Latency: time.Millisecond,
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	var wait sync.WaitGroup
	for idle, rounds := range map[time.Duration]int{30 * time.Second: 4, apiServerIdle: 1, ourIdle: 1} {
		clients := many(service, 120)
		wait.Add(1)
		go func() {
			defer wait.Done()
			for range rounds {
				aimed(env.ctx, clients, review, idle)
			}
		}()
	}
	wait.Wait()
	return &Result{CallLog: service.CallLog}, nil
}

// ourIdle is the default of --idle-timeout.
const ourIdle = 120 * time.Second

// aimedAt30 uses connections after they have been idle for 30 s.
func aimedAt30(program program) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		service, review, err := setUp(env, Settings{
			Program: program(env), Arguments: defaultDrain, Latency: time.Millisecond,
		}, 0)
		if err != nil {
			return nil, err
		}
		defer service.Stop()
		clients := many(service, 150)
		for range 2 {
			aimed(env.ctx, clients, review, 30*time.Second)
		}
		return &Result{CallLog: service.CallLog}, nil
	}
}

// aimedByLongIdleClients proves that the rig would see a race at the product's own limit: clients
// that keep connections longer than the API server does must run into it.
func aimedByLongIdleClients(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{
		Program: product(env), Arguments: defaultDrain, Latency: time.Millisecond,
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	clients := many(service, 120)
	for _, client := range clients {
		client.idle = time.Hour
		client.SetBundle(service.Bundle())
	}
	aimed(env.ctx, clients, review, ourIdle)
	return &Result{CallLog: service.CallLog}, nil
}

// lateDials uses connections that clients dialled ahead just before the proxy learned that the
// replica is terminating. The client keeps them for 90 s, longer than a drain of that length after
// SIGTERM. The calls come around the end of the drain.
func lateDials(env *Env) (*Result, error) {
	const lateness = 10 * time.Second
	service, review, err := setUp(env, Settings{
		Program: product(env), Latency: time.Millisecond, Lateness: lateness,
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	leaving := service.Replicas()[0]
	var clients []*APIServer
	for range 120 {
		clients = append(clients, NewAPIServer(service.Bundle(), service.CallLog, service.ServiceProxy.Address()))
	}
	service.ServiceProxy.Remove(service.Replicas()[1].Name, 0)
	pause(env.ctx, 100*time.Millisecond)
	if err := leaving.Signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	begin := time.Now()
	pause(env.ctx, lateness-time.Second)
	for _, client := range clients {
		client.DialAhead(env.ctx, review)
	}
	// Now the proxy knows: new connections go to the other replica.
	pause(env.ctx, time.Until(begin.Add(lateness)))
	service.ServiceProxy.Add(service.Replicas()[1].Name, service.Replicas()[1].Address)
	service.ServiceProxy.Remove(leaving.Name, 0)
	var wait sync.WaitGroup
	for i, client := range clients {
		wait.Add(1)
		go func() {
			defer wait.Done()
			if pause(env.ctx, time.Until(begin.Add(lateUse(i)))) {
				client.Call(env.ctx, review)
			}
		}()
	}
	wait.Wait()
	result, dials := &Result{CallLog: service.CallLog}, int64(0)
	for _, client := range clients {
		dials += client.dials.Load()
	}
	if dials < int64(len(clients)) {
		result.Problem("only %d of %d connections were dialled ahead", dials, len(clients))
	}
	result.Note = fmt.Sprintf("%d connections dialled ahead, %d calls had to dial again", len(clients), dials-int64(len(clients)))
	return result, nil
}

// lateUse is the time at which the i-th connection is used: at first 0.2 ms apart around the end of
// a drain of 95 s, which is slightly later than the sender of the signal expects, and then spread
// over the rest of the client's 90 s.
func lateUse(i int) time.Duration {
	if i < 100 {
		return 95*time.Second - 5*time.Millisecond + time.Duration(i)*200*time.Microsecond
	}
	return 95*time.Second + time.Duration(i-100)*150*time.Millisecond
}

func many(service *Service, count int) []*APIServer {
	clients := make([]*APIServer, count)
	for i := range clients {
		clients[i] = service.Client()
	}
	return clients
}
