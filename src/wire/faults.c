// SPDX-License-Identifier: GPL-2.0-or-later
/* faults.c - what a destination tells of faults; see faults.h. */
#include <errno.h>

#include "codec.h"
#include "error.h"
#include "faults.h"

void gw_faults_encode(const uint64_t numbers[GW_FAULT_NUMBERS], uint8_t wire[GW_FAULTS_LEN])
{
	for (size_t i = 0; i < GW_FAULT_NUMBERS; i++)
		gw_put64(wire + 8 * i, numbers[i]);
}

int gw_faults_decode(const uint8_t *wire, size_t len, uint64_t numbers[GW_FAULT_NUMBERS])
{
	if (len < GW_FAULTS_LEAST || len % 8)
		return gw_fail(-EPROTO, "a FAULTS of %zu bytes", len);
	for (size_t i = 0; i < GW_FAULT_NUMBERS; i++) {
		const uint64_t n = 8 * i < len ? gw_get64(wire + 8 * i) : 0;

		numbers[i] = n > INT64_MAX ? INT64_MAX : n;
	}
	return 0;
}

void gw_faults_json(const uint64_t numbers[GW_FAULT_NUMBERS], json_t *ram)
{
	const uint64_t measured = numbers[GW_FAULT_MEASURED];
	json_t *dist = json_array(), *vcpus = json_array();

	for (size_t i = 0; i < GW_FAULT_LATENCIES; i++)
		json_array_append_new(dist,
				      json_integer((json_int_t)numbers[GW_FAULT_LATENCY + i]));
	json_object_set_new(
		ram, "postcopy-latency",
		json_integer((json_int_t)(measured ? numbers[GW_FAULT_SUM_NS] / measured : 0)));
	json_object_set_new(ram, "postcopy-latency-max",
			    json_integer((json_int_t)numbers[GW_FAULT_MOST_NS]));
	json_object_set_new(ram, "postcopy-latency-dist", dist);
	for (size_t i = 0; i < numbers[GW_FAULT_VCPUS] && i < GW_FAULT_VCPUS_MAX; i++)
		json_array_append_new(vcpus,
				      json_integer((json_int_t)numbers[GW_FAULT_VCPU_NS + i]));
	json_object_set_new(ram, "postcopy-vcpu-latency", vcpus);
	json_object_set_new(ram, "postcopy-faults-per-second",
			    json_integer((json_int_t)numbers[GW_FAULT_PER_S]));
	json_object_set_new(ram, "local-faults", json_integer((json_int_t)numbers[GW_FAULT_LOCAL]));
}
