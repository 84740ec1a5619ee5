/* SPDX-License-Identifier: Apache-2.0 */
/* Control lines of the lab's wire: any text; then a frame is sent over each link, so that what was set is used. */
#include "base/base.h"
#include "lab/wire_control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_links(struct wire_net *net)
{
	struct frame *f = frame_new("x", 1);
	uint64_t last = 0, due;
	int port;

	for (int i = 0; i < net->n_sites; i++)
		for (int j = 0; j < net->n_sites; j++)
			wire_send(net, i, j, j, f, 1000, 0x123456789abcdefull);
	while ((due = wire_due_us(net))) {
		struct frame *g = wire_next(net, due, &port);
		ensure(g == f && due >= last && due <= 1000 + 2 * WIRE_DELAY_MAX_US);
		last = due;
		frame_unref(g);
	}
	frame_unref(f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, MIN(size, (size_t)4096));
	struct wire_net *net = xcalloc(1, sizeof *net);
	char *words[WIRE_WORDS_MAX];

	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct err e = {.code = 0};
		int n = wire_words(line, words);
		if (n >= 0 && wire_link_command(net, words, n, &e) == -EINVAL)
			ensure(e.text[0]);
	}
	use_links(net);
	wire_net_done(net);
	free(net);
	return 0;
}
