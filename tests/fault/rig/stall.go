package main

import (
	"fmt"
	"syscall"
	"time"
)

// stall stops both replicas for a second under 1,000 calls a second: the client dials for all that
// waits, and above 25 idle connections closes and dials again. With one replica stopped nothing
// comes of it: the client goes on with the connections that answer.
func stall(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	load, client := NewLoad(env.ctx, review), service.Client()
	load.Steady(client, 1000)
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
	var last time.Time // that a call still took long
	for _, entry := range service.CallLog.Between(goes.Add(-time.Second), time.Now()) {
		if end := entry.Start.Add(entry.Took); entry.Took > slow && end.After(last) {
			last = end
		}
	}
	recovered := max(last.Sub(goes), 0)
	if recovered > 3*time.Second {
		result.Problem("calls are slow until %s after the stall", recovered)
	}
	dials := client.dials.Load() - dialled
	if dials < 100 {
		result.Problem("the client dialled %d times only: there was no storm", dials)
	}
	during := service.CallLog.Between(goes.Add(-time.Second), goes)
	result.Note = fmt.Sprintf("%d dials before, %d from the stall on; in the stall p50 %s, p99 %s; the last call above %s was answered %s after its end",
		dialled, dials, ms(quantile(during, 0.5)), ms(quantile(during, 0.99)), ms(slow), ms(recovered))
	return result, nil
}

// slow is what a call takes in a stall, and hardly elsewhere.
const slow = 200 * time.Millisecond
