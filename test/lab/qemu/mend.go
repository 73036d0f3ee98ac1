package qemu

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// repairs are for faults of QEMU up to 10, by the function that has them. The faults killed
// guests of guests, the more often the busier the host. Each repair is independent of the
// others.
var repairs = []struct {
	function string
	repair   func(code []byte) (changed bool, err error)
}{
	{"helper_vmrun", repairVMRUN},
	{"cpu_clear_ignne", repairIGNNE},
}

// errUnknown says that the code comes from another compiler or a later version.
var errUnknown = errors.New("its code is not the code that is known")

// mend repairs a QEMU in the cache. Code that is not known exactly stays as it is, and is
// reported by an errUnknown; the rest is repaired all the same.
func mend(path string) error {
	program, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var unknown []error
	any := false
	for _, r := range repairs {
		code, err := function(program, r.function)
		changed := false
		if err == nil {
			changed, err = r.repair(code)
		}
		switch {
		case errors.Is(err, errUnknown):
			unknown = append(unknown, fmt.Errorf("%s: %w", r.function, err))
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
		any = any || changed
	}
	if any {
		if err := replace(path, program); err != nil {
			return err
		}
	}
	return errors.Join(unknown...)
}

// function returns the code of a function that a program exports, as a part of program.
func function(program []byte, name string) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	symbols, err := f.DynamicSymbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	for _, s := range symbols {
		if s.Name != name {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && s.Value >= p.Vaddr && s.Value+s.Size <= p.Vaddr+p.Filesz && p.Off+p.Filesz <= uint64(len(program)) {
				from := p.Off + s.Value - p.Vaddr
				return program[from : from+s.Size], nil
			}
		}
	}
	return nil, errUnknown
}

// repairVMRUN repairs two faults of VMRUN (svm_helper.c) in place. It reports whether
// anything had to be changed.
//
//   - The number of an injected interrupt remains as a pending exception. If another
//     thread asks the processor to leave its loop before the next #VMEXIT, the guest
//     gets the interrupt twice. The second may come at the first instruction of its
//     handler, with the user's GS: a triple fault.
//   - A virtual interrupt is marked in interrupt_request without the lock that guards
//     it. A host interrupt that comes at that moment is lost: a stall.
func repairVMRUN(code []byte) (changed bool, err error) {
	// movl $2, exception_index(%rbx), for an NMI: it shows where the field is.
	nmi, err := only(code, []byte{0xc7, 0x83}, []byte{2, 0, 0, 0})
	if err != nil {
		return false, err
	}
	field := code[nmi+2 : nmi+6]
	// mov %esi, exception_index(%rbx): for an interrupt, which is delivered at once.
	store := append([]byte{0x89, 0xb3}, field...)
	// orl $0x100, interrupt_request(%rbx)
	or, errOr := only(code, []byte{0x81, 0x8b}, []byte{0, 1, 0, 0})
	mov := bytes.Index(code, store)
	if _, err := only(code, []byte{0xf0, 0x80, 0x8b}, []byte{1, 0x66, 0x90}); err == nil && mov < 0 {
		return false, nil
	}
	if errOr != nil || mov < 0 || bytes.Count(code, store) != 1 {
		return false, errUnknown
	}
	copy(code[mov:], []byte{0x66, 0x0f, 0x1f, 0x44, 0, 0}) // a no-op of the same length
	request := binary.LittleEndian.Uint32(code[or+2:])
	locked := binary.LittleEndian.AppendUint32([]byte{0xf0, 0x80, 0x8b}, request+1) // lock orb $1, its second byte
	copy(code[or:], append(locked, 1, 0x66, 0x90))
	return true, nil
}

// repairIGNNE repairs cpu_clear_ignne (fpu_helper.c) in place, which every XRSTOR, FXRSTOR
// and FLDENV calls. It clears a bit of the first processor's hflags2 from whichever thread
// it runs on, without a lock. A task switch on the second processor then stores old values
// of the neighbouring bits. VMRUN, #VMEXIT, STGI and CLGI use those bits to record whether
// nested paging is on and interrupts are enabled (NPT, GIF, VGIF, HIF). As a result the
// host's memory is looked up in the guest's nested tables: triple faults, endless page
// faults, and the death of L1.
func repairIGNNE(code []byte) (changed bool, err error) {
	// lock andb $0x7f, hflags2(%rax); xchg %ax, %ax: the last three bytes differ.
	if _, err := only(code, []byte{0xf0, 0x80, 0xa0}, []byte{0x7f, 0x66, 0x90}); err == nil {
		return false, nil
	}
	and, err := only(code, []byte{0x81, 0xa0}, []byte{0x7f, 0xff, 0xff, 0xff}) // andl $~0x80, hflags2(%rax)
	if err != nil {
		return false, err
	}
	locked := append([]byte{0xf0, 0x80, 0xa0}, code[and+2:and+6]...)
	copy(code[and:], append(locked, 0x7f, 0x66, 0x90))
	return true, nil
}

// only returns the position of an instruction with a displacement of four bytes between
// begin and end, if there is exactly one.
func only(code, begin, end []byte) (int, error) {
	found := -1
	for i := range code {
		rest, ok := bytes.CutPrefix(code[i:], begin)
		if !ok || len(rest) < 4 || !bytes.HasPrefix(rest[4:], end) {
			continue
		}
		if found >= 0 {
			return 0, errUnknown
		}
		found = i
	}
	if found < 0 {
		return 0, errUnknown
	}
	return found, nil
}

// replace replaces path by a new file, in one step.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "mended")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err := errors.Join(err, f.Chmod(0o755), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
