/*
 * client.c - asking slurm-govd, within a deadline
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE /* ppoll() */

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"

#define NSEC_PER_SEC 1000000000LL
#define NSEC_PER_MSEC 1000000LL
#define NSEC_PER_USEC 1000LL
#define SPIN (150 * NSEC_PER_USEC)

enum outcome {
	DONE,
	LOST, /* the other side is gone: worth one more connection */
	FAILED,
};

static int64_t _now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static struct timespec _timespec(int64_t nsec)
{
	return (struct timespec) {
		.tv_sec = nsec / NSEC_PER_SEC,
		.tv_nsec = nsec % NSEC_PER_SEC,
	};
}

__attribute__ ((format(printf, 2, 3)))
static enum outcome _fail(struct gov_call *call, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(call->trouble, sizeof(call->trouble), fmt, ap);
	va_end(ap);
	return FAILED;
}

static enum outcome _late(struct gov_client *client, struct gov_call *call)
{
	return _fail(call, "no answer within %u ms", client->conf.deadline_ms);
}

static void _disconnect(struct gov_call *call)
{
	if (call->fd >= 0)
		close(call->fd);
	call->fd = -1;
}

/*
 * Wait until the socket is ready for events, but not beyond the deadline.
 *
 * An answer mostly comes sooner than a sleeping thread can be woken, and
 * slurmctld holds locks meanwhile: so look for it a moment before sleeping.
 */
static bool _ready(struct gov_call *call, short events)
{
	struct pollfd pfd = { .fd = call->fd, .events = events };
	int64_t left, awake = _now() + SPIN;

	do {
		if (poll(&pfd, 1, 0) > 0)
			return true;
	} while (_now() < awake);
	while ((left = call->deadline - _now()) > 0) {
		struct timespec ts = _timespec(left);
		int rc = ppoll(&pfd, 1, &ts, NULL);

		if (rc > 0)
			return true;
		if (rc < 0 && errno != EINTR)
			return false;
	}
	return false;
}

static enum outcome _connect(struct gov_client *client, struct gov_call *call)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const struct timespec pause = { .tv_nsec = NSEC_PER_MSEC };

	memcpy(addr.sun_path, client->conf.socket, sizeof(addr.sun_path));
	call->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC,
			  0);
	if (call->fd < 0)
		return _fail(call, "socket: %s", strerror(errno));

	while (connect(call->fd, (struct sockaddr *) &addr, sizeof(addr))) {
		/*
		 * EAGAIN is a full backlog. Linux can not poll for room in
		 * it, so try again every now and then.
		 */
		if (errno != EAGAIN && errno != EINTR)
			return _fail(call, "%s: %s", addr.sun_path,
				     strerror(errno));
		if (call->deadline - _now() <= pause.tv_nsec)
			return _late(client, call);
		nanosleep(&pause, NULL);
	}
	return DONE;
}

static enum outcome _send(struct gov_client *client, struct gov_call *call)
{
	while (send(call->fd, call->packet, call->request.len,
		    MSG_NOSIGNAL) < 0) {
		switch (errno) {
		case EINTR:
			break;
		case EAGAIN:
			if (!_ready(call, POLLOUT))
				return _late(client, call);
			break;
		case EPIPE:
		case ECONNRESET:
			_fail(call, "the connection was closed");
			return LOST;
		default:
			return _fail(call, "send: %s", strerror(errno));
		}
	}
	return DONE;
}

static enum outcome _receive(struct gov_client *client, struct gov_call *call)
{
	const char *wrong;
	ssize_t len;

	do {
		if (!_ready(call, POLLIN))
			return _late(client, call);
		/* with MSG_TRUNC the whole length of a packet is told */
		len = recv(call->fd, call->packet, sizeof(call->packet),
			   MSG_TRUNC);
	} while (len < 0 && (errno == EINTR || errno == EAGAIN));

	if (len == 0 || (len < 0 && errno == ECONNRESET)) {
		_fail(call, "the connection was closed");
		return LOST;
	}
	if (len < 0)
		return _fail(call, "recv: %s", strerror(errno));
	if ((size_t) len > sizeof(call->packet))
		return _fail(call, "bad answer: it has %zd bytes", len);

	wrong = gov_wire_read_answer(call->packet, (size_t) len, call->id,
				     &call->answer);
	if (wrong)
		return _fail(call, "bad answer: %s", wrong);
	if (call->answer.verdict == GOV_VERDICT_ERROR)
		return _fail(call, "slurm-govd could not read the request: %s",
			     call->answer.message ? call->answer.message : "");
	return DONE;
}

static enum outcome _exchange(struct gov_client *client, struct gov_call *call)
{
	enum outcome outcome = DONE;
	int64_t start = _now();

	if (call->fd < 0)
		outcome = _connect(client, call);
	if (outcome == DONE)
		outcome = _send(client, call);
	if (outcome == DONE)
		outcome = _receive(client, call);

	if (outcome == DONE)
		call->round_trip = _now() - start;
	else
		_disconnect(call);
	return outcome;
}

/* Count the outcome of an exchange and move the breaker. */
static void _settle(struct gov_client *client, struct gov_call *call,
		    bool answered)
{
	call->breaker = GOV_BREAKER_SAME;

	pthread_mutex_lock(&client->lock);
	if (answered) {
		client->failures_in_a_row = 0;
		if (client->breaker != GOV_CLOSED)
			call->breaker = GOV_BREAKER_CLOSED;
		client->breaker = GOV_CLOSED;
	} else {
		client->stats.failures++;
		client->failures_in_a_row++;
		if (client->breaker == GOV_CLOSED &&
		    client->conf.breaker_failures &&
		    client->failures_in_a_row >= client->conf.breaker_failures)
			call->breaker = GOV_BREAKER_OPENED;
		if (call->breaker == GOV_BREAKER_OPENED || call->probe) {
			client->breaker = GOV_OPEN;
			client->stats.breaker_openings++;
			client->open_until = _now() + NSEC_PER_SEC *
				client->conf.breaker_seconds;
		}
	}
	pthread_mutex_unlock(&client->lock);
}

extern void gov_client_init(struct gov_client *client,
			    const struct gov_client_conf *conf)
{
	pthread_condattr_t attr;

	memset(client, 0, sizeof(*client));
	client->conf = *conf;
	/* so that no id of another slurmctld's life looks like one of ours */
	client->last_id = (uint64_t) _now();

	pthread_mutex_init(&client->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&client->given_back, &attr);
	pthread_condattr_destroy(&attr);

	for (int i = 0; i < GOV_CLIENT_CALLS; i++) {
		client->calls[i].fd = -1;
		client->calls[i].round_trip = -1;
		client->calls[i].next = client->idle;
		client->idle = &client->calls[i];
	}
}

extern void gov_client_fini(struct gov_client *client)
{
	for (int i = 0; i < GOV_CLIENT_CALLS; i++)
		_disconnect(&client->calls[i]);
	pthread_cond_destroy(&client->given_back);
	pthread_mutex_destroy(&client->lock);
}

static bool _breaker_allows(struct gov_client *client)
{
	return client->breaker == GOV_CLOSED ||
	       (client->breaker == GOV_OPEN && _now() >= client->open_until);
}

extern struct gov_call *gov_call_begin(struct gov_client *client,
				       enum gov_kind kind)
{
	int64_t deadline = _now() + NSEC_PER_MSEC * client->conf.deadline_ms;
	struct timespec until = _timespec(deadline);
	struct gov_client_stats stats;
	struct gov_call *call = NULL;
	int rc = 0;

	pthread_mutex_lock(&client->lock);
	while (!rc && _breaker_allows(client) && !client->idle)
		rc = pthread_cond_timedwait(&client->given_back, &client->lock,
					    &until);
	if (!rc && _breaker_allows(client)) {
		/* the one used last: few connections, and their news soon */
		call = client->idle;
		client->idle = call->next;
		call->id = ++client->last_id;
		if ((call->probe = (client->breaker == GOV_OPEN)))
			client->breaker = GOV_PROBING;
		client->stats.requests++;
	} else {
		client->stats.not_asked++;
	}
	stats = client->stats;
	pthread_mutex_unlock(&client->lock);

	if (!call)
		return NULL;

	call->deadline = deadline;
	gov_wire_begin(&call->request, call->packet, sizeof(call->packet),
		       kind, call->id);
	gov_wire_number(&call->request, GOV_TAG_REQUESTS, stats.requests);
	gov_wire_number(&call->request, GOV_TAG_FAILURES, stats.failures);
	gov_wire_number(&call->request, GOV_TAG_NOT_ASKED, stats.not_asked);
	gov_wire_number(&call->request, GOV_TAG_BREAKER_OPENINGS,
			stats.breaker_openings);
	if (call->round_trip >= 0)
		gov_wire_number(&call->request, GOV_TAG_LAST_ROUND_TRIP_US,
				(uint64_t) (call->round_trip / NSEC_PER_USEC));
	call->round_trip = -1;
	return call;
}

extern bool gov_call_ask(struct gov_client *client, struct gov_call *call)
{
	bool kept = (call->fd >= 0);
	enum outcome outcome;

	gov_wire_end(&call->request);
	outcome = _exchange(client, call);
	/*
	 * A kept connection may have died with an earlier slurm-govd. Asking
	 * has no effects and no byte of an answer came, so ask the next one.
	 */
	if (outcome == LOST && kept)
		outcome = _exchange(client, call);

	_settle(client, call, outcome == DONE);
	return outcome == DONE;
}

extern void gov_call_end(struct gov_client *client, struct gov_call *call)
{
	pthread_mutex_lock(&client->lock);
	call->next = client->idle;
	client->idle = call;
	pthread_cond_broadcast(&client->given_back);
	pthread_mutex_unlock(&client->lock);
}
