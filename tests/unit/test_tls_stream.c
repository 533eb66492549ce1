/*
 * Goal: over TLS a stream behaves as a plain one does: bounded queues, pauses, files, every kind of end, each once.
 * Method: our client and our server on one loop; a relay between them that hands on a byte at a time, cuts, or
 * changes bytes.
 */
#include "tests/unit/tls_rig.h"

#if AG_WOLFSSL

#    include "engine/file.h"

#    include <sys/socket.h>

TestSuite(tls_stream, .init = rig_setup, .fini = rig_teardown);

/* ---- a relay ---- */

static struct {
    int client, server; /* -1: none */
    uint64_t to_client, to_server;
} relay;

/* Both ends begin, and find each other through the relay. */
static void relay_start(void)
{
    int pair[2];

    rig_connect();
    relay.client = rig_accepted();
    make_tcp_pair(pair);
    relay.server = pair[0];
    relay.to_client = relay.to_server = 0;
    rig_accept(pair[1]);
}

static bool relay_move(int from, int to, size_t most, uint64_t *total)
{
    uint8_t bytes[4096];
    ssize_t n = recv(from, bytes, ag_min_size(most, sizeof(bytes)), MSG_DONTWAIT);

    if (n <= 0) {
        return false;
    }
    for (ssize_t at = 0; at < n;) {
        ssize_t sent = send(to, bytes + at, (size_t)(n - at), MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            return false;
        }
        at += sent > 0 ? sent : 0;
        if (at < n) {
            ag_loop_turn(rig.l, 0);
        }
    }
    *total += (uint64_t)n;
    return true;
}

/* Hands on at most `most` bytes each way. */
static void relay_turn(size_t most)
{
    bool moved = relay_move(relay.client, relay.server, most, &relay.to_server);

    moved |= relay_move(relay.server, relay.client, most, &relay.to_client);
    ag_loop_turn(rig.l, moved ? 0 : 1);
}

#    define relay_until(most, cond)                                              \
        do {                                                                     \
            for (unsigned turns_ = 0; !(cond) && turns_ < TURNS_MAX; turns_++) { \
                relay_turn(most);                                                \
            }                                                                    \
            cr_assert(cond, "never came: %s", #cond);                            \
        } while (0)

static void relay_close(void)
{
    (void)close(relay.client);
    (void)close(relay.server);
}

BOTH(tls_stream, a_byte_at_a_time)
{
    rig_open(kind, 256, 16);
    relay_start();
    relay_until(1, rig.client.readies && rig.server.readies);
    end_send(&rig.client, 0, 500);
    end_send(&rig.server, 0, 500);
    relay_until(1, rig.server.in == 500 && rig.client.in == 500);
    ag_stream_finish(&rig.client.tls.stream);
    relay_until(1, rig.server.eofs > 0);
    ag_stream_finish(&rig.server.tls.stream);
    (void)shutdown(relay.client, SHUT_WR);
    (void)shutdown(relay.server, SHUT_WR);
    turn_until(rig.l, !rig.client.live && !rig.server.live);
    cr_expect_eq(rig.server.why, AG_REASON_NONE);
    relay_close();
    rig_close();
}

/* Whoever sends a hello in small pieces must not hold a buffer for each. */
BOTH(tls_stream, a_hello_in_pieces_holds_few_buffers)
{
    uint32_t most = 0;

    rig_open(kind, 64, 4);
    relay_start();
    for (unsigned i = 0; i < 200; i++) {
        relay_turn(1);
        uint32_t used = ag_loop_bufs_used(rig.l, AG_BUF_SMALL);
        most = used > most ? used : most;
    }
    cr_expect(most <= 6, "%u buffers", most);
    relay_until(100, rig.client.readies && rig.server.readies);
    ag_stream_abort(&rig.client.tls.stream, AG_REASON_ABORTED);
    ag_stream_abort(&rig.server.tls.stream, AG_REASON_ABORTED);
    turn_until(rig.l, !rig.client.live && !rig.server.live);
    relay_close();
    rig_close();
}

/* Cut after each of so many bytes: told as such, and nothing is left. */
BOTH(tls_stream, cut_in_the_handshake)
{
    rig_open(kind, 64, 16);
    for (uint64_t cut = 0; cut < 1000; cut += 37) {
        relay_start();
        for (unsigned i = 0; i < 100 && relay.to_server + relay.to_client < cut; i++) {
            relay_turn(ag_min_size(37, cut - relay.to_server - relay.to_client));
        }
        relay_close();
        turn_until(rig.l, !rig.client.live && !rig.server.live);
        cr_expect(rig.client.readies == 0 && rig.client.closes == 1 && rig.server.closes == 1);
        cr_expect(rig.server.why == AG_REASON_EOF || rig.server.why == AG_REASON_RESET);
    }
    rig_close();
}

BOTH(tls_stream, end_without_close_notify_is_told)
{
    rig_open(kind, 64, 16);
    relay_start();
    relay_until(4096, rig.client.readies && rig.server.readies);
    end_send(&rig.client, 0, 100);
    relay_until(4096, rig.server.in == 100);
    (void)shutdown(relay.server, SHUT_WR); /* as if the client had closed */
    turn_until(rig.l, !rig.server.live);
    cr_expect_eq(rig.server.why, AG_REASON_EOF);
    cr_expect_eq(rig.server.eofs, 0);
    cr_expect_str_eq(rig.server.detail, "closed without close_notify");
    relay_close();
    turn_until(rig.l, !rig.client.live);
    rig_close();
}

BOTH(tls_stream, a_changed_byte_ends_it)
{
    uint8_t bytes[200];

    rig_open(kind, 64, 16);
    relay_start();
    relay_until(4096, rig.client.readies && rig.server.readies);
    for (unsigned i = 0; i < 20; i++) {
        relay_turn(4096); /* tickets */
    }
    end_send(&rig.client, 0, 100);
    for (unsigned i = 0; i < TURNS_MAX && recv(relay.client, bytes, 122, MSG_PEEK) < 122; i++) {
        ag_loop_turn(rig.l, 1);
    }
    cr_assert_eq(recv(relay.client, bytes, sizeof(bytes), 0), 122);
    bytes[60] ^= 1;
    cr_assert_eq(send(relay.server, bytes, 122, 0), 122);
    relay_until(4096, rig.server.closes || rig.client.closes);
    relay_until(4096, rig.client.closes);
    cr_expect_eq(rig.server.in, 0);
    cr_expect_eq(rig.client.why, AG_REASON_PROTOCOL, "%s", ag_reason_text(rig.client.why));
    cr_expect_str_eq(rig.client.detail, "alert of the peer: bad record");
    relay_close();
    turn_until(rig.l, !rig.server.live);
    cr_expect_eq(rig.server.why, AG_REASON_PROTOCOL);
    rig_close();
}

/* ---- amounts ---- */

/* Sends `total` bytes of the pattern while there is room. */
static uint64_t pour(struct end *e, uint64_t sent, uint64_t total)
{
    while (e->live && sent < total && !ag_stream_full(&e->tls.stream)) {
        size_t n = ag_min_size(total - sent, 10000);
        end_send(e, sent, n);
        sent += n;
    }
    return sent;
}

BOTH(tls_stream, much_goes_both_ways_at_once)
{
    uint64_t up = 0, down = 0, total = 3 * 1000 * 1000;

    rig_open(kind, 256, 32);
    rig_shake();
    for (unsigned i = 0; i < TURNS_MAX && (rig.client.in < total || rig.server.in < total); i++) {
        up = pour(&rig.client, up, total);
        down = pour(&rig.server, down, total);
        cr_assert(ag_stream_queued(&rig.server.tls.stream) < AG_STREAM_HIGH + 20000);
        ag_loop_turn(rig.l, 1);
    }
    cr_expect_eq(rig.client.in, total);
    cr_expect_eq(rig.server.in, total);
    rig_finish();
    rig_close();
}

static void small_windows(int fd)
{
    int bytes = 32768;

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

BOTH(tls_stream, who_does_not_read_is_not_sent_more)
{
    uint64_t down = 0, before, total = 2 * 1000 * 1000;

    rig_open(kind, 256, 32);
    rig_shake();
    small_windows(rig.server.tls.conn.fd.fd);
    small_windows(rig.client.tls.conn.fd.fd);
    ag_stream_pause(&rig.client.tls.stream);
    for (unsigned i = 0; i < 200; i++) {
        down = pour(&rig.server, down, total);
        ag_loop_turn(rig.l, 1);
    }
    before = down;
    cr_expect(down < 1000 * 1000, "%lu bytes on their way", (unsigned long)down);
    cr_expect(ag_stream_queued(&rig.server.tls.stream) >= AG_STREAM_LOW);
    for (unsigned i = 0; i < 50; i++) {
        down = pour(&rig.server, down, total);
        ag_loop_turn(rig.l, 1);
    }
    cr_expect_eq(down, before);
    ag_stream_resume(&rig.client.tls.stream, AG_BUF_LARGE);
    for (unsigned i = 0; i < TURNS_MAX && rig.client.in < total; i++) {
        down = pour(&rig.server, down, total);
        ag_loop_turn(rig.l, 1);
    }
    cr_expect_eq(rig.client.in, total);
    cr_expect(rig.server.drains > 0);
    rig_finish();
    rig_close();
}

static void pause_each(struct end *e)
{
    if (e->live && e->datas > 0) {
        ag_stream_pause(&e->tls.stream);
    }
}

/* Paused at each piece, and resumed: nothing is lost, and nothing comes while it is paused. */
BOTH(tls_stream, pauses_hold_data_back)
{
    uint64_t down = 0, total = 300000;

    rig_open(kind, 64, 16);
    rig_shake();
    rig.client.then = pause_each;
    for (unsigned i = 0; i < TURNS_MAX && rig.client.in < total; i++) {
        unsigned datas = rig.client.datas;
        down = pour(&rig.server, down, total);
        ag_loop_turn(rig.l, 1);
        cr_assert(rig.client.datas <= datas + 2);
        ag_stream_resume(&rig.client.tls.stream, i % 2 ? AG_BUF_SMALL : AG_BUF_LARGE);
    }
    cr_expect_eq(rig.client.in, total);
    rig.client.then = NULL;
    rig_finish();
    rig_close();
}

/* Two blocks at a time are all that there is. */
BOTH(tls_stream, goes_on_with_few_buffers)
{
    uint64_t down = 0, total = 500000;

    rig_open(kind, 16, 2);
    rig_shake();
    for (unsigned i = 0; i < TURNS_MAX && rig.client.in < total; i++) {
        if (ag_stream_queued(&rig.server.tls.stream) < 8192) {
            size_t n = ag_min_size(8000, total - down);
            end_send(&rig.server, down, n);
            down += n;
        }
        ag_loop_turn(rig.l, 1);
    }
    cr_expect_eq(rig.client.in, total);
    rig_finish();
    rig_close();
}

/* ---- records ---- */

BOTH(tls_stream, records_begin_small_and_grow)
{
    rig_open(kind, 256, 32);
    rig_shake();
    end_send(&rig.server, 0, 100000);
    turn_until(rig.l, rig.server.tls.written_bytes == 100000 && rig.client.in == 100000);
    rig_finish();
    rig_close();
}

BOTH(tls_stream, a_head_and_its_content_share_a_record)
{
    static uint8_t body[2000];
    uint64_t before;

    rig_open(kind, 256, 32);
    relay_start();
    relay_until(4096, rig.client.readies && rig.server.readies);
    for (unsigned i = 0; i < 20; i++) {
        relay_turn(4096);
    }
    for (unsigned i = 0; i < sizeof(body); i++) {
        body[i] = pattern_at(300 + i);
    }
    before = relay.to_client;
    end_send(&rig.server, 0, 300);
    cr_assert_eq(
        ag_stream_write(&rig.server.tls.stream, ag_slice_static(ag_span(body, sizeof(body)))),
        AG_OK);
    relay_until(4096, rig.client.in == 2300);
    cr_expect_eq(relay.to_client - before, 2300 + 22);
    relay_close();
    turn_until(rig.l, !rig.client.live && !rig.server.live);
    rig_close();
}

/* ---- files ---- */

static void write_file(struct end *e, uint64_t offset, size_t len, size_t size)
{
    struct ag_block *b = ag_file_block(rig.l, make_file(size));
    struct ag_slice slice = {{.offset = offset}, len, b};

    cr_assert(b);
    cr_assert_eq(ag_stream_write(&e->tls.stream, slice), AG_OK);
}

BOTH(tls_stream, files_are_read_ahead_of)
{
    size_t size = 1000000;

    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.server, 0, 100); /* a head */
    write_file(&rig.server, 100, size - 200, size);
    end_send(&rig.server, size - 100, 100);
    turn_until(rig.l, rig.client.in == size);
    turn_until(rig.l, ag_stream_queued(&rig.server.tls.stream) == 0);
    cr_expect_null(rig.server.tls.file);
    /* Without a head, and behind more than a record of memory. */
    rig.client.in = 0;
    write_file(&rig.server, 0, 70000, 70000);
    turn_until(rig.l, rig.client.in == 70000);
    rig.client.in = 0;
    end_send(&rig.server, 0, 20000);
    write_file(&rig.server, 20000, 10, 30000);
    turn_until(rig.l, rig.client.in == 20010);
    rig_finish();
    rig_close();
}

BOTH(tls_stream, a_file_that_has_shrunk_is_a_reset)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.server, 0, 100);
    write_file(&rig.server, 100, 50000, 20000);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.why, AG_REASON_OTHER);
    cr_expect_eq(rig.client.why, AG_REASON_RESET, "%s", ag_reason_text(rig.client.why));
    cr_expect_eq(rig.client.eofs, 0);
    rig_close();
}

/* The stream goes while a helper reads for it. */
BOTH(tls_stream, ends_while_a_file_is_read)
{
    rig_open(kind, 64, 16);
    for (unsigned i = 0; i < 3; i++) {
        rig_shake();
        write_file(&rig.server, 0, 500000, 500000);
        ag_tls_of(&rig.server.tls.stream)->stream.ops->flush(&rig.server.tls.stream);
        cr_assert(rig.server.tls.file && rig.server.tls.file);
        ag_stream_abort(&rig.server.tls.stream, AG_REASON_ABORTED);
        turn_until(rig.l, !rig.server.live && !rig.client.live);
    }
    rig_close();
}

/* ---- ends ---- */

BOTH(tls_stream, finish_sends_all_that_is_queued)
{
    rig_open(kind, 256, 32);
    rig_shake();
    end_send(&rig.server, 0, 120000);
    ag_stream_finish(&rig.server.tls.stream);
    turn_until(rig.l, rig.client.eofs == 1);
    cr_expect_eq(rig.client.in, 120000);
    ag_stream_finish(&rig.client.tls.stream);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.why, AG_REASON_NONE);
    cr_expect_eq(rig.client.why, AG_REASON_NONE);
    rig_close();
}

BOTH(tls_stream, shut_ends_one_way_alone)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.client, 0, 1000);
    ag_stream_shut(&rig.client.tls.stream);
    turn_until(rig.l, rig.server.eofs == 1);
    cr_expect_eq(rig.server.in, 1000);
    end_send(&rig.server, 0, 50000);
    turn_until(rig.l, rig.client.in == 50000);
    ag_stream_finish(&rig.server.tls.stream);
    turn_until(rig.l, rig.client.eofs == 1);
    ag_stream_finish(&rig.client.tls.stream);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.client.why, AG_REASON_NONE);
    rig_close();
}

BOTH(tls_stream, incomplete_output_is_a_reset)
{
    rig_open(kind, 64, 16);
    rig_shake();
    end_send(&rig.server, 0, 100);
    turn_until(rig.l, rig.client.in == 100);
    rig.server.tls.stream.incomplete = true;
    ag_stream_abort(&rig.server.tls.stream, AG_REASON_ABORTED);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.client.eofs, 0);
    cr_expect_eq(rig.client.why, AG_REASON_RESET);
    rig_close();
}

/* Data and end that come together wait for who is paused. */
BOTH(tls_stream, the_end_waits_for_who_is_paused)
{
    rig_open(kind, 64, 16);
    rig_shake();
    ag_stream_pause(&rig.server.tls.stream);
    end_send(&rig.client, 0, 20000);
    ag_stream_finish(&rig.client.tls.stream);
    for (unsigned i = 0; i < 50; i++) {
        ag_loop_turn(rig.l, 1);
    }
    cr_expect(rig.server.in < 20000 && rig.server.eofs == 0);
    rig.server.then = pause_each;
    for (unsigned i = 0; i < 200 && rig.server.eofs == 0; i++) {
        ag_stream_resume(&rig.server.tls.stream, AG_BUF_SMALL);
        ag_loop_turn(rig.l, 1);
    }
    rig.server.then = NULL;
    cr_expect_eq(rig.server.in, 20000);
    cr_expect_eq(rig.server.eofs, 1);
    ag_stream_finish(&rig.server.tls.stream);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.why, AG_REASON_NONE);
    rig_close();
}

/* The library forgets that it has said so with whatever is sent meanwhile. */
BOTH(tls_stream, an_end_seen_while_paused_is_kept)
{
    rig_open(kind, 64, 16);
    rig_shake();
    rig.server.then = pause_each;
    end_send(&rig.client, 0, 100);
    ag_stream_shut(&rig.client.tls.stream);
    turn_until(rig.l, rig.server.in == 100);
    for (unsigned i = 0; i < 50; i++) {
        ag_loop_turn(rig.l, 1);
    }
    cr_assert_eq(rig.server.eofs, 0);
    end_send(&rig.server, 0, 1000);
    turn_until(rig.l, rig.client.in == 1000);
    rig.server.then = NULL;
    ag_stream_resume(&rig.server.tls.stream, AG_BUF_SMALL);
    turn_until(rig.l, rig.server.eofs == 1 || !rig.server.live);
    cr_assert(rig.server.live, "%s", rig.server.detail ? rig.server.detail : "");
    ag_stream_finish(&rig.server.tls.stream);
    ag_stream_finish(&rig.client.tls.stream);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    rig_close();
}

/* Aborted, or finished, after each of so many turns. */
static void end_after(enum ag_backend_kind kind, bool client, bool abort)
{
    rig_open(kind, 64, 16);
    for (unsigned turns = 0; turns < 30; turns++) {
        struct end *e = client ? &rig.client : &rig.server;
        rig_start();
        for (unsigned i = 0; i < turns; i++) {
            ag_loop_turn(rig.l, 0);
        }
        if (e->readies > 0 && turns % 2) {
            end_send(e, 0, 30000);
        }
        if (e->live && abort) {
            ag_stream_abort(&e->tls.stream, AG_REASON_ABORTED);
        } else if (e->live) {
            ag_stream_finish(&e->tls.stream);
        }
        turn_until(rig.l, !e->live || (client ? rig.server.eofs : rig.client.eofs) > 0);
        e = client ? &rig.server : &rig.client;
        if (e->live) {
            ag_stream_finish(&e->tls.stream);
        }
        turn_until(rig.l, !rig.client.live && !rig.server.live);
        cr_expect(rig.client.closes == 1 && rig.server.closes == 1);
    }
    rig_close();
}

BOTH(tls_stream, client_aborts_at_any_time)
{
    end_after(kind, true, true);
}

BOTH(tls_stream, server_aborts_at_any_time)
{
    end_after(kind, false, true);
}

BOTH(tls_stream, client_finishes_at_any_time)
{
    end_after(kind, true, false);
}

BOTH(tls_stream, server_finishes_at_any_time)
{
    end_after(kind, false, false);
}

static void abort_at_once(struct end *e)
{
    if (e->live) {
        ag_stream_abort(&e->tls.stream, AG_REASON_ABORTED);
    }
}

/* From inside of ready, and of on_data. */
BOTH(tls_stream, aborts_from_inside_of_callbacks)
{
    rig_open(kind, 64, 16);
    rig.server.then = abort_at_once;
    rig_start();
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.readies, 1);
    rig.server.then = NULL;
    rig_shake();
    rig.server.then = abort_at_once;
    end_send(&rig.client, 0, 40000);
    turn_until(rig.l, !rig.server.live && !rig.client.live);
    cr_expect_eq(rig.server.datas, 1);
    rig.server.then = NULL;
    rig_close();
}

BOTH(tls_stream, client_may_write_before_it_is_ready)
{
    rig_open(kind, 64, 16);
    rig_connect();
    end_send(&rig.client, 0, 5000);
    rig_accept(rig_accepted());
    turn_until(rig.l, rig.server.in == 5000);
    rig_finish();
    rig_close();
}

/* ---- memory ---- */

/* All that an open, idle connection costs: its slot, and what the library has taken. */
BOTH(tls_stream, an_idle_connection_is_small)
{
    uint64_t before, after;

    rig_open(kind, 64, 16);
    before = ag_tls_memory_bytes();
    rig_shake();
    ag_stream_finish(&rig.client.tls.stream);
    turn_until(rig.l,
               rig.server.eofs > 0); /* the client's part lingers, but its session is gone below */
    turn_until(rig.l, ag_stream_queued(&rig.server.tls.stream) == 0);
    after = ag_tls_memory_bytes();
    rig_finish();
    /* Both ends live in this process: half of it is the server's. */
    cr_expect(!ag_tls_info_is_ours() || (after - before) / 2 + sizeof(struct ag_tls) <= 9000,
              "slot %zu, library %lu for both ends", sizeof(struct ag_tls),
              (unsigned long)(after - before));
    rig_close();
}

#endif
