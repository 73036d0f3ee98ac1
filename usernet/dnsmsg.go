package usernet

import "encoding/binary"

// Of messages of DNS (RFC 1035 §4) only the header and the question are looked at,
// as bytes: a label may have any (RFC 2181 §11).
const (
	dnsHeader = 12
	maxName   = 255 // bytes, with lengths and the root
	maxLabel  = 63
	typeIXFR  = 251
	typeAXFR  = 252

	// Bits of the third and the fourth byte.
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

// questionOf returns the only question of a message, name, type and class, or false.
func questionOf(m []byte) ([]byte, bool) {
	if len(m) < dnsHeader || binary.BigEndian.Uint16(m[4:]) != 1 {
		return nil, false
	}
	end := dnsHeader
	for {
		if end >= len(m) || m[end] > maxLabel { // a pointer has nowhere to point to
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

// sameQuestion compares two questions. The case of letters does not count.
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

// lower is that of ASCII. A length is no letter, and what of a type or class looks like
// one is so in both.
func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// refusal returns the answer to a query that is not passed on: one that is none (RFC
// 1035 §4.1.1: notifications, and updates, RFC 2136), and one that is damaged. It
// returns nil for one that is, and false for what gets no answer.
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
	// A transfer over TCP is of several messages, and not what a resolver is for.
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

// useless reports whether another resolver may know more than this answer says, as
// libc has it: the first does not work or does not want to, or it is none and says
// where to ask.
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
