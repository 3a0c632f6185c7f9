// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * registry_sqlite.c - a registry in a SQLite database on this host.
 *
 * Any number of processes use the file at once; each change is a transaction.
 * A database that is damaged is refused with a message: it may be removed at
 * any time, since the hosts tell all of it again but what moves have measured.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "clock.h"
#include "error.h"
#include "io.h"
#include "registry.h"

/* PRAGMA user_version, in words of SQL and as it reads; "0" is a new file. */
#define FORMAT	   "1"
#define FORMAT_MAX 16

/* A progress handler is called about every so many instructions of SQLite's machine. */
#define PROGRESS_STEPS 1000

struct lite {
	struct gw_registry r;
	char *path;
	sqlite3 *db;
};

static struct lite *lite_of(struct gw_registry *r)
{
	return (struct lite *)r;
}

static const char schema[] =
	"PRAGMA journal_mode = WAL;"
	"BEGIN IMMEDIATE;"
	"CREATE TABLE IF NOT EXISTS document ("
	" kind TEXT NOT NULL, grp TEXT NOT NULL, key TEXT NOT NULL,"
	" holder TEXT NOT NULL DEFAULT '', text TEXT NOT NULL,"
	" PRIMARY KEY (kind, grp, key)) WITHOUT ROWID;"
	"CREATE INDEX IF NOT EXISTS held ON document (holder) WHERE holder <> '';"
	"PRAGMA user_version = " FORMAT ";"
	"COMMIT;";

static void disconnect(struct lite *l)
{
	sqlite3_close_v2(l->db);
	l->db = NULL;
}

/* Whatever is not just slow ends the connection: the next call begins anew. */
static int failed(struct lite *l, int code)
{
	int rc;

	switch (code & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_INTERRUPT:
		return gw_fail(-ETIMEDOUT, "registry %s: no answer within %u ms", l->path,
			       l->r.timeout_ms);
	case SQLITE_NOTADB:
	case SQLITE_CORRUPT:
		rc = gw_fail(-EBADMSG,
			     "registry %s is damaged; remove it: hosts tell it again what they "
			     "know",
			     l->path);
		break;
	case SQLITE_NOMEM:
		rc = gw_fail(-ENOMEM, "registry %s: no memory", l->path);
		break;
	default:
		rc = gw_fail(-EIO, "registry %s: %s", l->path,
			     l->db ? sqlite3_errmsg(l->db) : sqlite3_errstr(code));
		break;
	}
	disconnect(l);
	return rc;
}

static int on_progress(void *arg)
{
	const struct lite *l = arg;

	return gw_now() > l->r.deadline;
}

/* How long SQLite may wait for another process that writes: until the deadline. */
static int on_busy(void *arg, int times)
{
	const struct lite *l = arg;

	(void)times;
	if (gw_now() >= l->r.deadline)
		return 0;
	sqlite3_sleep(1);
	return 1;
}

static int take_format(void *arg, int columns, char **values, char **names)
{
	(void)columns;
	(void)names;
	snprintf(arg, FORMAT_MAX, "%s", values[0] ? values[0] : "");
	return 0;
}

static int open_db(struct lite *l, char format[FORMAT_MAX])
{
	int code = sqlite3_open_v2(l->path, &l->db,
				   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
				   NULL);

	if (code)
		return code;
	sqlite3_progress_handler(l->db, PROGRESS_STEPS, on_progress, l);
	sqlite3_busy_handler(l->db, on_busy, l);
	sqlite3_limit(l->db, SQLITE_LIMIT_LENGTH, 1 << 20);
	code = sqlite3_exec(l->db, "PRAGMA synchronous = NORMAL; PRAGMA user_version", take_format,
			    format, NULL);
	if (!code && !strcmp(format, "0")) {
		code = sqlite3_exec(l->db, schema, NULL, NULL, NULL);
		snprintf(format, FORMAT_MAX, FORMAT);
	}
	return code;
}

static int connect_db(struct lite *l)
{
	char format[FORMAT_MAX] = "";
	int code;

	if (l->db)
		return 0;
	/* Turning a new file over to WAL does not wait for others by itself. */
	while ((code = open_db(l, format)) == SQLITE_BUSY && gw_now() < l->r.deadline) {
		disconnect(l);
		sqlite3_sleep(1);
	}
	if (code) {
		code = failed(l, code);
		disconnect(l);
		return code;
	}
	if (strcmp(format, FORMAT) != 0) {
		disconnect(l);
		return gw_fail(-EPROTONOSUPPORT,
			       "registry %s was made by another release of Godwit; use that, or "
			       "another file",
			       l->path);
	}
	return 0;
}

/* Prepare @sql with @n texts bound to it. NULL with *rc set. */
static sqlite3_stmt *prepare(struct lite *l, int *rc, const char *sql, int n,
			     const char *const texts[])
{
	sqlite3_stmt *stmt = NULL;
	int code;

	*rc = connect_db(l);
	if (*rc)
		return NULL;
	code = sqlite3_prepare_v2(l->db, sql, -1, &stmt, NULL);
	for (int i = 0; !code && i < n; i++)
		code = sqlite3_bind_text(stmt, i + 1, texts[i], -1, SQLITE_STATIC);
	if (code) {
		*rc = failed(l, code);
		sqlite3_finalize(stmt);
		return NULL;
	}
	return stmt;
}

/* A statement without rows. */
static int run(struct lite *l, const char *sql, int n, const char *const texts[])
{
	int rc, code;
	sqlite3_stmt *stmt = prepare(l, &rc, sql, n, texts);

	if (!stmt)
		return rc;
	code = sqlite3_step(stmt);
	if (code != SQLITE_DONE)
		rc = failed(l, code);
	sqlite3_finalize(stmt);
	return rc;
}

static const char *column(sqlite3_stmt *stmt, int i)
{
	const char *text = (const char *)sqlite3_column_text(stmt, i);

	return text ? text : "";
}

/* Each row, (grp, key, holder, text), as a document. */
static int each(struct lite *l, enum gw_registry_kind kind, const char *sql, int n,
		const char *const texts[], gw_document_fn fn, void *arg)
{
	int rc, code = SQLITE_DONE;
	sqlite3_stmt *stmt = prepare(l, &rc, sql, n, texts);

	if (!stmt)
		return rc;
	for (size_t i = 0; !rc && i < GW_REGISTRY_LIST_MAX; i++) {
		code = sqlite3_step(stmt);
		if (code != SQLITE_ROW)
			break;
		rc = fn(arg, &(struct gw_document){ kind, column(stmt, 0), column(stmt, 1),
						    column(stmt, 2), column(stmt, 3) });
	}
	if (!rc && code != SQLITE_DONE && code != SQLITE_ROW)
		rc = failed(l, code);
	sqlite3_finalize(stmt);
	return rc;
}

static int lite_get(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		    const char *key, gw_document_fn fn, void *arg)
{
	const char *const texts[] = { gw_registry_kind_name(kind), group, key };

	return each(lite_of(r), kind,
		    "SELECT grp, key, holder, text FROM document"
		    " WHERE kind = ? AND grp = ? AND key = ?",
		    3, texts, fn, arg);
}

static int lite_list(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		     gw_document_fn fn, void *arg)
{
	const char *const texts[] = { gw_registry_kind_name(kind), group };

	return each(lite_of(r), kind,
		    "SELECT grp, key, holder, text FROM document WHERE kind = ? AND grp = ?", 2,
		    texts, fn, arg);
}

static int lite_put(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		    const char *key, const char *text)
{
	const char *const texts[] = { gw_registry_kind_name(kind), group, key, text };

	return run(lite_of(r),
		   "INSERT INTO document (kind, grp, key, text) VALUES (?, ?, ?, ?)"
		   " ON CONFLICT DO UPDATE SET text = excluded.text",
		   4, texts);
}

static int lite_remove(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		       const char *key)
{
	const char *const texts[] = { gw_registry_kind_name(kind), group, key };

	return run(lite_of(r), "DELETE FROM document WHERE kind = ? AND grp = ? AND key = ?", 3,
		   texts);
}

static int take_holder(void *arg, const struct gw_document *d)
{
	char *holder = arg;

	holder[0] = '\0';
	if (strlen(d->holder) < GW_REGISTRY_KEY_MAX)
		memcpy(holder, d->holder, strlen(d->holder) + 1);
	return 0;
}

/* Inside a transaction. */
static int change(struct lite *l, const char *name, const char *from, const char *to,
		  const char *text, char holder[GW_REGISTRY_KEY_MAX])
{
	const char *const new[] = { name, to, text ? text : "{}" };
	int rc;

	holder[0] = '\0';
	rc = lite_get(&l->r, GW_REGISTRY_VM, "", name, take_holder, holder);
	if (rc)
		return rc;
	if (holder[0] && strcmp(holder, from) != 0 && strcmp(holder, to) != 0)
		return gw_fail(-EEXIST, "host '%s' has VM '%s'", holder, name);
	if (!to[0])
		return lite_remove(&l->r, GW_REGISTRY_VM, "", name);
	return run(l,
		   text ? "INSERT INTO document (kind, grp, key, holder, text)"
			  " VALUES ('vm', '', ?, ?, ?) ON CONFLICT DO UPDATE"
			  " SET holder = excluded.holder, text = excluded.text"
			: "INSERT INTO document (kind, grp, key, holder, text)"
			  " VALUES ('vm', '', ?, ?, ?) ON CONFLICT DO UPDATE"
			  " SET holder = excluded.holder",
		   3, new);
}

static int lite_change(struct gw_registry *r, const char *name, const char *from, const char *to,
		       const char *text, char holder[GW_REGISTRY_KEY_MAX])
{
	struct lite *l = lite_of(r);
	int rc = run(l, "BEGIN IMMEDIATE", 0, NULL);

	if (rc)
		return rc;
	rc = change(l, name, from, to, text, holder);
	if (!rc)
		rc = run(l, "COMMIT", 0, NULL);
	/* The message is of what failed; a rollback that fails too ends with the connection. */
	if (rc && l->db && sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL))
		disconnect(l);
	return rc;
}

static int lite_held(struct gw_registry *r, const char *holder, gw_document_fn fn, void *arg)
{
	return each(lite_of(r), GW_REGISTRY_VM,
		    "SELECT grp, key, holder, '' FROM document WHERE holder = ? AND holder <> ''",
		    1, &holder, fn, arg);
}

static void lite_close(struct gw_registry *r)
{
	struct lite *l = lite_of(r);

	disconnect(l);
	free(l->path);
	free(l);
}

static const struct gw_registry_ops lite_ops = {
	.get = lite_get,
	.list = lite_list,
	.put = lite_put,
	.remove = lite_remove,
	.change = lite_change,
	.held = lite_held,
	.close = lite_close,
};

struct gw_registry *gw_registry_sqlite(const char *path)
{
	struct lite *l;

	if (path[0] != '/') {
		gw_fail(-EINVAL, "sqlite:PATH needs an absolute path, not '%s'", path);
		return NULL;
	}
	l = calloc(1, sizeof(*l));
	if (!l) {
		gw_fail(-ENOMEM, "no memory for a registry");
		return NULL;
	}
	l->r.ops = &lite_ops;
	l->path = gw_path("%s", path);
	return &l->r;
}
