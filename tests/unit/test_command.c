// SPDX-License-Identifier: GPL-2.0-or-later
/* test_command.c - command lines: made from a definition, and a definition made from one. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "define.h"

#define MIB (1ULL << 20)

static json_t *words(const char *const list[])
{
	json_t *argv = json_array();

	for (; *list; list++)
		json_array_append_new(argv, json_string(*list));
	return argv;
}

static bool has_pair(char **argv, const char *option, const char *value)
{
	for (; argv[0] && argv[1]; argv++)
		if (!strcmp(argv[0], option) && !strcmp(argv[1], value))
			return true;
	return false;
}

static bool has_word(char **argv, const char *word)
{
	for (; *argv; argv++)
		if (!strcmp(*argv, word))
			return true;
	return false;
}

static void command_line(void **state)
{
	static const char *const argv[] = { "kvm", "-serial", "unix:{dir}/a,path={dir}/b{dir",
					    NULL };
	char *const ram[] = { (char *)"/ram,x/web1.godwit-ram" };
	struct gw_definition def;
	json_t *list;
	char **cmd;

	(void)state;
	list = words(argv);
	assert_int_equal(gw_definition_run(&def, "web1", 64 * MIB, list, "/root"), 0);
	json_decref(list);
	cmd = gw_definition_command(&def, "/run/d", ram, 3, false);
	assert_string_equal(cmd[0], "kvm");
	assert_true(has_pair(cmd, "-serial", "unix:/run/d/a,path=/run/d/b{dir"));
	assert_true(has_pair(cmd, "-object",
			     "memory-backend-file,id=godwit-ram,size=67108864,"
			     "mem-path=/ram,,x/web1.godwit-ram,share=on,align=2M"));
	assert_true(has_pair(cmd, "-m", "67108864B"));
	assert_true(has_pair(cmd, "-machine", "memory-backend=godwit-ram"));
	assert_true(has_pair(cmd, "-chardev", "socket,id=godwit-qmp,fd=3,server=on,wait=off"));
	assert_false(has_word(cmd, "-incoming"));
	assert_false(has_word(cmd, "-S"));
	gw_strings_free(cmd);
	snprintf(def.machine, sizeof(def.machine), "pc-q35-7.2");
	cmd = gw_definition_command(&def, "/run/d", ram, 3, true);
	assert_true(has_pair(cmd, "-machine", "type=pc-q35-7.2"));
	assert_true(has_pair(cmd, "-incoming", "defer"));
	assert_true(has_word(cmd, "-S"));
	gw_strings_free(cmd);
	gw_definition_free(&def);
	gw_strings_free(NULL);
}

/* A process in /tmp whose command line reads @argv; it waits to be killed. */
static pid_t process_with(char *const argv[])
{
	int pipes[2];
	pid_t child;
	char byte;

	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	child = fork();
	if (child == 0) {
		dup2(pipes[1], 1);
		if (!chdir("/tmp"))
			execv("/proc/self/exe", argv);
		_exit(1);
	}
	close(pipes[1]);
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	close(pipes[0]);
	return child;
}

static void assert_argv(const struct gw_definition *def, const char *const expected[])
{
	json_t *list = words(expected);

	if (!json_equal(list, def->argv)) {
		gw_autofree char *text = json_dumps(def->argv, 0);

		fail_msg("rewritten to %s", text);
	}
	json_decref(list);
}

static void attach_rewrites(void **state)
{
	char *const argv[] = {
		(char *)"qemu-system-fake",
		(char *)"-object",
		(char *)"memory-backend-file,id=ram0,size=64M,mem-path=/x,share=on",
		(char *)"-object",
		(char *)"memory-backend-file,id=ram01,size=64M,mem-path=/y",
		(char *)"--object",
		(char *)"memory-backend-memfd,share=on,id=ram1",
		(char *)"-object",
		(char *)"{\"size\": 64, \"id\": \"ram2\", \"qom-type\": \"memory-backend-file\"}",
		(char *)"-object",
		(char *)"qom-type=memory-backend-file,mem-path=/a,,id=ram9,id=ram3,share",
		(char *)"-object",
		(char *)"memory-backend-file,mem-path=/a,,id=ram3,id=ram4",
		(char *)"-object",
		(char *)"{\"qom-type\":\"iothread\",\"id\":\"ram2\"}",
		(char *)"-loadvm",
		(char *)"snap",
		(char *)"-object",
		(char *)"rng-random,id=ram0",
		(char *)"-m",
		(char *)"64M",
		(char *)"-machine",
		(char *)"q35,memory-backend=ram0",
		(char *)"-daemonize",
		(char *)"-S",
		(char *)"-incoming",
		(char *)"tcp:0:1",
		(char *)"--pidfile",
		(char *)"/tmp/x.pid",
		(char *)"-qmp",
		(char *)"unix:/tmp/q.sock,server=on",
		(char *)"",
		(char *)"-name",
		(char *)"object",
		NULL,
	};
	static const char *const expected[] = {
		"qemu-system-fake",
		"-object",
		"memory-backend-file,id=ram01,size=64M,mem-path=/y",
		"-object",
		"memory-backend-file,mem-path=/a,,id=ram3,id=ram4",
		"-object",
		"{\"qom-type\":\"iothread\",\"id\":\"ram2\"}",
		"-object",
		"rng-random,id=ram0",
		"-m",
		"64M",
		"-machine",
		"q35,memory-backend=ram0",
		"-qmp",
		"unix:{dir}/user.qmp,server=on",
		"",
		"-name",
		"object",
		NULL,
	};
	struct gw_guest_facts facts = { .machine = "pc-q35-7.2", .discards = true };
	struct gw_definition def, back;
	struct gw_ram ram = { 0 };
	json_t *json;
	pid_t pid = process_with(argv);

	(void)state;
	assert_int_equal(gw_ram_add(&ram, "ram0", -1, 64 * MIB, 0), 0);
	assert_int_equal(gw_ram_add(&ram, "ram1", -1, 32 * MIB, 0), 0);
	assert_int_equal(gw_ram_add(&ram, "ram2", -1, 32 * MIB, 0), 0);
	assert_int_equal(gw_ram_add(&ram, "ram3", -1, 32 * MIB, 0), 0);
	assert_int_equal(
		gw_definition_attach(&def, "web1", pid, "/tmp/q.sock", &ram.memory, &facts), 0);
	assert_argv(&def, expected);
	assert_string_equal(def.cwd, "/tmp");
	assert_string_equal(def.machine, "pc-q35-7.2");
	assert_true(def.discards);
	assert_false(def.managed);
	assert_int_equal(def.nr_memory, 4);
	assert_string_equal(def.memory[1].id, "ram1");
	assert_int_equal(def.memory[1].size, 32 * MIB);
	/* The other host accepts what this one makes. */
	json = gw_definition_json(&def);
	assert_int_equal(gw_definition_parse(&back, json), 0);
	json_decref(json);
	gw_definition_free(&back);
	gw_definition_free(&def);
	assert_int_equal(gw_definition_attach(&def, "a/b", pid, "/q", &ram.memory, &facts),
			 -EINVAL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_int_equal(gw_definition_attach(&def, "web1", pid, "/q", &ram.memory, &facts),
			 -ESRCH);
}

static void attach_refuses_others(void **state)
{
	char *const argv[] = { (char *)"sleep", (char *)"qemu-system-fake", NULL };
	struct gw_guest_facts facts = { .machine = "pc" };
	struct gw_definition def;
	struct gw_ram ram = { 0 };
	pid_t pid = process_with(argv);

	(void)state;
	assert_int_equal(gw_ram_add(&ram, "ram0", -1, 64 * MIB, 0), 0);
	assert_int_equal(gw_definition_attach(&def, "web1", pid, "/q", &ram.memory, &facts),
			 -EINVAL);
	assert_message("is not a QEMU");
	gw_definition_free(&def);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* What is not on the command line cannot be given another file there. */
static void attach_refuses_plugged_memory(void **state)
{
	char *const plugged[] = { (char *)"qemu-system-fake", (char *)"-object",
				  (char *)"memory-backend-file,id=ram", NULL };
	char *const config[] = { (char *)"qemu-system-fake", (char *)"-readconfig",
				 (char *)"/etc/vm.cfg", NULL };
	struct gw_guest_facts facts = { .machine = "pc" };
	struct gw_definition def;
	struct gw_ram ram = { 0 };

	(void)state;
	assert_int_equal(gw_ram_add(&ram, "ram", -1, 64 * MIB, 0), 0);
	assert_int_equal(gw_ram_add(&ram, "dimm1", -1, 64 * MIB, 0), 0);
	for (int i = 0; i < 2; i++) {
		pid_t pid = process_with(i ? config : plugged);

		assert_int_equal(gw_definition_attach(&def, "web1", pid, "/q", &ram.memory, &facts),
				 -ENOTSUP);
		assert_message(i ? "'ram' is not on QEMU's command line, but perhaps in /etc/vm.cfg"
				 : "'dimm1' is not on QEMU's command line (plugged in later?)");
		gw_definition_free(&def);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
}

int main(int argc, char *argv[])
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(command_line),
		cmocka_unit_test(attach_rewrites),
		cmocka_unit_test(attach_refuses_others),
		cmocka_unit_test(attach_refuses_plugged_memory),
	};

	/* Started again by process_with(): say that the new command line is there, and stay. */
	if (argc > 1) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) || write(1, "", 1) != 1)
			return 1;
		for (;;)
			pause();
	}
	(void)argv;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
