package hostfile

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A Place is the way of a path when it was resolved: the directories that decide where
// the path leads.
type Place struct {
	// Each directory in which a name of the path was looked up, and all directories above
	// them.
	above map[inode]bool
	// The looked-up directories again, so that one that is mounted twice is found in both.
	spots []spot
	// What the path leads to, if that is a directory.
	dir *inode
	at  []spot
}

type inode struct{ dev, ino uint64 }

// maxDepth bounds the way from a directory to the root.
const maxDepth = 4096

// place makes a Place from the walk. dirs are the directories whose names count.
func (w *walk) place(mounts mounts, dirs ...int) *Place {
	p := &Place{above: map[inode]bool{}}
	for _, fd := range dirs {
		p.climb(fd)
		p.spots = append(p.spots, mounts.spot(fd)...)
	}
	var st unix.Stat_t
	if w.file >= 0 && fstat(w.file, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		p.dir, p.at = &inode{st.Dev, st.Ino}, mounts.spot(w.file)
	}
	return p
}

// climb records a directory and all directories above it. If a directory above may not
// be searched, its spot is still known.
func (p *Place) climb(fd int) {
	at, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	for range maxDepth {
		var st unix.Stat_t
		if err != nil || fstat(at, &st) != nil {
			break
		}
		id := inode{st.Dev, st.Ino}
		if p.above[id] {
			break // the root, or a directory that was recorded before
		}
		p.above[id] = true
		next, e := openat(at, "..", unix.O_PATH|unix.O_DIRECTORY, 0)
		unix.Close(at)
		at, err = next, e
	}
	if err == nil {
		unix.Close(at)
	}
}

// Through reports whether write access to the directory d and everything below it is
// enough to change where p leads.
func (p *Place) Through(d *Place) bool {
	if d.dir == nil {
		return false
	}
	if p.above[*d.dir] {
		return true
	}
	for _, s := range p.spots {
		for _, dir := range d.at {
			if s.in(dir) {
				return true
			}
		}
	}
	return false
}

// A spot is a directory's position in its file system, wherever that is mounted.
type spot struct{ fs, path string }

// in reports whether s is the directory d or below it.
func (s spot) in(d spot) bool {
	return s.fs == d.fs && (s.path == d.path || d.path == "/" || strings.HasPrefix(s.path, d.path+"/"))
}

// mounts is the content of /proc/self/mountinfo (proc_pid_mountinfo(5)), by mount id.
type mounts map[string]mount

type mount struct {
	spot         // the part of the file system that is mounted
	point string // where it is mounted
}

func readMounts() mounts {
	b, _ := os.ReadFile("/proc/self/mountinfo") // without it there are no spots
	return parseMounts(string(b))
}

func parseMounts(text string) mounts {
	all := mounts{}
	for line := range strings.Lines(text) {
		// 36 35 98:0 /root /point options ...
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		all[f[0]] = mount{spot{f[2], unescape(f[3])}, unescape(f[4])}
	}
	return all
}

// unescape undoes escapes such as \040 for a space.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// spot returns the position of a directory, or nothing if it cannot be known.
func (m mounts) spot(fd int) []spot {
	name, err := os.Readlink(Name(fd))
	info, err2 := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil || err2 != nil {
		return nil
	}
	for line := range strings.Lines(string(info)) {
		id, ok := strings.CutPrefix(line, "mnt_id:")
		if !ok {
			continue
		}
		at, ok := m[strings.TrimSpace(id)]
		rest, err := filepath.Rel(at.point, name)
		if !ok || err != nil || rest == ".." || strings.HasPrefix(rest, "../") {
			return nil
		}
		return []spot{{at.fs, filepath.Join(at.path, rest)}}
	}
	return nil
}
