package roster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir returns the default runtime directory. VMM_RUNTIME_DIR names it. If the user has
// chosen an XDG_RUNTIME_DIR, it is vmm in there. Otherwise it is the user's own
// directory, the same for a login, cron, a service, sudo and su, although those have
// the user's XDG_RUNTIME_DIR, none, or another user's.
func Dir() string { return place(os.Getenv, "/run", "/tmp", os.Geteuid()) }

// place is Dir for a host with the directories run and temp.
func place(getenv func(string) string, run, temp string, uid int) string {
	if dir := getenv("VMM_RUNTIME_DIR"); dir != "" {
		return dir
	}
	logins := filepath.Join(run, "user")
	login := filepath.Join(logins, fmt.Sprint(uid)) // made by the first login, removed after the last
	if dir := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) && filepath.Clean(dir) != login && chosen(dir, logins, uid) {
		return filepath.Join(dir, "vmm")
	}
	first, last := filepath.Join(login, "vmm"), filepath.Join(temp, fmt.Sprintf("vmm-%d", uid))
	if uid == 0 {
		last = filepath.Join(run, "vmm")
	}
	// Guests that were started before the first login stay in last. New guests join them
	// until those have gone.
	if owner(login) != uid || !hasGuests(first, uid) && hasGuests(last, uid) {
		return last
	}
	return first
}

// chosen reports whether an XDG_RUNTIME_DIR is the user's own choice: neither another
// user's directory nor one that another user's login had.
func chosen(dir, logins string, uid int) bool {
	if o := owner(dir); o >= 0 {
		return o == uid
	}
	return !strings.HasPrefix(filepath.Clean(dir), logins+"/")
}

// owner returns the owner of a directory, or a negative number if it does not exist.
func owner(dir string) int {
	var s unix.Stat_t
	if unix.Lstat(dir, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1
	}
	return int(s.Uid)
}

// hasGuests reports whether a directory has guests' folders and can be trusted.
func hasGuests(dir string, uid int) bool {
	if owner(dir) != uid {
		return false
	}
	r, err := Open(dir)
	if err != nil {
		return false
	}
	defer r.Close()
	all, err := r.List()
	return err == nil && len(all) > 0
}
