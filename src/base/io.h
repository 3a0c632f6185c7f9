/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * io.h - whole reads and writes, small files, sizes with units.
 *
 * Rules: every function retries EINTR; a short transfer is a failure; the
 * message names the path or the peer.
 */
#ifndef GW_IO_H
#define GW_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** gw_write_all() - write all of @len bytes. Return: 0 or -errno (message recorded). */
int gw_write_all(int fd, const void *buf, size_t len);

/** gw_pwrite_all() - write all of @len bytes at @offset. */
int gw_pwrite_all(int fd, const void *buf, size_t len, off_t offset);

/** gw_pread_all() - read exactly @len bytes at @offset; a short file is -EIO. */
int gw_pread_all(int fd, void *buf, size_t len, off_t offset);

/**
 * gw_read_file() - a whole small file (procfs included) as a string.
 * @max: refuse files above this many bytes
 * @len: length without the added NUL, may be NULL
 *
 * Return: the text, to be freed by the caller, or NULL with a message.
 */
char *gw_read_file(const char *path, size_t max, size_t *len);

/** gw_read_fd() - the same of what is open already; @path is for messages. */
char *gw_read_fd(int fd, const char *path, size_t max, size_t *len);

/**
 * gw_write_file() - replace @path, in a folder of ours (own.h), atomically (temporary file,
 * rename). After a process crash the file is the old one or the new one, never a part. Not synced:
 * for what describes running processes and dies with the host.
 */
int gw_write_file(const char *path, const char *text);

/** gw_write_file_synced() - the same, and after a power cut too, once it has returned 0. */
int gw_write_file_synced(const char *path, const char *text);

/** gw_sync_path() - wait until a file, or a folder's names, are on disk. 0 or -errno. */
int gw_sync_path(const char *path);

/** gw_remove_tree() - remove a folder with all that is in it. Links are removed, not followed. */
int gw_remove_tree(const char *path);

/** gw_close_all_but() - in a new process: close all above 2 but the @n of @keep (-1: none). */
void gw_close_all_but(const int *keep, size_t n);

/** gw_parse_size() - "2G", "512M", "4096" into bytes (units of 1024). */
int gw_parse_size(const char *text, uint64_t *bytes);

/** gw_format_size() - bytes for people ("1.5 GiB") into @buf; returns @buf. */
char *gw_format_size(uint64_t bytes, char *buf, size_t len);

/**
 * gw_copy_whole() - @text into @out of @len bytes; "" where it is NULL or does not fit.
 *
 * For names and addresses: half of one is another's.
 */
void gw_copy_whole(char *out, size_t len, const char *text);

/** gw_path() - asprintf for paths; aborts when memory is out. Caller frees. */
char *gw_path(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
