/*
 * client.h - asking slurm-govd, within a deadline
 *
 * A few connections are kept open and lent to one caller each, so that calls
 * from several threads do not wait for one another. After too many failures
 * in a row nothing is asked for a while (the breaker), so that a governor
 * which hangs costs slurmctld one deadline now and then, not one per job.
 * Nothing here allocates memory or needs Slurm.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GOV_CLIENT_H
#define GOV_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "wire.h"

#define GOV_CLIENT_CALLS 16 /* exchanges under way at once */

struct gov_client_conf {
	char socket[sizeof(((struct sockaddr_un *) NULL)->sun_path)];
	unsigned deadline_ms;
	unsigned breaker_failures; /* 0: the breaker never opens */
	unsigned breaker_seconds;
};

struct gov_client_stats {
	uint64_t requests;
	uint64_t failures;
	uint64_t not_asked;
	uint64_t breaker_openings;
};

/* How the failure or success of an exchange moved the breaker. */
enum gov_breaker_event {
	GOV_BREAKER_SAME,
	GOV_BREAKER_OPENED,
	GOV_BREAKER_CLOSED,
};

/* One exchange, and between exchanges the connection kept for the next. */
struct gov_call {
	struct gov_call *next;
	int fd; /* -1: not connected */
	bool probe; /* lets an open breaker close again */
	int64_t deadline; /* nanoseconds of CLOCK_MONOTONIC */
	int64_t round_trip; /* nanoseconds of the last one; -1: already told */
	uint64_t id;
	struct gov_writer request;
	struct gov_answer answer;
	enum gov_breaker_event breaker;
	char trouble[160]; /* why there is no answer */
	/* the request and then, in its place, the answer */
	uint8_t packet[GOV_WIRE_MAX];
};

struct gov_client {
	struct gov_client_conf conf;
	pthread_mutex_t lock; /* for everything below but the calls' insides */
	pthread_cond_t given_back;
	struct gov_call *idle;
	struct gov_client_stats stats;
	uint64_t last_id;
	enum { GOV_CLOSED, GOV_OPEN, GOV_PROBING } breaker;
	unsigned failures_in_a_row;
	int64_t open_until;
	struct gov_call calls[GOV_CLIENT_CALLS];
};

extern void gov_client_init(struct gov_client *client,
			    const struct gov_client_conf *conf);

/* Close the connections; no call may be under way. */
extern void gov_client_fini(struct gov_client *client);

/*
 * Start an exchange; its deadline runs from here. The caller then adds fields
 * to call->request.
 * RET NULL if the governor shall not be asked now: the breaker is open, or
 *     every connection was in use until the deadline
 */
extern struct gov_call *gov_call_begin(struct gov_client *client,
				       enum gov_kind kind);

/*
 * Send the request and wait for the answer.
 * RET true and call->answer, valid until gov_call_end(), or false and
 *     call->trouble
 */
extern bool gov_call_ask(struct gov_client *client, struct gov_call *call);

extern void gov_call_end(struct gov_client *client, struct gov_call *call);

#endif
