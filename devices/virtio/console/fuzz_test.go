package console

import (
	"bytes"
	"testing"

	"vmm/devices/virtio"
)

// deaf is a transport without a listener.
type deaf struct{}

func (deaf) Wake(int)       {}
func (deaf) ConfigChanged() {}

var _ virtio.Host = deaf{}

// FuzzControl lets the fuzzer send control messages, with resets, pauses and changes by
// the host between them. The messages due for the driver must stay bounded, and the
// driver must understand them.
func FuzzControl(f *testing.F) {
	good := bytes.Join([][]byte{message(0, eventDeviceReady, 1), message(0, eventPortReady, 1), message(1, eventPortReady, 1), message(1, eventPortOpen, 1)}, nil)
	f.Add(good)
	f.Add(append(message(0xfffe, 0, 0), good...))
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, in []byte) {
		d, err := NewPorts(Stream{Name: "a"}, Stream{Name: "b"})
		if err != nil {
			t.Fatal(err)
		}
		d.Start(featureMultiport, deaf{})
		added := [2]bool{}
		for ; len(in) >= messageSize; in = in[messageSize:] {
			id, event, value := le.Uint32(in), le.Uint16(in[4:]), le.Uint16(in[6:])
			switch id {
			case 0xfffe:
				d.Stop()
				d.Reset()
				d.Start(featureMultiport, deaf{})
				added = [2]bool{}
			case 0xfffd:
				d.SetConnected(int(event)%2, value&1 != 0)
			case 0xfffc:
				state, err := d.Save()
				if err != nil {
					t.Fatal(err)
				}
				if err := d.Load(state); err != nil {
					t.Fatalf("%s: %v", state, err)
				}
			default:
				d.obey(id, event, value)
			}
			if value%3 == 0 {
				continue // the driver is slow
			}
			said := 0
			for ; d.due(); said++ {
				m := d.message(nil, messageSize+MaxName)
				if len(m) < messageSize || le.Uint32(m) > 1 || said > 6 {
					t.Fatalf("the device says %x", m)
				}
				port := le.Uint32(m)
				switch le.Uint16(m[4:]) {
				case eventDeviceAdd:
					if added[port] {
						t.Fatalf("port %d is added twice", port)
					}
					added[port] = true
				case eventPortName, eventPortOpen:
					if !added[port] {
						t.Fatalf("port %d is not there, and the device says %x", port, m)
					}
				default:
					t.Fatalf("the device says %x", m)
				}
			}
		}
	})
}

// FuzzLoad: a state that is accepted can be saved.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"Ready":true,"Ports":[{"Added":true,"Ready":true,"Open":true,"Pending":6,"Input":"aGVsbG8=","Skip":7},{}]}`))
	f.Add([]byte(`{"Cols":80,"Rows":25,"Ports":[{},{"Pending":255}]}`))
	f.Fuzz(func(t *testing.T, state []byte) {
		d, err := NewPorts(Stream{Name: "a"}, Stream{Name: "b"})
		if err != nil {
			t.Fatal(err)
		}
		if d.Load(state) != nil {
			return
		}
		again, err := d.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Load(again); err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		d.Start(featureMultiport, deaf{})
		for n := 0; d.due(); n++ {
			if d.message(nil, messageSize+MaxName) == nil || n > 6 {
				t.Fatal("messages without end")
			}
		}
	})
}
