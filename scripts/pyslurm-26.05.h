/*
 * pyslurm-26.05.h - build pyslurm 25.11 against the headers of Slurm 26.05
 *
 * Included before everything else (cc -include) by scripts/pyslurm. In 26.05
 * many functions take a slurm_step_id_t where they took a job id; slurm.h has
 * a layer of its own for callers that know the job id only.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define SLURM_BACKWARD_COMPAT 1
#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

/* renamed */
#define slurm_free_ctl_conf slurm_free_conf

/* gone; pyslurm only lists it among its constants, at the value it had */
#define ESLURM_ERROR_ON_DESC_TO_RECORD_COPY 2007
