/*
 * pio: the time of an exit to a port and back, with nothing but KVM: what a
 * hypervisor cannot be faster than.
 *
 *	pio IMAGE COUNT
 *
 * IMAGE is the guest that the harness measures its own loop with: memory from
 * address 0 on, then struct kvm_regs, then struct kvm_sregs. It writes to port
 * 0x80 for ever. Printed is one number: nanoseconds for each of COUNT exits.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 0x80, WARM_UP = 1000, CPUID_ENTRIES = 256 };

static int must(int result, const char *what)
{
	if (result < 0)
		err(1, "%s", what);
	return result;
}

static void read_whole(int fd, void *to, size_t size)
{
	while (size > 0) {
		ssize_t n = read(fd, to, size);
		if (n <= 0)
			errx(1, "the image is too short");
		to = (char *)to + n;
		size -= n;
	}
}

/* The same machine as the harness's: interrupt controllers and timer in the kernel. */
static int new_vm(int kvm)
{
	uint64_t identity_map = 0xfffbc000;
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int vm = must(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");

	must(ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map), "KVM_SET_IDENTITY_MAP_ADDR");
	must(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000ul), "KVM_SET_TSS_ADDR");
	must(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	must(ioctl(vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	return vm;
}

/* Gives the guest its memory from the image, and leaves fd at the registers. */
static void load_memory(int vm, int fd)
{
	struct stat st;
	must(fstat(fd, &st), "image");
	size_t size = st.st_size - sizeof(struct kvm_regs) - sizeof(struct kvm_sregs);
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED)
		err(1, "mmap");
	read_whole(fd, memory, size);
	struct kvm_userspace_memory_region region = { .memory_size = size, .userspace_addr = (uintptr_t)memory };
	must(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
}

static int new_vcpu(int kvm, int vm, int fd)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + CPUID_ENTRIES * sizeof cpuid->entries[0]);
	if (!cpuid)
		err(1, "calloc");
	int vcpu = must(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");

	cpuid->nent = CPUID_ENTRIES;
	must(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
	free(cpuid);
	read_whole(fd, &regs, sizeof regs);
	read_whole(fd, &sregs, sizeof sregs);
	must(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	must(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	return vcpu;
}

/* Stores the byte where the compiler cannot know that nobody looks. */
static volatile uint8_t device;

static void exits(int vcpu, struct kvm_run *run, long count)
{
	for (long i = 0; i < count; i++) {
		while (ioctl(vcpu, KVM_RUN, 0) < 0)
			if (errno != EINTR && errno != EAGAIN)
				err(1, "KVM_RUN");
		if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT)
			errx(1, "exit %u instead of an access to port %#x", run->exit_reason, PORT);
		device = *((uint8_t *)run + run->io.data_offset);
	}
}

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(int argc, char **argv)
{
	long count = argc == 3 ? atol(argv[2]) : 0;
	if (count < 1)
		errx(2, "usage: pio IMAGE COUNT");
	int image = must(open(argv[1], O_RDONLY | O_CLOEXEC), argv[1]);
	int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	int vm = new_vm(kvm);
	load_memory(vm, image);
	int vcpu = new_vcpu(kvm, vm, image);
	int size = must(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	struct kvm_run *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(1, "mmap kvm_run");

	exits(vcpu, run, WARM_UP);
	int64_t began = now();
	exits(vcpu, run, count);
	printf("%.3f\n", (double)(now() - began) / count);
	return 0;
}
