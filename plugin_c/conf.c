/*
 * conf.c - reading job_submit_gov.conf
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"

/* Set one option. RET NULL, or what would be right */
typedef const char *(*setter_t)(struct gov_conf *conf, const char *value);

static bool _number(const char *value, unsigned min, unsigned max,
		    unsigned *number)
{
	char *end;
	unsigned long got;

	if (!isdigit((unsigned char) value[0]))
		return false;
	errno = 0;
	got = strtoul(value, &end, 10);
	if (errno || *end || got < min || got > max)
		return false;
	*number = (unsigned) got;
	return true;
}

static const char *_set_socket(struct gov_conf *conf, const char *value)
{
	if (value[0] != '/' || strlen(value) >= sizeof(conf->client.socket))
		return "socket wants an absolute path of at most 107 bytes";
	strcpy(conf->client.socket, value);
	return NULL;
}

static const char *_set_deadline(struct gov_conf *conf, const char *value)
{
	if (!_number(value, 1, 10000, &conf->client.deadline_ms))
		return "deadline_ms wants a number from 1 to 10000";
	return NULL;
}

static const char *_set_fail(struct gov_conf *conf, const char *value)
{
	if (strcmp(value, "open") && strcmp(value, "closed"))
		return "fail wants open or closed";
	conf->fail_closed = !strcmp(value, "closed");
	return NULL;
}

static const char *_set_failures(struct gov_conf *conf, const char *value)
{
	if (!_number(value, 0, 1000, &conf->client.breaker_failures))
		return "breaker_failures wants a number from 0 to 1000";
	return NULL;
}

static const char *_set_seconds(struct gov_conf *conf, const char *value)
{
	if (!_number(value, 1, 3600, &conf->client.breaker_seconds))
		return "breaker_seconds wants a number from 1 to 3600";
	return NULL;
}

static const struct {
	const char *name;
	setter_t set;
} options[] = {
	{ "socket", _set_socket },
	{ "deadline_ms", _set_deadline },
	{ "fail", _set_fail },
	{ "breaker_failures", _set_failures },
	{ "breaker_seconds", _set_seconds },
};

static char *_trim(char *text)
{
	size_t len;

	while (isspace((unsigned char) *text))
		text++;
	len = strlen(text);
	while (len && isspace((unsigned char) text[len - 1]))
		text[--len] = '\0';
	return text;
}

static const char *_set(struct gov_conf *conf, char *line)
{
	char *value = strchr(line, '=');

	if (!value)
		return "a line is NAME=VALUE";
	*value++ = '\0';
	line = _trim(line);
	value = _trim(value);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (!strcmp(line, options[i].name))
			return options[i].set(conf, value);
	return "unknown option; known are socket, deadline_ms, fail, breaker_failures, breaker_seconds";
}

extern void gov_conf_defaults(struct gov_conf *conf)
{
	*conf = (struct gov_conf) {
		.client = {
			.socket = "/run/slurm-gov/admission.sock",
			.deadline_ms = 100,
			.breaker_failures = 5,
			.breaker_seconds = 5,
		},
		.fail_closed = false,
	};
}

extern int gov_conf_read(const char *path, struct gov_conf *conf,
			 gov_conf_complain_t complain)
{
	FILE *file = fopen(path, "re");
	char *buf = NULL;
	size_t size = 0;

	if (!file)
		return errno;

	for (unsigned line = 1; getline(&buf, &size, file) >= 0; line++) {
		const char *trouble;
		char *text;

		buf[strcspn(buf, "#")] = '\0';
		text = _trim(buf);
		if (*text && (trouble = _set(conf, text)))
			complain(path, line, trouble);
	}
	free(buf);
	fclose(file);
	return 0;
}
