/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pipeline.h - the road of a chunk's pages through the stages, and back.
 */
#ifndef GW_PIPELINE_H
#define GW_PIPELINE_H

#include "stage.h"

/** gw_batch_init() - buffers of a batch. 0 or -ENOMEM. Free with gw_batch_free(). */
int gw_batch_init(struct gw_batch *batch);
void gw_batch_free(struct gw_batch *batch);

/**
 * gw_pipeline_encode() - express the pages in @batch->left.
 * @batch: chunk, bytes, left and digests are set by the caller
 *
 * Afterwards parts/nr_parts are the payload of a PAGES frame (none if the
 * destination holds every page already), the table knows the new digests
 * (invariant 3) and count[] says what each stage did in this batch.
 */
void gw_pipeline_encode(struct gw_batch *batch);

/**
 * gw_pipeline_decode() - check and install the payload of a PAGES frame.
 * @chunk: the frame's argument
 * @nr_pages: pages that the VM has; records beyond are refused
 *
 * Return: 0, -EPROTO with what is wrong, or the sink's -errno.
 */
int gw_pipeline_decode(uint64_t chunk, const uint8_t *payload, size_t len, uint64_t nr_pages,
		       struct gw_sink *sink);

/** gw_stage_name() - JSON key of stage @id, or NULL. */
const char *gw_stage_name(unsigned int id);

#endif
