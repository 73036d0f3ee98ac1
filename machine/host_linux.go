package machine

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// groupOf returns the name of the group that owns path, "kvm" if unknown.
func groupOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "kvm"
	}
	gid := strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
	if g, err := user.LookupGroupId(gid); err == nil && g.Name != "root" {
		return g.Name
	}
	return "kvm"
}
