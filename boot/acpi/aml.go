package acpi

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// A Term is a piece of ACPI Machine Language (ACPI 6.5, chapter 20), ready to be put
// inside another. The functions that make terms are named after the operators of the
// source language, ASL, so a device reads the same here as in a disassembly:
//
//	Device("COM1",
//		Name("_HID", EISAID("PNP0501")),
//		Name("_CRS", ResourceTemplate(IO(0x3f8, 8), Interrupt(Edge|ActiveHigh, 4))))
//
// A term that cannot be encoded is a bug in this program, never a mistake of a user or
// a guest: these functions panic on it.
type Term []byte

// Opcodes (§20.3).
const (
	opZero        = 0x00
	opOne         = 0x01
	opName        = 0x08
	opByte        = 0x0a
	opWord        = 0x0b
	opDWord       = 0x0c
	opString      = 0x0d
	opQWord       = 0x0e
	opScope       = 0x10
	opBuffer      = 0x11
	opPackage     = 0x12
	opVarPackage  = 0x13
	opMethod      = 0x14
	opDualName    = 0x2e
	opMultiName   = 0x2f
	opLocal0      = 0x60
	opArg0        = 0x68
	opStore       = 0x70
	opNotify      = 0x86
	opEqual       = 0x93
	opIf          = 0xa0
	opElse        = 0xa1
	opReturn      = 0xa4
	opExtended    = 0x5b // the prefix of opDevice
	opDevice      = 0x82
	opOnes        = 0xff
	maxPkgLength  = 1<<28 - 1
	maxPathLength = 255 // segments
)

// Scope opens an existing object, such as `\_SB`, to add terms to it.
func Scope(path string, body ...Term) Term {
	return sized([]byte{opScope}, Path(path), join(body))
}

// Device is a device with its objects.
func Device(name string, body ...Term) Term {
	return sized([]byte{opExtended, opDevice}, Path(name), join(body))
}

// Name binds a value to a name.
func Name(name string, value Term) Term {
	return join([]Term{{opName}, Path(name), value})
}

// Method is a control method with args arguments. It is Serialized, as a method that
// creates names must be; none of ours needs to run on two CPUs at once.
func Method(name string, args int, body ...Term) Term {
	if args < 0 || args > 7 {
		bug("method %s with %d arguments", name, args)
	}
	const serialized = 1 << 3
	return sized([]byte{opMethod}, Path(name), Term{byte(args) | serialized}, join(body))
}

// Package is an array of values.
func Package(elements ...Term) Term {
	if n := len(elements); n > 255 {
		return sized([]byte{opVarPackage}, Int(uint64(n)), join(elements))
	}
	return sized([]byte{opPackage}, Term{byte(len(elements))}, join(elements))
}

// Buffer is an array of bytes.
func Buffer(b []byte) Term {
	return sized([]byte{opBuffer}, Int(uint64(len(b))), b)
}

// Int is an integer in its shortest encoding (§20.2.3).
func Int(v uint64) Term {
	switch {
	case v == 0:
		return Term{opZero}
	case v == 1:
		return Term{opOne}
	case v == 1<<64-1:
		return Term{opOnes}
	case v < 1<<8:
		return Term{opByte, byte(v)}
	case v < 1<<16:
		return binary.LittleEndian.AppendUint16(Term{opWord}, uint16(v))
	case v < 1<<32:
		return binary.LittleEndian.AppendUint32(Term{opDWord}, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(Term{opQWord}, v)
}

// String is an ASCII string without NUL.
func String(s string) Term {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x01 || r > 0x7f }) {
		bug("%q is not ASCII", s)
	}
	return join([]Term{{opString}, Term(s), {0}})
}

// EISAID is a device ID of three capital letters and four hexadecimal digits in the
// compressed form of EISA (§19.6, EISAID): three letters of five bits each and the
// digits, the most significant byte first.
func EISAID(id string) Term {
	if len(id) != 7 || strings.ToUpper(id) != id {
		bug("%q is not an EISA identifier", id)
	}
	product, err := strconv.ParseUint(id[3:], 16, 16)
	if err != nil {
		bug("%q is not an EISA identifier", id)
	}
	var vendor uint32
	for _, c := range []byte(id[:3]) {
		if c < 'A' || c > 'Z' {
			bug("%q is not an EISA identifier", id)
		}
		vendor = vendor<<5 | uint32(c-'@')
	}
	return Int(uint64(bits.ReverseBytes32(vendor<<16 | uint32(product))))
}

// Path names an object (§20.2.2): segments of up to four characters separated by dots,
// after `\` for the root or a `^` for each level up.
func Path(path string) Term {
	rest := strings.TrimLeft(path, `\^`)
	t := Term(path[:len(path)-len(rest)])
	if rest == "" {
		return append(t, opZero) // NullName
	}
	segments := strings.Split(rest, ".")
	switch n := len(segments); {
	case n > maxPathLength:
		bug("a path of %d segments", n)
	case n > 2:
		t = append(t, opMultiName, byte(n))
	case n == 2:
		t = append(t, opDualName)
	}
	for _, s := range segments {
		t = append(t, segment(s)...)
	}
	return t
}

// segment is a NameSeg: four characters, padded with underscores.
func segment(s string) string {
	ok := s != "" && len(s) <= 4 && (s[0] < '0' || s[0] > '9')
	for _, c := range []byte(s) {
		ok = ok && (c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_')
	}
	if !ok {
		bug("%q is not a name", s)
	}
	return (s + "___")[:4]
}

// If runs body if cond is not zero.
func If(cond Term, body ...Term) Term { return sized([]byte{opIf}, cond, join(body)) }

// Else follows an If.
func Else(body ...Term) Term { return sized([]byte{opElse}, join(body)) }

// Equal is LEqual: Ones if a and b are equal.
func Equal(a, b Term) Term { return join([]Term{{opEqual}, a, b}) }

// Store copies the value of from to to.
func Store(from, to Term) Term { return join([]Term{{opStore}, from, to}) }

// Return ends a method with a value.
func Return(value Term) Term { return join([]Term{{opReturn}, value}) }

// Notify tells the operating system that something happened to a device;
// value says what (§5.6.6).
func Notify(path string, value uint64) Term {
	return join([]Term{{opNotify}, Path(path), Int(value)})
}

// Arg is argument n of the method, 0 to 6.
func Arg(n int) Term {
	if n < 0 || n > 6 {
		bug("argument %d", n)
	}
	return Term{byte(opArg0 + n)}
}

// Local is variable n of the method, 0 to 7.
func Local(n int) Term {
	if n < 0 || n > 7 {
		bug("local variable %d", n)
	}
	return Term{byte(opLocal0 + n)}
}

// sized is an opcode, the length of everything after it, and the parts.
func sized(op []byte, parts ...Term) Term {
	body := join(parts)
	return join([]Term{op, pkgLength(len(body)), body})
}

// pkgLength encodes a PkgLength (§20.2.4), which counts itself and n more bytes. Up to
// 63 takes one byte, more takes up to four. Then the first byte has the number of the
// others in bits 6 and 7, and the low four bits of the length.
func pkgLength(n int) Term {
	if n+1 < 1<<6 {
		return Term{byte(n + 1)}
	}
	more := 1
	for n+1+more >= 1<<(4+8*more) {
		more++
	}
	n += 1 + more
	if n > maxPkgLength {
		bug("a package of %d bytes", n)
	}
	t := Term{byte(more<<6 | n&0xf)}
	for n >>= 4; len(t) <= more; n >>= 8 {
		t = append(t, byte(n))
	}
	return t
}

func join(terms []Term) Term { return slices.Concat(terms...) }

func bug(format string, args ...any) {
	panic("acpi: internal error: " + fmt.Sprintf(format, args...))
}
