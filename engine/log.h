/*
 * log: lines to stderr that never block a shard.
 *
 *   shard --> its bounded ring of bytes --> writer thread --> descriptor
 *
 * A full ring drops the line and counts it; the writer reports the count. Before ag_log_start and
 * after ag_log_stop lines are written directly (start-up, a master, tests): a reader who does not read
 * holds up one of them for half a second, and the next ones not at all until he reads again; what he
 * loses is counted as well. Controls in values are escaped (CWE-117). Library code returns errors; only
 * the shell of the program and end-of-exchange code log.
 */
#pragma once
#include "engine/span.h"

enum ag_log_level { AG_LOG_ERROR, AG_LOG_WARN, AG_LOG_INFO, AG_LOG_DEBUG };
enum ag_log_format { AG_LOG_HUMAN, AG_LOG_JSON };

/* Starts the writer over `fd` with `ring_bytes` for each thread that registers. */
AG_MUST_USE enum ag_status ag_log_start(int fd, enum ag_log_level level, enum ag_log_format format,
                                        size_t ring_bytes);
/* Level and form of lines that are written directly, by a process of one thread that starts no writer. */
void ag_log_direct(int fd, enum ag_log_level level, enum ag_log_format format);
/* Drains all rings and ends the writer. */
void ag_log_stop(void);
/* Gives the calling thread a ring of its own (shards, control); others share one under a lock. */
void ag_log_thread(const char *name);
void ag_log_set_level(enum ag_log_level level);
bool ag_log_enabled(enum ag_log_level level);

/* One line; the message is text for people, without a newline. */
void ag_log(enum ag_log_level level, const char *fmt, ...) AG_PRINTF(2, 3);
/* A prepared line (access log), newline included by the callee; taken as it is. */
void ag_log_raw(struct ag_span line);
/* Lines dropped since the start. */
uint64_t ag_log_dropped(void);

/* Appends `s` with controls, quotes and backslashes escaped as in JSON; bytes that are not UTF-8 come
 * out as \u00XX. What does not fit is cut at a whole character or escape, and sets `overflow`. */
void ag_log_escape(struct ag_buf *out, struct ag_span s);
/* The same, in at most `max_bytes` (>= 3) and the room that `out` has: what is longer is cut and ends in
 * "...", and nothing overflows, so that what follows has its place. */
void ag_log_escape_cut(struct ag_buf *out, struct ag_span s, size_t max_bytes);
