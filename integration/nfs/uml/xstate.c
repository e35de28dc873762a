/*
 * Loaded into linux.uml with LD_PRELOAD: what a process of the guest has in its
 * extended CPU state.
 *
 * User Mode Linux up to 6.1 keeps 2,696 bytes of it. On a processor with more (AMX:
 * 11,008 bytes) the host refuses to set so short a state with EFAULT, and UML panics
 * at its first process. This completes the buffer to the size that the host wants,
 * with everything in its initial state that UML does not know.
 *
 * UML sets it each time that a process goes on, which costs the host more than all
 * else about that. What the process has anyway is not set again.
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

/* What UML was told last that a process has, while that is true. */
static struct {
	pid_t pid; /* 0: nothing is known */
	size_t size;
	char state[sizeof whole];
} has;

static long get_state(pid_t pid, void *note, struct iovec *to)
{
	long failed = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, note, to);

	has.pid = 0;
	if (!failed) {
		memcpy(has.state, to->iov_base, to->iov_len);
		has.size = to->iov_len;
		has.pid = pid;
	}
	return failed;
}

static long set_state(pid_t pid, void *note, struct iovec *given)
{
	static size_t wanted; /* by the host; 0: not asked yet */
	struct iovec full = {whole, sizeof whole};
	uint64_t parts;

	if (has.pid == pid && has.size == given->iov_len && !memcmp(has.state, given->iov_base, has.size))
		return 0;
	has.pid = 0;
	if (!wanted && syscall(SYS_ptrace, PTRACE_GETREGSET, pid, note, &full) == 0)
		wanted = full.iov_len;
	if (wanted <= given->iov_len || wanted > sizeof whole)
		return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, note, given);
	memset(whole, 0, wanted);
	memcpy(whole, given->iov_base, given->iov_len);
	memcpy(&parts, whole + HEADER, sizeof parts);
	parts &= KNOWN_PARTS;
	memcpy(whole + HEADER, &parts, sizeof parts);
	full.iov_len = wanted;
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, note, &full);
}

void resumes(pid_t pid); /* clock.c */

long ptrace(enum __ptrace_request request, ...)
{
	static long (*next)(int, ...);
	va_list args;

	va_start(args, request);
	pid_t pid = va_arg(args, pid_t);
	void *addr = va_arg(args, void *);
	void *data = va_arg(args, void *);
	va_end(args);

	switch ((int)request) {
	case PTRACE_GETREGSET:
		if ((long)addr == NT_X86_XSTATE_NOTE)
			return get_state(pid, addr, data);
		break;
	case PTRACE_SETREGSET:
		if ((long)addr == NT_X86_XSTATE_NOTE)
			return set_state(pid, addr, data);
		break;
	case PTRACE_CONT:
	case PTRACE_SYSCALL:
	case PTRACE_SINGLESTEP:
	case PTRACE_SYSEMU:
	case PTRACE_SYSEMU_SINGLESTEP:
		has.pid = 0;
		resumes(pid);
	}
	if (!next)
		next = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
	return next(request, pid, addr, data);
}
