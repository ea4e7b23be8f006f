package main

import (
	"fmt"
	"syscall"
	"time"
)

// stall stops both replicas for a second under so many calls a second. The client dials for every
// waiting call, and closes connections above 25 idle ones and dials again. It stops both, because
// with one replica stopped the client would use the connections that still answer.
//
// A dial costs the client four times what it costs a replica. At 1,000 calls a second two slow cores
// can be too busy to recover, whatever the replicas do.
func stall(rate int) func(*Env) (*Result, error) {
	return func(env *Env) (*Result, error) { return stallAt(env, rate) }
}

func stallAt(env *Env, rate int) (*Result, error) {
	service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load, client := NewLoad(env.ctx, review), service.DirectClient()
	load.Steady(client, rate)
	pause(env.ctx, 3*time.Second)
	dialled := client.dials.Load()
	for _, replica := range service.Replicas() {
		if err := replica.Signal(syscall.SIGSTOP); err != nil {
			return nil, err
		}
	}
	pause(env.ctx, time.Second)
	for _, replica := range service.Replicas() {
		if err := replica.Signal(syscall.SIGCONT); err != nil {
			return nil, err
		}
	}
	goes := time.Now()
	pause(env.ctx, 5*time.Second)
	load.Stop()

	result := &Result{CallLog: service.CallLog}
	var last time.Time // the end of the last slow call
	for _, entry := range service.CallLog.Between(goes.Add(-time.Second), time.Now()) {
		if end := entry.Start.Add(entry.Took); entry.Took > slow && end.After(last) {
			last = end
		}
	}
	recovered := max(last.Sub(goes), 0)
	if recovered > 3*time.Second {
		result.Problem("calls were slow until %s after the stall", recovered)
	}
	dials := client.dials.Load() - dialled
	if dials < 100 {
		result.Problem("the client dialled only %d times: there was no storm of handshakes", dials)
	}
	during := service.CallLog.Between(goes.Add(-time.Second), goes)
	result.Note = fmt.Sprintf("%d calls a second, %d dials before, %d after the stall began; during it p50 %s, p99 %s; the last call above %s was answered %s after its end",
		rate, dialled, dials, ms(quantile(during, 0.5)), ms(quantile(during, 0.99)), ms(slow), ms(recovered))
	return result, nil
}

// slow is the duration above which a call counts as slow.
const slow = 200 * time.Millisecond
