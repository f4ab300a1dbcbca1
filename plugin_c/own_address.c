/*
 * own_address.c - a library to preload into the slurmctlds of a sandbox with
 * several controllers
 *
 * slurmdbd sends changes of limits to where slurmctld's connection came from.
 * Two slurmctlds on one machine listen on 127.0.0.1 and 127.0.0.2, but what
 * they connect from is 127.0.0.1 for both, so slurmdbd would tell the wrong
 * one. With this they connect from the address in SLURM_GOV_OWN_ADDRESS.
 *
 * For sandboxes only: real controllers are machines with addresses.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE /* RTLD_NEXT */

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>

#define EXPORT __attribute__ ((visibility("default")))

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	static __typeof__(&connect) next;
	const char *own = getenv("SLURM_GOV_OWN_ADDRESS");
	struct sockaddr_in from = { .sin_family = AF_INET };
	int before = errno;

	if (!next)
		*(void **) &next = dlsym(RTLD_NEXT, "connect");
	/* One that is bound already stays so. */
	if (own && addr && addr->sa_family == AF_INET &&
	    inet_pton(AF_INET, own, &from.sin_addr) == 1)
		(void) bind(fd, (const struct sockaddr *) &from, sizeof(from));
	errno = before;
	return next(fd, addr, len);
}
