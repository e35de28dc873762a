/*
 * Loaded into linux.uml with LD_PRELOAD, like xstate.c: the guest's clock.
 *
 * While the guest has nothing to do its clock skips forward to its next timer:
 * nobody waits for what only time would bring. All that a guest ever waits for is
 * in it (its files on the host are read and written while it stands still), so
 * nothing happens earlier or in another order than it would have.
 *
 * While it works its clock counts the processor time that it has had, `slower` times
 * as slow: to what is in it, the guest is a machine of its own, whatever else the
 * host is busy with. A heartbeat that is missed here is missed for a reason.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* GATESYNC_NFS_SLOWER=1 makes the guest a machine half as fast as it is in CI: a test
 * that is late there is one that would be late on a slow machine. */
static int64_t slower = 2;

#define SECOND 1000000000LL
#define RAN_MOST SECOND /* between two looks; more is a mistake */

/* How much processor time the guest has had at the last look, and its clock, in
 * 1/slower nanoseconds. They change in one instruction: whoever looks may be
 * interrupted by a signal whose handler looks, too. */
union clocks {
	struct {
		uint64_t had, guest;
	};
	unsigned __int128 both;
};

static union clocks clocks __attribute__((aligned(16)));

/* The kernel is this process; what runs in it are others, one at a time. */
static pid_t running;
static uint64_t running_had, others_had;

static timer_t alarm_timer;
static int have_timer;

static uint64_t read_clock(clockid_t id)
{
	struct timespec ts;

	if (syscall(SYS_clock_gettime, id, &ts))
		return 0;
	return ts.tv_sec * SECOND + ts.tv_nsec;
}

static uint64_t time_of(pid_t pid)
{
	return read_clock((clockid_t)(~(unsigned)pid << 3 | 2)); /* CPUCLOCK_SCHED, see clock_getcpuclockid(3) */
}

/* had is the processor time of all of the guest. */
static uint64_t had(void)
{
	if (running) {
		uint64_t now = time_of(running);

		if (now > running_had)
			others_had += now - running_had;
		if (now)
			running_had = now;
	}
	return others_had + read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

/* resumes is told which process goes on, before it does. */
void resumes(pid_t pid)
{
	if (pid == running)
		return;
	had();
	running_had = time_of(pid);
	running = pid;
}

/* guest_now looks at the clock, after skipping that much. */
static uint64_t guest_now(uint64_t skip)
{
	union clocks was, is;

	do {
		was.both = __sync_val_compare_and_swap(&clocks.both, 0, 0);
		is.had = had();
		if (!was.both) {
			is.guest = read_clock(CLOCK_MONOTONIC) * slower;
		} else {
			int64_t ran = is.had - was.had;

			if (ran < 0)
				ran = 0;
			if (ran > RAN_MOST)
				ran = RAN_MOST;
			is.guest = was.guest + ran + skip;
		}
	} while (!__sync_bool_compare_and_swap(&clocks.both, was.both, is.both));
	return is.guest / slower;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	uint64_t now;

	if (id != CLOCK_MONOTONIC)
		return syscall(SYS_clock_gettime, id, ts);
	now = guest_now(0);
	ts->tv_sec = now / SECOND;
	ts->tv_nsec = now % SECOND;
	return 0;
}

static struct timespec scaled(struct timespec ts, int up)
{
	int64_t ns = ts.tv_sec * SECOND + ts.tv_nsec;
	int64_t to = up ? ns * slower : ns / slower;

	if (ns && !to)
		to = 1; /* 0 would be: not set */
	return (struct timespec){to / SECOND, to % SECOND};
}

static int (*next_settime)(timer_t, int, const struct itimerspec *, struct itimerspec *);
static int (*next_gettime)(timer_t, struct itimerspec *);
static int (*next_suspend)(const sigset_t *);

__attribute__((constructor)) static void find(void)
{
	const char *set = getenv("GATESYNC_NFS_SLOWER");

	if (set && atoi(set) > 0)
		slower = atoi(set);
	next_settime = dlsym(RTLD_NEXT, "timer_settime");
	next_gettime = dlsym(RTLD_NEXT, "timer_gettime");
	next_suspend = dlsym(RTLD_NEXT, "sigsuspend");
}

/* UML has one timer, and sets it to go off after a time. */
int timer_settime(timer_t t, int flags, const struct itimerspec *its, struct itimerspec *old)
{
	struct itimerspec host = {scaled(its->it_interval, 1), scaled(its->it_value, 1)};

	alarm_timer = t;
	have_timer = 1;
	return next_settime(t, flags, &host, old);
}

int timer_gettime(timer_t t, struct itimerspec *its)
{
	int rc = next_gettime(t, its);

	its->it_interval = scaled(its->it_interval, 0);
	its->it_value = scaled(its->it_value, 0);
	return rc;
}

/* UML calls this where the guest is idle, for its timer to go off. */
int sigsuspend(const sigset_t *mask)
{
	struct itimerspec its;

	if (have_timer && next_gettime(alarm_timer, &its) == 0) {
		int64_t left = its.it_value.tv_sec * SECOND + its.it_value.tv_nsec;

		if (left > 1) {
			its = (struct itimerspec){.it_value = {0, 1}};
			guest_now(left);
			next_settime(alarm_timer, 0, &its, 0);
		}
	}
	return next_suspend(mask);
}
