package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func noise(n int) []byte {
	rnd, p := rand.New(rand.NewPCG(1, 2)), make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

func start(t testing.TB, in io.Reader, out io.Writer) (*Device, *driver) {
	irq := newPin(t)
	d := New(irq, in, out)
	d.Start()
	return d, newDriver(t, d, irq)
}

func closeDevice(t testing.TB, d *Device) {
	t.Helper()
	if err := d.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func equal(t testing.TB, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%d bytes, want %d; they differ from byte %d on", len(got), len(want), i)
}

// TestPaste pipes a MiB into a guest that prints it again. The input is available long
// before the driver opens the port.
func TestPaste(t *testing.T) {
	want := noise(1 << 20)
	var printed bytes.Buffer
	d, g := start(t, bytes.NewReader(want), &printed)
	g.open()
	echoed := 0
	g.until(func() bool {
		if n := len(g.rx); n > echoed {
			g.print(g.rx[echoed:n])
			echoed = n
		}
		return echoed == len(want) && g.printed()
	})
	closeDevice(t, d)
	equal(t, g.rx, want)
	equal(t, printed.Bytes(), want)
}

// TestFlowControl runs a guest that drops RTS again and again (crtscts).
func TestFlowControl(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := noise(64 << 10)
		d, g := start(t, bytes.NewReader(want), nil)
		g.open()
		for n := 0; len(g.rx) < len(want); {
			n = min(n+1000, len(want))
			g.until(func() bool { return len(g.rx) >= n })
			synctest.Wait() // the FIFO is full again
			g.out(regMCR, mcrDTR|mcrOUT2)
			for range 2 * fifoSize {
				if g.in(regLSR)&lsrDR == 0 {
					break
				}
				g.rx = append(g.rx, g.in(regRBR))
			}
			synctest.Wait()
			if g.in(regLSR)&lsrDR != 0 {
				t.Fatal("input goes on without RTS")
			}
			g.out(regMCR, mcrDTR|mcrRTS|mcrOUT2)
		}
		closeDevice(t, d)
		equal(t, g.rx, want)
	})
}

// slow is a host that reads little at a time.
type slow struct {
	io.Reader
	got []byte
}

func (s *slow) run() {
	p := make([]byte, 300)
	for {
		n, err := s.Read(p)
		s.got = append(s.got, p[:n]...)
		if err != nil {
			return
		}
	}
}

// TestSlowReader prints a MiB, by interrupts and by polling, to a host that is slower
// than the guest.
func TestSlowReader(t *testing.T) {
	want := noise(1 << 20)
	for name, print := range map[string]func(*driver){
		"interrupts": func(g *driver) {
			g.print(want)
			g.until(g.printed)
		},
		"polling": func(g *driver) { g.poll(want) },
	} {
		t.Run(name, func(t *testing.T) {
			r, w := io.Pipe()
			host := &slow{Reader: r}
			var wg sync.WaitGroup
			wg.Go(host.run)
			d, g := start(t, nil, w)
			g.open()
			print(g)
			closeDevice(t, d)
			w.Close()
			wg.Wait()
			equal(t, host.got, want)
		})
	}
}

// fill prints until the guest blocks, which synctest.Wait detects.
func fill(g *driver) (returned chan struct{}) {
	returned = make(chan struct{})
	go func() {
		defer close(returned)
		g.poll(make([]byte, 2*outputSize+100)) // the host has a part
	}()
	synctest.Wait()
	return returned
}

func finished(c chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// closeTime is how long the host has to read the last output.
const closeTime = 2 * time.Second

func TestBlockedWriter(t *testing.T) {
	for name, release := range map[string]func(*Device){
		"pause": (*Device).Pause,
		"close": func(d *Device) {
			ctx, cancel := context.WithTimeout(context.Background(), closeTime)
			defer cancel()
			if err := d.Close(ctx); err == nil || !strings.Contains(err.Error(), "did not read the last") {
				t.Errorf("Close: %v", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, w := io.Pipe()
				d, g := start(t, nil, w)
				returned := fill(g)
				if finished(returned) {
					t.Fatal("a full output does not block")
				}
				if g.in(regLSR)&(lsrTHRE|lsrTEMT) != 0 {
					t.Error("a full output, and the transmitter is empty")
				}
				begin := time.Now()
				release(d)
				if !finished(returned) {
					t.Fatal("the guest is still blocked")
				}
				if took := time.Since(begin); took > closeTime {
					t.Errorf("took %v", took)
				}
				g.poll(make([]byte, 4*outputSlack)) // must not block, nor grow
				if n := len(d.output); n > outputSize+outputSlack {
					t.Errorf("%d bytes of output", n)
				}
				r.Close()
				d.Close(t.Context())
			})
		})
	}
}

// TestCloseWaits: everything that the guest printed is delivered, however slow the host
// is.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		d, g := start(t, nil, w)
		want := noise(outputSize)
		g.poll(want)
		closed := make(chan error, 1)
		go func() { closed <- d.Close(context.Background()) }()
		time.Sleep(time.Hour) // synctest makes this short
		select {
		case err := <-closed:
			t.Fatalf("Close did not wait: %v", err)
		default:
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		equal(t, got, want)
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// TestPauseResume pauses with a full output, a running driver and input on its way. The
// guest must find everything as it was.
func TestPauseResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		hr, hw := io.Pipe()
		d, g := start(t, hr, w)
		g.open()
		g.print(make([]byte, 3*outputSize))
		g.until(func() bool { return g.in(regLSR)&lsrTHRE == 0 })
		g.late()
		d.Pause()
		hw.Write([]byte("typed"))
		go io.Copy(io.Discard, r)
		synctest.Wait()
		select {
		case <-g.irq.edge:
			t.Error("an interrupt while paused")
		default:
		}
		if lsr := g.in(regLSR); lsr&(lsrTHRE|lsrDR) != 0 {
			t.Errorf("LSR %#x while paused", lsr)
		}
		d.Resume()
		g.until(func() bool { return g.printed() && len(g.rx) == 5 })
		closeDevice(t, d)
		hw.Close()
		r.Close()
	})
}

// TestSaveLoad moves a port with input in the FIFO and before it.
func TestSaveLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := noise(1000)
		d, g := start(t, bytes.NewReader(want), nil)
		g.open()
		g.until(func() bool { return len(g.rx) > 100 })
		g.out(regSCR, 0x42)
		synctest.Wait() // the FIFO is full again
		d.Break()
		d.Pause()
		b, err := d.Save()
		if err != nil {
			t.Fatal(err)
		}
		closeDevice(t, d)

		irq := newPin(t)
		restored := New(irq, nil, nil)
		if err := restored.Load(b); err != nil {
			t.Fatal(err)
		}
		restored.Start()
		g.d, g.irq = restored, irq
		if msr := g.in(regMSR); msr != 0x0b {
			t.Errorf("MSR %#x: nothing is plugged in now", msr)
		}
		g.until(func() bool { return len(g.rx) == len(want) && g.brks == 1 })
		equal(t, g.rx, want)
		if g.in(regSCR) != 0x42 {
			t.Error("the scratch register is lost")
		}
		closeDevice(t, restored)
	})
}

func TestLoadBad(t *testing.T) {
	for _, s := range []string{
		"", "{", `{"UART":{"RXLen":2}}`, `{"UART":{"RXLen":-1}}`, `{"UART":{"FCR":1,"RXLen":17}}`, `{"UART":{"IER":16}}`,
		`{"UART":{"MCR":32}}`, `{"UART":{"FCR":2}}`, `{"UART":{"LSR":1}}`, `{"UART":{"RX":[256]}}`,
		`{"Input":"AAAA","Ahead":4}`, `{"Ahead":-1}`,
		`{"Input":"` + strings.Repeat("AAAA", inputSize/3+1) + `"}`,
	} {
		if err := New(newPin(t), nil, nil).Load([]byte(s)); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%.40s: %v", s, err)
		}
	}
}

// TestLatency: a prompt appears on the screen within a millisecond, and a burst is one
// write.
func TestLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		d, g := start(t, nil, w)
		p := make([]byte, outputSize)
		for range 3 {
			time.Sleep(time.Second) // idle; the clock is synctest's
			begin := time.Now()
			g.poll([]byte("login: "))
			n, err := r.Read(p)
			if took := time.Since(begin); err != nil || string(p[:n]) != "login: " || took > gather {
				t.Errorf("%q after %v, %v", p[:n], took, err)
			}
		}
		begin := time.Now()
		g.poll(make([]byte, outputSize/2))
		n, _ := r.Read(p)
		if took := time.Since(begin); n != outputSize/2 || took != 0 {
			t.Errorf("half a buffer: %d bytes after %v", n, took)
		}
		closeDevice(t, d)
	})
}

// TestTimeoutInterrupt: a driver that leaves data in the FIFO is interrupted again.
func TestTimeoutInterrupt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, g := start(t, strings.NewReader("abc"), nil)
		g.open()
		g.out(regFCR, 0xc1)
		for i := range 3 {
			<-g.irq.edge
			if iir := g.in(regIIR); iir != 0xcc {
				t.Errorf("byte %d: IIR %#x", i, iir)
			}
			if v := g.in(regRBR); v != "abc"[i] {
				t.Errorf("byte %d is %c", i, v)
			}
		}
		closeDevice(t, d)
	})
}

func TestBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		d, g := start(t, r, nil)
		g.open()
		d.Break()
		g.until(func() bool { return g.brks == 1 })
		equal(t, g.rx, nil)
		closeDevice(t, d)
		w.Close()
	})
}

// TestBreakOrder: a break keeps its place, whether the bytes around it are still with
// the host, in the buffer or in the FIFO.
func TestBreakOrder(t *testing.T) {
	for _, before := range []int{1, 15, 16, 17, 1000} {
		synctest.Test(t, func(t *testing.T) {
			r, w := io.Pipe()
			d, g := start(t, r, nil)
			want := noise(before + 10)
			w.Write(want[:before])
			synctest.Wait() // the driver has not opened the port
			d.Break()
			go w.Write(want[before:])
			synctest.Wait()
			g.open()
			g.until(func() bool {
				if g.brks == 0 && len(g.rx) > before {
					t.Fatalf("%d bytes came before the break, want %d", len(g.rx), before)
				}
				return len(g.rx) == len(want)
			})
			if g.brks != 1 {
				t.Errorf("%d breaks", g.brks)
			}
			equal(t, g.rx, want)
			closeDevice(t, d)
			w.Close()
		})
	}
}

func TestCarrier(t *testing.T) {
	for _, test := range []struct {
		in   io.Reader
		out  io.Writer
		want byte
	}{
		{nil, nil, 0},
		{strings.NewReader(""), nil, 0xb0},
		{nil, io.Discard, 0xb0},
	} {
		d, g := start(t, test.in, test.out)
		if v := g.in(regMSR); v != test.want {
			t.Errorf("MSR %#x, want %#x", v, test.want)
		}
		g.poll(make([]byte, 3*outputSize)) // goes somewhere
		closeDevice(t, d)
	}
}

// TestHostGone: the guest continues when the terminal is closed.
func TestHostGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	d, g := start(t, nil, w)
	g.open()
	g.poll(noise(10 * outputSize))
	g.print(noise(100))
	g.until(g.printed)
	if err := d.Close(t.Context()); !errors.Is(err, os.ErrClosed) && (err == nil || !strings.Contains(err.Error(), "broken pipe")) {
		t.Errorf("Close: %v", err)
	}
	w.Close()
}

// TestReset: a system reset does not disturb the host's side.
func TestReset(t *testing.T) {
	d, g := start(t, strings.NewReader("input"), nil)
	g.open()
	g.until(func() bool { return len(g.rx) == 5 })
	g.print([]byte("x"))
	d.Reset()
	for reg, want := range map[uint64]byte{regIER: 0, regIIR: 1, regLCR: 0, regMCR: 0, regLSR: 0x60, regMSR: 0xb0} {
		if v := g.in(reg); v != want {
			t.Errorf("register %d is %#x, want %#x", reg, v, want)
		}
	}
	if d.level {
		t.Error("the interrupt is still high")
	}
	closeDevice(t, d)
}

// TestWide: a wider access is bytes at consecutive ports.
func TestWide(t *testing.T) {
	d := New(newPin(t), nil, nil)
	d.Write(regLCR, []byte{0x83, 0x0b}) // LCR and MCR
	d.Write(0, []byte{0x0c, 0x01})      // the divisor
	p := bytes.Repeat([]byte{0xff}, 8)
	d.Read(0, p)
	if want := []byte{0x0c, 0x01, 0x01, 0x83, 0x0b, 0x60, 0x00, 0x00}; !bytes.Equal(p, want) {
		t.Errorf("% x, want % x", p, want)
	}
	p = bytes.Repeat([]byte{0xff}, 4)
	d.Write(7, []byte{0x55, 1, 2, 3})
	d.Read(7, p)
	if want := []byte{0x55, 0xff, 0xff, 0xff}; !bytes.Equal(p, want) {
		t.Errorf("% x, want % x", p, want)
	}
}

func TestNoAllocation(t *testing.T) {
	d, g := start(t, nil, io.Discard)
	g.open()
	p := []byte{'x'}
	if n := testing.AllocsPerRun(1000, func() { d.Write(regTHR, p); d.Read(regIIR, p); d.Read(regLSR, p) }); n != 0 {
		t.Errorf("%v allocations an access", n)
	}
	closeDevice(t, d)
}
