// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_own.c - what another user of the host makes, and where he may write, is not ours
 * (decision 27). The other user is real: a process without any privilege, or a file of his.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "own.h"

#define OTHER 65534

/* Only root can have something be another user's. */
static bool alone(void)
{
	return geteuid() != 0;
}

static void folder(const char *path, mode_t mode, uid_t owner)
{
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(chown(path, owner, owner ? OTHER : getegid()), 0);
	assert_int_equal(chmod(path, mode), 0);
}

/* @path is refused, and the message names @folder and says what helps. */
static void assert_refused(const char *path, bool shared, const char *of, const char *help)
{
	gw_error_clear();
	assert_int_equal(gw_own_place(path, shared, NULL), -EPERM);
	assert_message(of);
	assert_message(help);
}

static void a_place_is_made_and_found(void **state)
{
	gw_autofree char *deep = gw_path("%s/a/../b//c/", (char *)*state);
	gw_autofree char *link = gw_path("%s/link", (char *)*state);
	gw_autofree char *through = gw_path("%s/link/c/./d", (char *)*state);
	gw_autofree char *b = gw_path("%s/b", (char *)*state);
	gw_autofree char *c = gw_path("%s/b/c", (char *)*state);
	gw_autofree char *d = gw_path("%s/b/c/d", (char *)*state);
	gw_autofree char *real = NULL, *again = NULL, *relative = NULL, *plain = NULL;
	gw_autofree char *cwd = getcwd(NULL, 0);
	struct stat st;

	assert_int_equal(gw_own_place(deep, false, &real), 0);
	assert_string_equal(real, c);
	assert_int_equal(stat(c, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	/* A link of our own, to a larger disk as a rule. */
	assert_int_equal(symlink(b, link), 0);
	assert_int_equal(gw_own_place(through, false, &again), 0);
	assert_string_equal(again, d);
	assert_int_equal(chdir(*state), 0);
	assert_int_equal(gw_own_place("b/c", false, &relative), 0);
	assert_int_equal(chdir(cwd), 0);
	assert_string_equal(relative, c);
	plain = gw_path("%s/file", d);
	assert_int_equal(gw_write_file(plain, "text"), 0);
	assert_int_equal(gw_own_place(plain, false, NULL), -ENOTDIR);
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink("link", link), 0);
	assert_int_equal(gw_own_place(through, false, NULL), -ELOOP);
}

static void folders_that_others_write_are_refused(void **state)
{
	static const mode_t modes[] = { 0777, 0775, 0770, 0702, 01777, 01775 };
	gw_autofree char *open = gw_path("%s/open", (char *)*state);
	gw_autofree char *in = gw_path("%s/open/in", (char *)*state);
	gw_autofree char *deep = gw_path("%s/open/in/deep", (char *)*state);

	folder(open, 0700, geteuid());
	folder(in, 0700, geteuid());
	for (size_t i = 0; i < GW_ARRAY_SIZE(modes); i++) {
		const bool sticky = modes[i] & S_ISVTX;

		assert_int_equal(chmod(open, modes[i]), 0);
		assert_refused(open, false, open, "chmod go-w");
		/* Above, or where it may be shared, the sticky bit protects what is ours. */
		assert_int_equal(gw_own_place(open, true, NULL), sticky ? 0 : -EPERM);
		assert_int_equal(gw_own_place(deep, false, NULL), sticky ? 0 : -EPERM);
		if (!sticky)
			assert_refused(deep, true, open, "chmod go-w");
	}
}

static void what_belongs_to_others_is_refused(void **state)
{
	gw_autofree char *sticky = gw_path("%s/tmp", (char *)*state);
	gw_autofree char *his = gw_path("%s/tmp/his", (char *)*state);
	gw_autofree char *ours = gw_path("%s/tmp/his/ours", (char *)*state);
	gw_autofree char *link = gw_path("%s/tmp/link", (char *)*state);
	gw_autofree char *behind = gw_path("%s/tmp/link/x", (char *)*state);
	gw_autofree char *file = gw_path("%s/tmp/file", (char *)*state);

	if (alone())
		skip();
	folder(sticky, 01777, 0);
	folder(his, 0755, OTHER);
	folder(ours, 0700, 0); /* he can put another in its place */
	assert_refused(his, true, his, "chown 0");
	assert_refused(ours, false, his, "chown 0");
	assert_int_equal(gw_own_mkdirs(his), -EPERM);
	/* The sticky bit does not bind the folder's owner. */
	assert_int_equal(chown(sticky, OTHER, OTHER), 0);
	assert_int_equal(chmod(sticky, 01777), 0);
	assert_refused(sticky, true, sticky, "chown 0");
	assert_int_equal(chown(sticky, 0, 0), 0);
	assert_int_equal(chmod(sticky, 01777), 0);
	/* His link leads to a place that is fine, today. */
	assert_int_equal(symlink("/", link), 0);
	assert_int_equal(lchown(link, OTHER, OTHER), 0);
	assert_refused(behind, false, link, "who could lead it elsewhere");
	/* A file that he has put where ours is to be, writable to all. */
	assert_int_equal(gw_write_file(file, "his"), 0);
	assert_int_equal(chown(file, OTHER, OTHER), 0);
	assert_int_equal(gw_own_open(file, O_RDWR | O_CREAT, 0600), -EPERM);
	assert_message(file);
	assert_message("look who made it");
	assert_null(gw_own_read(file, 100, NULL));
	assert_null(gw_own_tail(file, 100, NULL));
}

static void only_plain_files_of_ours_are_opened(void **state)
{
	gw_autofree char *file = gw_path("%s/file", (char *)*state);
	gw_autofree char *link = gw_path("%s/link", (char *)*state);
	gw_autofree char *fifo = gw_path("%s/fifo", (char *)*state);
	gw_autofree char *dir = gw_path("%s/dir", (char *)*state);
	gw_autofree char *way = gw_path("%s/way", (char *)*state);
	gw_autofree char *through = gw_path("%s/way/file", (char *)*state);
	gw_autofree char *in = gw_path("%s/dir/file", (char *)*state);
	gw_autofree char *text = NULL;
	int fd;

	assert_int_equal(gw_write_file(file, "0123456789"), 0);
	text = gw_own_read(file, 100, NULL);
	assert_string_equal(text, "0123456789");
	free(text);
	text = gw_own_tail(file, 4, NULL);
	assert_string_equal(text, "6789");
	assert_int_equal(gw_own_open(dir, O_RDWR, 0), -ENOENT);
	assert_int_equal(symlink(file, link), 0);
	assert_int_equal(gw_own_open(link, O_RDONLY, 0), -ELOOP);
	assert_message("a link is in the way");
	/* Nobody ever opens its other end. */
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(gw_own_open(fifo, O_RDONLY, 0), -EPERM);
	assert_int_equal(mkdir(dir, 0700), 0);
	assert_int_equal(gw_own_open(dir, O_RDONLY, 0), -EPERM);
	assert_int_equal(gw_write_file(in, "text"), 0);
	/* A link on the way is as good as one at the end of it. */
	assert_int_equal(symlink(dir, way), 0);
	assert_int_equal(gw_own_open(through, O_RDONLY, 0), -ELOOP);
	assert_int_equal(gw_own_mkdirs(way), -ELOOP);
	assert_int_equal(gw_write_file(through, "text"), -ELOOP);
	assert_int_equal(chmod(file, 0602), 0);
	assert_int_equal(gw_own_open(file, O_RDONLY, 0), -EPERM);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(gw_own_open(in, O_RDONLY, 0), -EPERM);
	assert_message("chmod go-w");
	fd = gw_own_make(link, O_RDWR);
	assert_true(fd >= 0);
	close(fd);
}

/* What lies where a new file is to be is neither followed nor written to. */
static void new_files_are_new(void **state)
{
	gw_autofree char *victim = gw_path("%s/victim", (char *)*state);
	gw_autofree char *temporary = gw_path("%s/record.new", (char *)*state);
	gw_autofree char *record = gw_path("%s/record", (char *)*state);
	gw_autofree char *text = NULL;
	struct stat st;

	assert_int_equal(gw_write_file(victim, "precious"), 0);
	assert_int_equal(symlink(victim, temporary), 0);
	assert_int_equal(gw_write_file(record, "one"), 0);
	assert_int_equal(link(victim, temporary), 0);
	assert_int_equal(gw_write_file(record, "two"), 0);
	text = gw_read_file(victim, 100, NULL);
	assert_string_equal(text, "precious");
	assert_int_equal(lstat(record, &st), 0);
	assert_true(S_ISREG(st.st_mode) && st.st_nlink == 1);
	assert_int_equal(st.st_mode & 07777, 0600);
}

/*
 * A folder in {dir} that is QEMU's user's is removed with the VM. He makes a link of it just
 * when it has been seen to be a folder: so that is what is opened then.
 */
static void links_are_not_emptied(void **state)
{
	gw_autofree char *precious = gw_path("%s/precious", (char *)*state);
	gw_autofree char *file = gw_path("%s/precious/file", (char *)*state);
	gw_autofree char *link = gw_path("%s/link", (char *)*state);

	assert_int_equal(mkdir(precious, 0700), 0);
	assert_int_equal(gw_write_file(file, "text"), 0);
	assert_int_equal(symlink(precious, link), 0);
	assert_int_equal(gw_remove_tree(link), -ENOTDIR);
	assert_int_equal(access(file, F_OK), 0);
}

/* Another user at work, for as long as the parent has the pipe open. */
static pid_t attacker(int ends[2], void (*work)(const char *path), const char *path)
{
	pid_t pid;

	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	pid = fork();
	if (!pid) {
		char c;

		close(ends[1]);
		if (setgid(OTHER) || setuid(OTHER))
			_exit(1);
		while (read(ends[0], &c, 1) < 0)
			work(path);
		_exit(0);
	}
	close(ends[0]);
	return pid;
}

/* The sticky folder is full of attempts; what is ours there stays ours. */
static void meddle(const char *path)
{
	static const char *const names[] = { "vm", "kept", "vm/web1", "vm/web1/ram" };

	for (size_t i = 0; i < GW_ARRAY_SIZE(names); i++) {
		gw_autofree char *at = gw_path("%s/%s", path, names[i]);
		gw_autofree char *away = gw_path("%s/away", path);

		mkdir(at, 0777);
		rename(at, away);
		symlink("/etc", at);
		link("/etc/passwd", at);
		unlink(at);
		rmdir(at);
		rmdir(away);
		unlink(away);
	}
}

static void a_sticky_folder_is_shared_safely(void **state)
{
	gw_autofree char *shm = gw_path("%s/shm", (char *)*state);
	gw_autofree char *dir = gw_path("%s/shm/vm/web1", (char *)*state);
	gw_autofree char *vms = gw_path("%s/shm/vm", (char *)*state);
	gw_autofree char *ram = gw_path("%s/shm/vm/web1/ram", (char *)*state);
	unsigned int made = 0;
	int ends[2], status;
	pid_t pid;

	if (alone())
		skip();
	assert_int_equal(chmod(*state, 0755), 0);
	folder(shm, 01777, 0);
	pid = attacker(ends, meddle, shm);
	for (int i = 0; i < 300 || (!made && i < 1000000); i++) {
		struct stat in, at;
		int fd = -1, rc = gw_own_mkdirs(dir);

		if (!rc)
			fd = gw_own_make(ram, O_RDWR);
		/* Refused is fine; but what we got is ours, and the name is its. */
		if (fd >= 0) {
			made++;
			assert_int_equal(fstat(fd, &in), 0);
			assert_int_equal(lstat(ram, &at), 0);
			assert_int_equal(in.st_ino, at.st_ino);
			assert_int_equal(at.st_uid, 0);
			assert_int_equal(at.st_mode, S_IFREG | 0600);
			close(fd);
			assert_int_equal(unlink(ram), 0);
		}
		rmdir(dir);
		rmdir(vms);
	}
	close(ends[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_true(made > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		unit_folder_test(a_place_is_made_and_found),
		unit_folder_test(folders_that_others_write_are_refused),
		unit_folder_test(what_belongs_to_others_is_refused),
		unit_folder_test(only_plain_files_of_ours_are_opened),
		unit_folder_test(new_files_are_new),
		unit_folder_test(links_are_not_emptied),
		unit_folder_test(a_sticky_folder_is_shared_safely),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
