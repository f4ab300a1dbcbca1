/*
 * test_conf.c - reading job_submit_gov.conf
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <errno.h>
#include <unistd.h>

#include "../conf.h"
#include "check.h"

static char complaints[4096];

static void _complain(const char *path, unsigned line, const char *trouble)
{
	size_t used = strlen(complaints);

	(void) path;
	snprintf(complaints + used, sizeof(complaints) - used, "%u: %s\n",
		 line, trouble);
}

static struct gov_conf _read(const char *text)
{
	char path[] = "/tmp/test_conf.XXXXXX";
	int fd = mkstemp(path);
	struct gov_conf conf;

	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t) strlen(text));
	close(fd);
	complaints[0] = '\0';
	gov_conf_defaults(&conf);
	CHECK(gov_conf_read(path, &conf, _complain) == 0);
	unlink(path);
	return conf;
}

static void _check_defaults(const struct gov_conf *conf)
{
	CHECK_STR(conf->client.socket, "/run/slurm-gov/admission.sock");
	CHECK(conf->client.deadline_ms == 100);
	CHECK(conf->client.breaker_failures == 5);
	CHECK(conf->client.breaker_seconds == 5);
	CHECK(!conf->fail_closed);
}

static void _test_good(void)
{
	struct gov_conf conf = _read("# a comment\n"
				     "\n"
				     "socket=/tmp/with space.sock\n"
				     "  deadline_ms = 250  # how long\n"
				     "fail=closed\r\n"
				     "breaker_failures=0\n"
				     "breaker_seconds=3600");

	CHECK_STR(complaints, "");
	CHECK_STR(conf.client.socket, "/tmp/with space.sock");
	CHECK(conf.client.deadline_ms == 250);
	CHECK(conf.fail_closed);
	CHECK(conf.client.breaker_failures == 0);
	CHECK(conf.client.breaker_seconds == 3600);

	conf = _read("");
	_check_defaults(&conf);
}

/* Wrong lines are complained about and change nothing. */
static void _test_wrong(void)
{
	char text[4096];
	struct gov_conf conf;

	snprintf(text, sizeof(text),
		 "fail=maybe\nfial=closed\nfail\n=\n"
		 "deadline_ms=\ndeadline_ms=0\ndeadline_ms=10001\n"
		 "deadline_ms=-1\ndeadline_ms=5s\ndeadline_ms=99999999999999999999\n"
		 "breaker_failures=1001\nbreaker_seconds=0\n"
		 "socket=relative\nsocket=/%0*d\n", 107, 0);
	conf = _read(text);
	_check_defaults(&conf);
	CHECK_STR(complaints,
		  "1: fail wants open or closed\n"
		  "2: unknown option; known are socket, deadline_ms, fail, breaker_failures, breaker_seconds\n"
		  "3: a line is NAME=VALUE\n"
		  "4: unknown option; known are socket, deadline_ms, fail, breaker_failures, breaker_seconds\n"
		  "5: deadline_ms wants a number from 1 to 10000\n"
		  "6: deadline_ms wants a number from 1 to 10000\n"
		  "7: deadline_ms wants a number from 1 to 10000\n"
		  "8: deadline_ms wants a number from 1 to 10000\n"
		  "9: deadline_ms wants a number from 1 to 10000\n"
		  "10: deadline_ms wants a number from 1 to 10000\n"
		  "11: breaker_failures wants a number from 0 to 1000\n"
		  "12: breaker_seconds wants a number from 1 to 3600\n"
		  "13: socket wants an absolute path of at most 107 bytes\n"
		  "14: socket wants an absolute path of at most 107 bytes\n");
}

static void _test_missing(void)
{
	struct gov_conf conf;

	gov_conf_defaults(&conf);
	CHECK(gov_conf_read("/nonexistent", &conf, _complain) == ENOENT);
	_check_defaults(&conf);
}

int main(void)
{
	_test_good();
	_test_wrong();
	_test_missing();
	return 0;
}
