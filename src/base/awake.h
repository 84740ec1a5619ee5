/* SPDX-License-Identifier: Apache-2.0 */
/* awake: keeps the processors of this machine from halting while there is work, for programs whose operations are chains of short wake-ups. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct awake {
	int fd;	       /* of /dev/cpu_dma_latency; -1 = nothing is done */
	int32_t limit; /* us that a processor may take to wake up while it is held */
	bool begun, held;
	uint64_t events, at_ms; /* at the newest look */
	uint64_t busy_ms;	/* the newest look that found work */
};

/* Switched off. */
#define AWAKE_OFF ((struct awake){.fd = -1})

/* Opens the kernel's PM QoS device (root). Holds nothing yet. Without the right it stays off, which is logged. */
void awake_open(struct awake *a);
/* How many events (operations, requests) there were so far. Call every 10 to 100 ms. Begins to hold at 1,500 a second; ends when there have been fewer than 500
 * a second for 100 ms. */
void awake_look(struct awake *a, uint64_t events, uint64_t now_ms);
/* The decision alone: is it to be held from now on? */
bool awake_step(struct awake *a, uint64_t events, uint64_t now_ms);
void awake_close(struct awake *a);
