package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Record is an event that a peer has seen.
type Record struct {
	Time time.Time `json:"time"`
	Pod  string    `json:"pod"`
	// One of dial, accept, files, start, end.
	Kind string `json:"kind"`
	// The dialling peer and the dialled one. In an `accept`, From is the name in the client's
	// certificate.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	// ok; refuses: Pod rejects the other's certificate; refused: the other refuses Pod's;
	// unreachable: no connection; broken: anything else.
	Verdict string `json:"verdict,omitempty"`
	Error   string `json:"error,omitempty"`
	// Whether Pod accepted the other's certificate, even if the other then refused Pod's.
	Accepted bool `json:"accepted,omitempty"`
	// The key id of the CA that issued the other's certificate. In `files`, of the issuer of Pod's
	// own.
	Issuer string `json:"issuer,omitempty"`
	// The key ids of the CAs that Pod trusts.
	Trust []string `json:"trust,omitempty"`
}

// Teller sends records to the collector, in order.
type Teller struct {
	url   string
	pod   string
	guard sync.Mutex
	lines bytes.Buffer
}

func (teller *Teller) tell(record Record) {
	record.Time, record.Pod = time.Now(), teller.pod
	line, err := json.Marshal(record)
	if err != nil {
		return
	}
	teller.guard.Lock()
	defer teller.guard.Unlock()
	teller.lines.Write(append(line, '\n'))
}

// Sends records several times a second, and the rest at the end.
func (teller *Teller) deliver(ctx context.Context) {
	for {
		if err := teller.flush(); err != nil {
			fmt.Println("collector:", err)
		}
		select {
		case <-ctx.Done():
			// The last records are retried until the pod is killed.
			for range 20 {
				if teller.flush() == nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
			return
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Keeps the records that did not arrive.
func (teller *Teller) flush() error {
	teller.guard.Lock()
	body := bytes.Clone(teller.lines.Bytes())
	teller.guard.Unlock()
	if len(body) == 0 {
		return nil
	}
	client := http.Client{Timeout: 2 * time.Second}
	response, err := client.Post(teller.url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	teller.guard.Lock()
	defer teller.guard.Unlock()
	teller.lines.Next(len(body))
	return nil
}
