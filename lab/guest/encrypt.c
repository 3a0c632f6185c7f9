/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * encrypt: whatever is made in an empty folder of an ext4 is encrypted on the disk, with a key
 * of nobody's, and plain in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "guest.h"

#define KEY_LEN 64

int encrypt_main(int argc, char **argv)
{
	union {
		struct fscrypt_add_key_arg arg;
		uint8_t room[sizeof(struct fscrypt_add_key_arg) + KEY_LEN];
	} key = { .arg = { .key_spec.type = FSCRYPT_KEY_SPEC_TYPE_IDENTIFIER,
			   .raw_size = KEY_LEN } };
	struct fscrypt_policy_v2 policy = {
		.version = FSCRYPT_POLICY_V2,
		.contents_encryption_mode = FSCRYPT_MODE_AES_256_XTS,
		.filenames_encryption_mode = FSCRYPT_MODE_AES_256_CTS,
		.flags = FSCRYPT_POLICY_FLAGS_PAD_32,
	};
	int folder;

	if (argc != 2)
		die(0, "a folder is missing");
	folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		die(errno, "cannot open %s", argv[1]);
	memset(key.arg.raw, 0x5c, KEY_LEN);
	if (ioctl(folder, FS_IOC_ADD_ENCRYPTION_KEY, &key) < 0)
		die(errno, "the file system of %s takes no key", argv[1]);
	memcpy(policy.master_key_identifier, key.arg.key_spec.u.identifier,
	       FSCRYPT_KEY_IDENTIFIER_SIZE);
	if (ioctl(folder, FS_IOC_SET_ENCRYPTION_POLICY, &policy) < 0)
		die(errno, "%s cannot be encrypted", argv[1]);
	return 0;
}
