/* SPDX-License-Identifier: Apache-2.0 */
/* Container logs in the CRI format: "2026-11-22T12:00:00.123456Z stdout F text\n"; tag P = the line goes on. */
#pragma once

#include "base/base.h"

#define LOG_FILE_MAX ((off_t)10 << 20) /* bytes, then rotated */
#define LOG_END_MAX  65536
#define LOG_FILES    5	   /* PATH, PATH.1 ... PATH.4 */
#define LOG_LINE_MAX 16384 /* bytes of text in one record */

/* ---- writer (monitor) ---- */
struct log_stream {
	const char *name;	 /* "stdout" */
	char line[LOG_LINE_MAX]; /* begun, not ended */
	size_t len;
};

struct log_file {
	const char *path;
	int fd;
	off_t size;
	struct buf out; /* collected by log_file_put, written by log_file_flush */
};

int log_file_open(struct log_file *f, const char *path);
void log_file_put(struct log_file *f, struct log_stream *s, const char *data, size_t len);
/* What is left of an unfinished line, at the end. */
void log_file_end(struct log_file *f, struct log_stream *s);
/* Writes and rotates; errors (full disk) lose lines, never block the container. */
void log_file_flush(struct log_file *f);

/* ---- reader (agent) ---- */
struct log_options {
	int64_t tail_lines;  /* < 0 = all */
	int64_t since_us;    /* wall clock; 0 = all */
	int64_t limit_bytes; /* < 0 = none */
	bool timestamps;
};

/* One record -> text for the client. Appends to out what the options let through; false when the record is malformed. */
bool log_record_format(const char *rec, size_t len, const struct log_options *o, struct buf *out);
/* Where a follower is. The open file survives rotation and removal, so that its last lines are read. */
struct log_tail {
	int fd; /* -1 = none yet */
	off_t offset;
};

/* All that is there now, in the rotated files too; *ret_tail (may be NULL) says where a follower goes on. */
int log_read(const char *path, const struct log_options *o, struct buf *out, struct log_tail *ret_tail);
/* The last lines of the current file, at most LOG_END_MAX bytes of it. */
int log_read_end(const char *path, int64_t lines, struct buf *out);
/* What was written since (same options, without tail). */
void log_read_more(const char *path, const struct log_options *o, struct buf *out, struct log_tail *t);
void log_tail_done(struct log_tail *t);
