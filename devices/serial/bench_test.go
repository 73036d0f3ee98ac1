package serial

import (
	"bytes"
	"io"
	"testing"
)

// BenchmarkPrint measures what one printed byte costs the vCPU besides its exit.
func BenchmarkPrint(b *testing.B) {
	d, _ := start(b, nil, io.Discard)
	p := []byte{'x'}
	b.SetBytes(1)
	for b.Loop() {
		d.Write(regTHR, p)
	}
	d.Close(b.Context())
}

func BenchmarkReadLSR(b *testing.B) {
	d, _ := start(b, nil, io.Discard)
	p := []byte{0}
	for b.Loop() {
		d.Read(regLSR, p)
	}
	d.Close(b.Context())
}

// BenchmarkPaste measures the rate from the host to an interrupt-driven guest.
func BenchmarkPaste(b *testing.B) {
	want := noise(64 << 10)
	b.SetBytes(int64(len(want)))
	for b.Loop() {
		d, g := start(b, bytes.NewReader(want), nil)
		g.open()
		g.until(func() bool { return len(g.rx) == len(want) })
		d.Close(b.Context())
	}
}
