// Command echo answers with what it was sent, over HTTP/1.1 and HTTP/2 without TLS: tests compare what reaches it, and what
// of its answers reaches the client, through one proxy and through another. Standard library only.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"syscall"
	"time"
)

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Addr: ":" + port, Handler: routes(), Protocols: protocols}

	// As process 1 of a container it would not be ended by a signal that it does not ask for.
	stopped, forget := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer forget()
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-stopped.Done()
		bounded, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = server.Shutdown(bounded)
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
}

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "echo") })
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/body", body)
	mux.HandleFunc("/sse", events)
	mux.HandleFunc("/ws", webSocket)
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		if pause, ok := number(w, r, "ms", 0); ok {
			select {
			case <-time.After(time.Duration(pause) * time.Millisecond):
				fmt.Fprintf(w, "slept %d ms\n", pause)
			case <-r.Context().Done():
			}
		}
	})
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		if code, ok := number(w, r, "code", http.StatusOK); ok {
			if code < 200 || code > 999 {
				http.Error(w, "code must be 200 to 999", http.StatusBadRequest)
				return
			}
			w.WriteHeader(code)
		}
	})
	mux.HandleFunc("/big", big)
	mux.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) {
		if code, ok := number(w, r, "code", 0); ok {
			os.Exit(code)
		}
	})
	return mux
}

// echo reports one request: method, target, protocol, header fields sorted by name (values in their order), what the body was.
func echo(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	length, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"method":         r.Method,
		"target":         r.RequestURI,
		"protocol":       r.Proto,
		"host":           r.Host,
		"headers":        pairs(r.Header),
		"trailers":       pairs(r.Trailer),
		"content_length": r.ContentLength,
		"encodings":      append([]string{}, r.TransferEncoding...),
		"length":         length,
		"sha256":         hex.EncodeToString(sum.Sum(nil)),
	})
}

func pairs(header http.Header) [][2]string {
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	sort.Strings(names)
	listed := [][2]string{}
	for _, name := range names {
		for _, value := range header[name] {
			listed = append(listed, [2]string{name, value})
		}
	}
	return listed
}

// body sends the request's body back while it comes in, piece by piece.
func body(w http.ResponseWriter, r *http.Request) {
	answer := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		if err := answer.EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if kind := r.Header.Get("Content-Type"); kind != "" {
		w.Header().Set("Content-Type", kind)
	}
	if err := answer.Flush(); err != nil {
		return
	}
	piece := make([]byte, 32*1024)
	for {
		count, err := r.Body.Read(piece)
		if _, failed := w.Write(piece[:count]); failed != nil || answer.Flush() != nil {
			return
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // a cut body must not look like a whole one
		}
	}
}

// events sends n server-sent events, gap apart, each flushed alone.
func events(w http.ResponseWriter, r *http.Request) {
	count, ok := number(w, r, "n", 3)
	if !ok {
		return
	}
	gap := 10 * time.Millisecond
	if text := r.URL.Query().Get("gap"); text != "" {
		var err error
		if gap, err = time.ParseDuration(text); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	answer := http.NewResponseController(w)
	for index := range count {
		if index > 0 {
			select {
			case <-time.After(gap):
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", index, index)
		if answer.Flush() != nil {
			return
		}
	}
}

// big sends that many bytes, each its position modulo 251.
func big(w http.ResponseWriter, r *http.Request) {
	left, ok := number(w, r, "bytes", 1<<20)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(left))
	block := make([]byte, 251*128)
	for index := range block {
		block[index] = byte(index % 251)
	}
	for left > 0 {
		sent, err := w.Write(block[:min(left, len(block))])
		if err != nil {
			return
		}
		left -= sent
	}
}

// number reads a whole number of at least 0 from the query; otherwise it has answered 400.
func number(w http.ResponseWriter, r *http.Request, name string, otherwise int) (int, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return otherwise, true
	}
	value, err := strconv.Atoi(text)
	if err != nil || value < 0 {
		http.Error(w, name+" must be a whole number", http.StatusBadRequest)
		return 0, false
	}
	return value, true
}
