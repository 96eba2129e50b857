package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
)

const (
	opClose     = 0x8
	opPing      = 0x9
	opPong      = 0xA
	maxFrame    = 16 << 20
	acceptMagic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" // RFC 6455, section 1.3
)

// webSocket echoes each frame as it came, fragments included; it answers pings and closes when it is told to (RFC 6455).
func webSocket(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Sec-WebSocket-Key")
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || key == "" || r.Header.Get("Sec-WebSocket-Version") != "13" {
		w.Header().Set("Sec-WebSocket-Version", "13")
		http.Error(w, "a WebSocket handshake is needed", http.StatusUpgradeRequired)
		return
	}
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer connection.Close()
	sum := sha1.Sum([]byte(key + acceptMagic))
	_, _ = buffered.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	for buffered.Flush() == nil {
		head, payload, err := readFrame(buffered.Reader)
		if err != nil {
			return
		}
		switch head & 0x0F {
		case opPing:
			head = 0x80 | opPong
		case opPong:
			continue
		}
		writeFrame(buffered.Writer, head, payload)
		if head&0x0F == opClose {
			_ = buffered.Flush()
			return
		}
	}
}

// readFrame gives a client's frame: its first byte (last fragment, kind) and its payload, unmasked.
func readFrame(from *bufio.Reader) (byte, []byte, error) {
	var start [2]byte
	if _, err := io.ReadFull(from, start[:]); err != nil {
		return 0, nil, err
	}
	if start[1]&0x80 == 0 {
		return 0, nil, errors.New("a client must mask its frames")
	}
	size := uint64(start[1] & 0x7F)
	if wide := map[uint64]int{126: 2, 127: 8}[size]; wide > 0 {
		var length [8]byte
		if _, err := io.ReadFull(from, length[8-wide:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(length[:])
	}
	if size > maxFrame {
		return 0, nil, errors.New("frame too large")
	}
	var mask [4]byte
	if _, err := io.ReadFull(from, mask[:]); err != nil {
		return 0, nil, err
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(from, payload); err != nil {
		return 0, nil, err
	}
	for index := range payload {
		payload[index] ^= mask[index%4]
	}
	return start[0], payload, nil
}

// writeFrame writes a server's frame, which is not masked; the writer keeps the first error for Flush.
func writeFrame(to *bufio.Writer, head byte, payload []byte) {
	frame := []byte{head}
	switch size := len(payload); {
	case size < 126:
		frame = append(frame, byte(size))
	case size < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(size))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(size))
	}
	_, _ = to.Write(append(frame, payload...))
}
