/*
 * The normal form of a path is one: normalising it again changes nothing, it is never longer, it
 * has no dot segment, and ag_path_is_normal agrees. An authority is its host and its port, no more.
 */
#include "proto/uri.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What `normalise` made of `in`, in a block cut to size. */
static enum ag_status normalise(struct ag_span in, struct ag_buf *out)
{
    uint8_t *room = malloc(in.len + 1);

    AG_ASSERT(room);
    *out = ag_buf(room, in.len);
    return ag_path_normalise(in, out);
}

static void check_segments(struct ag_span path)
{
    size_t start = 1;

    for (size_t i = 1; i <= path.len; i++) {
        AG_ASSERT(i == path.len || (path.ptr[i] > 0x20 && path.ptr[i] < 0x7f));
        if (i == path.len || path.ptr[i] == '/') {
            struct ag_span segment = ag_span_sub(path, start, i);
            AG_ASSERT(!ag_span_eq(segment, AG_SPAN(".")) && !ag_span_eq(segment, AG_SPAN("..")));
            start = i + 1;
        }
    }
}

static void check_decoded(struct ag_span path)
{
    uint8_t *room = malloc(path.len + 1);
    struct ag_buf out = ag_buf(room, path.len);

    AG_ASSERT(room);
    if (ag_path_decode(path, &out) == AG_OK) {
        size_t slashes = 0;
        for (size_t i = 0; i < path.len; i++) {
            slashes += path.ptr[i] == '/';
        }
        for (size_t i = 0; i < out.len; i++) {
            AG_ASSERT(out.ptr[i] != 0);
            slashes -= out.ptr[i] == '/';
        }
        AG_ASSERT(slashes == 0); /* no escape became a separator */
    }
    free(room);
}

static void check_path(struct ag_span in)
{
    struct ag_buf once, twice;
    enum ag_status st = normalise(in, &once);

    if (st == AG_OK) {
        struct ag_span path = ag_buf_span(&once);
        AG_ASSERT(path.len > 0 && path.len <= in.len && path.ptr[0] == '/');
        AG_ASSERT(ag_path_is_normal(path));
        AG_ASSERT(ag_path_is_normal(in) == ag_span_eq(in, path));
        AG_ASSERT(normalise(path, &twice) == AG_OK);
        AG_ASSERT(ag_span_eq(path, ag_buf_span(&twice)));
        free(twice.ptr);
        check_segments(path);
        check_decoded(path);
    } else {
        AG_ASSERT(st == AG_EPROTO && once.len == 0 && !ag_path_is_normal(in));
    }
    free(once.ptr);
}

static void check_authority(struct ag_span in)
{
    struct ag_span host;
    uint16_t port;

    if (ag_authority_parse(in, &host, &port) != AG_OK) {
        return;
    }
    AG_ASSERT(host.len > 0 && host.ptr == in.ptr && host.len <= in.len);
    AG_ASSERT((port == 0) == (host.len == in.len));
    AG_ASSERT(ag_span_find(in, '@') == in.len && ag_span_find(in, '/') == in.len);
    AG_ASSERT((host.ptr[0] == '[') == (host.ptr[host.len - 1] == ']'));
    if (port) {
        uint64_t value = 0;
        AG_ASSERT(in.ptr[host.len] == ':');
        AG_ASSERT(ag_span_u64(ag_span_sub(in, host.len + 1, in.len), &value) == AG_OK);
        AG_ASSERT(value == port);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_span in = ag_span(data, size);

    check_path(in);
    check_authority(in);
    bool query = ag_query_is_valid(in);
    for (size_t i = 0; i < size && query; i++) {
        AG_ASSERT(data[i] > 0x20 && data[i] < 0x7f && data[i] != '#');
    }
    return 0;
}
