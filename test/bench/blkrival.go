package main

// blkRivals returns all ways to serve a disk that are compared. QEMU's defaults are
// slower than these: an I/O thread keeps the disk out of QEMU's big lock.
func blkRivals() []rival {
	return []rival{
		{"vmm", "virtio-blk over PCI", vmmDisk("pci")},
		{"vmm mmio", "virtio-blk over MMIO", vmmDisk("mmio")},
		{"qemu-q35 threads", "virtio-blk-pci, I/O thread, aio=threads", qemuDisk("q35", "virtio-blk-pci", "threads")},
		{"qemu-q35 io_uring", "virtio-blk-pci, I/O thread, aio=io_uring", qemuDisk("q35", "virtio-blk-pci", "io_uring")},
		{"qemu-microvm threads", "virtio-blk-device, I/O thread, aio=threads", qemuDisk("microvm,acpi=on", "virtio-blk-device", "threads")},
		{"qemu-microvm io_uring", "virtio-blk-device, I/O thread, aio=io_uring", qemuDisk("microvm,acpi=on", "virtio-blk-device", "io_uring")},
		{"gokvm", "legacy virtio-blk over PCI, one request at a time, fsync after each; 64 MiB more, or the initrd, which it puts at 240 MiB, is cut off", gokvmDisk},
	}
}

func vmmDisk(transport string) func(files, int) ([]string, error) {
	return func(f files, mib int) ([]string, error) {
		return vmm("direct", files.warm, "--transport", transport, "--disk", f.disk())(f, mib)
	}
}

// qemuDisk makes QEMU use the host's page cache, as vmm does: cache=writeback.
func qemuDisk(machine, device, aio string) func(files, int) ([]string, error) {
	return func(f files, mib int) ([]string, error) {
		// debug-threads names the threads; workerTime uses the names.
		return qemuMachine(machine, "-name", "guest,debug-threads=on", "-object", "iothread,id=io", "-global", "virtio-mmio.force-legacy=off",
			"-drive", "if=none,id=disk,format=raw,cache=writeback,aio="+aio+",file="+f.disk(),
			"-device", device+",drive=disk,iothread=io")(f, mib)
	}
}

func gokvmDisk(f files, mib int) ([]string, error) {
	argv, err := gokvm(f, mib+64)
	return append(argv, "--disk", f.disk()), err
}
