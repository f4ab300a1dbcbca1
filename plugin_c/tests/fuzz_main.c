/*
 * fuzz_main.c - a small deterministic driver for fuzz_answer.c
 *
 * usage: fuzz [INPUTS]
 * Damages a good answer in every way it can think of; the same inputs on
 * every run.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../wire.h"
#include "check.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t _random(uint32_t below)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t) (state >> 32) % below;
}

static size_t _good_answer(uint8_t *packet, size_t size)
{
	struct gov_writer w;

	gov_wire_begin(&w, packet, size, GOV_KIND_ANSWER, 1);
	gov_wire_number(&w, GOV_TAG_VERDICT, 1 + _random(3));
	gov_wire_number(&w, GOV_TAG_CAUSE, _random(5));
	gov_wire_number(&w, GOV_TAG_REQUEUE, _random(2));
	gov_wire_string(&w, GOV_TAG_MESSAGE, "the pool has 8 GPUs per node");
	gov_wire_string(&w, GOV_TAG_ACCOUNT, "");
	gov_wire_string(&w, GOV_TAG_TRES_PER_NODE, "gres:gpu:h100:8");
	gov_wire_string(&w, GOV_TAG_COMMENT, "comment");
	return gov_wire_end(&w);
}

int main(int argc, char **argv)
{
	long inputs = (argc > 1) ? atol(argv[1]) : 200000;

	for (long i = 0; i < inputs; i++) {
		uint8_t packet[256];
		size_t len = _good_answer(packet, sizeof(packet));
		uint8_t *exact;

		for (uint32_t damage = _random(5); damage; damage--) {
			static const uint8_t edges[] = { 0, 1, 127, 128, 255 };
			uint32_t at = _random((uint32_t) len);

			packet[at] = _random(2) ? (uint8_t) _random(256)
						: edges[_random(5)];
		}
		if (!_random(4))
			len = _random((uint32_t) len + 1);
		/* mostly with the right length, to get beyond the header */
		if (_random(8))
			packet[8] = (uint8_t) len, packet[9] = 0,
			packet[10] = 0, packet[11] = 0;

		exact = malloc(len ? len : 1);
		CHECK(exact);
		memcpy(exact, packet, len);
		LLVMFuzzerTestOneInput(exact, len);
		free(exact);
	}
	return 0;
}
