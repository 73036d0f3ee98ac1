package roster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir returns the runtime directory that is used unless told otherwise.
// VMM_RUNTIME_DIR names it; and so does XDG_RUNTIME_DIR, if somebody has chosen
// that: then it is vmm in there. Else it is the user's, whoever asks: a login,
// cron, a service, sudo or su, which have the user's XDG_RUNTIME_DIR, none, or
// that of somebody else.
func Dir() string { return place(os.Getenv, "/run", "/tmp", os.Geteuid()) }

// place is Dir of a host whose directories run and temp are.
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
	// Guests that were there before the first login stay the user's, and have
	// company, until they have gone.
	if owner(login) != uid || !hasGuests(first, uid) && hasGuests(last, uid) {
		return last
	}
	return first
}

// chosen reports whether an XDG_RUNTIME_DIR is the user's own choice: not a
// directory of somebody else, nor what another's login has had.
func chosen(dir, logins string, uid int) bool {
	if o := owner(dir); o >= 0 {
		return o == uid
	}
	return !strings.HasPrefix(filepath.Clean(dir), logins+"/")
}

// owner is the owner of a directory, negative if there is none.
func owner(dir string) int {
	var s unix.Stat_t
	if unix.Lstat(dir, &s) != nil || s.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1
	}
	return int(s.Uid)
}

// hasGuests reports whether a directory has folders of guests, and is to be
// trusted.
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
