/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * messages.h - what two hosts say to each other; godwit-wire(5) in code.
 *
 * A migration is one control connection and N streams, all to the
 * destination's --listen address. Every connection begins with OPEN.
 *
 *   source                                   destination
 *   control connection
 *     OPEN {versions, kind, id}         ->
 *                                       <-   ACCEPT {version}
 *     DEFINE {definition, sizes, reuse,
 *             features, stages, legs}   ->   (starts QEMU -incoming defer)
 *                                       <-   WAIT {text} ... (version 2: it is at it)
 *                                       <-   READY {host, image, features, stages}
 *                                       <-   ABSENT {pages} ... (of the image, as many
 *                                              as READY said)
 *   each stream
 *     OPEN {versions, kind, id, index}  ->
 *                                       <-   ACCEPT {version}
 *   before the first round, with the feature disk-samples (source/disks.c)
 *     SAMPLE {blocks of disks}          ->
 *                                       <-   SAMPLED {their digests}
 *   before the first round, if the destination keeps an image of the VM
 *     WANT {pages}                      ->   (source/reuse.c)
 *                                       <-   BLOCKS {digests of their blocks}
 *   a round
 *     PAGES {chunk, records} ...        ->   (streams; placed on arrival)
 *     BARRIER {round}                   ->   (last on every stream)
 *     ROUND_END {round}                 ->   (control)
 *                                       <-   REFUSED {runs} ... (only where READY named disks,
 *                                              source/teleport.c; WAIT {text} before it)
 *                                       <-   ROUND_DONE {round; ns that disks were waited for,
 *                                              with those}: all streams reached it
 *   after the first round, with the feature compared-later, until all is known
 *     COMPARE {ms to wait}              ->   (source/compared.c)
 *                                       <-   COMPARED {pages so far, those that are absent}
 *   switchover (the last round's ROUND_DONE is waited for only before VERIFY)
 *     VERIFY {first chunk, digests} ... ->   (only with --verify; the first may have none)
 *     VERIFY_END                        ->
 *                                       <-   WAIT {text} ... (feature verify-together)
 *                                       <-   VERIFIED
 *     DEVICE {bytes} ... DEVICE_END     ->   (held back until the last barrier)
 *                                       <-   HELD: all of it, and the last round's pages
 *     LOAD {us so far}                  ->   (QEMU there gets it; wire/legs.h)
 *     or RESUMED                        ->   (instead of LOAD, or of what DEVICE is left: it
 *                                              is forgotten, and rounds go on)
 *                                       <-   LOADED
 *       (HELD, LOAD and RESUMED with the feature switchover-again; without it what
 *        is held is loaded at DEVICE_END)
 *     COMMIT {run}                      ->   (the destination may run the guest)
 *                                       <-   RUNNING, or (version 2) SETTLED {aborted, text}:
 *                                              QEMU refused it, and it never ran
 *     LEDGER {part} ... LEDGER_END      ->   (only with reuse: what the memory was
 *                                              at this departure; store/ledger.h)
 *
 *   post-copy, with the feature (decision 28): DEFINE's `postcopy` is N, 2 to GW_PAGING_MAX
 *   each of N paging connections, before the guest is stopped, and again after any is lost
 *     OPEN {kind paging, id, index}     ->   (0 is for requests, the others push)
 *                                       <-   ACCEPT {version}
 *   guest stopped, after the last ROUND_DONE (control)
 *     MISSING {runs} ...                ->
 *     MISSING_END {pages}               ->   (before VERIFY and DEVICE)
 *   whenever all paging connections are there, the first time before DEVICE is read
 *                                       <-   MISSING {runs} ..., MISSING_END {known} (0)
 *   from then on
 *                                       <-   REQUEST {runs} (0)
 *     PAGES {chunk, records} ...        ->   (0: answers; others: the rest)
 *                                       <-   FAULTS {numbers} (0; now and then, and before
 *                                              COMPLETE; faults.h)
 *                                       <-   PLACED {bytes of PAGES frames, headers included,
 *                                              since this connection's OPEN} (not on 0)
 *   with the feature return-at-once, where READY's image is `unchecked` (decision 29): what was
 *   not told as missing is compared there; what is not what it was, and what a REQUEST
 *   names beside what was told, is missing, too
 *                                       <-   REFUSED {runs} (not on 0)
 *   with the feature postcopy-disks what is pushed may name places on disks (34); what is not there
 *                                       <-   REFUSED {runs} (not on 0)
 *   nothing is missing any more
 *                                       <-   COMPLETE (0)
 *     LEDGER ... LEDGER_END             ->   (0; not after RUNNING on control)
 *
 *   migration to several hosts, with the feature split (decision 32): DEFINE's `split` names the
 *   sub-hosts, whose pages the source sends there itself, as the VM's main host does (below).
 *   On the control connection, before the first round
 *     HISTORY {number of a chunk; a byte each from there on} ...
 *                                       ->   (which of them the guest has used of late)
 *   between rounds, and before LOAD all that is left of it
 *     AWAY {number of the sub-host; runs} ...
 *                                       ->   (they lie there; GW_HOLDERS_MAX: nowhere any more)
 *   after HELD, when the source has closed its connections to all sub-hosts
 *     AWAY_END {pages}                  ->   (so many are away; LOAD follows)
 *
 *   with the feature copy-storage (decision 35): DEFINE's `storage` names the disks, of which the
 *   destination makes images; for each of them, before the first round
 *     OPEN {kind storage, id, index}    ->
 *                                       <-   ACCEPT {version}
 *     STORAGE {bytes} ...               ->   (what two QEMUs say to each other: NBD, of which
 *                                       <-   STORAGE {bytes} ...  each end ends the other's)
 *
 *   A VM whose memory lies on several hosts (split, decision 32): its main host, to the memory
 *   server of a sub-host, on connections 0 for requests and 1 for what leaves it and what is
 *   fetched ahead
 *     OPEN {kind memory, id, index}     ->   (id: of the split; 0 before 1)
 *                                       <-   ACCEPT {version}
 *   on 0, first, and again after any is lost
 *     HOLD {json}                       ->   (the VM, its blocks, what may be put here; hold.h)
 *                                       <-   HOLDING {json} {pages that lie here}
 *     MISSING {runs} ..., MISSING_END   ->   (of these, what the main host has not: the rest goes)
 *                                       <-   ABSENT {runs} ... HOLDING {pages}: of these, what is
 *                                              not here (if that is much, before MISSING_END)
 *   from then on
 *     PAGES {chunk, records}            ->   (1: they leave the main host)
 *                                       <-   STORED {PAGES frames that lie here, since this
 *                                              connection's OPEN} (1)
 *     REQUEST {runs}                    ->   (GW_MEMORY_REQUEST_PAGES pages at most)
 *                                       <-   PAGES {chunk, records} ..., and ABSENT {runs} of
 *                                              what is not here, on the connection of the request
 *     RELEASE {runs}                    ->   (1: the main host has them, they are dropped)
 *   the VM has ended, or has all of its memory; any time after the first HOLDING
 *     DISMISS                           ->   (0)
 *                                       <-   DISMISSED: nothing of it is here
 *   Each of the two goes on reading a connection while it sends on it, but for the sub-host.
 *
 *   At any moment before COMMIT either side may end it:
 *     ERROR {text} or CANCEL {text}, then closes.
 *   After it a source whose memory is lost says so, on paging connection 0, to who lacks some:
 *     ERROR {GW_ERROR_LOST; text}       ->   and the destination closes
 *
 *   After a lost answer to COMMIT, on a connection of its own:
 *     OPEN {kind settle, id}            ->   (what became of it?)
 *     or OPEN {kind forbid, id}         ->   (version 2: it must never run there)
 *                                       <-   SETTLED {outcome, text}, or ERROR {text}
 *   and a destination, before it resumes a guest whose worker died (version 2):
 *                                       <-   OPEN {kind claim, id}
 *     SETTLED {outcome, text}           ->   (running: it may; aborted: it may not)
 *
 *   The registry that a godwitd serves (store/registry_peer.c), likewise:
 *     OPEN {kind registry}              ->
 *                                       <-   ACCEPT {version}
 *     QUERY {json}                      ->   (any number of times)
 *                                       <-   ANSWER {json}
 *
 * Rules: all integers are little-endian. Nothing here is trusted: frame.c
 * checks type, length and checksum, whoever reads a payload checks the rest
 * (invariant 10).
 */
#ifndef GW_MESSAGES_H
#define GW_MESSAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * GW_VERSION_MIN is always the one before, or the first. What version 2 has and 1
 * has not: the lists of feature.h in DEFINE and READY, and what those name.
 */
#define GW_VERSION     2
#define GW_VERSION_MIN 1

/* Round trips that a stopped guest waits for: until HELD, LOADED and COMMIT have arrived. */
#define GW_SWITCHOVER_TRIPS 2.5

/* Bytes that name one migration on both hosts. */
#define GW_ID_LEN 16

/*
 * A host's name, with its NUL: any of DNS, and longer than the kernel's. Whoever keeps a peer's
 * keeps all of it, or none: it is compared (decision 31).
 */
#define GW_HOST_MAX 256

/* An address, with its NUL: gw_address_check() refuses longer ones. */
#define GW_ADDRESS_MAX 128

/* Longest wait that one COMPARE may ask for, in ms. */
#define GW_COMPARE_MS 1000
/* Paging connections of a migration: one for requests, and at least one that pushes. */
#define GW_PAGING_MIN 2
#define GW_PAGING_MAX 16

/* Connections to a memory server: for requests, and for what leaves and is fetched ahead. */
#define GW_MEMORY_REQUESTS    0
#define GW_MEMORY_BULK	      1
#define GW_MEMORY_CONNECTIONS 2

/* Sub-hosts of one VM; a byte of the network page table names one. */
#define GW_HOLDERS_MAX 16
#define GW_NO_HOLDER   0xff

/* How many of them have a page at most. */
#define GW_COPIES_MAX 2

/* Pages that one REQUEST to a memory server asks for at most. */
#define GW_MEMORY_REQUEST_PAGES 4096UL

/* Pages that one WANT asks for at most. */
#define GW_WANT_PAGES 2048

enum gw_message {
	GW_MSG_OPEN = 1,
	GW_MSG_ACCEPT,
	GW_MSG_DEFINE,
	GW_MSG_READY,
	GW_MSG_ERROR,
	GW_MSG_CANCEL,
	GW_MSG_ROUND_END,
	GW_MSG_ROUND_DONE,
	GW_MSG_DEVICE,
	GW_MSG_DEVICE_END,
	GW_MSG_LOADED,
	GW_MSG_VERIFY,
	GW_MSG_VERIFY_END,
	GW_MSG_VERIFIED,
	GW_MSG_COMMIT,
	GW_MSG_RUNNING,
	GW_MSG_PAGES,
	GW_MSG_BARRIER,
	GW_MSG_SETTLED,
	GW_MSG_ABSENT,
	GW_MSG_WANT,
	GW_MSG_BLOCKS,
	GW_MSG_LEDGER,
	GW_MSG_LEDGER_END,
	GW_MSG_QUERY,
	GW_MSG_ANSWER,
	GW_MSG_WAIT, /* from version 2 on */
	GW_MSG_SAMPLE,
	GW_MSG_SAMPLED,
	GW_MSG_COMPARE,
	GW_MSG_COMPARED,
	GW_MSG_HELD, /* with the feature switchover-again */
	GW_MSG_LOAD,
	GW_MSG_RESUMED,
	/* with the feature postcopy */
	GW_MSG_MISSING,
	GW_MSG_MISSING_END,
	GW_MSG_REQUEST,
	GW_MSG_PLACED,
	GW_MSG_COMPLETE,
	GW_MSG_REFUSED, /* with the feature return-at-once */
	GW_MSG_FAULTS,
	/* with a memory server */
	GW_MSG_HOLD,
	GW_MSG_HOLDING,
	GW_MSG_STORED,
	GW_MSG_RELEASE,
	GW_MSG_DISMISS,
	GW_MSG_DISMISSED,
	/* with the feature split */
	GW_MSG_HISTORY,
	GW_MSG_AWAY,
	GW_MSG_AWAY_END,
	GW_MSG_STORAGE, /* with the feature copy-storage */
	GW_MSG_COUNT,
};

enum gw_open_kind {
	GW_OPEN_MIGRATE = 1, /* control connection of a new migration */
	GW_OPEN_STREAM,	     /* one more stream of migration @id */
	GW_OPEN_SETTLE,	     /* what became of migration @id? (godwit recover) */
	GW_OPEN_REGISTRY,    /* questions to the registry that this host serves */
	/* from version 2 on */
	GW_OPEN_FORBID,	 /* make sure that migration @id's guest never runs there, if it does not */
	GW_OPEN_CLAIM,	 /* to its source: it is committed here; may it run? */
	GW_OPEN_PAGING,	 /* connection @stream for the missing pages of migration @id */
	GW_OPEN_MEMORY,	 /* connection @stream to what this host holds of split @id */
	GW_OPEN_STORAGE, /* of migration @id: to the @stream-th disk that is copied */
	GW_OPEN_KINDS,
};

/* The argument of ERROR on paging connection 0: what is missing is nowhere any more. */
#define GW_ERROR_LOST 1

/*
 * What a destination answers to SETTLE. Final: it never changes afterwards; but
 * after UNKNOWN another may come. Whoever answers that has written it down, and
 * never resumes the guest by itself from then on (invariant 1).
 *
 * UNKNOWN from a host that has no trace of the migration says so: behind the text come a
 * NUL and the host's name. If that is the host of READY, it was booted since.
 */
enum gw_outcome {
	GW_OUTCOME_UNKNOWN, /* nothing is known of it (a reboot), or QEMU does not answer */
	GW_OUTCOME_ABORTED, /* it does not run here and never will */
	GW_OUTCOME_RUNNING, /* it was resumed here */
	GW_OUTCOME_LOST,    /* it was committed here, and its QEMU is gone */
	GW_OUTCOME_PAGING,  /* it was resumed here, and needs what the source still has */
	GW_OUTCOME_ENDED,   /* it was, and its QEMU was killed or crashed before it had that */
	/* Not on the wire: UNKNOWN, and the guest's host has no trace of it. */
	GW_OUTCOME_FORGOTTEN,
};

/** struct gw_open - payload of OPEN, 32 bytes on the wire. */
struct gw_open {
	uint16_t version_min;
	uint16_t version_max;
	uint16_t kind;
	uint16_t reserved;
	uint32_t stream; /* index of the stream, 0 elsewhere */
	uint32_t reserved2;
	uint8_t id[GW_ID_LEN];
};

#define GW_OPEN_LEN 32

/** gw_open_encode() - @open as its GW_OPEN_LEN wire bytes. */
void gw_open_encode(const struct gw_open *open, uint8_t wire[GW_OPEN_LEN]);

/**
 * gw_open_decode() - check and read an OPEN payload.
 *
 * Return: 0, -EPROTO for garbage, -EPROTONOSUPPORT if no version is spoken by
 * both (the message names both sides' versions).
 */
int gw_open_decode(const uint8_t *wire, size_t len, struct gw_open *open, uint16_t *version);

/** gw_message_name() - for messages to people; never NULL. */
const char *gw_message_name(unsigned int type);

/** gw_message_max() - largest payload of @type in bytes; -1 for an unknown type. */
long gw_message_max(unsigned int type);

/** gw_id_make() - a new id, of random bytes, which nobody guesses. 0 or -errno with a message. */
int gw_id_make(uint8_t id[GW_ID_LEN]);

/** gw_id_format() - @id as 32 hex digits and NUL into @text. */
void gw_id_format(const uint8_t id[GW_ID_LEN], char text[2 * GW_ID_LEN + 1]);

/** gw_id_parse() - the reverse. Return: 0 or -EINVAL. */
int gw_id_parse(const char *text, uint8_t id[GW_ID_LEN]);

#endif
