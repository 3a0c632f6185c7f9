// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * test_live.c - what vm/live.c makes of a QEMU's answers (recorded from QEMU
 * 7.2, shortened), and what it says about differences.
 */
#include "monitor.h"

#include <errno.h>
#include <unistd.h>

#include "images.h"
#include "live.h"

#define IMAGE(file, format, size) \
	"\"virtual-size\":" #size ",\"filename\":\"" file "\",\"format\":\"" format "\""

#define DISK(backing)                                                                                \
	"[{\"device\":\"d0\",\"removable\":false,\"qdev\":\"/machine/peripheral-anon/"               \
	"device[0]/virtio-backend\",\"inserted\":{\"ro\":false,\"drv\":\"qcow2\",\"image\":{" IMAGE( \
		"/vm/web1/a.qcow2", "qcow2", 4096) backing                                           \
		"}}},"                                                                               \
		"{\"device\":\"\",\"removable\":false,\"qdev\":\"/machine/peripheral/vb/"            \
		"virtio-backend\",\"inserted\":{\"ro\":true,\"drv\":\"raw\",\"image\":{" IMAGE(      \
			"nbd://host/x", "raw",                                                       \
			8192) "}}},"                                                                 \
			      "{\"device\":\"cd0\",\"removable\":true,\"qdev\":\"/machine/unattached/device[18]\"}]"

static const struct answer usual[] = {
	{ "qmp_capabilities", "{}" },
	{ "query-version", "{\"qemu\":{\"major\":7,\"minor\":2,\"micro\":1}}" },
	{ "info qtree",
	  "\"bus: main-system-bus\\r\\n  type System\\r\\n  dev: i440FX-pcihost, id \\\"\\\"\\r\\n"
	  "    version = 32 (0x20)\\r\\n"
	  "    bus: pci.0\\r\\n      type PCI\\r\\n"
	  "      dev: virtio-blk-pci, id \\\"vb\\\"\\r\\n        addr = 02.0\\r\\n"
	  "        bus: virtio-bus\\r\\n          dev: virtio-blk-device, id \\\"\\\"\\r\\n"
	  "            drive = \\\"nb\\\"\\r\\n            serial = \\\"S1\\\"\\r\\n"
	  "      dev: e1000, id \\\"\\\"\\r\\n        mac = \\\"52:54\\\"\\r\\n"
	  "        netdev = \\\"#net035\\\"\\r\\n        addr = 04.0\\r\\n"
	  "      dev: virtio-scsi-pci, id \\\"s0\\\"\\r\\n        addr = 03.0\\r\\n"
	  "        bus: virtio-bus\\r\\n          dev: virtio-scsi-device, id \\\"\\\"\\r\\n"
	  "            bus: s0.0\\r\\n              dev: scsi-hd, id \\\"\\\"\\r\\n"
	  "                scsi-id = 1 (0x1)\\r\\n"
	  "              dev: scsi-hd, id \\\"\\\"\\r\\n"
	  "                scsi-id = 1 (0x1)\\r\\n"
	  "  dev: kvmvapic, id \\\"\\\"\\r\\n\"" },
	{ "/machine/peripheral-anon", "[{\"name\":\"type\",\"type\":\"string\"},"
				      "{\"name\":\"device[0]\",\"type\":\"child<e1000>\"}]" },
	{ "/machine/peripheral", "[{\"name\":\"vb\",\"type\":\"child<virtio-blk-pci>\"},"
				 "{\"name\":\"cpu1\",\"type\":\"child<qemu64-x86_64-cpu>\"}]" },
	{ "/objects", "[{\"name\":\"io0\",\"type\":\"child<iothread>\"},"
		      "{\"name\":\"key\",\"type\":\"child<secret>\"},"
		      "{\"name\":\"ram\",\"type\":\"child<memory-backend-file>\"}]" },
	{ "info network", "\"virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci\\r\\n"
			  " \\\\ n0: index=0,type=user,net=10.0.2.0,restrict=off\\r\\n\"" },
	{ "query-block-exports", "[]" },
	{ "query-block", DISK("") },
	{ "query-jobs", "[]" },
};

struct qemu {
	char *dir, *path;
	struct answer special;
	struct monitor monitor;
	struct gw_qmp *q;
	char asked[4096]; /* all commands that change something */
};

static const char *answer_to(void *arg, const char *asked)
{
	struct qemu *m = arg;
	const char *answer = answer_of(&m->special, 1, asked);

	answer = answer ?: answer_of(usual, GW_ARRAY_SIZE(usual), asked);
	if (strstr(asked, "eject") || strstr(asked, "change-medium"))
		snprintf(m->asked, sizeof(m->asked), "%s", asked);
	return answer ?: "{}";
}

static int make(void **state)
{
	struct qemu *m = calloc(1, sizeof(*m));

	*state = m;
	m->dir = strdup("/tmp/gw-unit-XXXXXX");
	if (!mkdtemp(m->dir))
		return -1;
	m->path = gw_path("%s/qmp", m->dir);
	m->monitor = (struct monitor){ monitor_listen(m->path), answer_to, m, 0 };
	if (m->monitor.listener < 0)
		return -1;
	m->q = monitor_call(&m->monitor, m->path);
	return 0;
}

static int drop(void **state)
{
	struct qemu *m = *state;
	int rc;

	monitor_end(&m->monitor, m->q);
	close(m->monitor.listener);
	rc = gw_remove_tree(m->dir);
	free(m->path);
	free(m->dir);
	free(m);
	return rc;
}

static json_t *describe(struct qemu *m)
{
	json_t *live = NULL;

	assert_int_equal(gw_live_describe(m->q, getpid(), "/vm/web1", &live), 0);
	return live;
}

static const char *told(const json_t *live, const char *field, const char *key)
{
	return json_string_value(json_object_get(json_object_get(live, field), key));
}

static void describes(void **state)
{
	json_t *live = describe(*state);
	const json_t *devices = json_object_get(live, "devices");

	assert_string_equal(told(live, "devices", "'vb'"),
			    "virtio-blk-pci at pci.0, addr=02.0, serial=\"S1\"");
	assert_non_null(json_object_get(devices, "e1000 at pci.0, mac=\"52:54\", addr=04.0"));
	/* Equal ones are counted, and a nested bus does not outlast its device. */
	assert_non_null(json_object_get(devices, "scsi-hd at s0.0, scsi-id=1 (0x1)"));
	assert_non_null(json_object_get(devices, "scsi-hd at s0.0, scsi-id=1 (0x1) #2"));
	assert_non_null(json_object_get(devices, "kvmvapic at main-system-bus"));
	assert_string_equal(told(live, "devices", "'cpu1'"), "qemu64-x86_64-cpu");
	assert_int_equal(json_object_size(devices), 8);
	assert_string_equal(told(live, "objects", "'io0'"), "iothread");
	assert_int_equal(json_object_size(json_object_get(live, "objects")), 1);
	assert_string_equal(told(live, "netdevs", "'n0'"), "user");
	assert_string_equal(told(live, "disks", "'d0'"), "{dir}/a.qcow2 (qcow2, 4096 bytes)");
	assert_string_equal(told(live, "disks", "'vb'"),
			    "nbd://host/x (raw, 8192 bytes, read-only)");
	assert_string_equal(told(live, "disks", "'cd0'"), "no medium");
	assert_int_equal(gw_live_compare(live, live, "b"), 0);
	assert_int_equal(gw_live_unchanged(live, live), 0);
	json_decref(live);
}

/* Relative names are looked up where QEMU is; the tree of options is searched for names. */
static void names_files(void **state)
{
	struct qemu *m = *state;
	gw_autofree char *cwd = getcwd(NULL, 0);
	gw_autofree char *over = NULL;
	json_t *live;

	m->special = (struct answer){
		"\"query-block\"",
		DISK(",\"backing-image\":{" IMAGE("base.raw", "raw", 4096) ",\"backing-image\":{" IMAGE(
			"json:{\\\"file\\\": {\\\"filename\\\": \\\"/vm/web1/z\\\", "
			"\\\"driver\\\": \\\"file\\\"}, \\\"driver\\\": \\\"raw\\\"}",
			"raw", 4096) "}}")
	};
	live = describe(m);
	over = gw_path("{dir}/a.qcow2 (qcow2, 4096 bytes) over %s/base.raw (raw, 4096 bytes) over "
		       "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":"
		       "\"{dir}/z\"}} (raw, 4096 bytes)",
		       cwd);
	assert_string_equal(told(live, "disks", "'d0'"), over);
	json_decref(live);
}

static void set(json_t *live, const char *field, const char *key, const char *value)
{
	if (value)
		json_object_set_new(json_object_get(live, field), key, json_string(value));
	else
		json_object_del(json_object_get(live, field), key);
}

static void refuse(struct qemu *m, const char *field, const char *key, const char *there,
		   const char *here, const char *why)
{
	json_t *theirs = describe(m), *ours = describe(m);

	set(theirs, field, key, there);
	set(ours, field, key, here);
	assert_int_equal(gw_live_compare(theirs, ours, "b"), -ENOTSUP);
	assert_message(why);
	assert_int_equal(gw_live_unchanged(ours, theirs), -EBUSY);
	assert_message("was changed while it moved");
	json_decref(theirs);
	json_decref(ours);
}

static void names_differences(void **state)
{
	refuse(*state, "disks", "'d0'", "/top (qcow2, 4096 bytes)", "/base (qcow2, 4096 bytes)",
	       "disk 'd0' is /top (qcow2, 4096 bytes) at the source now, but /base");
	refuse(*state, "disks", "'d0'", "/a (raw, 8192 bytes)", "/a (raw, 4096 bytes)",
	       "images on both hosts must be of one size and format");
	refuse(*state, "devices", "'nic1'", "e1000 at pci.0", NULL,
	       "the VM has device 'nic1' (e1000 at pci.0), which its command line does not make");
	refuse(*state, "devices", "'vb'", NULL, "virtio-blk-pci at pci.0",
	       "the VM does not have it any more");
	refuse(*state, "netdevs", "'n0'", "tap", "user", "netdev 'n0' is 'tap' at the source");
	/* Nothing of a peer's is trusted. */
	refuse(*state, "disks", "'d0'", "", "x", "disk 'd0'");
}

/* A newer QEMU has other parts on its board; what a user named must still be equal. */
static void compares_versions(void **state)
{
	json_t *theirs = describe(*state), *ours = describe(*state);

	json_object_set_new(ours, "qemu", json_string("10.0"));
	set(ours, "devices", "new-part at isa.0", "new-part at isa.0");
	set(theirs, "devices", "old-part at isa.0", "old-part at isa.0");
	assert_int_equal(gw_live_compare(theirs, ours, "b"), 0);
	set(theirs, "devices", "'nic1'", "e1000 at pci.0");
	assert_int_equal(gw_live_compare(theirs, ours, "b"), -ENOTSUP);
	assert_int_equal(gw_live_compare(NULL, ours, "b"), 0); /* an older source says nothing */
	json_decref(theirs);
	json_decref(ours);
}

static void carries_media(void **state)
{
	struct qemu *m = *state;
	json_t *theirs = describe(m), *ours = describe(m);

	set(theirs, "disks", "'cd0'", "{dir}/x.iso (raw, 512 bytes, read-only)");
	json_object_set_new(json_object_get(theirs, "media"), "'cd0'",
			    json_pack("{s:s,s:s,s:s,s:b,s:b}", "id", "evil", "file", "{dir}/x.iso",
				      "format", "raw", "ro", 1, "simple", 1));
	assert_int_equal(gw_live_carry(m->q, getpid(), "/vm/web1", theirs, &ours), 0);
	assert_non_null(strstr(m->asked, "/vm/web1/x.iso"));
	assert_non_null(strstr(m->asked, "read-only"));
	assert_non_null(strstr(m->asked, "/machine/unattached/device[18]")); /* our name for it */
	/* This monitor has changed nothing, and that is seen. */
	assert_int_equal(gw_live_compare(theirs, ours, "b"), -ENOTSUP);
	json_decref(theirs);
	json_decref(ours);
}

static void refuses_jobs(void **state)
{
	struct qemu *m = *state;

	assert_int_equal(gw_live_refuse_jobs(m->q), 0);
	m->special =
		(struct answer){ "query-jobs",
				 "[{\"id\":\"j0\",\"type\":\"mirror\",\"status\":\"concluded\"},"
				 "{\"id\":\"j1\",\"type\":\"backup\",\"status\":\"running\"}]" };
	assert_int_equal(gw_live_refuse_jobs(m->q), -EBUSY);
	assert_message("backup 'j1', running");
	m->special = (struct answer){ "query-block-exports",
				      "[{\"id\":\"e0\",\"node-name\":\"n0\"}]" };
	assert_int_equal(gw_live_refuse_jobs(m->q), -EBUSY);
	assert_message("block-export-del");
}

static void refuses_temporary(void **state)
{
	struct qemu *m = *state;

	assert_int_equal(gw_live_refuse_temporary(m->q, getpid()), 0);
	m->special = (struct answer){
		"\"query-block\"",
		"[{\"device\":\"d0\",\"inserted\":{\"image\":{\"filename\":\"json:{\\\"driver\\\": "
		"\\\"qcow2\\\", \\\"file\\\": {\\\"driver\\\": \\\"file\\\", \\\"filename\\\": "
		"\\\"/var/tmp/vl.nowhr\\\"}}\"}}}]"
	};
	assert_int_equal(gw_live_refuse_temporary(m->q, getpid()), -ENOTSUP);
	assert_message("disk 'd0' is opened with -snapshot or snapshot=on");
}

/* How each kind of image is looked into; formats are QEMU's, never what a header says. */
static void finds_images(void **state)
{
	static const struct {
		const char *image, *found; /* with ' for quotes */
	} cases[] = {
		{ "'filename':'/a','format':'raw'", "[{'disk':'d','depth':0,'file':'/a'}]" },
		{ "'filename':'json:{\\'driver\\':\\'raw\\',\\'offset\\':512,\\'file\\':{\\'driver"
		  "\\':\\'file\\',\\'filename\\':\\'/a\\'}}','format':'raw'",
		  "[{'disk':'d','depth':0,'file':'json:{\\'driver\\':\\'raw\\',\\'offset\\':512,"
		  "\\'file\\':{\\'driver\\':\\'file\\',\\'filename\\':\\'/a\\'}}','node':"
		  "{'driver':'raw','offset':512,'file':{'driver':'file','filename':'/a'}}}]" },
		{ "'filename':'/top','format':'qcow2','backing-filename':'/x','backing-image':"
		  "{'filename':'base','format':'raw'}",
		  "[{'disk':'d','depth':0,'file':'/top','node':{'driver':'qcow2','file':{'driver':"
		  "'file','filename':'/top'},'backing':{'driver':'raw','file':{'driver':'file',"
		  "'filename':'base'}}}},{'disk':'d','depth':1,'file':'base'}]" },
		{ "'filename':'/top','format':'qcow2','backing-filename':'/x','format-specific':"
		  "{'data':{'data-file':'/d'}}",
		  "[{'disk':'d','depth':0,'file':'/top','node':{'driver':'qcow2','file':{'driver':"
		  "'file','filename':'/top'},'data-file':{'driver':'file','filename':'/d'},"
		  "'backing':null}}]" },
		{ "'filename':'nbd://h/x','format':'qcow2'",
		  "[{'disk':'d','depth':0,'file':'nbd://h/x','node':{'legacy':'nbd://h/x',"
		  "'format':'qcow2'}}]" },
		/* Nothing says how to open what is under it. */
		{ "'filename':'/top','format':'qcow2','backing-image':{'filename':'nbd://h/x',"
		  "'format':'raw'}",
		  "[{'disk':'d','depth':0,'file':'/top','node':{}}]" },
	};
	struct qemu *m = *state;

	for (size_t i = 0; i < GW_ARRAY_SIZE(cases); i++) {
		gw_autofree char *block = gw_path("[{'device':'d','inserted':{'image':{%s}}}]",
						  cases[i].image);
		gw_autofree char *found = strdup(cases[i].found);
		json_t *images, *wanted;

		for (char *c = block; *c; c++)
			*c = *c == '\'' ? '"' : *c;
		for (char *c = found; *c; c++)
			*c = *c == '\'' ? '"' : *c;
		m->special = (struct answer){ "\"query-block\"", block };
		assert_int_equal(gw_images_find(m->q, &images), 0);
		wanted = json_loads(found, 0, NULL);
		assert_non_null(wanted);
		if (!json_equal(images, wanted))
			fail_msg("%s became %s", block, json_dumps(images, 0));
		json_decref(images);
		json_decref(wanted);
		m->special.asked = NULL;
	}
}

#define live_test(fn) cmocka_unit_test_setup_teardown(fn, make, drop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		live_test(describes),	      live_test(names_files),
		live_test(names_differences), live_test(compares_versions),
		live_test(carries_media),     live_test(refuses_jobs),
		live_test(refuses_temporary), live_test(finds_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
