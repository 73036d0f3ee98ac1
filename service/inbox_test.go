package service

import (
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
)

// typist is a console: each Read returns one string sent to keys.
type typist struct{ keys chan string }

func (c *typist) Read(p []byte) (int, error) {
	k, ok := <-c.keys
	if !ok {
		return 0, io.ErrUnexpectedEOF
	}
	return copy(p, k), nil
}

func expectRead(t *testing.T, s io.Reader, size int, want string) {
	t.Helper()
	b := make([]byte, size)
	if n, err := s.Read(b); err != nil || string(b[:n]) != want {
		t.Errorf("read %q, %v; want %q", b[:n], err, want)
	}
}

// TestInbox: typed keys go to the session whose turn it is, and nothing is lost when
// the turn passes to another.
func TestInbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &typist{make(chan string, 10)}
		in := newInbox()
		go in.fill(c)
		first := in.open()
		c.keys <- "hello"
		expectRead(t, first, 2, "he")

		second := in.open()
		if n, err := first.Read(make([]byte, 8)); n != 0 || err != io.EOF {
			t.Errorf("the first still reads: %d, %v", n, err)
		}
		first.Close() // late: no effect on the second
		expectRead(t, second, 8, "llo")

		waiting := make(chan error)
		go func() {
			_, err := second.Read(make([]byte, 8))
			waiting <- err
		}()
		synctest.Wait() // the console is being read
		second.Close()
		if err := <-waiting; err != io.EOF {
			t.Errorf("a Read over its session's end: %v", err)
		}
		c.keys <- "for the third"
		expectRead(t, in.open(), 99, "for the third")

		close(c.keys)
		last := in.open()
		for range 2 { // for good
			if _, err := last.Read(make([]byte, 8)); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("at the console's end: %v", err)
			}
		}
	})
}

// TestInboxAhead: the console is read only when the machine has taken all earlier
// input and waits for more.
func TestInboxAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &typist{make(chan string, 10)}
		in := newInbox()
		go in.fill(c)
		s := in.open()
		for _, k := range []string{"one", "two", "three"} {
			c.keys <- k
		}
		unread := func(want int) {
			t.Helper()
			if synctest.Wait(); len(c.keys) != want {
				t.Errorf("%d reads of the console wait, want %d", len(c.keys), want)
			}
		}
		unread(3)
		expectRead(t, s, 2, "on")
		unread(2)
		expectRead(t, s, 9, "e")
		unread(2) // it may still be handling the last key
		expectRead(t, s, 9, "two")
		unread(1)
		s = in.open()
		unread(1)
		expectRead(t, s, 9, "three")
		close(c.keys)
		s.Read(make([]byte, 1)) // lets fill see the end
	})
}

// TestInboxRace opens and closes sessions while keys are typed: each key is read once,
// in order.
func TestInboxRace(t *testing.T) {
	const n = 2000
	c := &typist{make(chan string)}
	in := newInbox()
	go in.fill(c)
	go func() {
		for i := range n {
			c.keys <- string([]byte{byte(i), byte(i >> 8)})
		}
		close(c.keys)
	}()
	var got []byte
	var over bool
	for lives := 0; !over; lives++ {
		s := in.open()
		var closer sync.WaitGroup
		closer.Go(func() { s.Close() })
		b := make([]byte, 1)
		for {
			n, err := s.Read(b)
			got = append(got, b[:n]...)
			if err != nil {
				over = err != io.EOF
				break
			}
		}
		closer.Wait()
	}
	if len(got) != 2*n {
		t.Fatalf("%d bytes of %d", len(got), 2*n)
	}
	for i := range n {
		if int(got[2*i])|int(got[2*i+1])<<8 != i&0xffff {
			t.Fatalf("key %d is % x", i, got[2*i:2*i+2])
		}
	}
}
