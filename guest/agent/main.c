// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * godwit-agent [--port PATH]: answers the host for ever.
 * godwit-agent --once FILE: writes one report to a file, for who wants to see it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

#define PORT_LINK "/dev/virtio-ports/" GW_AGENT_PORT

static const char usage[] =
	"usage: godwit-agent [--port PATH]\n"
	"       godwit-agent --once FILE\n"
	"\n"
	"Tells the host of a virtual machine, when it asks, which of the machine's pages\n"
	"hold the same as one of its disks, so that a live migration need not send them.\n"
	"\n"
	"  --port PATH   the virtio-serial port (" PORT_LINK ")\n"
	"  --once FILE   write one report to FILE, and end\n"
	"  --help        this text\n"
	"  --version     the version\n";

struct file_sink {
	struct sink sink; /* must be the first */
	int fd;
};

static int file_put(struct sink *sink, const void *data, size_t size)
{
	struct file_sink *file = (struct file_sink *)sink;

	while (size) {
		ssize_t bytes = write(file->fd, data, size);

		if (bytes < 0 && errno == EINTR)
			continue;
		if (bytes < 0)
			return -errno;
		data = (const char *)data + bytes;
		size -= bytes;
	}
	return 0;
}

static int file_wanted(struct sink *sink)
{
	(void)sink;
	return 0;
}

static int write_once(const char *path)
{
	struct file_sink file = { { file_put, file_wanted }, -1 };
	struct report report = { .sink = &file.sink };
	int error;

	file.fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (file.fd < 0) {
		fprintf(stderr, "godwit-agent: cannot write %s: %s\n", path, strerror(errno));
		return EXIT_FAILURE;
	}
	error = report_write(&report);
	if (close(file.fd) < 0 && !error)
		error = report_fail(&report, errno, "cannot write %s", path);
	if (error) {
		fprintf(stderr, "godwit-agent: %s\n", report.problem);
		return EXIT_FAILURE;
	}
	printf("godwit-agent: %llu pages in %llu runs, %s\n", (unsigned long long)report.pages,
	       (unsigned long long)report.runs,
	       report.source == GW_AGENT_MODULE ? "from the kernel module"
						: "without the kernel module");
	return EXIT_SUCCESS;
}

static bool has_name(const char *port)
{
	char path[320], name[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", port);
	file = fopen(path, "re");
	if (!file)
		return false;
	if (fscanf(file, "%63s", name) != 1)
		name[0] = '\0';
	fclose(file);
	return !strcmp(name, GW_AGENT_PORT);
}

/* The port where udev makes no links: by the name that the kernel knows. */
static const char *find_port(char *path, size_t size)
{
	DIR *folder;
	struct dirent *entry;

	if (!access(PORT_LINK, F_OK))
		return PORT_LINK;
	folder = opendir("/sys/class/virtio-ports");
	while (folder && (entry = readdir(folder)))
		if (has_name(entry->d_name))
			break;
	if (folder && entry)
		snprintf(path, size, "/dev/%s", entry->d_name);
	else
		snprintf(path, size, "%s", PORT_LINK);
	if (folder)
		closedir(folder);
	return path;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "once", required_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'v' },
		{},
	};
	const char *port = NULL, *once = NULL;
	char path[320];
	int option, error;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'p':
			port = optarg;
			break;
		case 'o':
			once = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		case 'v':
			puts("godwit-agent " AGENT_VERSION);
			return EXIT_SUCCESS;
		default:
			return 2;
		}
	}
	if (optind < argc || (port && once)) {
		fputs(usage, stderr);
		return 2;
	}
	if (once)
		return write_once(once);
	if (!port)
		port = find_port(path, sizeof(path));
	error = port_serve(port);
	fprintf(stderr, "godwit-agent: %s: %s\n", port, strerror(-error));
	return EXIT_FAILURE;
}
