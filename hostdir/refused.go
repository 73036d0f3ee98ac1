package hostdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// refused are file systems of which a file is the host's kernel, or a door to it:
// to read or write there is to ask or command it. Through /proc a guest would
// reach this process's memory. What is mounted below a share is never shown.
var refused = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.AAFS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
	unix.DEVPTS_SUPER_MAGIC, unix.HUGETLBFS_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.XENFS_SUPER_MAGIC,
	unix.BINDERFS_SUPER_MAGIC, unix.AUTOFS_SUPER_MAGIC, unix.ANON_INODE_FS_MAGIC, unix.PIPEFS_MAGIC, unix.SOCKFS_MAGIC, unix.BDEVFS_MAGIC,
	unix.OPENPROM_SUPER_MAGIC, unix.USBDEVICE_SUPER_MAGIC, unix.DEVMEM_MAGIC, unix.DMA_BUF_MAGIC, unix.SECRETMEM_MAGIC, unix.PID_FS_MAGIC, unix.GUEST_MEMFD_MAGIC,
	// Those below have no name in <linux/magic.h>, but in the kernel's sources.
	0x62656570, // configfs
	0x19800202, // mqueue
	0x65735543, // fusectl
	0x67596969, // rpc_pipefs
	0x6e667364, // nfsd
	0x0a647361, // functionfs
	0xaee71ee7, // gadgetfs
	0x6f70726f, // oprofilefs
}

// refuse says why a directory cannot be shared, if its file system is none of
// files, or it is a directory of devices: /dev is a tmpfs to statfs(2).
func (d *Dir) refuse(fs *unix.Statfs_t) error {
	switch {
	case slices.Contains(refused, fs.Type):
	case fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC:
		return nil
	default:
		if device, err := d.ofDevices(); err != nil || !device {
			return err
		}
	}
	return errors.New("shows the host's kernel and not files; share a directory of a disk")
}

// ofDevices says whether the root is of a devtmpfs, or has devices in it as a
// container's /dev has.
func (d *Dir) ofDevices() (bool, error) {
	id, err := mountID(d.root)
	if err != nil {
		return false, err
	}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil && mountType(b, id) == "devtmpfs" {
		return true, nil
	}
	fd, err := d.reopen(d.root, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false, nil // it can be searched and not read
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	for {
		some, err := f.ReadDir(1000)
		for _, e := range some {
			if e.Type()&os.ModeDevice != 0 {
				return true, nil
			}
		}
		if err != nil {
			return false, nil // its end
		}
	}
}

// mountID is the number of the mount that a descriptor is of: proc(5), fdinfo.
func mountID(fd int) (int, error) {
	b, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(b) {
		if text, ok := bytes.CutPrefix(line, []byte("mnt_id:")); ok {
			return strconv.Atoi(string(bytes.TrimSpace(text)))
		}
	}
	return 0, fmt.Errorf("/proc/self/fdinfo does not tell what is mounted where: %w", unix.ENOSYS)
}

// mountType is the type of a mount by mountinfo, see proc(5), "" if it is not there.
func mountType(mountinfo []byte, id int) string {
	for line := range strings.Lines(string(mountinfo)) {
		words, rest, _ := strings.Cut(line, " - ")
		if first, _, _ := strings.Cut(words, " "); first == strconv.Itoa(id) {
			name, _, _ := strings.Cut(rest, " ")
			return name
		}
	}
	return ""
}
