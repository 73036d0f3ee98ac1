package machine_test

import (
	"io"
	"testing"

	"vmm/guest/payload"
	"vmm/machine"
)

// BenchmarkPrint measures the cost of a byte on the serial port: the exit, the UART,
// and the goroutine that passes it to the host.
func BenchmarkPrint(b *testing.B) { benchmarkPort(b, com1, io.Discard) }

// BenchmarkPort measures an exit to an unused port.
func BenchmarkPort(b *testing.B) { benchmarkPort(b, 0x80, nil) }

func benchmarkPort(b *testing.B, port uint16, out io.Writer) {
	needKVM(b)
	c := kernel(b, payload.Repeat(uint32(b.N), payload.Out8(port, 'x')), powerOff)
	c.ConsoleOut = out
	m, err := machine.New(c)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	b.ResetTimer()
	if end, err := m.Run(b.Context()); err != nil || end.Reason != machine.PowerOff {
		b.Fatal(end, err)
	}
}
