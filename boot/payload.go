package boot

import (
	"bytes"
	"fmt"
)

// unpacked returns the kernel in a bzImage, from the cache or unpacked now, and leaves
// cache updates to Finish.
func (l *loader) unpacked() (*image, error) {
	s := l.openStore()
	if img, name := s.find(l.kernel.key()); img != nil {
		return l.cached(s, img, name)
	}
	payload, err := l.readPayload()
	if err != nil {
		s.close()
		return nil, err
	}
	if img, name := s.findPayload(payload); img != nil {
		payload.free()
		return l.cached(s, img, name)
	}
	data, err := unpack(payload, int64(l.setup.u32(initSize)))
	if err != nil {
		payload.free()
		s.close()
		return nil, l.kernel.bad(err)
	}
	w := &work{store: s, key: l.key(), payload: payload, data: data}
	l.entry.finish = w.finish
	if w.image, err = parseELF(bytes.NewReader(data), int64(len(data))); err != nil {
		return nil, l.kernel.bad(fmt.Errorf("its payload is %w: %w", err, errUnsupported))
	}
	w.image.compact(data)
	return w.image, nil
}

// cached marks the entry as loaded from img, the image called name in s.
func (l *loader) cached(s *store, img *image, name string) (*image, error) {
	l.entry.Cached = true
	key := l.key()
	l.entry.finish = func(keep bool) error {
		defer s.close()
		img.close()
		if !keep {
			return nil
		}
		return s.use(name, key)
	}
	return img, nil
}

// key returns the kernel's key in the cache's index, or "" if it cannot be trusted.
func (l *loader) key() string {
	if !l.kernel.settled() {
		return ""
	}
	return l.kernel.key()
}

func (l *loader) readPayload() (scratch, error) {
	off, n, err := l.setup.payload(l.kernel.size)
	if err != nil {
		return nil, l.kernel.bad(err)
	}
	if room := uint64(l.setup.u32(initSize)); room > l.mem.Size() {
		return nil, l.tooSmall(l.setup.u64(prefAddress) + room)
	}
	payload, err := newScratch(n)
	if err != nil {
		return nil, err
	}
	if err := l.kernel.readFull(payload, off); err != nil {
		payload.free()
		return nil, err
	}
	return payload, nil
}

// work is what remains to be done for a freshly unpacked kernel.
type work struct {
	store         *store // or nil
	key           string
	payload, data scratch
	image         *image // or nil
}

func (w *work) finish(keep bool) error {
	defer w.payload.free()
	defer w.data.free()
	defer w.store.close()
	if !keep || w.store == nil || w.image == nil {
		return nil
	}
	name := imageName(w.payload)
	if err := w.store.add(name, newEntry(w.image, w.data)); err != nil {
		return fmt.Errorf("kernel cache: %w", err)
	}
	return w.store.use(name, w.key)
}
