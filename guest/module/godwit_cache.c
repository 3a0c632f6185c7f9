// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/godwit-cache: which page frames hold clean page cache, and where on which
 * block device the same bytes lie. A host that moves this machine need not send
 * those. Which disk that is to the host, the agent knows (../agent/disks.c).
 *
 * One pass over the page frames for each open; what read() returns is described
 * in ../abi.h. Nothing is remembered between passes, and nothing runs meanwhile.
 *
 * Every run is a hint that was true for one moment: a page may be written, a file
 * deleted and its blocks used again, before the host has even got the report. So
 * the module is careful about the kernel that it runs in, and for the rest leaves
 * out only what is wrong as a rule:
 *
 *  - pages of block devices. There, clean does not mean that the disk has it.
 *  - encrypted files: what is on the disk is not what is in memory.
 *  - pages with a buffer that belongs to the journal (data=journal): their
 *    content has not been written to its own place yet.
 *  - pages pinned for DMA, which change without becoming dirty.
 *  - extents that are not plain blocks with data.
 *  - file systems other than ext4 and XFS, whose extents nobody has tried.
 *
 * A file's last page is reported whole, and one that begins in one extent and ends
 * in the next is not. Files on an XFS realtime device cannot be told from others
 * here; their runs point to a wrong place.
 *
 * Locks: a folio is only ever tried to lock, never waited for, and is unlocked
 * before the extent is looked up: inode locks come before folio locks, and what is
 * found is copied to the reader, whose memory may be a file's.
 * Meanwhile s_active and a reference to the inode keep both where they are; under
 * the folio lock eviction cannot have taken them away. They are let go when the
 * next file's page is met, or read() returns, without any lock: either may be
 * the last reference, and evict the inode or finish an unmount.
 */
#include <linux/buffer_head.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/jbd2.h>
#include <linux/magic.h>
#include <linux/memory_hotplug.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../abi.h"

/* How far a look-up of an extent goes, and thus how long a hole may seem. */
#define LOOK	(1ull << 40)
#define NOWHERE (~0ull)
/* Of an extent whose blocks have the file's bytes. */
#define PLAIN	(FIEMAP_EXTENT_LAST | FIEMAP_EXTENT_MERGED | FIEMAP_EXTENT_SHARED)

struct pass {
	struct mutex lock; /* of all of it, while a read() is under way */
	unsigned long pfn; /* the next page frame */
	dev_t dev;	   /* what was told last */

	/* The rest is for one read(): what it returns, */
	struct gw_cache_pair pairs[GW_DEVICE_READ / sizeof(struct gw_cache_pair)];
	unsigned int filled;
	/* of which the last pair may be a run that can still grow; */
	u64 frame, sector;
	unsigned long pages;
	/* its buffer, where extents are put meanwhile: fiemap() wants user memory; */
	struct fiemap_extent __user *scratch;
	/* the file of the last page, which is held, and the extent around that page, in bytes. */
	struct super_block *sb;
	struct inode *inode;
	u64 start, length, place;
};

static void put(struct pass *pass, u64 first, u64 first_high, u64 second)
{
	pass->pairs[pass->filled].first = cpu_to_le64(first | first_high << GW_CACHE_LOW_BITS);
	pass->pairs[pass->filled++].second = cpu_to_le64(second);
}

/* Two pairs at most. */
static void tell(struct pass *pass, u64 frame, u64 sector, unsigned long pages)
{
	dev_t dev = pass->sb->s_dev;

	if (dev != pass->dev) {
		put(pass, GW_CACHE_LOW, 0, (u64)MAJOR(dev) << 32 | MINOR(dev));
		pass->dev = dev;
		pass->pages = 0;
	}
	if (pass->pages && frame == pass->frame + pass->pages &&
	    sector == pass->sector + pass->pages * PAGE_SECTORS &&
	    pass->pages + pages <= GW_CACHE_RUN_MAX) {
		pass->filled--;
	} else {
		pass->frame = frame;
		pass->sector = sector;
		pass->pages = 0;
	}
	pass->pages += pages;
	put(pass, pass->frame, pass->pages - 1, pass->sector);
}

/* A reference to the folio that @pfn is in, if that may be page cache: as mm/page_idle.c does. */
static struct folio *get_folio(unsigned long pfn)
{
	struct page *page = pfn_to_online_page(pfn);
	struct folio *folio;

	if (!page)
		return NULL;
	folio = page_folio(page);
	if (!folio_test_lru(folio) || folio_test_anon(folio) || !folio_try_get(folio))
		return NULL;
	if (page_folio(page) == folio && folio_test_lru(folio))
		return folio;
	folio_put(folio);
	return NULL;
}

/* Whether nothing of ext4's buffers on a locked folio is still to be written. */
static bool buffers_clean(struct folio *folio)
{
	struct buffer_head *head = folio_buffers(folio), *buffer = head;

	if (!head)
		return true;
	do {
		if (!buffer_uptodate(buffer) || buffer_dirty(buffer) || buffer_jbd(buffer))
			return false;
		buffer = buffer->b_this_page;
	} while (buffer != head);
	return true;
}

/* The file of a locked folio, if it is one whose content should be on a disk as it is here. */
static struct inode *file_of(struct folio *folio)
{
	struct address_space *mapping = folio_mapping(folio);
	struct inode *inode = mapping ? mapping->host : NULL;

	if (!inode || !folio_test_uptodate(folio) || folio_test_dirty(folio) ||
	    folio_test_writeback(folio) || folio_maybe_dma_pinned(folio))
		return NULL;
	if (!S_ISREG(inode->i_mode) || IS_ENCRYPTED(inode) || !inode->i_op->fiemap ||
	    !(inode->i_sb->s_flags & SB_BORN))
		return NULL;
	/* What XFS hangs on its folios is something else. */
	if (inode->i_sb->s_magic == XFS_SUPER_MAGIC ||
	    (inode->i_sb->s_magic == EXT4_SUPER_MAGIC && buffers_clean(folio)))
		return inode;
	return NULL;
}

static void let_go(struct pass *pass)
{
	if (!pass->sb)
		return;
	iput(pass->inode);
	deactivate_super(pass->sb);
	pass->inode = NULL;
	pass->sb = NULL;
}

/* Looks up the extent of the held file that @pos is in, or how far there is none. */
static void find_extent(struct pass *pass, u64 pos)
{
	struct fiemap_extent_info info = { .fi_extents_max = 1, .fi_extents_start = pass->scratch };
	struct fiemap_extent found;

	pass->start = pos;
	pass->length = LOOK;
	pass->place = NOWHERE;
	/* Unlike bmap() it writes nothing back, and knows what reflinks are. */
	if (pass->inode->i_op->fiemap(pass->inode, &info, pos, LOOK) < 0 ||
	    !info.fi_extents_mapped || copy_from_user(&found, pass->scratch, sizeof(found)))
		return;
	if (found.fe_logical > pos) {
		pass->length = found.fe_logical - pos;
		return;
	}
	pass->start = found.fe_logical;
	pass->length = found.fe_length;
	if (!(found.fe_flags & ~PLAIN))
		pass->place = found.fe_physical;
}

/* Tells of the folio that is held, from frame @pfn on; returns the frames that are settled. */
static unsigned long look_at(struct pass *pass, struct folio *folio, unsigned long pfn)
{
	unsigned long skipped = pfn - folio_pfn(folio);
	unsigned long pages = folio_nr_pages(folio) -
			      skipped; /* our reference forbids to split it */
	struct inode *inode, *held = NULL;
	struct super_block *sb = NULL;
	u64 pos, end;

	if (!folio_trylock(folio))
		return pages;
	pos = folio_pos(folio) + skipped * PAGE_SIZE;
	inode = file_of(folio);
	if (inode && inode != pass->inode && atomic_inc_not_zero(&inode->i_sb->s_active)) {
		sb = inode->i_sb;
		held = igrab(inode);
	}
	folio_unlock(folio);
	if (!inode)
		return pages;
	if (inode != pass->inode) {
		let_go(pass);
		pass->sb = sb;
		pass->inode = held;
		pass->length = 0;
	}
	if (!pass->inode) /* it is being evicted */
		return pages;
	if (pos - pass->start >= pass->length)
		find_extent(pass, pos);
	end = pass->start + pass->length;
	pages = clamp_t(u64, (end - pos) / PAGE_SIZE, 1, pages);
	if (pass->place != NOWHERE && pos + pages * PAGE_SIZE <= end)
		tell(pass, pfn, (pass->place + pos - pass->start) >> SECTOR_SHIFT, pages);
	return pages;
}

static void walk(struct pass *pass)
{
	unsigned long end = 0;
	int node;

	for_each_online_node(node) end = max(end, node_end_pfn(node));
	while (pass->pfn < end && pass->filled + 2 <= ARRAY_SIZE(pass->pairs)) {
		struct folio *folio = get_folio(pass->pfn);
		unsigned long pages = 1;

		if (folio) {
			pages = look_at(pass, folio, pass->pfn);
			folio_put(folio);
		}
		pass->pfn += pages;
		if (pass->pfn % 256 < pages) {
			if (fatal_signal_pending(current))
				break;
			cond_resched();
		}
	}
}

static ssize_t cache_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct pass *pass = file->private_data;
	ssize_t done;

	if (size < sizeof(pass->pairs))
		return -EINVAL;
	if (mutex_lock_interruptible(&pass->lock))
		return -ERESTARTSYS;
	pass->scratch = (void __user *)to;
	walk(pass);
	let_go(pass);
	done = pass->filled * sizeof(*pass->pairs);
	if (copy_to_user(to, pass->pairs, done))
		done = -EFAULT;
	pass->filled = 0;
	pass->pages = 0;
	mutex_unlock(&pass->lock);
	return done;
}

static int cache_open(struct inode *inode, struct file *file)
{
	static const struct gw_cache_header header = { .magic = GW_DEVICE_MAGIC,
						       .page_size = cpu_to_le32(PAGE_SIZE) };
	struct pass *pass;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	pass = kzalloc(sizeof(*pass), GFP_KERNEL);
	if (!pass)
		return -ENOMEM;
	mutex_init(&pass->lock);
	memcpy(pass->pairs, &header, sizeof(header));
	pass->filled = 1;
	file->private_data = pass;
	return stream_open(inode, file);
}

static int cache_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations cache_operations = {
	.owner = THIS_MODULE,
	.open = cache_open,
	.read = cache_read,
	.release = cache_release,
};

static struct miscdevice cache_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = GW_CACHE_DEVICE,
	.mode = 0400,
	.fops = &cache_operations,
};
module_misc_device(cache_device);

MODULE_DESCRIPTION("Tells a virtual machine's host which page frames hold what a disk holds too");
MODULE_LICENSE("GPL");
