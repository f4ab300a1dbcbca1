/*
 * wire.h - the packets between job_submit_gov.so and slurm-govd
 *
 * docs/wire-format.md describes them; this header is where their numbers are
 * kept (slurm_gov/admission/wire.py repeats them, a test compares the two).
 * Nothing here allocates memory or needs Slurm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GOV_WIRE_H
#define GOV_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GOV_WIRE_MAGIC 0x564f4753 /* the bytes "SGOV" */
#define GOV_WIRE_VERSION 1
#define GOV_WIRE_MAX 65536     /* bytes in the largest packet */
#define GOV_WIRE_HEADER 24     /* bytes in a packet's header */
#define GOV_WIRE_FIELD 6       /* bytes before a field's value */
#define GOV_WIRE_FLAG_PARTIAL 1 /* some fields did not fit and were left out */

enum gov_kind {
	GOV_KIND_SUBMIT = 1,
	GOV_KIND_MODIFY = 2,
	GOV_KIND_ANSWER = 3,
};

enum gov_tag {
	/* numbers: members of job_desc_msg_t */
	GOV_TAG_SUBMIT_UID = 1, /* who asks; the job's owner is USER_ID */
	GOV_TAG_USER_ID = 2,
	GOV_TAG_GROUP_ID = 3,
	GOV_TAG_JOB_ID = 4,
	GOV_TAG_HET_JOB_OFFSET = 5,
	GOV_TAG_BATCH = 6, /* 1: has a script */
	GOV_TAG_MIN_NODES = 7,
	GOV_TAG_MAX_NODES = 8,
	GOV_TAG_NUM_TASKS = 9,
	GOV_TAG_NTASKS_PER_NODE = 10,
	GOV_TAG_NTASKS_PER_SOCKET = 11,
	GOV_TAG_NTASKS_PER_TRES = 12,
	GOV_TAG_CPUS_PER_TASK = 13,
	GOV_TAG_MIN_CPUS = 14,
	GOV_TAG_MAX_CPUS = 15,
	GOV_TAG_PN_MIN_CPUS = 16,
	GOV_TAG_PN_MIN_MEMORY = 17, /* bit 63 is Slurm's MEM_PER_CPU */
	GOV_TAG_SHARED = 18,
	GOV_TAG_REQUEUE = 19, /* also in an answer */
	GOV_TAG_TIME_LIMIT = 20,
	GOV_TAG_TIME_MIN = 21,
	GOV_TAG_BEGIN_TIME = 22,
	GOV_TAG_DEADLINE = 23,
	GOV_TAG_PRIORITY = 24,
	GOV_TAG_NICE = 25, /* signed: NICE_OFFSET is taken off */
	GOV_TAG_WARN_SIGNAL = 26,
	GOV_TAG_WARN_FLAGS = 27,
	GOV_TAG_WARN_TIME = 28,

	/* strings: members of job_desc_msg_t */
	GOV_TAG_JOB_ID_STR = 64,
	GOV_TAG_ACCOUNT = 65, /* also in an answer */
	GOV_TAG_QOS = 66, /* also in an answer */
	GOV_TAG_PARTITION = 67,
	GOV_TAG_TRES_PER_JOB = 68, /* also in an answer */
	GOV_TAG_TRES_PER_NODE = 69, /* also in an answer */
	GOV_TAG_TRES_PER_SOCKET = 70, /* also in an answer */
	GOV_TAG_TRES_PER_TASK = 71, /* also in an answer */
	GOV_TAG_CPUS_PER_TRES = 72,
	GOV_TAG_MEM_PER_TRES = 73,
	GOV_TAG_RESERVATION = 74,
	GOV_TAG_ARRAY_INX = 75,
	GOV_TAG_LICENSES = 76,
	GOV_TAG_WCKEY = 77,
	GOV_TAG_NAME = 78,
	GOV_TAG_FEATURES = 79,
	GOV_TAG_REQ_NODES = 80,
	GOV_TAG_EXC_NODES = 81,
	GOV_TAG_DEPENDENCY = 82,
	GOV_TAG_COMMENT = 83, /* also in an answer */
	GOV_TAG_ADMIN_COMMENT = 84, /* also in an answer */

	/* numbers: what the plugin knows about itself */
	GOV_TAG_SLURM_VERSION = 128, /* SLURM_VERSION_NUMBER */
	GOV_TAG_LAST_ROUND_TRIP_US = 129, /* sent once for each round trip */
	GOV_TAG_REQUESTS = 130,
	GOV_TAG_FAILURES = 131,
	GOV_TAG_NOT_ASKED = 132,
	GOV_TAG_BREAKER_OPENINGS = 133,

	/* only in an answer */
	GOV_TAG_VERDICT = 192, /* number: enum gov_verdict */
	GOV_TAG_CAUSE = 193, /* number: enum gov_cause */
	GOV_TAG_MESSAGE = 194, /* string, for the user */
};

enum gov_verdict {
	GOV_VERDICT_ACCEPT = 1,
	GOV_VERDICT_REFUSE = 2,
	GOV_VERDICT_ERROR = 3, /* the request could not be read */
};

/* Why refused: chooses Slurm's own error text, which follows the message. */
enum gov_cause {
	GOV_CAUSE_POLICY = 0,
	GOV_CAUSE_ACCESS = 1,
	GOV_CAUSE_ACCOUNT = 2,
	GOV_CAUSE_QOS = 3,
	GOV_CAUSE_TRES = 4,
};

/* A packet being written into the caller's buffer. */
struct gov_writer {
	uint8_t *buf;
	size_t size;
	size_t len;
	uint32_t flags;
};

/*
 * What an answer says. The strings lie in the packet. An absent string is
 * NULL, an absent number is -1.
 */
struct gov_answer {
	int verdict;
	int cause; /* may be one that this version does not know */
	int requeue;
	const char *message;
	const char *account;
	const char *qos;
	const char *tres_per_job;
	const char *tres_per_node;
	const char *tres_per_socket;
	const char *tres_per_task;
	const char *comment;
	const char *admin_comment;
};

/* Start a packet; size must be at least GOV_WIRE_HEADER. */
extern void gov_wire_begin(struct gov_writer *w, uint8_t *buf, size_t size,
			   enum gov_kind kind, uint64_t id);

/*
 * Add one field. A field for which there is no room is left out whole and
 * sets GOV_WIRE_FLAG_PARTIAL; a NULL string is no field at all.
 */
extern void gov_wire_number(struct gov_writer *w, enum gov_tag tag,
			    uint64_t value);
extern void gov_wire_string(struct gov_writer *w, enum gov_tag tag,
			    const char *value);

/* Finish the packet and return its length. */
extern size_t gov_wire_end(struct gov_writer *w);

/*
 * Read the answer to request id.
 * RET NULL, or what is wrong with the packet
 */
extern const char *gov_wire_read_answer(const uint8_t *buf, size_t len,
					uint64_t id, struct gov_answer *answer);

#endif
