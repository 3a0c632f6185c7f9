// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * /dev/godwit-cache: which page frames hold clean page cache, and where on which
 * disk the same bytes lie. A host that moves this machine need not send those.
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
 *  - file systems other than ext4 and XFS, whose extents nobody has tried, and
 *    disks other than virtio's: a host knows no others by an address of the guest.
 *
 * A file's last page is reported whole. Files on an XFS realtime device cannot be
 * told from others here; their runs point to a wrong place.
 *
 * Locks: a folio is only ever tried to lock, never waited for, and is unlocked
 * while the extent is looked up, because inode locks come before folio locks, and
 * before anything is copied to the reader, whose memory may be a file's.
 * Meanwhile s_active and a reference to the inode keep both where they are; under
 * the folio lock eviction cannot have taken them away. They are let go when the
 * next file's page is met, or read() returns, without any lock: either may be
 * the last reference, and evict the inode or finish an unmount.
 */
#include <linux/blkdev.h>
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
#include <linux/pci.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "../abi.h"

#define DISKS_MAX 256
#define TEXT_MAX  64
/* Two, so that a page that begins in one and ends in the next is seen to be in one piece. */
#define EXTENTS	  2
/* How far a look-up of an extent goes, and thus how long a hole may seem. */
#define LOOK	  (1ull << 40)
#define NOWHERE	  (~0ull)
/* A page can be worth the run before it, a disk, and a run of its own. */
#define PAGE_ROOM (3 * sizeof(struct gw_cache_pair) + TEXT_MAX)
#define SCRATCH	  (EXTENTS * sizeof(struct fiemap_extent))

#define NO_PLAIN_BLOCKS                                                                         \
	(FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_DELALLOC | FIEMAP_EXTENT_ENCODED |               \
	 FIEMAP_EXTENT_DATA_ENCRYPTED | FIEMAP_EXTENT_NOT_ALIGNED | FIEMAP_EXTENT_DATA_INLINE | \
	 FIEMAP_EXTENT_DATA_TAIL | FIEMAP_EXTENT_UNWRITTEN)

struct pass {
	struct mutex lock; /* of all of it, while a read() is under way */
	unsigned long pfn; /* the next page frame */
	bool begun;	   /* the header has been read */
	unsigned int disks;
	u64 seq[DISKS_MAX]; /* by index: the disk's number that is never used again */

	/* The rest is for one read(): its buffer, */
	char __user *to;
	size_t done;
	int error;
	/* at whose end extents are put when they are looked up: fiemap() wants user memory; */
	struct fiemap_extent __user *scratch;
	/* the run that may still grow; */
	u64 frame, sector;
	unsigned long pages;
	/* the file of the last page, which is held, and the extent around that page, in bytes. */
	struct super_block *sb;
	struct inode *inode;
	int disk;
	u64 start, length, place;
};

static void put(struct pass *pass, const void *data, size_t size)
{
	if (copy_to_user(pass->to + pass->done, data, size))
		pass->error = -EFAULT;
	pass->done += size;
}

static void put_pair(struct pass *pass, u64 first, u64 first_high, u64 second)
{
	struct gw_cache_pair pair = {
		.first = cpu_to_le64(first | first_high << GW_CACHE_LOW_BITS),
		.second = cpu_to_le64(second),
	};

	put(pass, &pair, sizeof(pair));
}

static void put_run(struct pass *pass)
{
	if (pass->pages)
		put_pair(pass, pass->frame, pass->pages - 1, pass->sector);
	pass->pages = 0;
}

static void tell(struct pass *pass, u64 frame, u64 sector, unsigned long pages)
{
	sector |= (u64)pass->disk << GW_CACHE_LOW_BITS;
	if (frame != pass->frame + pass->pages ||
	    sector != pass->sector + pass->pages * PAGE_SECTORS ||
	    pass->pages + pages > GW_CACHE_RUN_MAX)
		put_run(pass);
	if (!pass->pages) {
		pass->frame = frame;
		pass->sector = sector;
	}
	pass->pages += pages;
}

/* How the host knows the disk; 0 if it is not one of virtio's on PCI. */
static size_t name_disk(struct gendisk *disk, char *text)
{
	struct device *parent = disk_to_dev(disk)->parent, *device;
	const char *address; /* of a SCSI device, whose name is HOST:CHANNEL:TARGET:LUN */
	int length;

	for (device = parent; device; device = device->parent)
		if (device->bus && !strcmp(device->bus->name, "virtio"))
			break;
	if (!device || !device->parent || !dev_is_pci(device->parent))
		return 0;
	address = strchr(dev_name(parent), ':');
	if (!strncmp(disk->disk_name, "vd", 2))
		length = snprintf(text, TEXT_MAX, "pci:%s", dev_name(device->parent));
	else if (!strncmp(disk->disk_name, "sd", 2) && address)
		length = snprintf(text, TEXT_MAX, "scsi:%s/%s", dev_name(device->parent),
				  address + 1);
	else
		return 0;
	return length < TEXT_MAX ? length : 0;
}

/* The disk's index, which is told of if it is a new one; or -1. */
static int index_disk(struct pass *pass, struct gendisk *disk)
{
	char text[TEXT_MAX] = "";
	size_t pairs;
	u64 index;

	for (index = 0; index < pass->disks; index++)
		if (pass->seq[index] == disk->diskseq)
			return index;
	pairs = DIV_ROUND_UP(name_disk(disk, text), sizeof(struct gw_cache_pair));
	if (!pairs || index == DISKS_MAX)
		return -1;
	pass->seq[pass->disks++] = disk->diskseq;
	put_run(pass);
	put_pair(pass, GW_CACHE_LOW, pairs, get_capacity(disk) | index << GW_CACHE_LOW_BITS);
	put(pass, text, pairs * sizeof(struct gw_cache_pair));
	return index;
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

/* Whether each of ext4's buffers on a locked folio has what the disk has. */
static bool buffers_clean(struct folio *folio)
{
	struct buffer_head *head = folio_buffers(folio), *buffer = head;

	if (!head)
		return true;
	do {
		if (!buffer_uptodate(buffer) || buffer_dirty(buffer) || buffer_locked(buffer) ||
		    buffer_delay(buffer) || buffer_unwritten(buffer) ||
		    buffer_async_write(buffer) || buffer_jbd(buffer))
			return false;
		buffer = buffer->b_this_page;
	} while (buffer != head);
	return true;
}

/* The file of a locked folio, if it is one whose content should be on a disk as it is here. */
static struct inode *file_of(struct folio *folio)
{
	struct address_space *mapping = folio_mapping(folio);
	struct super_block *sb;
	struct inode *inode;

	if (!mapping || !mapping->host || folio_test_anon(folio) || folio_test_swapbacked(folio))
		return NULL;
	if (!folio_test_uptodate(folio) || folio_test_dirty(folio) || folio_test_writeback(folio) ||
	    folio_maybe_dma_pinned(folio))
		return NULL;
	inode = mapping->host;
	sb = inode->i_sb;
	if (!S_ISREG(inode->i_mode) || IS_ENCRYPTED(inode) || !inode->i_op->fiemap || !sb->s_bdev ||
	    !(sb->s_flags & SB_BORN))
		return NULL;
	/* What XFS hangs on its folios is something else. */
	if (sb->s_magic == XFS_SUPER_MAGIC ||
	    (sb->s_magic == EXT4_SUPER_MAGIC && buffers_clean(folio)))
		return inode;
	return NULL;
}

static void let_go(struct super_block *sb, struct inode *inode)
{
	if (!sb)
		return;
	iput(inode);
	deactivate_super(sb);
}

/* Looks up the extent of the held file that @pos is in, or how far there is none. */
static void find_extent(struct pass *pass, u64 pos)
{
	struct fiemap_extent_info info = {
		.fi_extents_max = EXTENTS,
		.fi_extents_start = pass->scratch,
	};
	struct fiemap_extent found[EXTENTS];
	unsigned int i;

	pass->start = pos;
	pass->length = LOOK;
	pass->place = NOWHERE;
	/* Unlike bmap() it writes nothing back, and knows what reflinks are. */
	if (pass->inode->i_op->fiemap(pass->inode, &info, pos, LOOK) < 0 ||
	    copy_from_user(found, pass->scratch, info.fi_extents_mapped * sizeof(*found)) ||
	    !info.fi_extents_mapped)
		return;
	if (found[0].fe_logical > pos) {
		pass->length = found[0].fe_logical - pos;
		return;
	}
	pass->start = found[0].fe_logical;
	pass->length = found[0].fe_length;
	if (found[0].fe_flags & NO_PLAIN_BLOCKS)
		return;
	for (i = 1; i < info.fi_extents_mapped; i++) {
		if (found[i].fe_logical != pass->start + pass->length ||
		    found[i].fe_physical != found[0].fe_physical + pass->length ||
		    found[i].fe_flags & NO_PLAIN_BLOCKS)
			break;
		pass->length += found[i].fe_length;
	}
	if (found[0].fe_physical + pass->length <= bdev_nr_bytes(pass->sb->s_bdev))
		pass->place = found[0].fe_physical;
}

/* Tells of the folio that is held, from frame @pfn on; returns the frames that are settled. */
static unsigned long look_at(struct pass *pass, struct folio *folio, unsigned long pfn)
{
	unsigned long skipped = pfn - folio_pfn(folio);
	unsigned long pages = folio_nr_pages(folio) -
			      skipped; /* our reference forbids to split it */
	struct super_block *old_sb = NULL;
	struct inode *inode, *old_inode = NULL;
	u64 pos, end, sector = 0;
	bool found = false;

	if (!folio_trylock(folio))
		return pages;
	inode = file_of(folio);
	if (!inode)
		goto unlock;
	pos = folio_pos(folio) + skipped * PAGE_SIZE;
	if (inode != pass->inode || pos < pass->start || pos >= pass->start + pass->length) {
		bool other = inode != pass->inode;

		if (other) {
			if (!atomic_inc_not_zero(&inode->i_sb->s_active))
				goto unlock;
			old_sb = pass->sb;
			old_inode = pass->inode;
			pass->sb = inode->i_sb;
			pass->inode = igrab(inode);
		}
		folio_unlock(folio);
		let_go(old_sb, old_inode);
		if (!pass->inode) /* it is being evicted */
			return pages;
		if (other)
			pass->disk = index_disk(pass, pass->sb->s_bdev->bd_disk);
		find_extent(pass, pos);
		if (!folio_trylock(folio))
			return pages;
		if (file_of(folio) != inode || folio_pos(folio) + skipped * PAGE_SIZE != pos)
			goto unlock;
	}
	if (pass->disk < 0)
		goto unlock;
	end = pass->start + pass->length;
	pages = clamp_t(u64, (end - pos) / PAGE_SIZE, 1, pages);
	found = pass->place != NOWHERE && pos + pages * PAGE_SIZE <= end;
	sector = get_start_sect(pass->sb->s_bdev) +
		 ((pass->place + pos - pass->start) >> SECTOR_SHIFT);
unlock:
	folio_unlock(folio);
	/* Only now: it may fault, on the reader's side, for this very folio. */
	if (found)
		tell(pass, pfn, sector, pages);
	return pages;
}

static void walk(struct pass *pass, size_t room)
{
	unsigned long end = 0;
	int node;

	for_each_online_node(node) end = max(end, node_end_pfn(node));
	while (pass->pfn < end && pass->done + PAGE_ROOM <= room && !pass->error) {
		struct folio *folio = get_folio(pass->pfn);
		unsigned long pages = 1;

		if (folio) {
			pages = look_at(pass, folio, pass->pfn);
			folio_put(folio);
		}
		pass->pfn += pages;
		if (pass->pfn % 256 < pages) {
			if (signal_pending(current))
				break;
			cond_resched();
		}
	}
	if (pass->pfn < end && !pass->done && !pass->pages && !pass->error)
		pass->error = -ERESTARTSYS;
}

static ssize_t cache_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	struct gw_cache_header header = { .magic = GW_CACHE_MAGIC,
					  .page_size = cpu_to_le32(PAGE_SIZE) };
	struct pass *pass = file->private_data;
	ssize_t result;

	if (size < PAGE_SIZE)
		return -EINVAL;
	if (mutex_lock_interruptible(&pass->lock))
		return -ERESTARTSYS;
	pass->to = to;
	pass->done = 0;
	pass->error = 0;
	pass->scratch = (void __user *)to + size - SCRATCH;
	if (!pass->begun)
		put(pass, &header, sizeof(header));
	pass->begun = true;
	walk(pass, size - SCRATCH);
	put_run(pass);
	let_go(pass->sb, pass->inode);
	pass->sb = NULL;
	pass->inode = NULL;
	result = pass->error ?: pass->done;
	mutex_unlock(&pass->lock);
	return result;
}

static int cache_open(struct inode *inode, struct file *file)
{
	struct pass *pass;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	pass = kzalloc(sizeof(*pass), GFP_KERNEL);
	if (!pass)
		return -ENOMEM;
	mutex_init(&pass->lock);
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
