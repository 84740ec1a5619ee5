/* SPDX-License-Identifier: Apache-2.0 */
/* Spawner and monitors: the processes that stand between the agent and its containers. See monitor.c and docs/node.md. */
#pragma once

#include "base/base.h"

/* What a monitor is told, as JSON in DIR/monitor.json; see monitor_main() for what it leaves behind in DIR:
 * "pid"   {"pid","start","monitor","monitor_start","started_us"}     the container runs
 * "exit"  {"code","signal","oom","fenced","finished_us"}             it has ended, last file written
 * "fail"  text                                                       it could not be started, last file written */

/* Forks the spawner: a small process that forks monitors on request, so that a start costs a fork and not an exec of this big
 * program. To be called before any thread, loop or library is set up. Returns its socket or -errno; the spawner ends
 * when that socket is closed. argv: the process's own, to be renamed in `ps`. */
int spawner_start(int argc, char **argv);
/* Asks for a monitor on a container directory (absolute). 0 or -errno. */
int spawner_run(int fd, const char *dir);

/* Start time of a process in clock ticks since boot (field 22 of /proc/PID/stat): with the pid, an identity that is not
 * reused. 0 = no such process. */
uint64_t proc_start_time(int pid);
/* true when pid lives and is the process that started then, and is no zombie. */
bool proc_alive(int pid, uint64_t start);

/* Is there a monitor on this container directory? After a power cut there is none, and maybe none of its files either. */
bool monitor_lives(const char *dir);

/* The body of a monitor; returns its exit status. */
int monitor_main(const char *dir);
