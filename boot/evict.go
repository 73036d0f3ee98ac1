package boot

import (
	"cmp"
	"crypto/rand"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"syscall"
	"time"
)

func tempName() string { return rand.Text() + ".tmp" }

// The names of a Cache's files. Nothing else is removed from the directory, in which
// the user may have other files.
var (
	imageNames = regexp.MustCompile(`^[0-9a-f]{64}-[0-9]+\.image$`)
	keyNames   = regexp.MustCompile(`^[0-9a-f]+(-[0-9a-f]+){4}\.key$`)
	tempNames  = regexp.MustCompile(`^[A-Z2-7]{26}\.tmp$`)
)

// remove removes a file if names matches it and it is the cache's: a regular file or a
// symbolic link of this user, with no other hard link.
func (s *store) remove(info fs.FileInfo, names *regexp.Regexp) {
	st := info.Sys().(*syscall.Stat_t)
	file := info.Mode().Type()&^fs.ModeSymlink == 0 && st.Nlink == 1 && int(st.Uid) == os.Geteuid()
	if file && names.MatchString(info.Name()) {
		s.root.Remove(info.Name())
	}
}

func (s *store) limit() int64 {
	if s.Limit == 0 {
		return DefaultCacheLimit
	}
	return s.Limit
}

// evict removes the least recently used images until the rest is within the limit,
// then their leftovers. Another process may do the same at the same time: a file that
// is already gone is not an error.
func (s *store) evict() {
	var images, keys []fs.FileInfo
	for _, e := range s.list() {
		info, err := e.Info()
		if err != nil {
			continue
		}
		switch name := info.Name(); {
		case imageNames.MatchString(name) && info.Mode().IsRegular():
			images = append(images, info)
		case keyNames.MatchString(name) && info.Mode().Type() == fs.ModeSymlink:
			keys = append(keys, info)
		case time.Since(info.ModTime()) > staleTemp:
			s.remove(info, tempNames)
		}
	}
	var total int64
	for _, info := range newestFirst(images) {
		if total += info.Size(); total > s.limit() {
			s.remove(info, imageNames)
		}
	}
	for i, info := range newestFirst(keys) {
		if _, err := s.root.Stat(info.Name()); err != nil || i >= maxKeys {
			s.remove(info, keyNames)
		}
	}
}

func newestFirst(files []fs.FileInfo) []fs.FileInfo {
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return cmp.Compare(b.ModTime().UnixNano(), a.ModTime().UnixNano()) })
	return files
}
