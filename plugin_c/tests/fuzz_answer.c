/*
 * fuzz_answer.c - fuzz target: whatever the governor may send as an answer
 *
 * For libFuzzer: clang -fsanitize=fuzzer,address tests/fuzz_answer.c wire.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../wire.h"
#include "check.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A string that was handed out ends inside the packet. */
static void _check_string(const uint8_t *data, size_t size, const char *text)
{
	if (text)
		CHECK((const uint8_t *) text + strlen(text) < data + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct gov_answer a;
	uint64_t id = 0;

	/* the right id, or few inputs would get beyond the header */
	if (size >= GOV_WIRE_HEADER)
		for (int i = 7; i >= 0; i--)
			id = id << 8 | data[16 + i];
	if (gov_wire_read_answer(data, size, id, &a))
		return 0;

	CHECK(a.verdict >= GOV_VERDICT_ACCEPT && a.verdict <= GOV_VERDICT_ERROR);
	CHECK(a.requeue >= -1 && a.requeue <= 1);
	CHECK(a.cause >= -1);
	_check_string(data, size, a.message);
	_check_string(data, size, a.account);
	_check_string(data, size, a.qos);
	_check_string(data, size, a.tres_per_job);
	_check_string(data, size, a.tres_per_node);
	_check_string(data, size, a.tres_per_socket);
	_check_string(data, size, a.tres_per_task);
	_check_string(data, size, a.comment);
	_check_string(data, size, a.admin_comment);
	return 0;
}
