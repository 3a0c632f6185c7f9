// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * view.c - an image as qemu-nbd shows it; see view.h.
 *
 * The connection is made before the tool exists: it waits in the queue of a
 * socket that has lost its name again when the tool gets it. So nobody else finds
 * it, and nothing of it stays if we are killed. The tool serves one client, and ends
 * when that has gone; what it has to say of an image that it cannot open goes
 * into a memfd.
 */
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "error.h"
#include "io.h"
#include "sockets.h"
#include "view.h"

#define TOOL	  "qemu-nbd"
#define FILES_MAX 64
#define TREE_MAX  300 /* a backing chain may be long */

/* Descriptors below are the child's to lay out: 3 is where systemd hands over a socket. */
#define LEAST_FD 10

/* Bytes of one question about what is stored, and how many are asked at most. */
#define STATUS_LEN ((4ULL << 30) - (64 << 10))
#define STATUS_MAX 33
_Static_assert((STATUS_LEN * STATUS_MAX) >= GW_VIEW_LOOK, "it looks less far than it says");

struct gw_view {
	pid_t tool;
	struct nbd_handle *nbd;
	uint64_t size;
	int said; /* memfd */
	int files[FILES_MAX];
	size_t nr_files;
};

/*
 * What another process may open beside the QEMU that has it open, and see the same. A
 * device that has one user (nvme, vfio) is none of these.
 */
static int check_driver(const char *name)
{
	static const char *const known[] = {
		"raw",	       "qcow2",	    "qcow",  "qed",	"vdi", "vhdx",	       "vmdk",
		"vpc",	       "parallels", "bochs", "cloop",	"dmg", "copy-on-read", "file",
		"host_device", "nbd",	    "http",  "https",	"ftp", "ftps",	       "ssh",
		"nfs",	       "iscsi",	    "rbd",   "gluster",
	};
	const size_t len = strcspn(name, "+:");

	for (size_t i = 0; i < GW_ARRAY_SIZE(known); i++)
		if (strlen(known[i]) == len && !strncmp(known[i], name, len))
			return 0;
	return gw_fail(-ENOTSUP, "'%.*s' is nothing that can be read beside its QEMU", (int)len,
		       name);
}

/* Where a tree ends in a file, lead it to a descriptor of ours. */
static int take_file(struct gw_view *v, json_t *node, pid_t pid)
{
	const char *name = json_string_value(json_object_get(node, "filename"));
	gw_autofd int opened = -1;
	struct stat st;
	char path[40];
	int fd;

	if (!name || v->nr_files == FILES_MAX)
		return gw_fail(-ENOTSUP, "its images are more than can be opened");
	opened = gw_file_open(pid, name);
	if (opened < 0)
		return opened;
	fd = fcntl(opened, F_DUPFD_CLOEXEC, LEAST_FD);
	if (fd < 0 || fstat(fd, &st))
		return gw_fail(-errno, "descriptors: %s", strerror(errno));
	v->files[v->nr_files++] = fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	json_object_set_new(node, "filename", json_string(path));
	json_object_set_new(node, "driver",
			    json_string(S_ISBLK(st.st_mode) ? "host_device" : "file"));
	json_object_set_new(node, "locking", json_string("off"));
	/* Past the page cache, so that it waits for what is yet to be written by this host. */
	json_object_set_new(node, "cache",
			    json_pack("{s:b}", "direct", (fcntl(fd, F_GETFL) & O_DIRECT) != 0));
	return 0;
}

static int take_files(struct gw_view *v, json_t *node, pid_t pid, int depth)
{
	const char *driver = json_string_value(json_object_get(node, "driver")), *key;
	json_t *child;
	int rc;

	if (depth > TREE_MAX)
		return gw_fail(-ENOTSUP, "its backing chain is too long");
	rc = driver ? check_driver(driver) : 0;
	if (rc)
		return rc;
	if (driver && (!strcmp(driver, "file") || !strcmp(driver, "host_device")))
		return take_file(v, node, pid);
	json_object_foreach(node, key, child)
		if (!rc && json_is_object(child))
			rc = take_files(v, child, pid, depth + 1);
	return rc;
}

/* Several threads may open views in one folder at a time. */
static _Atomic unsigned int views;

/* A listening socket without a name, and a connection to it that waits to be accepted. */
static int make_sockets(const char *dir, int *listening, int *connected)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	gw_autofd int folder = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	gw_autofd int l = -1, c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	gw_autofd int low = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	if (folder < 0 || c < 0 || low < 0)
		return gw_fail(-errno, "a socket in %s: %s", dir, strerror(errno));
	l = fcntl(low, F_DUPFD_CLOEXEC, LEAST_FD);
	/* The folder's own name may be too long for an address. */
	snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/view-%d-%u.sock", folder,
		 (int)getpid(), atomic_fetch_add(&views, 1));
	unlink(addr.sun_path);
	if (l < 0 || bind(l, (const struct sockaddr *)&addr, sizeof(addr)) || listen(l, 1) ||
	    connect(c, (const struct sockaddr *)&addr, sizeof(addr)))
		rc = gw_fail(-errno, "a socket in %s: %s", dir, strerror(errno));
	unlink(addr.sun_path);
	if (rc)
		return rc;
	*listening = gw_steal_fd(&l);
	*connected = gw_steal_fd(&c);
	return 0;
}

/* The tool that came with this QEMU, if it is beside it; caller frees. */
static char *find_tool(pid_t pid)
{
	gw_autofree char *link = gw_path("/proc/%d/exe", (int)pid);
	char exe[4096];
	ssize_t n = readlink(link, exe, sizeof(exe) - 1);
	char *slash, *path;

	exe[n > 0 ? n : 0] = '\0';
	slash = strrchr(exe, '/');
	path = slash ? gw_path("%.*s/" TOOL, (int)(slash - exe), exe) : NULL;
	if (path && !access(path, X_OK))
		return path;
	free(path);
	return strdup(TOOL);
}

struct child {
	char *tool, *args[10], **env;
	char pid[32]; /* in env, for its process number */
	int listening, said;
	pid_t parent;
};

/* In the child, which has our other threads' locks: system calls and what needs no memory. */
static _Noreturn void become_tool(const struct gw_view *v, struct child *c)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;
	pid_t pid = getpid();
	char digits[16];
	size_t n = sizeof(digits);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != c->parent)
		_exit(1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	for (digits[--n] = '\0'; pid; pid /= 10)
		digits[--n] = (char)('0' + pid % 10);
	memcpy(c->pid + strlen(c->pid), digits + n, sizeof(digits) - n);
	for (size_t i = 0; i < v->nr_files; i++)
		fcntl(v->files[i], F_SETFD, 0);
	dup2(null, STDIN_FILENO);
	dup2(c->said, STDOUT_FILENO);
	dup2(c->said, STDERR_FILENO);
	dup2(c->listening, 3);
	execvpe(c->tool, c->args, c->env);
	_exit(errno == ENOENT ? 127 : 126);
}

extern char **environ;

static int start_tool(struct gw_view *v, struct child *c)
{
	size_t n = 0;
	char fds[] = "LISTEN_FDS=1";
	gw_autofree char **env = NULL;

	while (environ[n])
		n++;
	env = calloc(n + 3, sizeof(*env));
	if (!env)
		return gw_fail(-ENOMEM, "no memory to read an image");
	n = 0;
	for (size_t i = 0; environ[i]; i++)
		if (strncmp(environ[i], "LISTEN_", 7) != 0)
			env[n++] = environ[i];
	snprintf(c->pid, sizeof(c->pid), "LISTEN_PID=");
	env[n++] = c->pid;
	env[n] = fds;
	c->env = env;
	c->parent = getpid();
	v->tool = fork();
	if (!v->tool)
		become_tool(v, c);
	c->env = NULL;
	return v->tool < 0 ? gw_fail(-errno, "fork: %s", strerror(errno)) : 0;
}

/* Why there is no disk to read. */
static int refused(struct gw_view *v)
{
	char text[600], *reason = text;
	const char *nbd = nbd_get_error() ?: "?";
	ssize_t n;
	int status = 0;

	if (v->tool > 0) {
		kill(v->tool, SIGKILL);
		while (waitpid(v->tool, &status, 0) < 0 && errno == EINTR)
			;
		v->tool = 0;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		return gw_fail(-ENOENT, TOOL " is needed to read it (Debian's package qemu-utils)");
	n = pread(v->said, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	/* It quotes the whole tree first. */
	if (strstr(text, "}': "))
		reason = strstr(text, "}': ") + 4;
	reason[strcspn(reason, "\n")] = '\0';
	return gw_fail(-EIO, TOOL ": %s", reason[0] ? reason : nbd);
}

/* @export: NULL: the only one there is */
static int connect_tool(struct gw_view *v, const char *export, int *connected)
{
	int64_t size = -1;

	v->nbd = nbd_create();
	if (!v->nbd || (export && nbd_set_export_name(v->nbd, export)) ||
	    nbd_add_meta_context(v->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) ||
	    nbd_connect_socket(v->nbd, *connected))
		return refused(v);
	*connected = -1; /* it is libnbd's */
	size = nbd_get_size(v->nbd);
	if (size < 0)
		return refused(v);
	v->size = (uint64_t)size;
	return 0;
}

int gw_view_connect(const json_t *nbd, struct gw_view **view)
{
	const char *path = json_string_value(json_object_get(nbd, "socket"));
	const char *export = json_string_value(json_object_get(nbd, "export"));
	gw_autofd int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct gw_view *v = calloc(1, sizeof(*v));
	int rc = fd < 0 ? -errno : gw_unix_connect(fd, path);

	*view = NULL;
	if (!v)
		return gw_fail(-ENOMEM, "no memory to read an image");
	v->said = -1;
	if (rc)
		gw_fail(rc, "the server of its disks: %s", strerror(-rc));
	else
		rc = connect_tool(v, export, &fd);
	if (rc)
		gw_view_close(v);
	else
		*view = v;
	return rc;
}

static int open_view(struct gw_view *v, const json_t *node, pid_t pid, const char *dir)
{
	const char *legacy = json_string_value(json_object_get(node, "legacy"));
	gw_autofd int listening = -1, connected = -1;
	gw_autofree char *tool = find_tool(pid), *tree = NULL, *name = NULL;
	json_t *mine = json_deep_copy(node);
	struct child c = { .tool = tool };
	int rc = legacy ? check_driver(legacy) : take_files(v, mine, pid, 0), n = 0;

	json_object_set_new(mine, "read-only", json_true());
	json_object_set_new(mine, "force-share", json_true());
	tree = json_dumps(mine, JSON_COMPACT);
	name = legacy ? strdup(legacy) : gw_path("json:%s", tree ? tree : "");
	json_decref(mine);
	if (!rc && !json_object_size(node))
		rc = gw_fail(-ENOTSUP, "its backing chain leads to a network that " TOOL
				       " cannot be told of");
	if (!rc)
		rc = make_sockets(dir, &listening, &connected);
	v->said = memfd_create("view", MFD_CLOEXEC);
	if (!rc && v->said < 0)
		rc = gw_fail(-errno, "memfd: %s", strerror(errno));
	if (rc)
		return rc;
	c.said = v->said;
	c.listening = listening;
	c.args[n++] = (char *)TOOL;
	c.args[n++] = (char *)"--read-only";
	if (legacy) {
		c.args[n++] = (char *)"--format";
		c.args[n++] = (char *)json_string_value(json_object_get(node, "format"));
	}
	c.args[n++] = (char *)"--";
	c.args[n++] = name;
	rc = start_tool(v, &c);
	/* Or a tool that ends would leave us waiting for an answer. */
	close(listening);
	listening = -1;
	return rc ? rc : connect_tool(v, NULL, &connected);
}

int gw_view_open(const json_t *node, pid_t pid, const char *dir, struct gw_view **view)
{
	struct gw_view *v = calloc(1, sizeof(*v));
	int rc;

	*view = NULL;
	if (!v)
		return gw_fail(-ENOMEM, "no memory to read an image");
	v->said = -1;
	rc = open_view(v, node, pid, dir);
	if (rc)
		gw_view_close(v);
	else
		*view = v;
	return rc;
}

void gw_view_close(struct gw_view *v)
{
	if (!v)
		return;
	nbd_close(v->nbd);
	if (v->tool > 0) {
		kill(v->tool, SIGKILL);
		while (waitpid(v->tool, NULL, 0) < 0 && errno == EINTR)
			;
	}
	for (size_t i = 0; i < v->nr_files; i++)
		close(v->files[i]);
	if (v->said >= 0)
		close(v->said);
	free(v);
}

uint64_t gw_view_size(const struct gw_view *v)
{
	return v->size;
}

int gw_view_read(struct gw_view *v, void *buf, size_t len, uint64_t offset)
{
	return nbd_pread(v->nbd, buf, len, offset, 0) ? gw_fail(-EIO, "%s", nbd_get_error()) : 0;
}

struct status {
	uint64_t at;   /* where the next entry begins */
	int64_t found; /* -1: nothing */
};

static int on_extents(void *data, const char *context, uint64_t offset, uint32_t *entries,
		      size_t nr, int *error)
{
	struct status *s = data;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	s->at = offset;
	for (size_t i = 0; i + 1 < nr && s->found < 0; i += 2) {
		if (!(entries[i + 1] & LIBNBD_STATE_ZERO))
			s->found = (int64_t)s->at;
		s->at += entries[i];
	}
	return 0;
}

int64_t gw_view_data(struct gw_view *v, uint64_t offset)
{
	struct status s = { .at = offset, .found = -1 };

	if (nbd_can_meta_context(v->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) != 1)
		return (int64_t)offset;
	for (int i = 0; i < STATUS_MAX && s.at < v->size && s.found < 0; i++) {
		const uint64_t from = s.at, left = v->size - from;
		nbd_extent_callback tell = { .callback = on_extents, .user_data = &s };

		if (nbd_block_status(v->nbd, left < STATUS_LEN ? left : STATUS_LEN, from, tell, 0))
			return gw_fail(-EIO, "%s", nbd_get_error());
		if (s.at <= from)
			break;
	}
	return s.found >= 0 ? s.found : -ENODATA;
}
