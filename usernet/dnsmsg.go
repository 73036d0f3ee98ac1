package usernet

import "encoding/binary"

// Only the header and the question of DNS messages (RFC 1035 §4) are parsed, as bytes:
// a label may contain any byte (RFC 2181 §11).
const (
	dnsHeader = 12
	maxName   = 255 // bytes, including lengths and the root
	maxLabel  = 63
	typeIXFR  = 251
	typeAXFR  = 252

	// Bits of the third and fourth bytes.
	flagQR     = 0x80
	flagOpcode = 0x78
	flagAA     = 0x04
	flagTC     = 0x02
	flagRA     = 0x80
	flagRCode  = 0x0f
)

// Response codes.
const (
	rcodeFormatError    = 1
	rcodeServerFailure  = 2
	rcodeNotImplemented = 4
	rcodeRefused        = 5
)

// questionOf returns the only question of a message (name, type and class), or false.
func questionOf(m []byte) ([]byte, bool) {
	if len(m) < dnsHeader || binary.BigEndian.Uint16(m[4:]) != 1 {
		return nil, false
	}
	end := dnsHeader
	for {
		if end >= len(m) || m[end] > maxLabel { // a pointer cannot be valid here
			return nil, false
		}
		size := int(m[end])
		if end += 1 + size; end-dnsHeader > maxName || end > len(m) {
			return nil, false
		}
		if size == 0 {
			break
		}
	}
	if end += 4; end > len(m) {
		return nil, false
	}
	return m[dnsHeader:end], true
}

// sameQuestion compares two questions. It ignores case.
func sameQuestion(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// lower maps ASCII to lower case. A length is never a letter, and bytes of a type or
// class that look like letters do so in both questions.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// refusal returns the answer to a message that is not passed on: one with another
// opcode (RFC 1035 §4.1.1: notifications, and updates, RFC 2136), a malformed query, or
// a zone transfer over TCP. It returns nil for a query that is passed on, and false for
// a message that gets no answer.
func refusal(query []byte, tcp bool) (answer []byte, ok bool) {
	if len(query) < dnsHeader || query[2]&flagQR != 0 {
		return nil, false
	}
	if query[2]&flagOpcode != 0 {
		return response(query, nil, rcodeNotImplemented), true
	}
	q, ok := questionOf(query)
	if !ok {
		return response(query, nil, rcodeFormatError), true
	}
	// A zone transfer over TCP takes several messages, and is not a resolver's job.
	if t := binary.BigEndian.Uint16(q[len(q)-4:]); tcp && (t == typeAXFR || t == typeIXFR) {
		return response(query, q, rcodeRefused), true
	}
	return nil, true
}

// response returns an answer without records.
func response(query, question []byte, rcode byte) []byte {
	b := make([]byte, dnsHeader, dnsHeader+len(question))
	copy(b, query[:4])
	b[2] = query[2]&^(flagAA|flagTC) | flagQR
	b[3] = flagRA | rcode
	if question != nil {
		b[5] = 1
	}
	return append(b, question...)
}

// answers reports whether a message is the response to a query: the same
// identifier, and the same question unless it has none, as some errors do.
func answers(message, query []byte) bool {
	if len(message) < dnsHeader || message[2]&flagQR == 0 || string(message[:2]) != string(query[:2]) {
		return false
	}
	if binary.BigEndian.Uint16(message[4:]) == 0 {
		return message[3]&flagRCode != 0
	}
	got, ok := questionOf(message)
	want, _ := questionOf(query)
	return ok && sameQuestion(got, want)
}

// useless reports whether another resolver may know more than this answer says, by the
// rules of libc: the first has failed or refuses, or it is not a resolver and only
// refers to other servers.
func useless(answer []byte) bool {
	switch answer[3] & flagRCode {
	case rcodeServerFailure, rcodeNotImplemented, rcodeRefused:
		return true
	case 0:
		none := binary.BigEndian.Uint16(answer[6:]) == 0 && binary.BigEndian.Uint16(answer[10:]) == 0
		return none && answer[2]&flagAA == 0 && answer[3]&flagRA == 0
	}
	return false
}
