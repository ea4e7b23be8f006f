package main

import (
	"fmt"
	"time"
)

// Rollouts is how restarts follow each other.
type Rollouts struct {
	count    int
	every    time.Duration
	lateness time.Duration // of the proxy, at most
	drain    []string
	sparse   bool // sparse clients beside the load, and old replicas end by themselves
}

// quickRollouts scale the delays of a cluster down to a fifth.
func quickRollouts(count int) Rollouts {
	return Rollouts{
		count: count, every: 4 * time.Second, lateness: 2 * time.Second,
		drain: drain(3*time.Second, 95*time.Second),
	}
}

// fullRollouts have the product's own delays, and kube-proxy's.
var fullRollouts = Rollouts{
	count: 52, every: 9 * time.Second, lateness: 10 * time.Second, drain: defaultDrain, sparse: true,
}

// rollouts restarts both replicas again and again under 200 calls a second: half of them from one
// client with many connections, half from clients with one each, all through 5 ms of latency each
// way, which widens the race of a connection that is closed as it is used.
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
			pause(env.ctx, 100*time.Second) // the last ones to leave do so under load
		}
		load.Stop()
		for _, client := range clients {
			client.Close()
		}
		gone, err := service.Gone()
		if err != nil {
			result.Problem("%v", err)
		}
		result.Note = fmt.Sprintf("%d rollouts, %d replicas ended by themselves", plan.count, gone)
		return result, nil
	}
}

// sigkill kills replicas under load. Calls under way on them fail; no others may.
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
			result.Problem("a call failed on %q, which lives: %s", replica, failure.Err)
		case failure.Start.After(end.Add(100 * time.Millisecond)):
			result.Problem("a call failed %s after its replica was killed", failure.Start.Sub(end))
		default:
			result.Excused++
		}
	}
	result.Note = fmt.Sprintf("%d replicas killed, %d calls under way on them failed, none began later than 100 ms after",
		len(killed), result.Excused)
	return result, nil
}
