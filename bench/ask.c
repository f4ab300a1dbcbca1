/*
 * ask.c - ask slurm-govd as job_submit_gov.so does, with the plugin's own
 * code, and tell how long each exchange took
 *
 * usage: ask SOCKET COUNT PACE_US ACCOUNT PARTITION GRES
 * Each line of output: microseconds from the first byte sent to the answer
 * read; a line with -1 is an exchange that failed.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"

int main(int argc, char **argv)
{
	struct gov_client_conf conf = { .deadline_ms = 1000 };
	static struct gov_client client;
	int count, pace;

	if (argc != 7 || strlen(argv[1]) >= sizeof(conf.socket)) {
		fprintf(stderr, "usage: ask SOCKET COUNT PACE_US ACCOUNT PARTITION GRES\n");
		return 2;
	}
	strcpy(conf.socket, argv[1]);
	count = atoi(argv[2]);
	pace = atoi(argv[3]);
	gov_client_init(&client, &conf);

	for (int i = 0; i < count; i++) {
		struct gov_call *call = gov_call_begin(&client,
						       GOV_KIND_SUBMIT);

		if (!call)
			return 1;
		/* what sbatch --account --gres --nodes=1 sends */
		gov_wire_number(&call->request, GOV_TAG_SUBMIT_UID, getuid());
		gov_wire_number(&call->request, GOV_TAG_USER_ID, getuid());
		gov_wire_number(&call->request, GOV_TAG_GROUP_ID, getgid());
		gov_wire_number(&call->request, GOV_TAG_BATCH, 1);
		gov_wire_number(&call->request, GOV_TAG_MIN_NODES, 1);
		gov_wire_number(&call->request, GOV_TAG_NUM_TASKS, 1);
		gov_wire_number(&call->request, GOV_TAG_CPUS_PER_TASK, 1);
		gov_wire_number(&call->request, GOV_TAG_TIME_LIMIT, 60);
		gov_wire_string(&call->request, GOV_TAG_ACCOUNT, argv[4]);
		gov_wire_string(&call->request, GOV_TAG_PARTITION, argv[5]);
		gov_wire_string(&call->request, GOV_TAG_TRES_PER_NODE, argv[6]);
		gov_wire_string(&call->request, GOV_TAG_NAME, "bench");

		if (gov_call_ask(&client, call)) {
			printf("%lld\n", (long long) call->round_trip / 1000);
		} else {
			fprintf(stderr, "ask: %s\n", call->trouble);
			printf("-1\n");
		}
		gov_call_end(&client, call);
		if (pace)
			usleep((useconds_t) pace);
	}
	gov_client_fini(&client);
	return 0;
}
