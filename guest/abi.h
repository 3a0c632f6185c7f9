/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a guest tells of its page cache, and how the host asks for it.
 *
 * For the kernel module, for the agent, and for the host: needs nothing but
 * <linux/types.h>. All numbers are little-endian, no structure has padding, and
 * none is larger than what is written here: a later version is another version,
 * not a longer structure.
 *
 * All of it is a hint. A report is as old as the moment at which a page was
 * looked at, and comes from a guest that may be wrong or worse. The host checks
 * every bound, and compares contents before it believes that a page and a place
 * on a disk are the same.
 *
 * 1. The stream
 *
 * `godwit-agent --once` writes it; frames carry it. After the header it is a sequence of pairs of
 * 64-bit words. A pair is a RUN,
 *
 *   offset 0, bits 0..47   number of the first page frame: guest-physical address / page size
 *             bits 48..63  pages in the run, minus 1
 *   offset 8, bits 0..47   first 512-byte sector, counted on the whole disk
 *             bits 48..63  index of the disk
 *
 * which says that so many pages from that frame on have the same content as the
 * bytes of the disk from that sector on; or, if all of bits 0..47 of its first
 * word are set, a DISK,
 *
 *   offset 0, bits 0..47   all set
 *             bits 48..63  n: pairs that follow and belong to this record
 *   offset 8, bits 0..47   sectors of the disk
 *             bits 48..63  index that its runs will have
 *   offset 16              n * 16 bytes of text, what it does not need of them NUL
 *
 * which comes before the first run of that index. Indices count from 0, and mean
 * something within one stream only. A text of n * 16 bytes has no NUL. It is
 *
 *   pci:0000:00:03.0           a virtio-blk disk: its PCI function as the guest sees it
 *   scsi:0000:00:04.0/0:0:1    a disk of a virtio-scsi HBA with that PCI function:
 *                              channel, target and LUN as Linux has them
 *
 * Runs come in no order, and may overlap when pages moved in between. The content
 * of a file's last page beyond the file's end is reported with the rest of it:
 * only the host can know whether the disk has the same there.
 *
 * A stream that ends is complete only if its reader knows it from elsewhere, by
 * the frame END.
 *
 * 2. The device
 *
 * What the kernel module has to say, /dev/godwit-cache, is for the agent alone, who
 * knows which disks the host knows. read() wants room for GW_DEVICE_READ bytes, and
 * returns whole pairs; 0: that was all. After a header with GW_DEVICE_MAGIC they are
 * runs and DEVICEs,
 *
 *   offset 0, bits 0..47   all set
 *             bits 48..63  0
 *   offset 8, bits 0..31   minor number of a block device
 *             bits 32..63  its major number
 *
 * on which the runs lie that follow, up to the next one. All of a run's second word
 * is its first sector, counted on that device, which may be a partition. Whether it
 * has so many sectors was not looked at.
 *
 * 3. The conversation
 *
 * On the virtio-serial port GW_AGENT_PORT. The host sends a request:
 *
 *   offset 0   8 bytes   GW_AGENT_ASK
 *          8   u64       id: a random number that the host has not used before
 *         16   u32       version, GW_AGENT_VERSION
 *         20   u32       kind, GW_AGENT_REPORT
 *         24   u64       0
 *
 * The guest answers with frames, header and body together GW_AGENT_FRAME_MAX at most:
 *
 *   offset 0   8 bytes   GW_AGENT_SAY
 *          8   u64       id of the request
 *         16   u32       version of the agent
 *         20   u32       kind of the frame
 *         24   u32       bytes of the body, which follows
 *         28   u32       0
 *
 *   GW_AGENT_PIECE   the next bytes of the stream, never none and always a multiple of 16;
 *                    a record may be cut between two pieces
 *   GW_AGENT_END     all was said; struct gw_agent_end. The last frame of an answer
 *   GW_AGENT_ERROR   text without a NUL, what went wrong. The last frame of an answer
 *
 * Neither side can rely on where the other one begins or stops: a host may go
 * away in the middle of anything, and what was under way may still reach the next
 * one. So the guest looks for GW_AGENT_ASK, the host for GW_AGENT_SAY followed by
 * its own id, and both skip what comes before. A host that knows the bounds of a
 * foreign frame must not trust them. A request puts an end to the answer to the
 * one before it, wherever that stands.
 *
 * The first 20 bytes of requests and frames are the same in all versions. A
 * request of a version that the agent does not have, or of an unknown kind, is
 * answered with GW_AGENT_ERROR, and the header tells the agent's version.
 */
#ifndef GODWIT_GUEST_ABI_H
#define GODWIT_GUEST_ABI_H

#include <linux/types.h>

#define GW_CACHE_MAGIC	  "GWCACHE\001" /* its last byte is the version */
#define GW_DEVICE_MAGIC	  "GWFRAME\001" /* likewise */
#define GW_DEVICE_READ	  4096
#define GW_CACHE_DEVICE	  "godwit-cache"
#define GW_CACHE_LOW_BITS 48
#define GW_CACHE_LOW	  ((1ull << GW_CACHE_LOW_BITS) - 1)
#define GW_CACHE_RUN_MAX  65536 /* pages */

/* What a stream begins with. */
struct gw_cache_header {
	char magic[8];
	__le32 page_size;
	__le32 zero;
};

/* A run, the beginning of a disk, or 16 bytes of its text. */
struct gw_cache_pair {
	__le64 first;
	__le64 second;
};

#define GW_AGENT_PORT	   "org.godwit.agent.0"
#define GW_AGENT_ASK	   "GWAGENT?"
#define GW_AGENT_SAY	   "GWAGENT!"
#define GW_AGENT_VERSION   1
#define GW_AGENT_REPORT	   1
#define GW_AGENT_FRAME_MAX 65536

enum gw_agent_kind {
	GW_AGENT_PIECE = 1,
	GW_AGENT_END = 2,
	GW_AGENT_ERROR = 3,
};

enum gw_agent_source {
	GW_AGENT_MODULE = 1, /* the kernel module */
	GW_AGENT_SELF = 2,   /* the agent, from user space */
};

struct gw_agent_request {
	char magic[8];
	__le64 id;
	__le32 version;
	__le32 kind;
	__le64 zero;
};

struct gw_agent_frame {
	char magic[8];
	__le64 id;
	__le32 version;
	__le32 kind;
	__le32 length;
	__le32 zero;
};

struct gw_agent_end {
	__le64 runs;
	__le64 pages; /* of all runs */
	__le32 source;
	__le32 zero;
};

#endif
