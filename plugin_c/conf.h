/*
 * conf.h - reading job_submit_gov.conf
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef GOV_CONF_H
#define GOV_CONF_H

#include <stdbool.h>

#include "client.h"

struct gov_conf {
	struct gov_client_conf client;
	bool fail_closed;
};

/* Called for every line that is wrong, with what would be right. */
typedef void (*gov_conf_complain_t)(const char *path, unsigned line,
				    const char *trouble);

extern void gov_conf_defaults(struct gov_conf *conf);

/*
 * Read the file over the values in conf. A wrong line is complained about and
 * skipped, the others count: slurmctld must not stay down for a typing error.
 * RET 0, or the errno of opening the file
 */
extern int gov_conf_read(const char *path, struct gov_conf *conf,
			 gov_conf_complain_t complain);

#endif
