package balloon

import (
	"bytes"
	"testing"

	"vmm/mem"
)

// FuzzRequest lets the fuzzer choose a queue, the content of its request, how that is
// cut, and the features. Only pages may change, only to zeros, and only by inflate and
// reports.
func FuzzRequest(f *testing.F) {
	f.Add(uint8(queueInflate), uint64(all), le.AppendUint32(le.AppendUint32(nil, page), page+1), uint16(3), uint32(0))
	f.Add(uint8(queueInflate), uint64(all), bytes.Repeat([]byte{0xff}, 40), uint16(100), uint32(0))
	f.Add(uint8(queueDeflate), uint64(all), le.AppendUint32(nil, page), uint16(4), uint32(0))
	f.Add(uint8(queueStats), uint64(all), le.AppendUint64([]byte{4, 0}, 1<<40), uint16(7), uint32(0))
	f.Add(uint8(4), uint64(featureReporting|featurePoison), []byte{0, 8, 1, 200}, uint16(0), uint32(1))
	f.Add(uint8(3), uint64(featureReporting), []byte{0, 8, 1, 200}, uint16(0), uint32(0))
	f.Fuzz(func(t *testing.T, queue uint8, features uint64, data []byte, cut uint16, poison uint32) {
		i := int(queue) % queues
		d := start(t, features&all)
		d.dev.WriteConfig(configPoison, le.AppendUint32(nil, poison))
		var chain []desc
		if i <= queueStats {
			data = data[:min(len(data), 0x8000)]
			copy(d.bytes(dataAt, uint64(len(data))), data)
			for at := 0; at < len(data) && len(chain) < 100; {
				n := min(len(data)-at, int(cut)+1)
				chain = append(chain, desc{addr: dataAt + mem.Addr(at), n: uint32(n)})
				at += n
			}
		} else {
			for len(data) >= 4 && len(chain) < 100 { // ranges in RAM: the queue checks that
				at, n := mem.Addr(le.Uint16(data))*61, uint32(le.Uint16(data[2:]))*7
				data = data[4:]
				if pagesAt+at+mem.Addr(n) <= ramBase+ramSize {
					chain = append(chain, desc{pagesAt + at, n, true})
				}
			}
		}
		if len(chain) == 0 {
			return
		}
		d.submit(i, chain...)
		d.dev.Serve(i, d.q[i])
		if err := d.q[i].Err(); err != nil && i != queueInflate {
			t.Fatal(err)
		}
		gone := len(d.discarded()) > 0
		free := i > queueStats || i == queueStats && features&featureStats == 0
		may := i == queueInflate || free && features&featureReporting != 0 && (features&featurePoison == 0 || poison == 0)
		if gone && !may {
			t.Errorf("queue %d, features %#x: pages are gone", i, features)
		}
	})
}

// FuzzLoad: a state that is accepted is the same when saved and loaded again.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(`{"Target":1,"Actual":2,"Poison":3}`))
	f.Add([]byte(`{}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, state []byte) {
		d := New(&still{Memory: mem.New()}, nil)
		if d.Load(state) != nil {
			return
		}
		again, err := d.Save()
		if err != nil {
			t.Fatal(err)
		}
		other := New(&still{Memory: mem.New()}, nil)
		if err := other.Load(again); err != nil || other.config != d.config {
			t.Errorf("%s: %v", again, err)
		}
	})
}
