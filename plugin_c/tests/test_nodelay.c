/*
 * test_nodelay.c - what a preloaded slurm_gov_nodelay.so does to connections
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

static int _nodelay(int fd)
{
	int value = -1;
	socklen_t len = sizeof(value);

	CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len));
	return value;
}

static void test_connection(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	socklen_t len = sizeof(addr);
	int server = socket(AF_INET, SOCK_STREAM, 0);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	char got[8] = "";
	int other;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CHECK(!bind(server, (struct sockaddr *) &addr, sizeof(addr)));
	CHECK(!listen(server, 1));
	CHECK(!getsockname(server, (struct sockaddr *) &addr, &len));
	CHECK(_nodelay(fd) == 0);
	CHECK(!connect(fd, (struct sockaddr *) &addr, sizeof(addr)));
	CHECK(_nodelay(fd) != 0);

	other = accept(server, NULL, NULL);
	CHECK(other >= 0);
	CHECK(write(fd, "abc", 3) == 3);
	CHECK(read(other, got, sizeof(got)) == 3 && !strcmp(got, "abc"));
	CHECK(send(other, "de", 2, 0) == 2);
	CHECK(recv(fd, got, sizeof(got), 0) == 2 && got[0] == 'd');
	close(fd);
	close(other);
	close(server);
}

/* What is no TCP connection works as without it, errors too. */
static void test_others(void)
{
	struct sockaddr_in nowhere = { .sin_family = AF_INET };
	int fds[2], fd;
	char got[4];

	CHECK(!pipe(fds));
	errno = 0;
	CHECK(write(fds[1], "x", 1) == 1 && errno == 0);
	CHECK(read(fds[0], got, sizeof(got)) == 1 && errno == 0);
	CHECK(read(-1, got, 1) == -1 && errno == EBADF);
	CHECK(write(-1, got, 1) == -1 && errno == EBADF);
	CHECK(recv(fds[0], got, 1, 0) == -1 && errno == ENOTSOCK);
	close(fds[0]);
	close(fds[1]);

	nowhere.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	nowhere.sin_port = htons(1);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	CHECK(connect(fd, (struct sockaddr *) &nowhere, sizeof(nowhere)) &&
	      errno == ECONNREFUSED);
	close(fd);
}

int main(void)
{
	test_connection();
	test_others();
	return 0;
}
