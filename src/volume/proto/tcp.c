/* SPDX-License-Identifier: Apache-2.0 */
/* tcp: which congestion control the connections between clients and bricks, and between bricks, have.
 *
 * BBR paces: the kernel sends each burst from a timer, and keeps little more than two round trips' worth of bytes on the way. Over a distance that is what one wants; between
 * processes of one machine or one rack it costs timers and waiting, a sixth of the CPU time of large writes (docs/decisions). So where the machine's default is BBR, connections
 * begin without it, and get it when their handshake shows that the other side is far. Not the other way round: a socket that was paced once stays paced. Other
 * defaults are left alone.
 *
 * Errors change nothing: the connection works with what it has. Any thread. */
#include "volume/proto.h"

#include <pthread.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#define FAR_US	1000 /* round trip */
#define CC_NAME 16   /* TCP_CA_NAME_MAX of the kernel */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char far[CC_NAME]; /* the default, if it paces; else empty */

static void find_default(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char name[CC_NAME] = "";
	socklen_t len = sizeof(name) - 1;

	if (fd < 0)
		return;
	if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0 && strncmp(name, "bbr", 3) == 0)
		memcpy(far, name, sizeof(far));
	close(fd);
}

void proto_tcp_new(int fd)
{
	(void)pthread_once(&once, find_default);
	/* cubic, where this process may choose it; everybody may choose reno */
	if (far[0] && setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, "reno", 4);
}

void proto_tcp_connected(int fd)
{
	struct tcp_info t;
	socklen_t len = sizeof(t);

	if (far[0] && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &t, &len) == 0 && t.tcpi_rtt >= FAR_US)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, far, (socklen_t)strlen(far));
}
