package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// An attack runs in a process of its own, with the lowest priority: attackers come from other
// machines, and must not slow down the rig's clock. attackerMain is that process. It prints a line
// when the attack is fully on, and ends with its standard input.
func attackerMain(arguments []string) {
	flags := flag.NewFlagSet("attacker", flag.ExitOnError)
	a := &attacker{}
	name := flags.String("name", "", "the attack")
	flags.StringVar(&a.webhook, "webhook", "", "the address of the webhook")
	flags.StringVar(&a.admin, "admin", "", "the address of its admin port")
	flags.StringVar(&a.review, "review", "", "a recorded review")
	flags.IntVar(&a.peers, "peers", 1, "the number of addresses to come from")
	flags.IntVar(&a.slots, "connections", 0, "the number of connections")
	_ = flags.Parse(arguments)
	hold, ok := holds[*name]
	if !ok {
		fmt.Fprintln(os.Stderr, "attacker: unknown attack", *name)
		os.Exit(64)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	a.ctx = ctx
	a.run(hold)
	fmt.Printf("%d opened, %d ended by the server\n", a.opened.Load(), a.ended.Load())
}

// holds are the attacks: each function uses one connection for as long as it can. It calls on when
// the attack is fully on for this connection.
var holds = map[string]func(a *attacker, slot int, on func()) error{
	"bodies":    unfinishedBody,
	"chunked":   unfinishedChunks,
	"slow":      slowBody,
	"asked":     askedOnce,
	"silent":    silent,
	"handshake": halfHandshake,
	"unread":    unreadAnswers,
	"admin":     adminHeld,
	"reviews":   reviews,
	"hostile":   hostileReviews,
}

type attacker struct {
	ctx                    context.Context
	webhook, admin, review string
	peers, slots           int
	dialling               chan struct{} // limits the dials at one time
	opened, ended          atomic.Int64
}

// redial is the pause after the server ends a connection.
const redial = 5 * time.Second

func (a *attacker) run(hold func(*attacker, int, func()) error) {
	var all, settled sync.WaitGroup
	a.dialling = make(chan struct{}, 64)
	for slot := range a.slots {
		all.Add(1)
		settled.Add(1)
		once := sync.OnceFunc(settled.Done)
		go func() {
			defer all.Done()
			defer once()
			for a.ctx.Err() == nil {
				err := hold(a, slot, once)
				once()
				if err != nil && a.ctx.Err() == nil {
					a.ended.Add(1)
					pause(a.ctx, redial+rand.N(redial))
				}
			}
		}()
	}
	settled.Wait()
	fmt.Println("on")
	all.Wait()
}

// dial connects from the slot's peer address, 127.0.0.2 or a later one.
func (a *attacker) dial(slot int, to string) (net.Conn, error) {
	a.dialling <- struct{}{}
	defer func() { <-a.dialling }()
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+slot%a.peers))}
	dialer := net.Dialer{LocalAddr: from, Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(a.ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	a.opened.Add(1)
	context.AfterFunc(a.ctx, func() { _ = conn.Close() })
	return conn, nil
}

func (a *attacker) dialTLS(slot int) (*tls.Conn, error) {
	conn, err := a.dial(slot, a.webhook)
	if err != nil {
		return nil, err
	}
	secured := tls.Client(conn, insecure)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if err := secured.HandshakeContext(a.ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return secured, nil
}

// untilEnd reads until the server ends the connection.
func untilEnd(conn net.Conn) error {
	_, _ = io.Copy(io.Discard, conn)
	return io.EOF
}

// bodySize is the default of --max-body.
const bodySize = 8 << 20

const bodyHead = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

var spaces = []byte(strings.Repeat(" ", 64<<10)) // white space is valid JSON so far

// unfinishedBody sends a body less its last byte. It is on once half is sent: the server may stop
// reading.
func unfinishedBody(a *attacker, slot int, on func()) error {
	conn, err := a.dialTLS(slot)
	if err != nil {
		return err
	}
	defer conn.Close()
	time.AfterFunc(3*time.Second, on)
	if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", bodyHead, bodySize); err != nil {
		return err
	}
	for left := bodySize - 1; left > 0; left -= len(spaces) {
		if _, err := conn.Write(spaces[:min(left, len(spaces))]); err != nil {
			return err
		}
	}
	on()
	return untilEnd(conn)
}

// unfinishedChunks sends a body in chunks, which announce no length, and never the last chunk.
func unfinishedChunks(a *attacker, slot int, on func()) error {
	conn, err := a.dialTLS(slot)
	if err != nil {
		return err
	}
	defer conn.Close()
	time.AfterFunc(3*time.Second, on)
	if _, err := io.WriteString(conn, bodyHead+"Transfer-Encoding: chunked\r\n\r\n"); err != nil {
		return err
	}
	chunk := fmt.Appendf(nil, "%x\r\n%s\r\n", len(spaces), spaces)
	for sent := 0; sent+len(spaces) < bodySize; sent += len(spaces) {
		if _, err := conn.Write(chunk); err != nil {
			return err
		}
	}
	on()
	return untilEnd(conn)
}

// slowBody announces a full body and sends 4 KiB of it every tenth of a second.
func slowBody(a *attacker, slot int, on func()) error {
	conn, err := a.dialTLS(slot)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n", bodyHead, bodySize); err != nil {
		return err
	}
	on()
	for pause(a.ctx, 100*time.Millisecond) {
		if _, err := conn.Write(spaces[:4<<10]); err != nil {
			return err
		}
	}
	return nil
}

// askedOnce sends a cheap request, reads the answer, and keeps the connection.
func askedOnce(a *attacker, slot int, on func()) error {
	conn, err := a.dialTLS(slot)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Time{})
	on()
	return untilEnd(conn)
}

// silent connects and sends nothing.
func silent(a *attacker, slot int, on func()) error {
	conn, err := a.dial(slot, a.webhook)
	if err != nil {
		return err
	}
	defer conn.Close()
	on()
	return untilEnd(conn)
}

// halfHandshake sends the first half of a ClientHello.
func halfHandshake(a *attacker, slot int, on func()) error {
	conn, err := a.dial(slot, a.webhook)
	if err != nil {
		return err
	}
	defer conn.Close()
	hello := clientHello()
	if _, err := conn.Write(hello[:len(hello)/2]); err != nil {
		return err
	}
	on()
	return untilEnd(conn)
}

var clientHello = sync.OnceValue(func() []byte {
	client, server := net.Pipe()
	defer server.Close()
	go func() { _ = tls.Client(client, insecure).Handshake() }()
	hello := make([]byte, 4096)
	n, _ := server.Read(hello)
	return hello[:n]
})

// unreadAnswers sends requests one after the other and never reads an answer.
func unreadAnswers(a *attacker, slot int, on func()) error {
	conn, err := a.dial(slot, a.webhook)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	secured := tls.Client(conn, insecure)
	if err := secured.HandshakeContext(a.ctx); err != nil {
		return err
	}
	time.AfterFunc(2*time.Second, on) // by then the server cannot write any more
	requests := []byte(strings.Repeat("GET /x HTTP/1.1\r\nHost: x\r\n\r\n", 500))
	for {
		if _, err := secured.Write(requests); err != nil {
			return err
		}
	}
}

// adminHeld occupies the admin port: half of the connections are silent, half have asked once.
func adminHeld(a *attacker, slot int, on func()) error {
	conn, err := a.dial(slot, a.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	if slot%2 == 1 {
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
	}
	on()
	return untilEnd(conn)
}

// reviews sends small reviews of rotations, 50 a second on each connection: each writes a log line.
func reviews(a *attacker, slot int, on func()) error {
	review, err := NewReview(a.review, 0)
	if err != nil {
		return err
	}
	return a.post(slot, on, 20*time.Millisecond, func() []byte { return review.Body(newUID()) })
}

// hostileReviews sends reviews of 7 MiB in a loop.
func hostileReviews(a *attacker, slot int, on func()) error {
	bodies := hostileBodies()
	return a.post(slot, on, 0, func() []byte {
		body := bodies[0]
		bodies = append(bodies[1:], body)
		return body
	})
}

// hostileBodies are reviews of 7 MiB in shapes that are costly to read: deep JSON, tiny blocks,
// many keys, white space in base64. benches/hostile.rs has more of them.
func hostileBodies() [][]byte {
	const size = 7 << 20
	repeat := func(text string) string { return strings.Repeat(text, size/len(text)) }
	keys := strings.Builder{}
	for n := 0; keys.Len() < size; n++ {
		fmt.Fprintf(&keys, `"k%d":"",`, n)
	}
	tiny := "-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n"
	encoded := strings.Repeat(base64Of(strings.Repeat(tiny, 3)), size/len(base64Of(strings.Repeat(tiny, 3))))
	var bodies [][]byte
	for _, data := range []string{
		`"x":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2),
		`"ca.crt":"` + encoded + `"`,
		keys.String() + `"ca.crt":""`,
		`"ca.crt":"` + repeat(`QQ\n`) + `"`,
	} {
		bodies = append(bodies, fmt.Appendf(nil, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",`+
			`"request":{"uid":"u","operation":"UPDATE","kind":{"group":"","version":"v1","kind":"Secret"},`+
			`"namespace":"n","name":"n","object":{"metadata":{"name":"n"},"data":{%s}},`+
			`"oldObject":{"metadata":{"name":"n"},"data":{"ca.crt":""}}}}`, data))
	}
	return bodies
}

// post sends bodies one after the other on one connection.
func (a *attacker) post(slot int, on func(), between time.Duration, body func() []byte) error {
	conn, err := a.dialTLS(slot)
	if err != nil {
		return err
	}
	defer conn.Close()
	reader := bufio.NewReader(conn)
	for {
		body := body()
		if _, err := io.WriteString(conn, bodyHead+"Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"); err != nil {
			return err
		}
		if _, err := conn.Write(body); err != nil {
			return err
		}
		time.AfterFunc(2*time.Second, on) // an answer may never come
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		if answer.Close {
			return errors.New("closed after an answer")
		}
		on()
		if !pause(a.ctx, between) {
			return nil
		}
	}
}
