/* SPDX-License-Identifier: Apache-2.0 */
/* awake: see awake.h. A processor with nothing to do halts. In a virtual machine that is an exit to the host, and waking it an interrupt that the host delivers: some 20 us,
 * and an exit of the processor that wakes it. On hardware deep states take as long or longer. An operation on a volume is a chain of eight or more wake-ups.
 *
 * The kernel's PM QoS says how long waking up may take: what is written to /dev/cpu_dma_latency holds for the machine while the file is open, the smallest value of all
 * holders counts (Documentation/power/pm_qos_interface). 0: idle processors poll. That is what helps under the haltpoll driver, which has no state between polling and
 * halting; elsewhere 10 us allow the light states of hardware. Without a cpuidle driver nothing changes.
 * Price: idle processors of the whole machine take power (a virtual machine: its host's time) while it is held, which therefore follows the work. The process's end, however it
 * comes, ends it. One owner, any thread. */
#include "base/awake.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "base/util.h"

#define DEVICE	    "/dev/cpu_dma_latency"
#define DRIVER	    "/sys/devices/system/cpu/cpuidle/current_driver"
#define LIMIT_US    10
#define NO_LIMIT    (-1) /* PM_QOS_DEFAULT_VALUE */
#define BEGIN_PER_S 1500 /* far beyond what waits for other cities, whose chains are not made of wake-ups */
#define END_PER_S   500
#define KEEP_MS	    100

static bool driver_is(const char *name)
{
	_cleanup_free_ char *text = NULL;
	size_t len;

	return file_read(DRIVER, 64, &text, &len, NULL) == 0 && str_starts(text, name);
}

void awake_open(struct awake *a)
{
	*a = AWAKE_OFF;
	a->fd = open(DEVICE, O_WRONLY | O_CLOEXEC);
	if (a->fd < 0)
		log_info("processors are not kept awake: %s: %s", DEVICE, strerror(errno));
	a->limit = driver_is("haltpoll") ? 0 : LIMIT_US;
}

bool awake_step(struct awake *a, uint64_t events, uint64_t now_ms)
{
	uint64_t n = events - a->events, ms = now_ms - a->at_ms;
	bool first = !a->begun;

	a->begun = true;
	a->events = events;
	a->at_ms = now_ms;
	if (first)
		return false;
	if (n * 1000 >= ms * (a->held ? END_PER_S : BEGIN_PER_S) && n > 0) {
		a->busy_ms = now_ms;
		return true;
	}
	return a->held && now_ms - a->busy_ms < KEEP_MS;
}

void awake_look(struct awake *a, uint64_t events, uint64_t now_ms)
{
	bool hold = a->fd >= 0 && awake_step(a, events, now_ms);
	int32_t value = hold ? a->limit : NO_LIMIT;

	if (a->fd < 0 || hold == a->held)
		return;
	if (write(a->fd, &value, sizeof(value)) != sizeof(value)) {
		log_warn("processors are not kept awake any more: %s: %s", DEVICE, strerror(errno));
		awake_close(a);
		return;
	}
	a->held = hold;
}

void awake_close(struct awake *a)
{
	if (a->fd >= 0)
		close(a->fd);
	*a = AWAKE_OFF;
}
