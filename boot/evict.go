package boot

import (
	"cmp"
	"crypto/rand"
	"io/fs"
	"slices"
	"strings"
	"time"
)

func tempName() string { return rand.Text() + ".tmp" }

func (s *store) limit() int64 {
	if s.Limit == 0 {
		return DefaultCacheLimit
	}
	return s.Limit
}

// evict removes the images that were not used for longest until the rest is
// within the limit, then what they leave behind. Another process may do the
// same at the same time: what is gone already is no error.
func (s *store) evict() {
	var images, keys []fs.FileInfo
	for _, e := range s.list() {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch name := info.Name(); {
		case strings.HasSuffix(name, ".image"):
			images = append(images, info)
		case strings.HasSuffix(name, ".key"):
			keys = append(keys, info)
		case strings.HasSuffix(name, ".tmp") && time.Since(info.ModTime()) > staleTemp:
			s.root.Remove(name)
		}
	}
	var total int64
	for _, info := range newestFirst(images) {
		if total += info.Size(); total > s.limit() {
			s.root.Remove(info.Name())
		}
	}
	for i, info := range newestFirst(keys) {
		if _, err := s.root.Stat(info.Name()); err != nil || i >= maxKeys {
			s.root.Remove(info.Name())
		}
	}
}

func newestFirst(files []fs.FileInfo) []fs.FileInfo {
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	return files
}
