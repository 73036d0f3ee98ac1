package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"vmm/kvm"
)

// HostError says why this host cannot run the machine, and what to do.
type HostError struct {
	Why string
	Do  string
	Err error // cause, or nil
}

func (e *HostError) Error() string {
	s := e.Why
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s + "; " + e.Do
}

func (e *HostError) Unwrap() error { return e.Err }

// required lists the KVM extensions that every machine needs. The kernel that
// introduced the newest of them is 4.13.
var required = []struct {
	cap  kvm.Cap
	name string
}{
	{kvm.CapUserMemory, "KVM_CAP_USER_MEMORY"},
	{kvm.CapIRQChip, "KVM_CAP_IRQCHIP"},
	{kvm.CapExtCPUID, "KVM_CAP_EXT_CPUID"},
	{kvm.CapSetTSSAddr, "KVM_CAP_SET_TSS_ADDR"},
	{kvm.CapSetIdentityMap, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
	{kvm.CapPIT2, "KVM_CAP_PIT2"},
	{kvm.CapIRQRouting, "KVM_CAP_IRQ_ROUTING"},
	{kvm.CapIRQFD, "KVM_CAP_IRQFD"},
	{kvm.CapIOEventFD, "KVM_CAP_IOEVENTFD"},
	{kvm.CapMPState, "KVM_CAP_MP_STATE"},
	{kvm.CapImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"},
}

// KVMDevice is where the kernel offers KVM.
const KVMDevice = kvm.Device

// OpenKVM opens the KVM device at path and checks that it has what a machine needs.
// Its errors are *HostError.
func OpenKVM(path string) (*kvm.System, error) {
	sys, err := kvm.Open(path)
	if err != nil {
		return nil, openError(path, err)
	}
	if missing := missingCaps(sys.Check); missing != "" {
		sys.Close()
		return nil, &HostError{path + ": KVM lacks " + missing, "use Linux 4.13 or later", nil}
	}
	return sys, nil
}

// openError says what to do about an error of kvm.Open.
func openError(path string, err error) *HostError {
	const load = "load the module kvm_intel or kvm_amd, or enable virtualization in the firmware; in a virtual machine or container, pass the device in"
	var version *kvm.VersionError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &HostError{path + " does not exist", load, nil}
	case errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO): // a node without its driver
		return &HostError{path + " has no driver", load, nil}
	case errors.Is(err, fs.ErrPermission):
		group := groupOf(path)
		return &HostError{"no permission to open " + path, "join the group " + group + " (sudo usermod -aG " + group + " $USER) and log in again", nil}
	case errors.As(err, &version):
		return &HostError{err.Error(), "this host's kernel is too old or not Linux's KVM: use Linux 4.13 or later", nil}
	case errors.Is(err, syscall.ENOTTY):
		return &HostError{path + " is not the KVM device", "see what made it (ls -l " + path + "), remove it and load the module kvm_intel or kvm_amd", nil}
	}
	return &HostError{err.Error(), "see the kernel's log (dmesg)", nil}
}

func missingCaps(check func(kvm.Cap) int) string {
	var missing []string
	for _, r := range required {
		if check(r.cap) == 0 {
			missing = append(missing, r.name)
		}
	}
	return strings.Join(missing, ", ")
}

// MaxVCPUs returns how many vCPUs a machine can have on this host.
func MaxVCPUs(sys *kvm.System) int { return maxVCPUs(sys.Check) }

func maxVCPUs(check func(kvm.Cap) int) int {
	n := check(kvm.CapMaxVCPUs)
	if n == 0 {
		n = max(check(kvm.CapNRVCPUs), 4) // api.rst, KVM_CREATE_VCPU
	}
	return min(n, MaxCPUs)
}

// cpuFlags are the words in /proc/cpuinfo for hardware virtualization: Intel's and
// AMD's.
var cpuFlags = []string{"vmx", "svm"}

// HardwareFlag returns "vmx" or "svm", whichever /proc/cpuinfo (or the file at path,
// in the same format) shows, or "" if the processor has neither. In that case KVM
// interprets the guest's kernel one instruction at a time, and no full kernel survives
// that.
func HardwareFlag(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		key, flags, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) != "flags" {
			continue
		}
		for _, want := range cpuFlags {
			for f := range strings.FieldsSeq(flags) {
				if f == want {
					return want, nil
				}
			}
		}
		break
	}
	return "", nil
}

// CPUInfo is where the kernel describes the processor.
const CPUInfo = "/proc/cpuinfo"

// InterpretedWarning is the warning to show when HardwareFlag finds none.
var InterpretedWarning = fmt.Sprintf("this host's processor shows neither %s nor %s: KVM interprets the guest's ring 0, and a full kernel will end in an internal error; use a host with hardware virtualization (in a virtual machine: nested virtualization)", cpuFlags[0], cpuFlags[1])
