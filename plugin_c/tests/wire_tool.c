/*
 * wire_tool.c - the plugin's side of the wire format, for the Python tests
 *
 * usage: wire_tool encode       write a request to standard output
 *        wire_tool decode ID    read an answer, print what it says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <inttypes.h>

#include "../wire.h"
#include "check.h"

/* Every request field: a number is its tag times a large one, a string says its tag. */
static int _encode(void)
{
	static uint8_t packet[GOV_WIRE_MAX];
	struct gov_writer w;

	gov_wire_begin(&w, packet, sizeof(packet), GOV_KIND_MODIFY, UINT64_MAX);
	for (unsigned tag = GOV_TAG_SUBMIT_UID; tag <= GOV_TAG_WARN_TIME; tag++)
		gov_wire_number(&w, (enum gov_tag) tag, tag * 100000000000u);
	for (unsigned tag = GOV_TAG_JOB_ID_STR; tag <= GOV_TAG_ADMIN_COMMENT;
	     tag++) {
		char text[32];

		snprintf(text, sizeof(text), "tag\n%u \xff\xc3\xbc", tag);
		gov_wire_string(&w, (enum gov_tag) tag, text);
	}
	for (unsigned tag = GOV_TAG_SLURM_VERSION;
	     tag <= GOV_TAG_BREAKER_OPENINGS; tag++)
		gov_wire_number(&w, (enum gov_tag) tag, tag);
	fwrite(packet, gov_wire_end(&w), 1, stdout);
	return 0;
}

static void _print(const char *name, const char *text)
{
	if (text)
		printf("%s=%s\n", name, text);
}

static int _decode(const char *id)
{
	static uint8_t packet[GOV_WIRE_MAX + 1];
	size_t len = fread(packet, 1, sizeof(packet), stdin);
	struct gov_answer a;
	const char *wrong = gov_wire_read_answer(packet, len,
						 strtoull(id, NULL, 10), &a);

	if (wrong) {
		printf("%s\n", wrong);
		return 1;
	}
	printf("verdict=%d\ncause=%d\nrequeue=%d\n", a.verdict, a.cause,
	       a.requeue);
	_print("message", a.message);
	_print("account", a.account);
	_print("qos", a.qos);
	_print("tres_per_job", a.tres_per_job);
	_print("tres_per_node", a.tres_per_node);
	_print("tres_per_socket", a.tres_per_socket);
	_print("tres_per_task", a.tres_per_task);
	_print("comment", a.comment);
	_print("admin_comment", a.admin_comment);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "encode"))
		return _encode();
	if (argc == 3 && !strcmp(argv[1], "decode"))
		return _decode(argv[2]);
	fprintf(stderr, "usage: wire_tool encode | wire_tool decode ID\n");
	return 2;
}
