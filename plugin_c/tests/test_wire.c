/*
 * test_wire.c - packets written and read
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include "../wire.h"
#include "check.h"

#define ID 0x1122334455667788u

static uint8_t packet[GOV_WIRE_MAX];
static struct gov_writer w;
static struct gov_answer answer;

static void _begin(void)
{
	gov_wire_begin(&w, packet, sizeof(packet), GOV_KIND_ANSWER, ID);
}

/* A field with a value that the writer would never write. */
static void _raw(uint16_t tag, uint32_t len, const char *value, size_t bytes)
{
	const uint8_t head[GOV_WIRE_FIELD] = {
		(uint8_t) tag, (uint8_t) (tag >> 8), (uint8_t) len,
		(uint8_t) (len >> 8), (uint8_t) (len >> 16),
		(uint8_t) (len >> 24),
	};

	memcpy(packet + w.len, head, sizeof(head));
	memcpy(packet + w.len + sizeof(head), value, bytes);
	w.len += sizeof(head) + bytes;
}

/* The packet lies at the end of its memory, so that the sanitizer guards it. */
static const char *_read(void)
{
	static uint8_t *exact;
	size_t len = gov_wire_end(&w);

	free(exact);
	exact = malloc(len);
	CHECK(exact);
	memcpy(exact, packet, len);
	return gov_wire_read_answer(exact, len, ID, &answer);
}

static void _test_bytes(void)
{
	static const uint8_t want[] = {
		'S', 'G', 'O', 'V', 1, 0, 3, 0, 52, 0, 0, 0, 0, 0, 0, 0,
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
		1, 0, 8, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0,
		65, 0, 8, 0, 0, 0, 'r', 'e', 's', 'e', 'a', 'r', 'c', 0,
	};

	_begin();
	gov_wire_number(&w, GOV_TAG_SUBMIT_UID, 1000);
	gov_wire_string(&w, GOV_TAG_ACCOUNT, "researc");
	gov_wire_string(&w, GOV_TAG_QOS, NULL);
	CHECK(gov_wire_end(&w) == sizeof(want));
	CHECK(!memcmp(packet, want, sizeof(want)));
}

static void _test_partial(void)
{
	static char text[GOV_WIRE_MAX];

	memset(text, 'x', sizeof(text) - 1);
	_begin();
	gov_wire_string(&w, GOV_TAG_DEPENDENCY, text);
	CHECK(w.flags & GOV_WIRE_FLAG_PARTIAL);
	CHECK(w.len == GOV_WIRE_HEADER);
	/* what still fits is still written, up to the very last byte */
	text[GOV_WIRE_MAX - GOV_WIRE_HEADER - GOV_WIRE_FIELD - 1] = '\0';
	gov_wire_string(&w, GOV_TAG_COMMENT, text);
	CHECK(gov_wire_end(&w) == GOV_WIRE_MAX);
	gov_wire_number(&w, GOV_TAG_NICE, 1);
	CHECK(gov_wire_end(&w) == GOV_WIRE_MAX);
	CHECK(packet[12] == GOV_WIRE_FLAG_PARTIAL);
}

static void _test_answer(void)
{
	_begin();
	gov_wire_number(&w, GOV_TAG_VERDICT, GOV_VERDICT_ACCEPT);
	CHECK(!_read());
	CHECK(answer.verdict == GOV_VERDICT_ACCEPT);
	CHECK(answer.cause == -1 && answer.requeue == -1);
	CHECK(!answer.message && !answer.account && !answer.admin_comment);

	_begin();
	_raw(4000, 3, "abc", 3); /* from the future */
	gov_wire_number(&w, GOV_TAG_VERDICT, GOV_VERDICT_REFUSE);
	gov_wire_number(&w, GOV_TAG_CAUSE, 77);
	gov_wire_number(&w, GOV_TAG_REQUEUE, 1);
	gov_wire_string(&w, GOV_TAG_MESSAGE, "no");
	gov_wire_string(&w, GOV_TAG_ACCOUNT, "");
	gov_wire_string(&w, GOV_TAG_QOS, "q");
	gov_wire_string(&w, GOV_TAG_TRES_PER_JOB, "j");
	gov_wire_string(&w, GOV_TAG_TRES_PER_NODE, "n");
	gov_wire_string(&w, GOV_TAG_TRES_PER_SOCKET, "s");
	gov_wire_string(&w, GOV_TAG_TRES_PER_TASK, "t");
	gov_wire_string(&w, GOV_TAG_COMMENT, "c");
	gov_wire_string(&w, GOV_TAG_ADMIN_COMMENT, "a");
	CHECK(!_read());
	CHECK(answer.verdict == GOV_VERDICT_REFUSE);
	CHECK(answer.cause == 77 && answer.requeue == 1);
	CHECK_STR(answer.message, "no");
	CHECK_STR(answer.account, "");
	CHECK_STR(answer.qos, "q");
	CHECK_STR(answer.tres_per_job, "j");
	CHECK_STR(answer.tres_per_node, "n");
	CHECK_STR(answer.tres_per_socket, "s");
	CHECK_STR(answer.tres_per_task, "t");
	CHECK_STR(answer.comment, "c");
	CHECK_STR(answer.admin_comment, "a");
}

static void _test_header(void)
{
	size_t len;

	_begin();
	gov_wire_number(&w, GOV_TAG_VERDICT, GOV_VERDICT_ACCEPT);
	len = gov_wire_end(&w);
	for (size_t i = 0; i < len; i++)
		CHECK(gov_wire_read_answer(packet, i, ID, &answer));
	CHECK_STR(gov_wire_read_answer(packet, len, ID + 1, &answer),
		  "it answers another request");
	packet[0]++;
	CHECK_STR(gov_wire_read_answer(packet, len, ID, &answer),
		  "it does not start with the magic number");
	packet[0]--;
	packet[4]++;
	CHECK_STR(gov_wire_read_answer(packet, len, ID, &answer),
		  "it is in another version of the wire format");
	packet[4]--;
	packet[6] = GOV_KIND_SUBMIT;
	CHECK_STR(gov_wire_read_answer(packet, len, ID, &answer),
		  "it is not an answer");
	packet[6] = GOV_KIND_ANSWER;
	packet[11] = 0xff;
	CHECK_STR(gov_wire_read_answer(packet, len, ID, &answer),
		  "its length is not what its header says");
}

static void _test_malformed(void)
{
	static const struct {
		uint16_t tag;
		uint32_t len;
		const char *value;
		size_t bytes;
		const char *wrong;
	} cases[] = {
		{ GOV_TAG_VERDICT, 8, "\1\0\0\0\0\0\0\0", 8, "a field occurs twice" },
		{ GOV_TAG_CAUSE, 8, "\1\0\0\0\0\0\0\1", 8, "a number is out of its range" },
		{ GOV_TAG_REQUEUE, 8, "\2\0\0\0\0\0\0\0", 8, "a number is out of its range" },
		{ GOV_TAG_REQUEUE, 2, "\1\0", 2, "a number is not 8 bytes long" },
		{ GOV_TAG_REQUEUE, 0, "", 0, "a number is not 8 bytes long" },
		{ GOV_TAG_MESSAGE, 0, "", 0, "a string does not end at its first NUL" },
		{ GOV_TAG_MESSAGE, 3, "abc", 3, "a string does not end at its first NUL" },
		{ GOV_TAG_MESSAGE, 4, "a\0b", 4, "a string does not end at its first NUL" },
		{ GOV_TAG_MESSAGE, 5, "abc", 4, "a field is cut off" },
		{ GOV_TAG_MESSAGE, 0xffffffff, "abc", 4, "a field is cut off" },
		{ 4000, 0xfffffffa, "abc", 4, "a field is cut off" },
		{ GOV_TAG_ACCOUNT, 2, "b", 2, "a field occurs twice" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_begin();
		gov_wire_number(&w, GOV_TAG_VERDICT, GOV_VERDICT_ACCEPT);
		gov_wire_string(&w, GOV_TAG_ACCOUNT, "a");
		_raw(cases[i].tag, cases[i].len, cases[i].value,
		     cases[i].bytes);
		CHECK_STR(_read(), cases[i].wrong);
	}

	_begin();
	CHECK_STR(_read(), "it has no verdict");
	_begin();
	gov_wire_number(&w, GOV_TAG_VERDICT, 0);
	CHECK_STR(_read(), "it has no verdict");
	_begin();
	gov_wire_number(&w, GOV_TAG_VERDICT, 4);
	CHECK_STR(_read(), "a number is out of its range");
}

int main(void)
{
	_test_bytes();
	_test_partial();
	_test_answer();
	_test_header();
	_test_malformed();
	return 0;
}
