// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_samples.c - two hosts' images in one folder; this process is both QEMUs, since
 * it has them open.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "samples.h"

#define BLOCKS 40

struct host {
	char *path;
	int fd;
};

static struct gw_key key;
static struct gw_samples s, there;
static bool qcow2; /* what images are; else raw */

static const struct gw_samples_from *from(int64_t ns)
{
	static struct gw_samples_from f;

	f = (struct gw_samples_from){ .pid = getpid(), .dir = "/tmp", .key = &key, .ns = ns };
	return &f;
}

static void make(struct host *h, const char *dir, const char *name, int filling)
{
	uint8_t block[GW_SAMPLE_SIZE];

	h->path = gw_path("%s/%s", dir, name);
	h->fd = open(h->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(h->fd >= 0);
	memset(block, filling, sizeof(block));
	for (off_t i = 0; filling && i < BLOCKS; i++) {
		block[0] = (uint8_t)i;
		assert_int_equal(gw_pwrite_all(h->fd, block, sizeof(block), i * GW_SAMPLE_SIZE), 0);
	}
	assert_int_equal(ftruncate(h->fd, (off_t)BLOCKS * GW_SAMPLE_SIZE + 100), 0);
}

static void end(struct host *h)
{
	close(h->fd);
	free(h->path);
}

static json_t *images(const struct host *h)
{
	json_t *list = json_pack("[{s:s,s:i,s:s}]", "disk", "d0", "depth", 0, "file", h->path);

	if (qcow2)
		json_object_set_new(json_array_get(list, 0), "node",
				    json_pack("{s:s,s:{s:s,s:s}}", "driver", "qcow2", "file",
					      "driver", "file", "filename", h->path));
	return list;
}

static void pick(const struct host *a)
{
	gw_samples_free(&s);
	s.images = images(a);
	assert_int_equal(gw_samples_pick(&s, from(300 * GW_S)), 0);
}

/* One look at both sides. */
static void look(const struct host *b, bool first)
{
	gw_autofree char *question = gw_samples_ask(&s);
	struct gw_digest theirs[GW_SAMPLES_MAX];
	json_t *ours = images(b);

	gw_samples_free(&there);
	assert_int_equal(gw_samples_parse(question, strlen(question), &there), 0);
	assert_int_equal(there.nr, s.nr);
	gw_samples_here(&there, ours);
	json_decref(ours);
	assert_int_equal(gw_samples_read(&there, from(300 * GW_S)), 0);
	for (size_t i = 0; i < there.nr; i++)
		theirs[i] = there.at[i].digest;
	gw_samples_hear(&s, theirs, first);
	assert_int_equal(gw_samples_read(&s, from(300 * GW_S)), 0);
	gw_samples_judge(&s);
}

static void picks(void **state)
{
	struct host a;
	bool last = false;

	make(&a, *state, "a", 7);
	pick(&a);
	assert_true(s.nr > 3 && s.nr <= BLOCKS + 1);
	assert_int_equal(s.at[0].offset, 0);
	for (size_t i = 0; i < s.nr; i++) {
		last = last || s.at[i].offset == (uint64_t)BLOCKS * GW_SAMPLE_SIZE;
		assert_false(gw_digest_equal(s.at[i].digest, GW_DIGEST_UNKNOWN));
		assert_true(gw_digest_equal(s.at[i].first, s.at[i].digest));
		for (size_t k = 0; k < i; k++)
			assert_true(s.at[k].offset != s.at[i].offset);
	}
	assert_true(last); /* 100 bytes of it */
	end(&a);
}

static void equal(void **state)
{
	struct host a, b;

	make(&a, *state, "a", 7);
	make(&b, *state, "b", 7);
	pick(&a);
	look(&b, true);
	assert_int_equal(s.nr, 0);
	end(&a);
	end(&b);
}

static void differs(void **state, int filling, const char *text, const char * not )
{
	struct host a, b;

	make(&a, *state, "a", 7);
	make(&b, *state, "b", filling);
	pick(&a);
	look(&b, true);
	look(&b, false);
	assert_true(s.nr > 0);
	assert_int_equal(gw_samples_refuse(&s, "b1"), -ENOTSUP);
	assert_message("disk 'd0'");
	assert_message(a.path);
	assert_message("on host 'b1'");
	assert_message(text);
	if (not )
		assert_null(strstr(gw_error(), not ));
	end(&a);
	end(&b);
}

static void stale(void **state)
{
	differs(state, 6, "stale", "empty there");
}

static void empty(void **state)
{
	differs(state, 0, "differ and are empty there", NULL);
}

/* What either side changed between two looks says nothing, not even when it is changed back. */
static void written(void **state)
{
	struct host a, b;
	uint8_t block[GW_SAMPLE_SIZE] = { 1 };

	for (int side = 0; side < 2; side++) {
		make(&a, *state, side ? "a1" : "a", 7);
		make(&b, *state, side ? "b1" : "b", 6);
		pick(&a);
		look(&b, true);
		assert_true(s.nr > 0);
		for (off_t i = 0; i <= BLOCKS; i++)
			assert_int_equal(gw_pwrite_all(side ? b.fd : a.fd, block, sizeof(block),
						       i * GW_SAMPLE_SIZE),
					 0);
		look(&b, false);
		assert_int_equal(s.nr, 0);
		end(&a);
		end(&b);
	}
}

/* The name is another file's by now: QEMU's, and so ours, is the old one. */
static void renamed(void **state)
{
	struct host a, b, new;

	make(&a, *state, "a", 7);
	make(&b, *state, "b", 7);
	make(&new, *state, "new", 5);
	assert_int_equal(rename(new.path, a.path), 0);
	close(new.fd);
	pick(&a);
	assert_true(s.nr > 0);
	look(&b, true);
	assert_int_equal(s.nr, 0);
	free(new.path);
	end(&a);
	end(&b);
}

/* The file has another name now, and its own is another's: that is what would be opened. */
static void moved(void **state)
{
	gw_autofree char *away = gw_path("%s/away", (char *)*state);
	struct host a, new;

	make(&a, *state, "a", 7);
	assert_int_equal(rename(a.path, away), 0);
	make(&new, *state, "a", 7);
	close(new.fd);
	for (int i = 0; i < 2; i++) {
		qcow2 = i;
		gw_samples_free(&s);
		s.images = images(&a);
		assert_int_equal(gw_samples_pick(&s, from(300 * GW_S)), -ENOTSUP);
		assert_message("disk 'd0': QEMU does not have open what is called");
		assert_message(a.path);
	}
	qcow2 = false;
	free(new.path);
	end(&a);
}

/* Files that QEMU has not open, and disks that are not there, say nothing. */
static void unknown(void **state)
{
	struct host a, b;

	make(&a, *state, "a", 7);
	make(&b, *state, "b", 6);
	close(b.fd);
	assert_int_equal(unlink(b.path), 0);
	b.fd = -1;
	pick(&a);
	look(&b, true);
	assert_int_equal(s.nr, 0);
	pick(&b);
	assert_int_equal(s.nr, 0);
	end(&a);
	free(b.path);
}

/* A named pipe has no end, and whoever opens it may wait for ever. */
static void no_file(void **state)
{
	struct host a = { .path = gw_path("%s/fifo", (char *)*state) };

	assert_int_equal(mkfifo(a.path, 0600), 0);
	a.fd = open(a.path, O_RDWR | O_CLOEXEC);
	pick(&a);
	assert_int_equal(s.nr, 0);
	end(&a);
}

/* Time that is over costs the comparison, and the thread that is left ends by itself. */
static void in_time(void **state)
{
	struct host a;
	size_t nr;

	make(&a, *state, "a", 7);
	pick(&a);
	nr = s.nr;
	assert_int_equal(gw_samples_read(&s, from(-GW_S)), 0);
	assert_int_equal(s.nr, nr);
	for (size_t i = 0; i < nr; i++)
		assert_true(gw_digest_equal(s.at[i].digest, GW_DIGEST_UNKNOWN) ||
			    gw_digest_equal(s.at[i].digest, s.at[i].first));
	end(&a);
}

/* A qcow2 image in which every second cluster is there; its file depends on @cluster. */
static void make_qcow2(struct host *h, const char *dir, const char *name, int filling, int cluster)
{
	char command[600];

	h->path = gw_path("%s/%s", dir, name);
	snprintf(command, sizeof(command),
		 "qemu-img create -q -f qcow2 -o cluster_size=%d %s 1M && for i in 0 2 4 6 8; do "
		 "echo write -P %d $((i * 64))k 64k; done | qemu-io -f qcow2 %s >/dev/null",
		 cluster, h->path, filling, h->path);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): the test's own words */
	h->fd = open(h->path, O_RDWR | O_CLOEXEC);
	assert_true(h->fd >= 0);
}

/* What counts of other formats is what the guest sees, and not how it is stored. */
static void formats(void **state)
{
	struct host a, same, other;

	make_qcow2(&a, *state, "a", 7, 65536);
	make_qcow2(&same, *state, "same", 7, 4096);
	make_qcow2(&other, *state, "other", 6, 65536);
	qcow2 = true;
	pick(&a);
	assert_true(s.nr > 3);
	assert_string_equal(s.why, "");
	look(&same, true);
	assert_string_equal(there.why, "");
	assert_int_equal(s.nr, 0);
	pick(&a);
	look(&other, true);
	look(&other, false);
	assert_true(s.nr > 0);
	assert_int_equal(gw_samples_refuse(&s, "b1"), -ENOTSUP);
	assert_message(a.path);
	end(&other);
	/* What cannot be read says nothing, but why. */
	make(&other, *state, "none", 5);
	pick(&a);
	look(&other, true);
	assert_int_equal(s.nr, 0);
	assert_non_null(strstr(there.why, "disk 'd0': qemu-nbd: Image is not in qcow2 format"));
	qcow2 = false;
	end(&a);
	end(&same);
	end(&other);
}

/* A server that accepts nobody: time is over, and all that was begun ends with it. */
static void hangs(void **state)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	siginfo_t info;

	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/nbd", (char *)*state);
	assert_int_equal(bind(server, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(server, 4), 0);
	gw_samples_free(&s);
	s.images = json_pack("[{s:s,s:i,s:s,s:{s:s,s:{s:s,s:{s:s,s:s}}}}]", "disk", "d0", "depth",
			     0, "file", "far away", "node", "driver", "raw", "file", "driver",
			     "nbd", "server", "type", "unix", "path", addr.sun_path);
	assert_int_equal(gw_samples_pick(&s, from(200 * GW_MS)), 0);
	assert_int_equal(s.nr, 0);
	assert_string_equal(s.why, "storage did not answer in time");
	close(server);
	while (!waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT))
		usleep(1000);
	assert_int_equal(errno, ECHILD);
}

static void hostile(void **state)
{
	static const char *const questions[] = {
		"",
		"7",
		"[7]",
		"[{\"disk\":\"d\",\"blocks\":[0]}]",
		"[{\"disk\":7,\"depth\":0,\"blocks\":[0]}]",
		"[{\"disk\":\"d\",\"depth\":0,\"blocks\":[-4096]}]",
		"[{\"disk\":\"d\",\"depth\":0,\"blocks\":[1]}]",
		"[{\"disk\":\"d\",\"depth\":0,\"blocks\":[\"0\"]}]",
	};
	static const char named[] = "[{\"disk\":\"d\",\"depth\":0,\"file\":\"/etc/passwd\","
				    "\"blocks\":[0]}]";
	gw_autofree char *many = calloc(1, 5000);
	int at = sprintf(many, "[{\"disk\":\"d\",\"depth\":0,\"blocks\":[0");

	(void)state;
	for (size_t i = 0; i < GW_ARRAY_SIZE(questions); i++) {
		gw_samples_free(&s);
		assert_int_equal(gw_samples_parse(questions[i], strlen(questions[i]), &s), -EPROTO);
	}
	for (int i = 0; i < GW_SAMPLES_MAX; i++)
		at += sprintf(many + at, ",0");
	sprintf(many + at, "]}]");
	gw_samples_free(&s);
	assert_int_equal(gw_samples_parse(many, strlen(many), &s), -EPROTO);
	/* A file is never theirs to name. */
	gw_samples_free(&s);
	assert_int_equal(gw_samples_parse(named, strlen(named), &s), 0);
	assert_int_equal(s.nr, 1);
	assert_null(json_object_get(json_array_get(s.images, 0), "file"));
}

static int begin(void **state)
{
	const uint8_t secret[GW_SECRET_LEN] = { 5 };

	(void)state;
	return gw_key_init(&key, secret);
}

static int finish(void **state)
{
	(void)state;
	gw_samples_free(&s);
	gw_samples_free(&there);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_folder_test(picks),   unit_folder_test(equal),   unit_folder_test(stale),
		unit_folder_test(empty),   unit_folder_test(written), unit_folder_test(renamed),
		unit_folder_test(moved),   unit_folder_test(unknown), unit_folder_test(no_file),
		unit_folder_test(in_time), unit_folder_test(formats), unit_folder_test(hangs),
		cmocka_unit_test(hostile),
	};

	return cmocka_run_group_tests(tests, begin, finish);
}
