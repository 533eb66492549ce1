/*
 * h2_stream: what the targets of HTTP/2 connections have in common: the stream's callbacks, handed on to the machine, and
 * what holds of any machine's streams.
 */
#pragma once
#include "proto/h2_conn.h"

/* `user` of the machine `h2` of a role (server, client), with `closes` counted. */
#define H2_STREAM_USER(role, h2, closes)                                   \
    static void on_data(struct ag_stream *s, struct ag_slice slice)        \
    {                                                                      \
        (void)s;                                                           \
        ag_h2_##role##_data(&(h2), slice);                                 \
    }                                                                      \
    static void on_eof(struct ag_stream *s)                                \
    {                                                                      \
        (void)s;                                                           \
        ag_h2_##role##_eof(&(h2));                                         \
    }                                                                      \
    static void on_drain(struct ag_stream *s)                              \
    {                                                                      \
        (void)s;                                                           \
        ag_h2_##role##_drained(&(h2));                                     \
    }                                                                      \
    static void on_deadline(struct ag_stream *s)                           \
    {                                                                      \
        (void)s;                                                           \
        ag_h2_##role##_deadline(&(h2));                                    \
    }                                                                      \
    static void on_close(struct ag_stream *s, enum ag_reason why)          \
    {                                                                      \
        (void)s;                                                           \
        (closes)++;                                                        \
        ag_h2_##role##_closed(&(h2), why);                                 \
    }                                                                      \
    static const struct ag_stream_user user = {.on_data = on_data,         \
                                               .on_eof = on_eof,           \
                                               .on_drain = on_drain,       \
                                               .on_deadline = on_deadline, \
                                               .on_close = on_close}

/* Its windows, what its streams hold, and what waits to be sent; while it is open. */
static inline void h2_stream_check(const struct ag_h2_conn *c)
{
    uint64_t held = 0;
    uint32_t streams = 0;

    AG_ASSERT(ag_stream_queued(c->stream) <= AG_STREAM_HIGH + 512u * 1024u);
    AG_ASSERT(c->recv_window >= 0 && c->recv_window <= AG_H2_CONN_WINDOW_MAX);
    for (size_t i = 0; i < AG_H2_BUCKETS; i++) {
        for (const struct ag_h2_stream *s = c->buckets[i]; s; s = s->next) {
            AG_ASSERT(s->live && s->recv_window >= 0 && s->held <= AG_H2_STREAM_WINDOW_MAX);
            held += s->held;
            streams++;
        }
    }
    AG_ASSERT(held == c->held && streams == c->streams);
}
