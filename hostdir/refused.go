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

// refused are file systems whose files are an interface to the host's kernel: reading
// or writing them queries or controls the kernel. Through /proc a guest would reach
// this process's memory. Mounts below a share are never shown.
var refused = []int64{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.BPF_FS_MAGIC, unix.SECURITYFS_MAGIC, unix.SELINUX_MAGIC, unix.SMACK_MAGIC, unix.AAFS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC,
	unix.DEVPTS_SUPER_MAGIC, unix.HUGETLBFS_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.RDTGROUP_SUPER_MAGIC, unix.XENFS_SUPER_MAGIC,
	unix.BINDERFS_SUPER_MAGIC, unix.AUTOFS_SUPER_MAGIC, unix.ANON_INODE_FS_MAGIC, unix.PIPEFS_MAGIC, unix.SOCKFS_MAGIC, unix.BDEVFS_MAGIC,
	unix.OPENPROM_SUPER_MAGIC, unix.USBDEVICE_SUPER_MAGIC, unix.DEVMEM_MAGIC, unix.DMA_BUF_MAGIC, unix.SECRETMEM_MAGIC, unix.PID_FS_MAGIC, unix.GUEST_MEMFD_MAGIC,
	// Those below are not named in <linux/magic.h>, but are in the kernel's sources.
	0x62656570, // configfs
	0x19800202, // mqueue
	0x65735543, // fusectl
	0x67596969, // rpc_pipefs
	0x6e667364, // nfsd
	0x0a647361, // functionfs
	0xaee71ee7, // gadgetfs
	0x6f70726f, // oprofilefs
}

// refuse returns an error if a directory cannot be shared, because its file system is
// refused, or it is a directory of devices: /dev is a tmpfs to statfs(2).
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

// ofDevices reports whether the root is in a devtmpfs, or contains devices, as a
// container's /dev does.
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
		return false, nil // it can be searched but not read
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
			return false, nil // usually its end
		}
	}
}

// mountID returns the ID of a descriptor's mount: proc(5), fdinfo.
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

// mountType returns the type of a mount from mountinfo, see proc(5), or "" if it is not
// listed.
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
