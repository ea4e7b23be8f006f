package main

import (
	"fmt"
	"time"
)

// Rollouts is a plan of rolling restarts.
type Rollouts struct {
	count    int
	every    time.Duration
	lateness time.Duration // the longest delay of the proxy
	drain    []string
	sparse   bool // also run sparse clients, and wait for the end of old replicas
}

// quickRollouts has a fifth of the delays of a cluster.
func quickRollouts(count int) Rollouts {
	return Rollouts{
		count: count, every: 4 * time.Second, lateness: 2 * time.Second,
		drain: drain(3*time.Second, 95*time.Second),
	}
}

// fullRollouts has the delays of the product and of kube-proxy.
var fullRollouts = Rollouts{
	count: 52, every: 9 * time.Second, lateness: 10 * time.Second, drain: defaultDrain, sparse: true,
}

// rollouts restarts both replicas repeatedly under 200 calls a second: half of them from one client
// with many connections, half from clients with one connection each. A latency of 5 ms each way
// widens the race between the use and the close of a connection.
func rollouts(program program, plan Rollouts) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) {
		service, review, err := setUp(env, Settings{
			Program: program(env), Arguments: plan.drain,
			Latency: 5 * time.Millisecond, Lateness: plan.lateness,
		}, 0)
		if err != nil {
			return nil, err
		}
		defer service.Stop()
		load, shared := NewLoad(env.ctx, review), service.Client()
		load.Steady(shared, 100)
		clients := []*APIServer{shared}
		for range 50 {
			client := service.Client()
			clients = append(clients, client)
			load.Solo(client, 490*time.Millisecond)
		}
		if plan.sparse {
			sparseClients(load, service, 5)
		}
		result := &Result{CallLog: service.CallLog}
		for range plan.count {
			begin := time.Now()
			if err := service.Rollout(); err != nil {
				result.Problem("a rollout failed: %v", err)
				break
			}
			pause(env.ctx, plan.every-time.Since(begin))
		}
		if plan.sparse {
			pause(env.ctx, 100*time.Second) // so that the last replicas also leave under load
		}
		load.Stop()
		for _, client := range clients {
			client.Close()
		}
		gone, err := service.Gone()
		if err != nil {
			result.Problem("%v", err)
		}
		result.Note = fmt.Sprintf("%d rollouts, %d replicas drained and ended", plan.count, gone)
		return result, nil
	}
}

// sigkill kills replicas under load. Only calls in flight on them may fail.
func sigkill(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{
		Program: product(env), Arguments: defaultDrain, Latency: 5 * time.Millisecond,
	}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load := NewLoad(env.ctx, review)
	load.Steady(service.Client(), 200)
	killed := map[string]time.Time{}
	for range 5 {
		pause(env.ctx, time.Second)
		name, err := service.KillOne()
		if err != nil {
			return nil, err
		}
		killed[name] = time.Now()
	}
	pause(env.ctx, time.Second)
	load.Stop()

	result := &Result{CallLog: service.CallLog}
	for _, failure := range service.CallLog.Failures() {
		replica := service.ServiceProxy.Serving(failure.Client)
		end, dead := killed[replica]
		switch {
		case !dead:
			result.Problem("a call failed on %q, which was not killed: %s", replica, failure.Err)
		case failure.Start.After(end.Add(100 * time.Millisecond)):
			result.Problem("a call failed %s after its replica was killed", failure.Start.Sub(end))
		default:
			result.Excused++
		}
	}
	result.Note = fmt.Sprintf("%d replicas killed, %d calls in flight on them failed, none that began more than 100 ms later",
		len(killed), result.Excused)
	return result, nil
}
