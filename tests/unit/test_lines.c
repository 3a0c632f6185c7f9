// SPDX-License-Identifier: GPL-2.0-or-later
/* test_lines.c - bytes cut into lines, and descriptors that are passed on, over real sockets. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lines.h"
#include "sockets.h"

static int make(void **state)
{
	int *pair = calloc(2, sizeof(*pair));

	*state = pair;
	return pair ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) : -1;
}

static int drop(void **state)
{
	const int *pair = *state;

	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
	free(*state);
	return 0;
}

static void say(const int *pair, const char *text)
{
	assert_int_equal(gw_send_fd(pair[0], text, strlen(text), -1, 0), 0);
}

static void assert_line(struct gw_lines *l, const char *text)
{
	size_t len = 0;
	const char *line = gw_lines_next(l, &len);

	if (!text) {
		assert_null(line);
		return;
	}
	assert_non_null(line);
	assert_string_equal(line, text);
	assert_int_equal(len, strlen(text));
}

static void lines_come_whole(void **state)
{
	const int *pair = *state;
	struct gw_lines l = { .max = 100 };

	assert_line(&l, NULL);
	assert_int_equal(gw_lines_fill(&l, pair[1]), -EAGAIN);
	say(pair, "one\n\ntwo\nthr");
	assert_int_equal(gw_lines_fill(&l, pair[1]), 0);
	assert_line(&l, "one");
	assert_line(&l, "");
	assert_line(&l, "two");
	assert_line(&l, NULL);
	say(pair, "ee");
	assert_int_equal(gw_lines_fill(&l, pair[1]), 0);
	assert_line(&l, NULL);
	say(pair, "\n");
	assert_int_equal(gw_lines_fill(&l, pair[1]), 0);
	assert_line(&l, "three");
	gw_lines_free(&l);
}

/* Lines of every length up to the limit, back to back, so that they lie at every offset. */
static void lines_of_every_length(void **state)
{
	const int *pair = *state;
	struct gw_lines l = { .max = 9000 };
	gw_autofree char *text = calloc(1, 9002);

	for (size_t n = 0; n <= 9000; n += n < 20 ? 1 : 449) {
		memset(text, 'a' + (int)(n % 26), n);
		text[n] = '\n';
		assert_int_equal(gw_send_fd(pair[0], text, n + 1, -1, 0), 0);
		text[n] = '\0';
		for (;;) {
			size_t len;
			const char *line = gw_lines_next(&l, &len);

			if (line) {
				assert_string_equal(line, text);
				break;
			}
			assert_int_equal(gw_lines_fill(&l, pair[1]), 0);
		}
	}
	gw_lines_free(&l);
}

static void a_line_without_end_is_refused(void **state)
{
	const int *pair = *state;
	struct gw_lines l = { .max = 10000 };
	gw_autofree char *text = calloc(1, 20001);
	int rc = 0;

	memset(text, 'x', 20000);
	say(pair, text);
	for (int i = 0; i < 100 && !rc; i++) {
		rc = gw_lines_fill(&l, pair[1]);
		assert_line(&l, NULL);
	}
	assert_int_equal(rc, -EMSGSIZE);
	gw_lines_free(&l);
}

static void the_end_is_told(void **state)
{
	int *pair = *state;
	struct gw_lines l = { .max = 10 };

	say(pair, "last\nhalf");
	close(pair[0]);
	pair[0] = -1;
	assert_int_equal(gw_lines_fill(&l, pair[1]), 0);
	assert_line(&l, "last");
	assert_line(&l, NULL);
	assert_int_equal(gw_lines_fill(&l, pair[1]), -EPIPE);
	gw_lines_free(&l);
}

static void descriptors_are_passed(void **state)
{
	const int *pair = *state;
	gw_autofd int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	char buf[16];
	int fd;

	assert_int_equal(gw_send_fd(pair[0], "with", 4, null, 0), 0);
	assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, 0), 4);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	assert_int_equal(gw_send_fd(pair[0], "without", 7, -1, 0), 0);
	assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, 0), 7);
	assert_int_equal(fd, -1);
	assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, MSG_DONTWAIT), -EAGAIN);
}

/* A packet goes whole or not at all, and a full socket is said to be full. */
static void a_full_socket_does_not_wait(void **state)
{
	static const char packet[1000];
	int pair[2], rc = 0, sent = 0, fd;
	char buf[2000];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (; !rc && sent < 1000000; sent++)
		rc = gw_send_fd(pair[0], packet, sizeof(packet), -1, MSG_DONTWAIT);
	assert_int_equal(rc, -EAGAIN);
	for (int i = 0; i < sent - 1; i++)
		assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, MSG_DONTWAIT),
				 sizeof(packet));
	assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, MSG_DONTWAIT), -EAGAIN);
	close(pair[0]);
	assert_int_equal(gw_recv_fd(pair[1], buf, sizeof(buf), &fd, MSG_DONTWAIT), 0);
	close(pair[1]);
}

/* In folders far deeper than the 107 characters of an address; and nobody else's at once. */
static void sockets_lie_at_any_depth(void **state)
{
	const mode_t before = umask(0);
	gw_autofree char *folder = gw_path("%s", (char *)*state);
	gw_autofree char *path = NULL, *name = NULL, *none = NULL;
	struct stat st;
	char long_name[200] = "";
	int server = -1, client, peer;

	for (int i = 0; i < 8; i++) {
		gw_autofree char *above = folder;

		folder = gw_path("%s/a-name-of-thirty-characters---", above);
		assert_int_equal(mkdir(folder, 0700), 0);
		path = (free(path), gw_path("%s/control.sock", folder));
		if (server >= 0)
			close(server);
		server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(gw_unix_bind(server, path), 0);
		assert_int_equal(lstat(path, &st), 0);
		assert_int_equal(st.st_mode, S_IFSOCK | 0600);
		assert_int_equal(listen(server, 1), 0);
		client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(gw_unix_connect(client, path), 0);
		peer = accept(server, NULL, NULL);
		assert_true(peer >= 0);
		close(peer);
		close(client);
	}
	umask(before);
	assert_true(strlen(path) > 250);
	none = gw_path("%s/none.sock", folder);
	memset(long_name, 'x', sizeof(long_name) - 1);
	name = gw_path("%s/%s", folder, long_name);
	client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(gw_unix_connect(client, none), -ENOENT);
	assert_int_equal(gw_unix_connect(client, name), -ENAMETOOLONG);
	close(client);
	close(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(lines_come_whole, make, drop),
		cmocka_unit_test_setup_teardown(lines_of_every_length, make, drop),
		cmocka_unit_test_setup_teardown(a_line_without_end_is_refused, make, drop),
		cmocka_unit_test_setup_teardown(the_end_is_told, make, drop),
		cmocka_unit_test_setup_teardown(descriptors_are_passed, make, drop),
		cmocka_unit_test(a_full_socket_does_not_wait),
		unit_folder_test(sockets_lie_at_any_depth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
