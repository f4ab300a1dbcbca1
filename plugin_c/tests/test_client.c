/*
 * test_client.c - the exchange, against a server that misbehaves on demand
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../client.h"
#include "check.h"

#define DEADLINE_MS 100
#define SLACK_MS 50 /* other programs and sanitizers take their time too */
#define MAX_CONNECTIONS 64

enum mode {
	ANSWER,
	ANSWER_ERROR,
	SILENT,
	HANG_UP,
	GARBAGE,
	EMPTY,
	WRONG_ID,
	TRUNCATED,
	OVERSIZE,
};

static struct server {
	char path[64];
	pthread_t thread;
	int listener;
	int stop[2]; /* a pipe: closing it ends the thread */
	_Atomic enum mode mode;
	_Atomic unsigned connections; /* accepted so far */
	_Atomic unsigned requests;
	_Atomic uint64_t told_us; /* last round trip the client told of */
} server;

static struct gov_client client;

static long _now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void _sleep_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000,
			       .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static uint64_t _number(const uint8_t *at, int bytes)
{
	uint64_t value = 0;

	while (bytes--)
		value = value << 8 | at[bytes];
	return value;
}

static void _note_round_trip(const uint8_t *packet, size_t len)
{
	for (size_t pos = GOV_WIRE_HEADER; pos < len;
	     pos += GOV_WIRE_FIELD + _number(packet + pos + 2, 4))
		if (_number(packet + pos, 2) == GOV_TAG_LAST_ROUND_TRIP_US)
			server.told_us = _number(packet + pos + GOV_WIRE_FIELD, 8);
}

/* RET false to hang up */
static bool _serve(int fd)
{
	static uint8_t packet[GOV_WIRE_MAX + 1];
	ssize_t len = recv(fd, packet, sizeof(packet), 0);
	enum mode mode = server.mode;
	struct gov_writer w;
	uint64_t id;
	size_t size;

	if (len <= 0)
		return false;
	CHECK((size_t) len == _number(packet + 8, 4));
	_note_round_trip(packet, (size_t) len);
	server.requests++;
	if (mode == SILENT)
		return true;
	if (mode == HANG_UP)
		return false;

	id = _number(packet + 16, 8);
	gov_wire_begin(&w, packet, sizeof(packet), GOV_KIND_ANSWER,
		       id + (mode == WRONG_ID));
	gov_wire_number(&w, GOV_TAG_VERDICT, (mode == ANSWER_ERROR)
						     ? GOV_VERDICT_ERROR
						     : GOV_VERDICT_ACCEPT);
	gov_wire_string(&w, GOV_TAG_MESSAGE, "hello");
	size = gov_wire_end(&w);
	if (mode == GARBAGE)
		memset(packet, 0xa5, size);
	if (mode == TRUNCATED)
		size -= 3;
	if (mode == EMPTY)
		size = 0;
	if (mode == OVERSIZE)
		size = sizeof(packet);
	send(fd, packet, size, MSG_NOSIGNAL);
	return true;
}

static void *_run(void *arg)
{
	struct pollfd fds[2 + MAX_CONNECTIONS] = {
		{ .fd = server.stop[0], .events = POLLIN },
		{ .fd = server.listener, .events = POLLIN },
	};
	nfds_t count = 2;

	(void) arg;
	while (poll(fds, count, -1) > 0 && !fds[0].revents) {
		if (fds[1].revents && count < 2 + MAX_CONNECTIONS) {
			fds[count++] = (struct pollfd) {
				.fd = accept(server.listener, NULL, NULL),
				.events = POLLIN,
			};
			server.connections++;
			continue;
		}
		for (nfds_t i = 2; i < count; i++) {
			if (fds[i].revents && !_serve(fds[i].fd)) {
				close(fds[i].fd);
				fds[i--] = fds[--count];
			}
		}
	}
	for (nfds_t i = 2; i < count; i++)
		close(fds[i].fd);
	return NULL;
}

static void _listen(int backlog)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	strcpy(addr.sun_path, server.path);
	unlink(server.path);
	server.listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	CHECK(server.listener >= 0);
	CHECK(!bind(server.listener, (struct sockaddr *) &addr, sizeof(addr)));
	CHECK(!listen(server.listener, backlog));
}

static void _start(enum mode mode)
{
	server.mode = mode;
	server.connections = 0;
	server.requests = 0;
	_listen(16);
	CHECK(!pipe(server.stop));
	CHECK(!pthread_create(&server.thread, NULL, _run, NULL));
}

static void _stop(void)
{
	close(server.stop[1]);
	pthread_join(server.thread, NULL);
	close(server.stop[0]);
	close(server.listener);
}

static void _client(unsigned breaker_failures)
{
	struct gov_client_conf conf = {
		.deadline_ms = DEADLINE_MS,
		.breaker_failures = breaker_failures,
		.breaker_seconds = 1,
	};

	strcpy(conf.socket, server.path);
	gov_client_init(&client, &conf);
}

static struct {
	bool begun;
	enum gov_breaker_event breaker;
	char trouble[160];
	long ms;
} last;

/* One exchange. RET true if it was answered */
static bool _ask(void)
{
	long start = _now_ms();
	struct gov_call *call = gov_call_begin(&client, GOV_KIND_SUBMIT);
	bool answered = false;

	last.begun = (call != NULL);
	if (call) {
		gov_wire_number(&call->request, GOV_TAG_SUBMIT_UID, 1000);
		answered = gov_call_ask(&client, call);
		if (answered)
			CHECK_STR(call->answer.message, "hello");
		strcpy(last.trouble, answered ? "" : call->trouble);
		last.breaker = call->breaker;
		gov_call_end(&client, call);
	}
	last.ms = _now_ms() - start;
	CHECK(last.ms <= DEADLINE_MS + SLACK_MS);
	return answered;
}

static void _test_one_connection_is_kept(void)
{
	_start(ANSWER);
	_client(0);
	for (int i = 0; i < 100; i++)
		CHECK(_ask());
	CHECK(server.connections == 1);
	CHECK(server.told_us > 0 && server.told_us < 1000 * DEADLINE_MS);
	CHECK(client.stats.requests == 100 && !client.stats.failures);
	gov_client_fini(&client);
	_stop();
}

static void _test_nobody_listens(void)
{
	unlink(server.path);
	_client(0);
	CHECK(!_ask());
	CHECK(strstr(last.trouble, strerror(ENOENT)));

	_listen(1);
	close(server.listener);
	CHECK(!_ask());
	CHECK(strstr(last.trouble, strerror(ECONNREFUSED)));
	CHECK(client.stats.failures == 2);
	gov_client_fini(&client);
}

static void _test_silence_ends_at_the_deadline(void)
{
	_start(SILENT);
	_client(0);
	CHECK(!_ask());
	CHECK_STR(last.trouble, "no answer within 100 ms");
	CHECK(last.ms >= DEADLINE_MS - 1);
	/* the connection of a late answer is not used again */
	server.mode = ANSWER;
	CHECK(_ask());
	CHECK(server.connections == 2);
	gov_client_fini(&client);
	_stop();
}

static void _test_bad_answers(void)
{
	static const struct {
		enum mode mode;
		const char *trouble;
	} cases[] = {
		{ ANSWER_ERROR, "slurm-govd could not read the request: hello" },
		{ HANG_UP, "the connection was closed" },
		{ EMPTY, "the connection was closed" },
		{ GARBAGE, "bad answer: it does not start with the magic number" },
		{ WRONG_ID, "bad answer: it answers another request" },
		{ TRUNCATED, "bad answer: its length is not what its header says" },
		{ OVERSIZE, "bad answer: it has 65537 bytes" },
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		_start(cases[i].mode);
		_client(0);
		CHECK(!_ask());
		CHECK_STR(last.trouble, cases[i].trouble);
		CHECK(server.requests == 1);
		server.mode = ANSWER;
		CHECK(_ask());
		gov_client_fini(&client);
		_stop();
	}
}

static void _test_restart_between_requests(void)
{
	_start(ANSWER);
	_client(0);
	for (int i = 0; i < 5; i++) {
		CHECK(_ask());
		_stop();
		_start(ANSWER);
	}
	CHECK(_ask());
	CHECK(!client.stats.failures);

	/* hung up while we wait for the answer: asked once more, not for ever */
	server.mode = HANG_UP;
	server.requests = 0;
	CHECK(!_ask());
	CHECK(server.requests == 2);
	gov_client_fini(&client);
	_stop();
}

static void _test_full_backlog(void)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fds[8], count = 0;

	/* nobody accepts: fill the backlog */
	_listen(1);
	strcpy(addr.sun_path, server.path);
	do {
		CHECK(count < 8);
		fds[count] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	} while (!connect(fds[count++], (struct sockaddr *) &addr,
			  sizeof(addr)));
	CHECK(errno == EAGAIN);

	_client(0);
	CHECK(!_ask());
	CHECK_STR(last.trouble, "no answer within 100 ms");
	CHECK(last.ms >= DEADLINE_MS - 5);
	gov_client_fini(&client);
	while (count--)
		close(fds[count]);
	close(server.listener);
}

static void _test_breaker(void)
{
	_start(HANG_UP);
	_client(3);

	CHECK(!_ask() && last.breaker == GOV_BREAKER_SAME);
	server.mode = ANSWER; /* a success in between starts the count again */
	CHECK(_ask() && last.breaker == GOV_BREAKER_SAME);
	server.mode = GARBAGE;
	CHECK(!_ask() && last.breaker == GOV_BREAKER_SAME);
	CHECK(!_ask() && last.breaker == GOV_BREAKER_SAME);
	CHECK(!_ask() && last.breaker == GOV_BREAKER_OPENED);

	/* open: nothing is asked */
	server.requests = 0;
	CHECK(!_ask() && !last.begun && last.ms <= SLACK_MS);
	CHECK(server.requests == 0 && client.stats.not_asked == 1);

	/* after its time one probe goes through; it fails, open again */
	_sleep_ms(1050);
	CHECK(!_ask() && last.begun && last.breaker == GOV_BREAKER_SAME);
	CHECK(!_ask() && !last.begun);
	CHECK(client.stats.breaker_openings == 2);

	/* the next probe gets an answer: closed */
	_sleep_ms(1050);
	server.mode = ANSWER;
	CHECK(_ask() && last.breaker == GOV_BREAKER_CLOSED);
	CHECK(_ask() && last.breaker == GOV_BREAKER_SAME);
	gov_client_fini(&client);
	_stop();
}

static void _test_only_one_probe(void)
{
	struct gov_call *probe;

	_start(HANG_UP);
	_client(1);
	CHECK(!_ask() && last.breaker == GOV_BREAKER_OPENED);
	_sleep_ms(1050);
	probe = gov_call_begin(&client, GOV_KIND_SUBMIT);
	CHECK(probe);
	CHECK(!_ask() && !last.begun);
	server.mode = ANSWER;
	CHECK(gov_call_ask(&client, probe));
	gov_call_end(&client, probe);
	CHECK(_ask());
	gov_client_fini(&client);
	_stop();
}

static void _test_all_connections_busy(void)
{
	struct gov_call *calls[GOV_CLIENT_CALLS];

	_start(ANSWER);
	_client(5);
	for (int i = 0; i < GOV_CLIENT_CALLS; i++)
		CHECK((calls[i] = gov_call_begin(&client, GOV_KIND_SUBMIT)));
	CHECK(!_ask() && !last.begun && last.ms >= DEADLINE_MS - 1);
	for (int i = 0; i < GOV_CLIENT_CALLS; i++)
		gov_call_end(&client, calls[i]);
	CHECK(_ask());
	gov_client_fini(&client);
	_stop();
}

#define THREADS 24 /* more than there are connections */
#define ROUNDS 200

static void *_ask_often(void *arg)
{
	for (int i = 0; i < ROUNDS; i++) {
		struct gov_call *call = gov_call_begin(&client, GOV_KIND_SUBMIT);

		CHECK(call);
		gov_wire_number(&call->request, GOV_TAG_SUBMIT_UID, 1000);
		if (!gov_call_ask(&client, call)) {
			fprintf(stderr, "%s\n", call->trouble);
			exit(1);
		}
		gov_call_end(&client, call);
	}
	return arg;
}

static void _test_threads(void)
{
	struct gov_client_conf conf = { .deadline_ms = 10000,
					.breaker_failures = 1,
					.breaker_seconds = 1 };
	pthread_t threads[THREADS];

	_start(ANSWER);
	strcpy(conf.socket, server.path);
	gov_client_init(&client, &conf);
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_create(&threads[i], NULL, _ask_often, NULL));
	for (int i = 0; i < THREADS; i++)
		CHECK(!pthread_join(threads[i], NULL));
	CHECK(client.stats.requests == THREADS * ROUNDS);
	CHECK(server.requests == THREADS * ROUNDS);
	CHECK(server.connections <= GOV_CLIENT_CALLS);
	gov_client_fini(&client);
	_stop();
}

int main(int argc, char **argv)
{
	char dir[] = "/tmp/test_client.XXXXXX";

	CHECK(mkdtemp(dir));
	snprintf(server.path, sizeof(server.path), "%s/sock", dir);
	if (argc < 2 || strcmp(argv[1], "threads")) {
		_test_one_connection_is_kept();
		_test_nobody_listens();
		_test_silence_ends_at_the_deadline();
		_test_bad_answers();
		_test_restart_between_requests();
		_test_full_backlog();
		_test_breaker();
		_test_only_one_probe();
		_test_all_connections_busy();
	}
	_test_threads();
	unlink(server.path);
	rmdir(dir);
	return 0;
}
