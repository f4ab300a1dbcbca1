/*
 * job_submit_gov.c - job_submit plugin that asks slurm-govd
 *
 * It packs what the user asked for, asks, and applies the answer; every
 * decision is slurm-govd's. It runs inside slurmctld under its locks, so it
 * never waits longer than the deadline (see client.h).
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <slurm/slurm.h>
#include <slurm/slurm_errno.h>

#include "client.h"
#include "conf.h"

#define EXPORT __attribute__ ((visibility("default")))
#define ME "job_submit/gov"
#define QUIET_SECONDS 10 /* between log lines about jobs not asked about */

/*
 * The public headers declare none of these, but libslurm and slurmctld have
 * exported them under these names since long before 22.05. Strings in a
 * job_desc_msg_t have to come from and go back to Slurm's own allocator.
 */
extern char *slurm_xstrdup(const char *str);
extern void slurm_xfree(void **item);
__attribute__ ((format(printf, 1, 2)))
extern void slurm_info(const char *fmt, ...);
__attribute__ ((format(printf, 1, 2)))
extern void slurm_error(const char *fmt, ...);
__attribute__ ((format(printf, 1, 2)))
extern void slurm_debug(const char *fmt, ...);

EXPORT const char plugin_name[] = "Slurm governor job submit plugin";
EXPORT const char plugin_type[] = ME;
EXPORT const uint32_t plugin_version = SLURM_VERSION_NUMBER;

/* Read from the file by `slurm-gov doctor`: what it was built for. */
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)
#ifndef GOV_VERSION
#define GOV_VERSION unknown
#endif
EXPORT const char gov_built[] = "slurm-gov job_submit_gov " STRING(GOV_VERSION)
	" for Slurm " STRING(SLURM_VERSION_NUMBER)
	" wire " STRING(GOV_WIRE_VERSION);

static struct gov_conf conf;
static struct gov_client client;

static void _complain(const char *path, unsigned line, const char *trouble)
{
	slurm_error("%s: %s line %u: %s; line skipped", ME, path, line,
		    trouble);
}

/* slurmctld has SLURM_CONF in its environment, whatever it was started with. */
static void _conf_path(char *path, size_t size)
{
	const char *slurm_conf = getenv("SLURM_CONF");
	const char *slash;

	if (!slurm_conf)
		slurm_conf = "/etc/slurm/slurm.conf";
	slash = strrchr(slurm_conf, '/');
	snprintf(path, size, "%.*sjob_submit_gov.conf",
		 slash ? (int) (slash - slurm_conf + 1) : 0, slurm_conf);
}

EXPORT int init(void)
{
	char path[PATH_MAX];
	int rc;

	gov_conf_defaults(&conf);
	_conf_path(path, sizeof(path));
	if ((rc = gov_conf_read(path, &conf, _complain)))
		slurm_info("%s: %s: %s; using the defaults", ME, path,
			   strerror(rc));
	slurm_info("%s: socket=%s deadline_ms=%u fail=%s breaker_failures=%u breaker_seconds=%u",
		   ME, conf.client.socket, conf.client.deadline_ms,
		   conf.fail_closed ? "closed" : "open",
		   conf.client.breaker_failures, conf.client.breaker_seconds);
	gov_client_init(&client, &conf.client);
	return SLURM_SUCCESS;
}

EXPORT int fini(void)
{
	gov_client_fini(&client);
	return SLURM_SUCCESS;
}

static void _pack16(struct gov_writer *w, enum gov_tag tag, uint16_t value)
{
	if (value != NO_VAL16 && value != INFINITE16)
		gov_wire_number(w, tag, value);
}

static void _pack32(struct gov_writer *w, enum gov_tag tag, uint32_t value)
{
	if (value != NO_VAL && value != INFINITE)
		gov_wire_number(w, tag, value);
}

static void _pack64(struct gov_writer *w, enum gov_tag tag, uint64_t value)
{
	if (value != NO_VAL64 && value != INFINITE64)
		gov_wire_number(w, tag, value);
}

static void _pack_time(struct gov_writer *w, enum gov_tag tag, time_t value)
{
	if (value)
		gov_wire_number(w, tag, (uint64_t) value);
}

static uint32_t _job_id(const job_desc_msg_t *job)
{
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(25, 11, 0)
	return job->step_id.job_id;
#else
	return job->job_id;
#endif
}

/* Numbers first, they always fit; then the strings, the longest ones last. */
static void _pack_job(struct gov_writer *w, const job_desc_msg_t *job,
		      enum gov_kind kind, uint32_t submit_uid)
{
	gov_wire_number(w, GOV_TAG_SLURM_VERSION, SLURM_VERSION_NUMBER);

	gov_wire_number(w, GOV_TAG_SUBMIT_UID, submit_uid);
	if (kind == GOV_KIND_SUBMIT) {
		gov_wire_number(w, GOV_TAG_BATCH, !!job->script);
		/* in an update Slurm leaves it 0, which says nothing */
		_pack32(w, GOV_TAG_HET_JOB_OFFSET, job->het_job_offset);
	} else {
		_pack32(w, GOV_TAG_JOB_ID, _job_id(job));
	}
	_pack32(w, GOV_TAG_USER_ID, job->user_id);
	_pack32(w, GOV_TAG_GROUP_ID, job->group_id);
	_pack32(w, GOV_TAG_MIN_NODES, job->min_nodes);
	_pack32(w, GOV_TAG_MAX_NODES, job->max_nodes);
	_pack32(w, GOV_TAG_NUM_TASKS, job->num_tasks);
	_pack16(w, GOV_TAG_NTASKS_PER_NODE, job->ntasks_per_node);
	_pack16(w, GOV_TAG_NTASKS_PER_SOCKET, job->ntasks_per_socket);
	_pack16(w, GOV_TAG_NTASKS_PER_TRES, job->ntasks_per_tres);
	_pack16(w, GOV_TAG_CPUS_PER_TASK, job->cpus_per_task);
	_pack32(w, GOV_TAG_MIN_CPUS, job->min_cpus);
	_pack32(w, GOV_TAG_MAX_CPUS, job->max_cpus);
	_pack16(w, GOV_TAG_PN_MIN_CPUS, job->pn_min_cpus);
	_pack64(w, GOV_TAG_PN_MIN_MEMORY, job->pn_min_memory);
	_pack16(w, GOV_TAG_SHARED, job->shared);
	_pack16(w, GOV_TAG_REQUEUE, job->requeue);
	_pack32(w, GOV_TAG_TIME_LIMIT, job->time_limit);
	_pack32(w, GOV_TAG_TIME_MIN, job->time_min);
	_pack_time(w, GOV_TAG_BEGIN_TIME, job->begin_time);
	_pack_time(w, GOV_TAG_DEADLINE, job->deadline);
	_pack32(w, GOV_TAG_PRIORITY, job->priority);
	if (job->nice != NO_VAL)
		gov_wire_number(w, GOV_TAG_NICE, (uint64_t)
				((int64_t) job->nice - NICE_OFFSET));
	_pack16(w, GOV_TAG_WARN_SIGNAL, job->warn_signal);
	_pack16(w, GOV_TAG_WARN_FLAGS, job->warn_flags);
	_pack16(w, GOV_TAG_WARN_TIME, job->warn_time);

	if (kind == GOV_KIND_MODIFY)
		gov_wire_string(w, GOV_TAG_JOB_ID_STR, job->job_id_str);
	gov_wire_string(w, GOV_TAG_ACCOUNT, job->account);
	gov_wire_string(w, GOV_TAG_QOS, job->qos);
	gov_wire_string(w, GOV_TAG_PARTITION, job->partition);
	gov_wire_string(w, GOV_TAG_TRES_PER_JOB, job->tres_per_job);
	gov_wire_string(w, GOV_TAG_TRES_PER_NODE, job->tres_per_node);
	gov_wire_string(w, GOV_TAG_TRES_PER_SOCKET, job->tres_per_socket);
	gov_wire_string(w, GOV_TAG_TRES_PER_TASK, job->tres_per_task);
	gov_wire_string(w, GOV_TAG_CPUS_PER_TRES, job->cpus_per_tres);
	gov_wire_string(w, GOV_TAG_MEM_PER_TRES, job->mem_per_tres);
	gov_wire_string(w, GOV_TAG_RESERVATION, job->reservation);
	gov_wire_string(w, GOV_TAG_ARRAY_INX, job->array_inx);
	gov_wire_string(w, GOV_TAG_LICENSES, job->licenses);
	gov_wire_string(w, GOV_TAG_WCKEY, job->wckey);
	gov_wire_string(w, GOV_TAG_NAME, job->name);
	gov_wire_string(w, GOV_TAG_FEATURES, job->features);
	gov_wire_string(w, GOV_TAG_REQ_NODES, job->req_nodes);
	gov_wire_string(w, GOV_TAG_EXC_NODES, job->exc_nodes);
	gov_wire_string(w, GOV_TAG_DEPENDENCY, job->dependency);
	gov_wire_string(w, GOV_TAG_COMMENT, job->comment);
	gov_wire_string(w, GOV_TAG_ADMIN_COMMENT, job->admin_comment);
}

/*
 * Put value in place of *field. The empty string clears: in a submission that
 * is NULL, in a modification Slurm itself writes it as "".
 */
static void _set(char **field, const char *value, enum gov_kind kind)
{
	void *old = *field;

	if (!value)
		return;
	slurm_xfree(&old);
	*field = (*value || kind == GOV_KIND_MODIFY) ? slurm_xstrdup(value)
						     : NULL;
}

/* Several components of one update share an err_msg: free what is there. */
static void _tell_user(char **err_msg, const char *message)
{
	if (err_msg)
		_set(err_msg, message, GOV_KIND_SUBMIT);
}

static int _slurm_errno(int cause)
{
	switch (cause) {
	case GOV_CAUSE_ACCESS:
		return ESLURM_ACCESS_DENIED;
	case GOV_CAUSE_ACCOUNT:
		return ESLURM_INVALID_ACCOUNT;
	case GOV_CAUSE_QOS:
		return ESLURM_INVALID_QOS;
	case GOV_CAUSE_TRES:
		return ESLURM_INVALID_GRES;
	default:
		return ESLURM_ACCOUNTING_POLICY;
	}
}

static int _apply(job_desc_msg_t *job, const struct gov_answer *a,
		  enum gov_kind kind, char **err_msg)
{
	_tell_user(err_msg, a->message);
	if (a->verdict == GOV_VERDICT_REFUSE)
		return _slurm_errno(a->cause);

	_set(&job->account, a->account, kind);
	_set(&job->qos, a->qos, kind);
	_set(&job->tres_per_job, a->tres_per_job, kind);
	_set(&job->tres_per_node, a->tres_per_node, kind);
	_set(&job->tres_per_socket, a->tres_per_socket, kind);
	_set(&job->tres_per_task, a->tres_per_task, kind);
	_set(&job->comment, a->comment, kind);
	_set(&job->admin_comment, a->admin_comment, kind);
	if (a->requeue >= 0)
		job->requeue = (uint16_t) a->requeue;
	return SLURM_SUCCESS;
}

/*
 * Jobs about which there was no answer are counted and logged together: when
 * the breaker moves, else one line per QUIET_SECONDS at most.
 */
static struct {
	pthread_mutex_t lock;
	unsigned jobs;
	time_t quiet_until;
} unanswered = { .lock = PTHREAD_MUTEX_INITIALIZER };

/* Add jobs to the count. RET all of them if it is time for a line, else 0 */
static unsigned _count_unanswered(unsigned jobs, bool always)
{
	time_t now = time(NULL);

	pthread_mutex_lock(&unanswered.lock);
	jobs = (unanswered.jobs += jobs);
	if (always || now >= unanswered.quiet_until) {
		unanswered.jobs = 0;
		unanswered.quiet_until = now + QUIET_SECONDS;
	} else {
		jobs = 0;
	}
	pthread_mutex_unlock(&unanswered.lock);
	return jobs;
}

static void _log_no_answer(const char *trouble, enum gov_breaker_event breaker)
{
	bool opened = (breaker == GOV_BREAKER_OPENED);
	unsigned jobs = _count_unanswered(1, opened);

	if (opened)
		slurm_error("%s: slurm-govd failed %u times in a row, it is not asked for %u s",
			    ME, conf.client.breaker_failures,
			    conf.client.breaker_seconds);
	if (jobs)
		slurm_error("%s: %s; jobs %s: %u", ME, trouble,
			    conf.fail_closed ? "refused" : "accepted as they came",
			    jobs);
}

static void _log_answers_again(void)
{
	slurm_info("%s: slurm-govd answers again; jobs %s meanwhile: %u", ME,
		   conf.fail_closed ? "refused" : "accepted as they came",
		   _count_unanswered(0, true));
}

/*
 * Root and SlurmUser may modify jobs even with fail=closed: someone has to be
 * able to put things right. (They may not submit: portals submit as root on
 * behalf of users.)
 */
static int _without_answer(enum gov_kind kind, uint32_t submit_uid,
			   char **err_msg)
{
	if (!conf.fail_closed)
		return SLURM_SUCCESS;
	if (kind == GOV_KIND_MODIFY) {
		if (submit_uid == 0 || submit_uid == geteuid())
			return SLURM_SUCCESS;
		_tell_user(err_msg, "slurm-gov is not answering; this cluster does not let jobs change without it. Try again in a minute.");
		return ESLURM_DISABLED;
	}
	_tell_user(err_msg, "slurm-gov is not answering; this cluster does not accept jobs without it. Try again in a minute.");
	return ESLURM_SUBMISSIONS_DISABLED;
}

static int _hook(job_desc_msg_t *job, enum gov_kind kind, uint32_t submit_uid,
		 char **err_msg)
{
	struct gov_call *call = gov_call_begin(&client, kind);
	int rc;

	if (!call) {
		_log_no_answer("slurm-govd was not asked", GOV_BREAKER_SAME);
		return _without_answer(kind, submit_uid, err_msg);
	}

	_pack_job(&call->request, job, kind, submit_uid);

	if (gov_call_ask(&client, call)) {
		if (call->breaker == GOV_BREAKER_CLOSED)
			_log_answers_again();
		slurm_debug("%s: verdict %d in %d us", ME,
			    call->answer.verdict,
			    (int) (call->round_trip / 1000));
		rc = _apply(job, &call->answer, kind, err_msg);
	} else {
		_log_no_answer(call->trouble, call->breaker);
		rc = _without_answer(kind, submit_uid, err_msg);
	}
	gov_call_end(&client, call);
	return rc;
}

EXPORT int job_submit(job_desc_msg_t *job_desc, uint32_t submit_uid,
		      char **err_msg)
{
	return _hook(job_desc, GOV_KIND_SUBMIT, submit_uid, err_msg);
}

/* job_record_t is opaque to plugins built from the public headers. */
#if SLURM_VERSION_NUMBER >= SLURM_VERSION_NUM(23, 2, 0)
EXPORT int job_modify(job_desc_msg_t *job_desc, void *job_ptr,
		      uint32_t submit_uid, char **err_msg)
{
	(void) job_ptr;
	return _hook(job_desc, GOV_KIND_MODIFY, submit_uid, err_msg);
}
#else
EXPORT int job_modify(job_desc_msg_t *job_desc, void *job_ptr,
		      uint32_t submit_uid)
{
	(void) job_ptr;
	return _hook(job_desc, GOV_KIND_MODIFY, submit_uid, NULL);
}
#endif
