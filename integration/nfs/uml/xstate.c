/*
 * Loaded into linux.uml with LD_PRELOAD. User Mode Linux up to 6.1 keeps 2,696
 * bytes of a process's extended CPU state. On a processor with more (AMX: 11,008
 * bytes) the host refuses to set so short a state with EFAULT, and UML panics at
 * its first process. This completes the buffer to the size that the host wants,
 * with everything in its initial state that UML does not know.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
	NT_X86_XSTATE_NOTE = 0x202,
	HEADER = 512,        /* where the XSAVE header begins: which parts are not initial */
	KNOWN_PARTS = 0x2ff, /* x87, SSE, AVX, MPX, AVX-512, PKRU: what fits into UML's buffer */
};

void resumes(pid_t pid); /* clock.c */

static char whole[64 << 10] __attribute__((aligned(64)));

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(int, ...);
	static size_t wanted; /* by the host; 0: not asked yet */
	va_list args;

	va_start(args, request);
	pid_t pid = va_arg(args, pid_t);
	void *addr = va_arg(args, void *);
	void *data = va_arg(args, void *);
	va_end(args);

	switch ((int)request) {
	case PTRACE_CONT:
	case PTRACE_SYSCALL:
	case PTRACE_SINGLESTEP:
	case PTRACE_SYSEMU:
	case PTRACE_SYSEMU_SINGLESTEP:
		resumes(pid);
	}
	if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE_NOTE) {
		struct iovec *given = data;
		struct iovec full = {whole, sizeof whole};

		if (!wanted && syscall(SYS_ptrace, PTRACE_GETREGSET, pid, addr, &full) == 0)
			wanted = full.iov_len;
		if (wanted > given->iov_len && wanted <= sizeof whole) {
			uint64_t parts;

			memset(whole, 0, wanted);
			memcpy(whole, given->iov_base, given->iov_len);
			memcpy(&parts, whole + HEADER, sizeof parts);
			parts &= KNOWN_PARTS;
			memcpy(whole + HEADER, &parts, sizeof parts);
			full.iov_len = wanted;
			return syscall(SYS_ptrace, request, pid, addr, &full);
		}
	}
	if (!next)
		next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
	return next(request, pid, addr, data);
}
