package attack

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Request types, §5.2.6.
const (
	reqIn          = 0
	reqOut         = 1
	reqFlush       = 4
	reqID          = 8
	reqDiscard     = 11
	reqWriteZeroes = 13
)

const sectorSize = 512

// The sectors that requests may change, in a disk of 8 MiB; the test checks that the
// others are unchanged.
const (
	zoneStart = 8192
	zoneEnd   = 12288
)

func readable(addr uint64, n uint32) buf { return buf{addr: addr, n: n} }
func writable(addr uint64, n uint32) buf { return buf{addr: addr, n: n, flags: descWrite} }

// header writes the header of the next request.
func (d *driver) header(kind uint32, sector uint64) buf {
	d.count++
	at := uint64(atHeader + d.count%256*16)
	d.mem.store(at, 4, uint64(kind))
	d.mem.store(at+4, 4, 0)
	d.mem.store(at+8, 8, sector)
	d.mem.region[atStatus+d.count%256] = untouched
	return readable(d.mem.phys+at, 16)
}

// status returns room for the status of the request with the last header.
func (d *driver) status() buf { return writable(d.mem.phys+atStatus+uint64(d.count%256), 1) }

func (d *driver) lastStatus() byte { return d.mem.region[atStatus+d.count%256] }

// room is a buffer that the device writes, data one that it reads.
func (d *driver) room(n uint32) buf { return writable(d.mem.phys+atData, n) }
func (d *driver) data(n uint32) buf { return readable(d.mem.phys+atData, n) }

// zone returns a sector that may be changed, with 63 more after it.
func (d *driver) zone() uint64 { return zoneStart + d.rand.Uint64N(zoneEnd-zoneStart-64) }

// disk is the disk with the serial number "victim".
type disk struct{ size uint64 } // in sectors

func (*disk) find() (device, error)     { return findDisk("victim") }
func (*disk) queues() (one, all uint32) { return 0, 1 }
func (*disk) hasStatus() bool           { return true }
func (*disk) enable(*driver)            {}

func (k *disk) look(at device) error {
	b, err := os.ReadFile("/sys/block/" + at.name + "/size")
	if err != nil {
		return err
	}
	k.size, err = strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	return err
}

func (*disk) request(d *driver) []buf { return []buf{d.header(reqIn, 1), d.room(512), d.status()} }

func (*disk) large(d *driver, n uint32) []buf {
	return []buf{d.header(reqIn, 0), d.room(n), d.status()}
}

func (k *disk) groups(d *driver) []group {
	return []group{
		{"addresses", addressTests(d)},
		{"lengths", lengthTests()},
		{"shapes", shapeTests()},
		{"types", typeTests()},
		{"sectors", sectorTests(k.size)},
		{"segments", segmentTests(k.size)},
	}
}

// works reads through the kernel's driver.
func (*disk) works(at device) error {
	b := make([]byte, 4*sectorSize)
	err := readAt("/dev/"+at.name, b)
	if err == nil && string(b) != string(sectors(0, 4, 0)) {
		err = errors.New("it reads other data")
	}
	return err
}

func readAt(path string, b []byte) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(b, 0)
	return err
}

// good makes a read or, now and then, a write and a read, and compares the data.
func (*disk) good(d *driver) error {
	b := d.mem.region[atData:][: 2*sectorSize : 2*sectorSize]
	want, sector := []byte(nil), d.rand.Uint64N(zoneStart-1)
	if d.goods++; d.goods%4 != 0 {
		want = sectors(sector, 2, 0)
	} else {
		sector = d.zone()
		for i := range b {
			b[i] = byte(i) ^ byte(sector)
		}
		want = bytes.Clone(b)
		if err := d.one(d.header(reqOut, sector), d.data(2*sectorSize), d.status()); err != nil {
			return fmt.Errorf("writing sector %d: %w", sector, err)
		}
	}
	clear(b)
	if err := d.one(d.header(reqIn, sector), d.room(2*sectorSize), d.status()); err != nil {
		return fmt.Errorf("reading sector %d: %w", sector, err)
	}
	if !bytes.Equal(b, want) {
		return fmt.Errorf("sector %d has other data", sector)
	}
	return nil
}

// one makes one good request.
func (d *driver) one(bufs ...buf) error {
	n := d.ring.used() + 1
	d.ring.add(bufs...)
	d.kick()
	return d.judge(succeeds, n)
}

// sectors returns the content of n sectors of an untouched disk: lines that tell their
// position, as in package pattern, XORed with salt.
func sectors(first, n uint64, salt byte) []byte {
	const line = 16
	b := make([]byte, n*sectorSize)
	for i := 0; i < len(b); i += line {
		v := first*(sectorSize/line) + uint64(i/line)
		b[i+line-1] = '\n' ^ salt
		for j := i + line - 2; j >= i; j-- {
			b[j] = byte('0'+v%10) ^ salt
			v /= 10
		}
	}
	return b
}
