package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// slowloris lets 200 clients send a byte a second, half of them in a header and half in a body, and
// compares the latency of other calls with before.
func slowloris(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	var ended atomic.Int64
	attack := func(ctx context.Context, wait *sync.WaitGroup) {
		for i := range 200 {
			prefix := "POST /mutate HTTP/1.1\r\nX-Slow: "
			if i%2 == 1 {
				prefix = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" +
					"Content-Length: 3000\r\n\r\n"
			}
			conn, err := tls.Dial("tcp", service.ServiceProxy.Address(), insecure)
			if err != nil {
				continue // the count at the end reports it
			}
			wait.Add(1)
			go func() {
				defer wait.Done()
				defer conn.Close()
				if trickle(ctx, conn, prefix) {
					ended.Add(1)
				}
			}()
		}
	}
	result, err := compare(env, service, review, 13*time.Second, attack)
	if n := ended.Load(); err == nil && n < 200 {
		result.Problem("the server closed only %d of 200 slow connections", n)
	}
	return result, err
}

// trickle sends a byte a second, and returns whether the server closed the connection.
func trickle(ctx context.Context, conn net.Conn, prefix string) bool {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = conn.Read(make([]byte, 4096)) // returns at an answer such as 408, or at the end
	}()
	if _, err := conn.Write([]byte(prefix)); err != nil {
		return true
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			return true
		case <-ctx.Done():
			return false
		case <-ticker.C:
			if _, err := conn.Write([]byte("x")); err != nil {
				return true
			}
		}
	}
}

// flood opens 2,000 connections to one replica, twice as many as it accepts: half of them never
// send a byte, and half stop after the handshake. They come from another peer than the calls, as a
// flood does: among its own connections a peer can lose one at the moment of its next call.
func flood(env *Env) (*Result, error) {
	service, review, err := setUp(env, Settings{Program: product(env), Arguments: defaultDrain}, 0)
	if err != nil {
		return nil, err
	}
	defer service.Stop()
	var opened atomic.Int64
	attack := func(ctx context.Context, wait *sync.WaitGroup) {
		var dialling sync.WaitGroup
		for worker := range 50 {
			dialling.Add(1)
			go func() {
				defer dialling.Done()
				for range 2000 / 50 {
					conn, err := occupy(service.Replicas()[0].Address, worker%2 == 1)
					if err != nil {
						continue
					}
					opened.Add(1)
					wait.Add(1)
					context.AfterFunc(ctx, func() { _ = conn.Close(); wait.Done() })
				}
			}()
		}
		dialling.Wait()
	}
	result, err := compare(env, service, review, 12*time.Second, attack)
	if n := opened.Load(); err == nil && n < 1990 {
		result.Problem("only %d of 2,000 connections could be opened", n)
	}
	return result, err
}

func occupy(address string, handshake bool) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 20 * time.Second}
	if runtime.GOOS == "linux" { // elsewhere the loopback interface has one address
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}
	}
	if handshake {
		return tls.DialWithDialer(dialer, "tcp", address, insecure)
	}
	return dialer.Dial("tcp", address)
}

// insecure is for clients that need no answer.
var insecure = &tls.Config{InsecureSkipVerify: true, ServerName: serverName}

// compare calls 200 times a second, first without and then during the attack. It leaves out the
// time in which the attack opens its connections, because that slows down the whole machine.
func compare(env *Env, service *Service, review *Review, during time.Duration, attack func(context.Context, *sync.WaitGroup)) (*Result, error) {
	load := NewLoad(env.ctx, review)
	load.Steady(service.Client(), 200)
	pause(env.ctx, time.Second) // first dials
	begin := time.Now()
	pause(env.ctx, 5*time.Second)
	attacked := time.Now()
	ctx, cancel := context.WithCancel(env.ctx)
	var wait sync.WaitGroup
	attack(ctx, &wait)
	settled := time.Now()
	pause(env.ctx, during)
	over := time.Now()
	load.Stop()
	cancel()
	wait.Wait()

	result := &Result{CallLog: service.CallLog}
	calm, busy := service.CallLog.Between(begin, attacked), service.CallLog.Between(settled, over)
	before, under := quantile(calm, 0.99), quantile(busy, 0.99)
	// The limit is twice the latency, and 20 ms for noise of the machine.
	if under > 2*before+20*time.Millisecond {
		result.Problem("p99 rises from %s to %s", ms(before), ms(under))
	}
	opening := service.CallLog.Between(attacked, settled)
	result.Note = fmt.Sprintf("p50 %s → %s, p99 %s → %s; while they opened p99 %s; longest of all %s",
		ms(quantile(calm, 0.5)), ms(quantile(busy, 0.5)), ms(before), ms(under),
		ms(quantile(opening, 0.99)), ms(quantile(service.CallLog.Between(begin, over), 1)))
	return result, nil
}
