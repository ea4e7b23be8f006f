package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// Collector keeps all records in the order of their arrival, also those of pods that have ended.
type Collector struct {
	guard   sync.Mutex
	records [][]byte
}

func (collector *Collector) ServeHTTP(answer http.ResponseWriter, request *http.Request) {
	switch {
	case request.URL.Path == "/ready":
	case request.URL.Path == "/records" && request.Method == http.MethodPost:
		body, err := io.ReadAll(request.Body)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		collector.guard.Lock()
		defer collector.guard.Unlock()
		for line := range bytes.Lines(body) {
			collector.records = append(collector.records, line)
		}
	case request.URL.Path == "/records":
		from, _ := strconv.Atoi(request.URL.Query().Get("from"))
		collector.guard.Lock()
		defer collector.guard.Unlock()
		for _, line := range collector.records[min(max(from, 0), len(collector.records)):] {
			fmt.Fprintf(answer, "%s", line)
		}
	default:
		http.NotFound(answer, request)
	}
}
