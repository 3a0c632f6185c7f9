// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_daemon.c - nothing that a client, a peer or a worker leaves undone stops the daemon,
 * and no worker waits for it (invariant 16). The daemon's loop turns in this process, so
 * whatever makes it wait makes the test hang.
 */
#include "served.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "frame.h"
#include "io.h"
#include "holder.h"
#include "lines.h"
#include "sockets.h"
#include "worker.h"

struct host {
	struct served d;
	struct gw_process qemu; /* a process that does nothing */
};

static int make(void **state)
{
	struct host *h = calloc(1, sizeof(*h));
	pid_t pid;

	*state = h;
	if (!h || served_init(&h->d))
		return -1;
	pid = fork();
	if (!pid)
		for (;;)
			pause();
	return gw_process_identify(pid, &h->qemu) ? -1 : served_start(&h->d);
}

static int drop(void **state)
{
	struct host *h = *state;

	served_drop(&h->d);
	kill(h->qemu.pid, SIGKILL);
	waitpid(h->qemu.pid, NULL, 0);
	free(h);
	return 0;
}

static void run_ms(struct host *h, int ms)
{
	struct until u = { h->d.loop, NULL, NULL, gw_now() + ms * GW_MS };

	gw_loop_run(h->d.loop, 2, until_tick, &u);
}

struct caller {
	int fd;
	struct gw_lines in;
	json_t *answer; /* {"return":...} or {"error":...} */
	unsigned int progress;
};

static void call(struct host *h, struct caller *c)
{
	gw_autofree char *path = gw_path("%s/control.sock", h->d.paths.run);

	*c = (struct caller){ .in = { .max = 64 << 20 } };
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(gw_unix_connect(c->fd, path), 0);
}

static void ask(const struct caller *c, const char *request)
{
	assert_int_equal(gw_send_fd(c->fd, request, strlen(request), -1, MSG_DONTWAIT), 0);
}

static void hang_up(struct caller *c)
{
	close(c->fd);
	gw_lines_free(&c->in);
	json_decref(c->answer);
}

/* Whether the next answer has come. */
static bool answered(void *arg)
{
	struct caller *c = arg;
	const char *line;
	size_t len;

	while (!c->answer) {
		line = gw_lines_next(&c->in, &len);
		if (!line && gw_lines_fill(&c->in, c->fd))
			return false;
		if (!line)
			continue;
		c->answer = json_loadb(line, len, 0, NULL);
		assert_non_null(c->answer);
		if (!json_object_get(c->answer, "progress"))
			break;
		c->progress++;
		json_decref(c->answer);
		c->answer = NULL;
	}
	return true;
}

static const char *error_of(const struct caller *c)
{
	return json_string_value(json_object_get(c->answer, "error")) ?: "";
}

/* Whether the daemon answers somebody else. */
static void assert_awake(struct host *h)
{
	struct caller c;

	call(h, &c);
	ask(&c, "{\"execute\":\"version\"}\n");
	run_until(&h->d, answered, &c);
	assert_string_equal(json_string_value(json_object_get(c.answer, "return")),
			    GW_PROJECT_VERSION);
	hang_up(&c);
}

/* A client that asks and does not read: others are served; then it gets every answer. */
static void answers_wait_for_their_reader(void **state)
{
	static const char request[] =
		"{\"execute\":\"status\",\"arguments\":{\"name\":\"web1\"}}\n";
	struct host *h = *state;
	struct caller c;
	int asked = 0, n = 0, rc = 0;

	call(h, &c);
	/* Until neither side's buffer takes more. */
	for (int idle = 0; idle < 20; idle++) {
		while ((rc = gw_send_fd(c.fd, request, sizeof(request) - 1, -1, MSG_DONTWAIT)) ==
		       0) {
			asked++;
			idle = 0;
		}
		assert_int_equal(rc, -EAGAIN);
		run_ms(h, 2);
	}
	assert_true(asked > 500);
	assert_awake(h);
	for (; n < asked; n++) {
		run_until(&h->d, answered, &c);
		assert_non_null(strstr(error_of(&c), "no VM 'web1'"));
		json_decref(c.answer);
		c.answer = NULL;
	}
	hang_up(&c);
}

/* Far more than a packet, or a socket's buffer: the list of a thousand VMs. */
static void a_long_answer_arrives(void **state)
{
	struct host *h = *state;
	struct caller c;
	json_t *list;

	for (int i = 0; i < 1000; i++) {
		gw_autofree char *name = gw_path("web%04d-with-a-long-name-of-its-own", i);
		gw_autofree char *dir = gw_vm_dir(&h->d.paths, name);
		json_t *json = json_pack("{s:s,s:[s],s:s,s:s,s:b,s:b,s:[{s:s,s:I}]}", "name", name,
					 "argv", "qemu-system-fake", "cwd", "/", "machine", "pc",
					 "managed", 1, "discards", 0, "memory", "id", "ram", "size",
					 (json_int_t)1 << 30);
		struct gw_vm vm = { .process = h->qemu };

		assert_int_equal(gw_definition_parse(&vm.def, json), 0);
		json_decref(json);
		vm.qmp = gw_path("%s/qmp.sock", dir); /* where nobody listens */
		assert_int_equal(mkdir(dir, 0700), 0);
		assert_int_equal(gw_vm_save(&h->d.paths, &vm), 0);
		gw_vm_free(&vm);
	}
	call(h, &c);
	ask(&c, "{\"execute\":\"list\"}\n");
	run_ms(h, 300);
	assert_awake(h);
	run_until(&h->d, answered, &c);
	list = json_object_get(c.answer, "return");
	assert_int_equal(json_array_size(list), 1000);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 999), "state")),
			    "unreachable");
	hang_up(&c);
}

/* Too many clients: whoever does not read makes room, and those who wait stay. */
static void clients_are_bounded(void **state)
{
	struct host *h = *state;
	struct caller c[300];
	int refused = 0;

	for (int i = 0; i < 300; i++) {
		call(h, &c[i]);
		run_ms(h, 1);
	}
	for (int i = 0; i < 300; i++) {
		/* Fails where the daemon has hung up already. */
		gw_send_fd(c[i].fd, "{\"execute\":\"version\"}\n", 22, -1, MSG_DONTWAIT);
		run_ms(h, 1);
		answered(&c[i]);
		refused += strstr(error_of(&c[i]), "too many clients") != NULL;
	}
	assert_in_range(refused, 44, 44);
	for (int i = 0; i < 300; i++)
		hang_up(&c[i]);
	run_ms(h, 20);
	assert_awake(h);
}

static double processor_s(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Without descriptors a listening socket stays readable: the loop must not turn on it. */
static void no_descriptors_no_spinning(void **state)
{
	struct host *h = *state;
	struct rlimit was, none;
	struct caller c;
	int last;
	double used;

	call(h, &c);
	last = dup(c.fd);
	close(last);
	getrlimit(RLIMIT_NOFILE, &was);
	none = was;
	none.rlim_cur = (rlim_t)last;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	used = processor_s();
	run_ms(h, 1500);
	used = processor_s() - used;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	assert_true(used < 0.5);
	ask(&c, "{\"execute\":\"version\"}\n");
	run_until(&h->d, answered, &c);
	hang_up(&c);
}

static int dial(const struct host *h)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons(h->d.port),
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static void say_open(int fd, enum gw_open_kind kind, unsigned int stream)
{
	struct gw_transport *t = gw_tcp_adopt(dup(fd));
	struct gw_open open = { .version_min = GW_VERSION_MIN,
				.version_max = GW_VERSION,
				.kind = kind,
				.stream = stream,
				.id = "an id" };
	uint8_t wire[GW_OPEN_LEN];

	gw_open_encode(&open, wire);
	assert_int_equal(gw_frame_send_buf(t, GW_MSG_OPEN, 0, wire, sizeof(wire)), 0);
	gw_transport_close(&t);
}

static bool has_job(void *arg)
{
	return ((struct host *)arg)->d.jobs->list != NULL;
}

static bool ended(void *arg)
{
	struct pollfd pfd = { .fd = *(int *)arg, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

/* Streams for a worker that stands still: so many are kept for it, the others refused. */
static void streams_do_not_stop_the_daemon(void **state)
{
	struct host *h = *state;
	struct gw_frame f = { 0 };
	struct gw_transport *t;
	int control = dial(h), fds[200];

	say_open(control, GW_OPEN_MIGRATE, 0);
	run_until(&h->d, has_job, h);
	kill(h->d.jobs->list->pid, SIGSTOP);
	for (unsigned int i = 0; i < GW_ARRAY_SIZE(fds); i++) {
		fds[i] = dial(h);
		say_open(fds[i], GW_OPEN_STREAM, i);
		run_ms(h, 3);
	}
	assert_awake(h);
	run_until(&h->d, ended, &fds[199]);
	t = gw_tcp_adopt(fds[199]);
	assert_int_equal(gw_frame_recv(t, &f, gw_now() + 10 * GW_S), 0);
	assert_int_equal(f.type, GW_MSG_ERROR);
	gw_frame_free(&f);
	gw_transport_close(&t);
	for (unsigned int i = 0; i < 199; i++)
		close(fds[i]);
	close(control);
}

/* Silent callers of one address go, the oldest first, before they keep anybody out. */
static void silent_callers_make_room(void **state)
{
	struct host *h = *state;
	int fds[100], settle;

	for (size_t i = 0; i < GW_ARRAY_SIZE(fds); i++) {
		fds[i] = dial(h);
		run_ms(h, 1);
	}
	run_until(&h->d, ended, &fds[0]);
	run_until(&h->d, ended, &fds[19]);
	run_ms(h, 5);
	assert_false(ended(&fds[30]));
	assert_false(ended(&fds[99]));
	settle = dial(h);
	say_open(settle, GW_OPEN_SETTLE, 0);
	run_until(&h->d, ended, &settle);
	close(settle);
	for (size_t i = 0; i < GW_ARRAY_SIZE(fds); i++)
		close(fds[i]);
}

/* What the source of a guest that runs at @host asks once it was booted: 0, it is recognised. */
static int ask_booted(const struct host *h, const char *host)
{
	gw_autofree char *address = gw_path("127.0.0.1:%u", h->d.port);
	gw_autofree char *ready = gw_path("{\"host\":\"%s\"}", host);
	gw_autofree char *dir = gw_vm_dir(&h->d.paths, "web1");
	struct gw_holder holder = { .inbox = { .payload = (uint8_t *)ready,
					       .len = strlen(ready) } };
	struct gw_journal j = { .role = GW_ROLE_SOURCE, .id = "an id" }, back;
	struct gw_said said;

	/* As worker_source.c and worker_serve.c do. */
	if (gw_holder_heed_ready(&holder) || mkdir(dir, 0700))
		return 10;
	gw_copy_whole(j.host, sizeof(j.host), holder.host);
	gw_copy_whole(j.peer, sizeof(j.peer), address);
	if (gw_journal_save(&h->d.paths, "web1", &j) || gw_journal_load(&h->d.paths, "web1", &back))
		return 11;
	gw_journal_remove(&h->d.paths, "web1");
	rmdir(dir);
	if (gw_ask_of_served(&back, false, &said))
		return 12;
	if (said.outcome != GW_OUTCOME_FORGOTTEN)
		return 13;
	/* And another host is not taken for it. */
	back.host[strlen(back.host) - 1] ^= 1;
	return gw_ask_of_served(&back, false, &said) == -EREMOTEIO ? 0 : 14;
}

static bool has_ended(void *arg)
{
	int *child = arg; /* its process, 0 once it has ended; and then how */

	if (child[0] && waitpid(child[0], &child[1], WNOHANG) == child[0])
		child[0] = 0;
	return !child[0];
}

/* Decision 31: the name that READY told is compared with the one that answers, all of it. */
static void a_booted_host_is_recognised(void **state)
{
	static const size_t lens[] = { 1, 63, HOST_NAME_MAX, 127, 128, GW_HOST_MAX - 1 };
	struct host *h = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(lens); i++) {
		char name[GW_HOST_MAX] = "";
		int child[2];

		memset(name, 'h', lens[i]);
		h->d.jobs->host = name;
		child[0] = fork();
		if (!child[0])
			_exit(ask_booted(h, name));
		run_until(&h->d, has_ended, child);
		h->d.jobs->host = "B";
		assert_int_equal(child[1], 0);
	}
}

/* Somebody else, to whom a slip has opened the way, gets an answer and nothing else. */
static void strangers_are_turned_away(void **state)
{
	struct host *h = *state;
	gw_autofree char *path = gw_path("%s/control.sock", h->d.paths.run);
	int fd, status;
	struct stat st;
	pid_t pid;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	if (geteuid())
		skip(); /* only root can be somebody else */
	assert_int_equal(chmod(path, 0666), 0);
	assert_int_equal(chmod(h->d.root, 0755), 0);
	assert_int_equal(chmod(h->d.paths.run, 0755), 0);
	pid = fork();
	if (!pid) {
		char answer[256] = "";

		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (setgid(65534) || setuid(65534) || gw_unix_connect(fd, path))
			_exit(1);
		_exit(recv(fd, answer, sizeof(answer) - 1, MSG_WAITALL) <= 0 ||
		      !strstr(answer, "only root"));
	}
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	assert_true(fd >= 0);
	run_until(&h->d, ended, &fd);
	close(fd);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_awake(h);
}

/* A VM whose monitor takes connections and says nothing. Return: the monitor. */
static int mute_vm(struct host *h, const char *name)
{
	gw_autofree char *dir = gw_vm_dir(&h->d.paths, name);
	json_t *json = json_pack("{s:s,s:[s],s:s,s:s,s:b,s:b,s:[{s:s,s:I}]}", "name", name, "argv",
				 "qemu-system-fake", "cwd", "/", "machine", "pc", "managed", 1,
				 "discards", 0, "memory", "id", "ram", "size", (json_int_t)1 << 30);
	struct gw_vm vm = { .process = h->qemu };
	int fd;

	assert_int_equal(gw_definition_parse(&vm.def, json), 0);
	json_decref(json);
	vm.qmp = gw_path("%s/qmp.sock", dir);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(gw_vm_save(&h->d.paths, &vm), 0);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(gw_unix_bind(fd, vm.qmp), 0);
	assert_int_equal(listen(fd, 8), 0);
	gw_vm_free(&vm);
	return fd;
}

/* What waits for the VM's present job has not begun, so it can be called off. */
static void a_waiting_job_is_cancelled(void **state)
{
	struct host *h = *state;
	struct caller first, second, third;
	int monitor = mute_vm(h, "web1");

	call(h, &first);
	call(h, &second);
	call(h, &third);
	/* It waits for the monitor, and would for seconds; so it is surely still there. */
	ask(&first, "{\"execute\":\"stop\",\"arguments\":{\"name\":\"web1\"}}\n");
	run_until(&h->d, has_job, h);
	kill(h->d.jobs->list->pid, SIGSTOP);
	ask(&second, "{\"execute\":\"migrate\",\"arguments\":{\"name\":\"web1\",\"address\":"
		     "\"127.0.0.1:1\"}}\n");
	run_ms(h, 20);
	assert_false(answered(&second));
	ask(&third, "{\"execute\":\"cancel\",\"arguments\":{\"name\":\"web1\"}}\n");
	run_until(&h->d, answered, &third);
	assert_non_null(json_object_get(third.answer, "return"));
	run_until(&h->d, answered, &second);
	assert_string_equal(error_of(&second), "cancelled before it began");
	assert_false(answered(&first));
	kill(h->d.jobs->list->pid, SIGCONT);
	run_until(&h->d, answered, &first);
	hang_up(&first);
	hang_up(&second);
	hang_up(&third);
	close(monitor);
}

/* Make the VMs' folder old, so that no change of it can have been missed. */
static void age(const struct host *h)
{
	gw_autofree char *path = gw_path("%s/vm", h->d.paths.run);
	const struct timespec past[2] = { { 1, 0 }, { 1, 0 } };

	assert_int_equal(utimensat(AT_FDCWD, path, past, 0), 0);
	gw_jobs_sweep(h->d.jobs);
}

/* VMs that run are left alone: until one comes, or a QEMU ends, or a job on one does. */
static void idle_vms_are_left_alone(void **state)
{
	struct host *h = *state;
	struct caller c;
	int monitors[3] = { mute_vm(h, "web1"), mute_vm(h, "web2"), -1 };
	gw_autofree char *dir = gw_vm_dir(&h->d.paths, "web1");
	gw_autofree char *lost = gw_path("%s/vm.json", dir);

	age(h);
	assert_true(gw_care_idle(h->d.jobs->care));
	monitors[2] = mute_vm(h, "web3");
	assert_false(gw_care_idle(h->d.jobs->care));
	age(h);
	assert_true(gw_care_idle(h->d.jobs->care));
	/* A job has ended: what it left of its VM is looked after. */
	call(h, &c);
	assert_int_equal(unlink(lost), 0);
	ask(&c, "{\"execute\":\"recover\",\"arguments\":{\"name\":\"web1\"}}\n");
	run_until(&h->d, answered, &c);
	assert_int_equal(access(dir, F_OK), -1);
	hang_up(&c);
	age(h);
	assert_true(gw_care_idle(h->d.jobs->care));
	/* Their QEMU ends, and that is heard. */
	kill(h->qemu.pid, SIGKILL);
	waitpid(h->qemu.pid, NULL, 0);
	run_ms(h, 20);
	assert_false(gw_care_idle(h->d.jobs->care));
	gw_jobs_sweep(h->d.jobs);
	assert_int_equal(gw_vm_load(&h->d.paths, "web2", &(struct gw_vm){ 0 }), -ENOENT);
	assert_int_equal(gw_vm_load(&h->d.paths, "web3", &(struct gw_vm){ 0 }), -ENOENT);
	for (int i = 0; i < 3; i++)
		close(monitors[i]);
}

/* Monitors that do not answer delay a list once, not each of them. */
static void a_list_waits_for_all_at_once(void **state)
{
	struct host *h = *state;
	struct caller c;
	int monitors[40];
	json_t *list, *one;
	int64_t end;
	size_t i;

	for (i = 0; i < GW_ARRAY_SIZE(monitors); i++) {
		gw_autofree char *name = gw_path("web%02zu", i);

		monitors[i] = mute_vm(h, name);
	}
	call(h, &c);
	ask(&c, "{\"execute\":\"list\"}\n");
	end = gw_now() + 20 * GW_S; /* one after the other would take 40 s */
	run_until(&h->d, answered, &c);
	assert_true(gw_now() < end);
	list = json_object_get(c.answer, "return");
	assert_int_equal(json_array_size(list), GW_ARRAY_SIZE(monitors));
	json_array_foreach(list, i, one)
		assert_string_equal(json_string_value(json_object_get(one, "state")),
				    "unreachable");
	hang_up(&c);
	for (i = 0; i < GW_ARRAY_SIZE(monitors); i++)
		close(monitors[i]);
}

/* A worker that does not listen: the daemon says so instead of waiting for it. */
static void a_deaf_worker_is_told_of(void **state)
{
	struct host *h = *state;
	struct caller migrate, cancel;
	int monitor = mute_vm(h, "web1");

	call(h, &migrate);
	call(h, &cancel);
	ask(&migrate, "{\"execute\":\"migrate\",\"arguments\":{\"name\":\"web1\",\"address\":"
		      "\"127.0.0.1:1\"}}\n");
	run_until(&h->d, has_job, h);
	kill(h->d.jobs->list->pid, SIGSTOP);
	ask(&cancel, "{\"execute\":\"cancel\",\"arguments\":{\"name\":\"web1\"}}\n");
	run_ms(h, 20);
	assert_awake(h);
	assert_false(answered(&cancel)); /* until it has ended */
	kill(h->d.jobs->list->pid, SIGKILL);
	run_until(&h->d, answered, &migrate);
	assert_non_null(strstr(error_of(&migrate), "was killed"));
	run_until(&h->d, answered, &cancel);
	assert_non_null(json_object_get(cancel.answer, "return"));
	hang_up(&migrate);
	hang_up(&cancel);
	close(monitor);
}

/* A worker beside a daemon that stands still goes on, and loses only old progress. */
static void a_stopped_daemon_stops_no_worker(void **state)
{
	gw_autofree char *padding = calloc(1, 20001);
	struct gw_worker w = { .result = memfd_create("unit", MFD_CLOEXEC) };
	int pair[2], fd, sent = 0, newest = -1;
	json_t *json;

	(void)state;
	memset(padding, 'x', 20000);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	w.ctl = pair[0];
	while (!w.unsaid && sent < 100000)
		gw_worker_progress(&w, json_pack("{s:i,s:s}", "n", sent++, "rounds", padding));
	assert_non_null(w.unsaid);
	for (int i = 0; i < 10; i++)
		gw_worker_progress(&w, json_pack("{s:i,s:s}", "n", sent++, "rounds", padding));
	/* A result of any size, whether or not anybody ever looks. */
	json = json_array();
	for (int i = 0; i < 100; i++)
		json_array_append_new(json, json_string(padding));
	assert_int_equal(gw_worker_result(&w, json_pack("{s:o}", "return", json)), 0);
	/* It goes on: what is there is read, and the newest is offered again. */
	for (int i = 0; i < 2; i++) {
		while (!gw_ctl_recv(pair[1], &json, &fd)) {
			newest = (int)json_integer_value(
				json_object_get(json_object_get(json, "progress"), "n"));
			json_decref(json);
		}
		assert_true(i ? newest == sent - 1 : newest < sent - 10);
		gw_worker_heed(&w, NULL, NULL);
	}
	assert_null(w.unsaid);
	json = gw_worker_result_load(w.result);
	assert_int_equal(json_array_size(json_object_get(json, "return")), 100);
	json_decref(json);
	/* A part of a result is none. */
	assert_int_equal(ftruncate(w.result, 1000), 0);
	assert_null(gw_worker_result_load(w.result));
	close(w.result);
	close(pair[0]);
	close(pair[1]);
}

/* More connections for disks than there can be: none is taken for a stream. */
static void disks_are_no_streams(void **state)
{
	struct gw_worker w = { 0 };
	int pair[2], fd, stream = -1;
	unsigned int index = 7;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	w.ctl = pair[0];
	for (int i = 0; i <= GW_CALLERS_KEPT; i++) {
		fd = memfd_create("unit", MFD_CLOEXEC);
		assert_int_equal(gw_ctl_send(pair[1], json_pack("{s:i}", "storage", i), fd), 0);
		close(fd);
	}
	gw_worker_heed(&w, &stream, &index);
	assert_int_equal(stream, -1);
	assert_int_equal(index, 7);
	for (int i = 0; i < GW_CALLERS_KEPT; i++) {
		fd = gw_worker_storage(&w);
		assert_true(fd >= 0);
		close(fd);
	}
	assert_int_equal(gw_worker_storage(&w), -1);
	close(pair[0]);
	close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_wait_for_their_reader, make, drop),
		cmocka_unit_test_setup_teardown(a_long_answer_arrives, make, drop),
		cmocka_unit_test_setup_teardown(clients_are_bounded, make, drop),
		cmocka_unit_test_setup_teardown(a_booted_host_is_recognised, make, drop),
		cmocka_unit_test_setup_teardown(strangers_are_turned_away, make, drop),
		cmocka_unit_test_setup_teardown(no_descriptors_no_spinning, make, drop),
		cmocka_unit_test_setup_teardown(streams_do_not_stop_the_daemon, make, drop),
		cmocka_unit_test_setup_teardown(silent_callers_make_room, make, drop),
		cmocka_unit_test_setup_teardown(a_waiting_job_is_cancelled, make, drop),
		cmocka_unit_test_setup_teardown(idle_vms_are_left_alone, make, drop),
		cmocka_unit_test_setup_teardown(a_list_waits_for_all_at_once, make, drop),
		cmocka_unit_test_setup_teardown(a_deaf_worker_is_told_of, make, drop),
		cmocka_unit_test(a_stopped_daemon_stops_no_worker),
		cmocka_unit_test(disks_are_no_streams),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
