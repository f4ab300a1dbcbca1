/*
 * nodelay.c - a library to preload into sacctmgr before Slurm 24.05
 *
 * Until 24.05 Slurm sends a message to slurmdbd as its length and then its
 * body, on a socket without TCP_NODELAY: the body waits 40 ms for the other
 * side's delayed acknowledgement, and so does the answer. A sacctmgr that
 * modifies one account waits 350 ms like that. With this it does not: what it
 * sends goes out at once, and what it receives is acknowledged at once.
 *
 * slurm-govd preloads it into the sacctmgr that it runs, and into nothing
 * else. Whatever goes wrong in here is left as it was.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE /* RTLD_NEXT */

#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#define EXPORT __attribute__ ((visibility("default")))

/* A function pointer from dlsym(), in the way that POSIX allows. */
#define NEXT(name) \
	static __typeof__(&name) next; \
	if (!next) \
		*(void **) &next = dlsym(RTLD_NEXT, #name)

static void _set(int fd, int option)
{
	const int on = 1;
	int before = errno;

	(void) setsockopt(fd, IPPROTO_TCP, option, &on, sizeof(on));
	errno = before;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	NEXT(connect);

	if (addr && (addr->sa_family == AF_INET ||
		     addr->sa_family == AF_INET6)) {
		_set(fd, TCP_NODELAY);
		_set(fd, TCP_QUICKACK);
	}
	return next(fd, addr, len);
}

/* Linux forgets TCP_QUICKACK after a while: say it again with every message. */
EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	NEXT(send);

	_set(fd, TCP_QUICKACK);
	return next(fd, buf, len, flags);
}

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	NEXT(write);

	_set(fd, TCP_QUICKACK);
	return next(fd, buf, len);
}

EXPORT ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	NEXT(recv);
	ssize_t rc = next(fd, buf, len, flags);

	_set(fd, TCP_QUICKACK);
	return rc;
}

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	NEXT(read);
	ssize_t rc = next(fd, buf, len);

	_set(fd, TCP_QUICKACK);
	return rc;
}
