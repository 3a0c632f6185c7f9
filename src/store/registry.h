/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * registry.h - what the hosts tell each other about themselves: the central
 * generation server of the papers.
 *
 *   sqlite:PATH                          a database on this host
 *   godwit://IP:PORT                     the database of another godwitd
 *   redis://[USER:PASSWORD@]HOST:PORT[/DB]
 *   rediss://...[?ca=FILE[&cert=FILE&key=FILE]]   Redis or Valkey; the same with TLS
 *
 * It answers "which hosts are there, who keeps an image of this VM, how fast is
 * that link", so that `godwit plan` can predict, and "which host has the VM of
 * this name", so that there is one at most.
 *
 * Below the records there are documents: JSON under (kind, group, key), of
 * which a VM's also has a holder, the host that claimed it. Engines keep
 * documents and know nothing of what is in them; registry_records.c makes
 * records of them and checks every field.
 *
 *   kind     group   key    holder
 *   host             NAME
 *   image    VM      HOST
 *   link     FROM    TO
 *   vm               NAME   the host that has it
 *
 * Rules: nothing that comes from a registry is trusted (invariant 10). Every
 * call has a deadline. A registry that is slow, lost, started again or out of
 * date costs predictions at most: callers take a failure for "unknown" and go on.
 * One thread uses a registry at a time, and it is not carried over a fork().
 */
#ifndef GW_REGISTRY_H
#define GW_REGISTRY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "define.h"
#include "history.h"
#include "messages.h"

#define GW_REGISTRY_MS	     500   /* for a call, unless gw_registry_open() is told otherwise */
#define GW_REGISTRY_USER_MS  5000  /* for one whose answer a user waits for */
#define GW_REGISTRY_KEY_MAX  64	   /* with its NUL: names of hosts and VMs */
#define GW_REGISTRY_TEXT_MAX 16384 /* bytes of a document */
#define GW_REGISTRY_LIST_MAX 16384 /* documents in one answer; the rest is not looked at */

enum gw_registry_kind {
	GW_REGISTRY_HOST,
	GW_REGISTRY_IMAGE,
	GW_REGISTRY_LINK,
	GW_REGISTRY_VM,
	GW_REGISTRY_KINDS,
};

/** gw_registry_kind_name() - as engines store it. */
const char *gw_registry_kind_name(enum gw_registry_kind kind);

/** struct gw_document - one of them; what a get or list callback sees is borrowed. */
struct gw_document {
	enum gw_registry_kind kind;
	const char *group, *key;
	const char *holder; /* "": none */
	const char *text;
};

struct gw_registry;

typedef int (*gw_document_fn)(void *arg, const struct gw_document *d);

/** struct gw_registry_ops - an engine. All return 0 or -errno with a message. */
struct gw_registry_ops {
	/* Call @fn for the document, once or, if there is none, not at all. */
	int (*get)(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		   const char *key, gw_document_fn fn, void *arg);
	/* The same for each of a group. */
	int (*list)(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		    gw_document_fn fn, void *arg);
	/* Replace a document; not of kind vm. */
	int (*put)(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		   const char *key, const char *text);
	int (*remove)(struct gw_registry *r, enum gw_registry_kind kind, const char *group,
		      const char *key);
	/*
	 * Atomically: unless VM @name has a holder that is neither @from nor @to,
	 * make @to its holder and @text its document (NULL: leave that as it is,
	 * "{}" for a new one); with an empty @to remove it. -EEXIST: @holder has it.
	 */
	int (*change)(struct gw_registry *r, const char *name, const char *from, const char *to,
		      const char *text, char holder[GW_REGISTRY_KEY_MAX]);
	/* Names of the VMs that @holder has, as documents without text. */
	int (*held)(struct gw_registry *r, const char *holder, gw_document_fn fn, void *arg);
	void (*close)(struct gw_registry *r);
};

/** struct gw_registry - an open registry; engines put theirs behind it. */
struct gw_registry {
	const struct gw_registry_ops *ops;
	unsigned int timeout_ms;
	int64_t deadline; /* of the call under way, ns */
};

/**
 * gw_registry_open() - the registry of @url.
 * @timeout_ms: for each call; 0: GW_REGISTRY_MS
 *
 * Connects at the first call, and again whenever the connection was lost, so
 * it fails only for a URL that cannot be one, or without memory.
 *
 * Return: the registry (gw_registry_close()), or NULL with a message.
 */
struct gw_registry *gw_registry_open(const char *url, unsigned int timeout_ms);
void gw_registry_close(struct gw_registry *r);

/** gw_registry_url_ok() - 0, or -EINVAL with what is wrong with @url. */
int gw_registry_url_ok(const char *url);

/**
 * gw_registry_url_shown() - @url for logs: without its password, into @text.
 */
const char *gw_registry_url_shown(const char *url, char *text, size_t len);

/* A host that has not reported for so long is not counted on, s. */
#define GW_REGISTRY_SILENT_S 60

/* VMs of which a host tells one by one what it holds for others. */
#define GW_HOST_HELD_MAX 16

/** struct gw_host_held - what a memory server holds of a VM that runs on @host, in bytes. */
struct gw_host_held {
	char vm[GW_NAME_MAX];
	char host[GW_REGISTRY_KEY_MAX];
	uint64_t promised, here;
	bool on_disk;
};

/** struct gw_host_record - what a host says of itself. */
struct gw_host_record {
	char name[GW_REGISTRY_KEY_MAX];
	char address[GW_ADDRESS_MAX]; /* where it listens; empty: nowhere */
	uint64_t memory, free;	      /* bytes that VMs may use, and of these left */
	double load;		      /* of a minute, as in /proc/loadavg */
	int64_t reported;	      /* seconds of the wall clock */
	/* As a memory server: bytes that it may promise at all (0: it is none), and promise yet. */
	uint64_t server_limit, server_free;
	uint64_t swap_limit, swap_free; /* the same, on a disk */
	struct gw_host_held held[GW_HOST_HELD_MAX];
	unsigned int nr_held; /* VMs that it holds memory of: more than these, perhaps */
};

/** struct gw_image_record - a kept image (store/image.h). */
struct gw_image_record {
	char vm[GW_NAME_MAX];
	char host[GW_REGISTRY_KEY_MAX];
	uint32_t departure;
	uint8_t id[GW_ID_LEN];
	uint64_t bytes;
	int64_t left; /* seconds of the wall clock */
};

/** struct gw_link_record - what a finished migration made of a link. */
struct gw_link_record {
	char from[GW_REGISTRY_KEY_MAX], to[GW_REGISTRY_KEY_MAX];
	uint64_t bandwidth;  /* bytes per second */
	uint64_t round_trip; /* ns */
	int64_t measured;    /* seconds of the wall clock */
};

/** struct gw_vm_record - a VM as its host last told of it. Zero: never measured. */
struct gw_vm_record {
	char name[GW_NAME_MAX];
	char host[GW_REGISTRY_KEY_MAX];
	char address[GW_ADDRESS_MAX];
	int64_t reported; /* seconds of the wall clock; 0: claimed, nothing told yet */
	uint32_t departures;
	uint64_t resident;	 /* bytes of its memory that hold data */
	double dirty_rate;	 /* pages per second */
	double setup_ms;	 /* before the first page travelled */
	uint64_t device_bytes;	 /* of device state */
	double wire_per_changed; /* bytes for a page, where an older version was kept; 0: not known
				  */
	double wire_per_page;	 /* bytes on the wire for a page that travelled */
	struct gw_history history;
};

int gw_registry_put_host(struct gw_registry *r, const struct gw_host_record *host);

/** gw_registry_host_json() - @host as the registry has it, but for its name; the caller's. */
json_t *gw_registry_host_json(const struct gw_host_record *host);

int gw_registry_put_image(struct gw_registry *r, const struct gw_image_record *image);
int gw_registry_put_link(struct gw_registry *r, const struct gw_link_record *link);
int gw_registry_drop_image(struct gw_registry *r, const char *vm, const char *host);

/**
 * gw_registry_hosts(), _images(), _links() - all hosts; the images of @vm; the links from @from.
 * @list: array, free()
 *
 * One that cannot be read is left out, with a warning. Return: 0 or -errno.
 */
int gw_registry_hosts(struct gw_registry *r, struct gw_host_record **list, size_t *nr);
int gw_registry_images(struct gw_registry *r, const char *vm, struct gw_image_record **list,
		       size_t *nr);
int gw_registry_links(struct gw_registry *r, const char *from, struct gw_link_record **list,
		      size_t *nr);

/** gw_registry_host() - what host @name said last. 0, -ENOENT, -EBADMSG or -errno. */
int gw_registry_host(struct gw_registry *r, const char *name, struct gw_host_record *host);

/** gw_registry_vm() - what is known of VM @name. 0, -ENOENT, -EBADMSG or -errno. */
int gw_registry_vm(struct gw_registry *r, const char *name, struct gw_vm_record *vm);

/**
 * gw_registry_claim() - VM @name is on @host from now on.
 *
 * Atomic, whoever else claims it. Claiming what one has is fine and changes
 * nothing. Return: 0, or -EEXIST: another host, which the message names, has it.
 */
int gw_registry_claim(struct gw_registry *r, const char *name, const char *host);

/** gw_registry_release() - @host has no VM @name any more; one that another has stays. */
int gw_registry_release(struct gw_registry *r, const char *name, const char *host);

/**
 * gw_registry_move() - VM @vm->name went from host @from to @vm->host; keep all of @vm.
 *
 * Atomic. Return: 0, or -EEXIST: a third host has it.
 */
int gw_registry_move(struct gw_registry *r, const struct gw_vm_record *vm, const char *from);

/** gw_registry_held() - names of the VMs that @host has, as a JSON array into @names. */
int gw_registry_held(struct gw_registry *r, const char *host, json_t **names);

/*
 * Between registry.c, the records and the engines.
 */

/** gw_registry_key_ok() - a name that may be a key: 1 to 63 printable bytes of ASCII, no blank. */
bool gw_registry_key_ok(const char *key);

/** gw_registry_begin() - a call begins: set its deadline. */
void gw_registry_begin(struct gw_registry *r);

struct gw_registry *gw_registry_sqlite(const char *path);
struct gw_registry *gw_registry_redis(const char *url);
struct gw_registry *gw_registry_peer(const char *address);

struct gw_transport;

/**
 * gw_registry_serve() - answer the queries of a connection until it ends.
 * @t: past OPEN and ACCEPT
 * @idle_ms: end it when nothing was asked for so long
 * @life_ms: end it then in any case
 */
void gw_registry_serve(struct gw_registry *r, struct gw_transport *t, unsigned int idle_ms,
		       unsigned int life_ms);

#endif
