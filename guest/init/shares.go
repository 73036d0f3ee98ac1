package main

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A share is a directory of the host that this guest is asked to mount.
type share struct {
	tag, path string
	readOnly  bool
}

// parseShare reads the value of vmm.share: TAG:PATH, or TAG:PATH:ro. In PATH, %XX
// stands for a byte.
func parseShare(value string) (s share, err error) {
	words := strings.Split(value, ":")
	switch {
	case len(words) == 3 && words[2] == "ro":
		s.readOnly = true
	case len(words) != 2:
		return s, fmt.Errorf("vmm.share=%s: is no TAG:PATH or TAG:PATH:ro", value)
	}
	s.tag = words[0]
	if s.path, err = url.PathUnescape(words[1]); err != nil {
		return s, fmt.Errorf("vmm.share=%s: %w", value, err)
	}
	if s.tag == "" || !path.IsAbs(s.path) || path.Clean(s.path) == "/" {
		return s, fmt.Errorf("vmm.share=%s: needs a tag and a directory", value)
	}
	return s, nil
}

// mountShares mounts the shares in the options. The kernel requests the driver itself, if it
// is a module.
func (g *guest) mountShares() {
	for _, s := range g.options.shares {
		complain(s.path, s.mount())
	}
}

func (s *share) mount() error {
	if err := os.MkdirAll(s.path, 0o755); err != nil {
		return err
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if s.readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(s.tag, s.path, "virtiofs", flags, ""); err != nil {
		if err == unix.ENODEV {
			return fmt.Errorf("mount %s: %w: this kernel has no virtiofs", s.tag, err)
		}
		return fmt.Errorf("mount %s: %w", s.tag, err)
	}
	return readAhead(s.path)
}

// readAhead makes the kernel read ahead 1 MiB of a file that is read sequentially, instead of
// 128 KiB. 1 MiB is the most that one request can carry.
func readAhead(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return err
	}
	name := fmt.Sprintf("/sys/class/bdi/%d:%d/read_ahead_kb", unix.Major(st.Dev), unix.Minor(st.Dev))
	return os.WriteFile(name, []byte("1024"), 0)
}
