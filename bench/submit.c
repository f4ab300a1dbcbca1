/*
 * submit.c - submit many batch jobs from one process, and ask slurmctld what
 * each of them cost it
 *
 * Between two submissions it reads the counters that sdiag shows: how many
 * REQUEST_SUBMIT_BATCH_JOB slurmctld served and the microseconds they took.
 * Nobody else submits, so the difference is this one submission's exactly.
 *
 * usage: submit NAME COUNT HOLD ACCOUNT GRES[,GRES...]
 * Each line of output: microseconds in slurmctld, microseconds seen from here.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

#define SUBMIT_BATCH_JOB 4003 /* REQUEST_SUBMIT_BATCH_JOB on every version */
#define MAX_KINDS 16

struct served {
	uint32_t count;
	uint64_t usec;
};

static void _die(const char *what)
{
	fprintf(stderr, "submit: %s: %s\n", what, slurm_strerror(errno));
	exit(1);
}

static int64_t _usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

/* The answer is not freed: no public header declares how. */
static struct served _served(void)
{
	stats_info_request_msg_t request = { .command_id = STAT_COMMAND_GET };
	stats_info_response_msg_t *stats;

	if (slurm_get_statistics(&stats, &request))
		_die("sdiag");
	for (uint32_t i = 0; i < stats->rpc_type_size; i++)
		if (stats->rpc_type_id[i] == SUBMIT_BATCH_JOB)
			return (struct served) { stats->rpc_type_cnt[i],
						 stats->rpc_type_time[i] };
	return (struct served) { 0, 0 };
}

int main(int argc, char **argv)
{
	/* as a user's shell has it: the environment travels with the job */
	char *environment[] = { "PATH=/usr/local/bin:/usr/bin:/bin",
				"HOME=/tmp", "LANG=C.UTF-8", "SHELL=/bin/bash",
				"USER=bench", NULL };
	char *gres[MAX_KINDS];
	int kinds = 0, count, hold;
	struct served before;

	if (argc != 6) {
		fprintf(stderr, "usage: submit NAME COUNT HOLD ACCOUNT GRES[,GRES...]\n");
		return 2;
	}
	count = atoi(argv[2]);
	hold = atoi(argv[3]);
	for (char *one = strtok(argv[5], ","); one && kinds < MAX_KINDS;
	     one = strtok(NULL, ","))
		gres[kinds++] = one;
	if (!kinds)
		return 2;

	slurm_init(NULL);
	before = _served();
	for (int i = 0; i < count; i++) {
		submit_response_msg_t *response = NULL;
		struct served after;
		job_desc_msg_t job;
		int64_t start, took;

		slurm_init_job_desc_msg(&job);
		job.name = argv[1];
		job.account = argv[4];
		job.user_id = getuid();
		job.group_id = getgid();
		job.min_nodes = 1;
		job.tres_per_node = gres[i % kinds];
		job.time_limit = 60;
		if (hold)
			job.priority = 0;
		job.script = "#!/bin/sh\nsleep 600\n";
		job.work_dir = "/";
		job.std_out = "/dev/null";
		job.environment = environment;
		job.env_size = sizeof(environment) / sizeof(*environment) - 1;

		start = _usec();
		if (slurm_submit_batch_job(&job, &response))
			_die("sbatch");
		took = _usec() - start;
		slurm_free_submit_response_response_msg(response);

		after = _served();
		/* slurmctld answers before it counts */
		while (after.count == before.count)
			after = _served();
		if (after.count != before.count + 1) {
			fprintf(stderr, "submit: somebody else submits, too\n");
			return 1;
		}
		printf("%llu %lld\n",
		       (unsigned long long) (after.usec - before.usec),
		       (long long) took);
		before = after;
	}
	return 0;
}
