/*
 * wire.c - the packets between job_submit_gov.so and slurm-govd
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <limits.h>
#include <string.h>

#include "wire.h"

static void _put(uint8_t *at, uint64_t value, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		at[i] = (uint8_t) (value >> (8 * i));
}

static uint64_t _get(const uint8_t *at, size_t bytes)
{
	uint64_t value = 0;

	for (size_t i = 0; i < bytes; i++)
		value |= (uint64_t) at[i] << (8 * i);
	return value;
}

/* Make room for a field; NULL (and a partial packet) if there is none. */
static uint8_t *_add_field(struct gov_writer *w, enum gov_tag tag, size_t len)
{
	uint8_t *at = w->buf + w->len;
	size_t room = w->size - w->len;

	if (room < GOV_WIRE_FIELD || room - GOV_WIRE_FIELD < len) {
		w->flags |= GOV_WIRE_FLAG_PARTIAL;
		return NULL;
	}
	_put(at, tag, 2);
	_put(at + 2, len, 4);
	w->len += GOV_WIRE_FIELD + len;
	return at + GOV_WIRE_FIELD;
}

extern void gov_wire_begin(struct gov_writer *w, uint8_t *buf, size_t size,
			   enum gov_kind kind, uint64_t id)
{
	w->buf = buf;
	w->size = (size < GOV_WIRE_MAX) ? size : GOV_WIRE_MAX;
	w->len = GOV_WIRE_HEADER;
	w->flags = 0;

	_put(buf, GOV_WIRE_MAGIC, 4);
	_put(buf + 4, GOV_WIRE_VERSION, 2);
	_put(buf + 6, kind, 2);
	_put(buf + 16, id, 8);
}

extern void gov_wire_number(struct gov_writer *w, enum gov_tag tag,
			    uint64_t value)
{
	uint8_t *at = _add_field(w, tag, 8);

	if (at)
		_put(at, value, 8);
}

extern void gov_wire_string(struct gov_writer *w, enum gov_tag tag,
			    const char *value)
{
	size_t len;
	uint8_t *at;

	if (!value)
		return;
	len = strlen(value) + 1;
	if ((at = _add_field(w, tag, len)))
		memcpy(at, value, len);
}

extern size_t gov_wire_end(struct gov_writer *w)
{
	_put(w->buf + 8, w->len, 4);
	_put(w->buf + 12, w->flags, 4);
	return w->len;
}

static const char *_read_number(const uint8_t *at, size_t len, int max,
				int *value)
{
	uint64_t number;

	if (len != 8)
		return "a number is not 8 bytes long";
	if (*value != -1)
		return "a field occurs twice";
	if ((number = _get(at, 8)) > (uint64_t) max)
		return "a number is out of its range";
	*value = (int) number;
	return NULL;
}

/* A string ends with its only NUL: safe for everything that takes a char *. */
static const char *_read_string(const uint8_t *at, size_t len,
				const char **value)
{
	if (!len || memchr(at, '\0', len) != at + len - 1)
		return "a string does not end at its first NUL";
	if (*value)
		return "a field occurs twice";
	*value = (const char *) at;
	return NULL;
}

static const char *_read_field(uint64_t tag, const uint8_t *at, size_t len,
			       struct gov_answer *a)
{
	switch (tag) {
	case GOV_TAG_VERDICT:
		return _read_number(at, len, GOV_VERDICT_ERROR, &a->verdict);
	case GOV_TAG_CAUSE:
		return _read_number(at, len, INT_MAX, &a->cause);
	case GOV_TAG_REQUEUE:
		return _read_number(at, len, 1, &a->requeue);
	case GOV_TAG_MESSAGE:
		return _read_string(at, len, &a->message);
	case GOV_TAG_ACCOUNT:
		return _read_string(at, len, &a->account);
	case GOV_TAG_QOS:
		return _read_string(at, len, &a->qos);
	case GOV_TAG_TRES_PER_JOB:
		return _read_string(at, len, &a->tres_per_job);
	case GOV_TAG_TRES_PER_NODE:
		return _read_string(at, len, &a->tres_per_node);
	case GOV_TAG_TRES_PER_SOCKET:
		return _read_string(at, len, &a->tres_per_socket);
	case GOV_TAG_TRES_PER_TASK:
		return _read_string(at, len, &a->tres_per_task);
	case GOV_TAG_COMMENT:
		return _read_string(at, len, &a->comment);
	case GOV_TAG_ADMIN_COMMENT:
		return _read_string(at, len, &a->admin_comment);
	default:
		return NULL; /* from a newer slurm-govd */
	}
}

extern const char *gov_wire_read_answer(const uint8_t *buf, size_t len,
					uint64_t id, struct gov_answer *answer)
{
	size_t pos = GOV_WIRE_HEADER;

	*answer = (struct gov_answer) {
		.verdict = -1,
		.cause = -1,
		.requeue = -1,
	};

	if (len < GOV_WIRE_HEADER)
		return "it is shorter than a header";
	if (_get(buf, 4) != GOV_WIRE_MAGIC)
		return "it does not start with the magic number";
	if (_get(buf + 4, 2) != GOV_WIRE_VERSION)
		return "it is in another version of the wire format";
	if (_get(buf + 6, 2) != GOV_KIND_ANSWER)
		return "it is not an answer";
	if (_get(buf + 8, 4) != len)
		return "its length is not what its header says";
	if (_get(buf + 16, 8) != id)
		return "it answers another request";

	while (pos < len) {
		const char *wrong;
		uint64_t tag;
		size_t size;

		if (len - pos < GOV_WIRE_FIELD)
			return "a field is cut off";
		tag = _get(buf + pos, 2);
		size = (size_t) _get(buf + pos + 2, 4);
		pos += GOV_WIRE_FIELD;
		if (len - pos < size)
			return "a field is cut off";
		if ((wrong = _read_field(tag, buf + pos, size, answer)))
			return wrong;
		pos += size;
	}
	if (answer->verdict < GOV_VERDICT_ACCEPT)
		return "it has no verdict";
	return NULL;
}
