/*
 * A chunked body has one meaning in all splits: the same bytes, the same end, the same error.
 *
 * Input: one byte that chooses the pieces, then the body.
 */
#include "fuzz/pieces.h"
#include "proto/h1_chunk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct ag_h1_chunk chunk;
    enum ag_status status;
    size_t used;
    struct ag_buf body;
};

static void decode(struct run *r, struct ag_span in, size_t most)
{
    uint8_t *room = malloc(in.len + 1);
    struct pieces p = pieces_of(in.len, most);

    AG_ASSERT(room);
    memset(r, 0, sizeof(*r));
    r->status = AG_AGAIN;
    r->body = ag_buf(room, in.len);
    for (size_t len; r->status == AG_AGAIN && (len = pieces_next(&p)) > 0;) {
        uint8_t *block = malloc(len); /* cut to size: ASan sees any read past it */
        size_t at = 0;

        AG_ASSERT(block);
        memcpy(block, in.ptr + r->used, len);
        while (at < len && r->status == AG_AGAIN) {
            size_t used = 0;
            struct ag_span body;

            r->status = ag_h1_chunk_decode(&r->chunk, ag_span(block + at, len - at), &used, &body);
            AG_ASSERT(used > 0 && used <= len - at);
            AG_ASSERT(body.len == 0 ||
                      (body.ptr >= block + at && body.ptr + body.len <= block + at + used));
            ag_buf_put(&r->body, body);
            at += used;
        }
        AG_ASSERT(!r->body.overflow);
        r->used += at;
        free(block);
    }
}

/* The header written for a chunk of this length is read as the same length. */
static void check_header(uint64_t len)
{
    uint8_t header[AG_H1_CHUNK_HEADER_MAX];
    struct ag_h1_chunk chunk = {0};
    struct ag_span body;
    size_t used, n = ag_h1_chunk_header(len, header);

    AG_ASSERT(ag_h1_chunk_decode(&chunk, ag_span(header, n), &used, &body) == AG_AGAIN);
    AG_ASSERT(used == n && chunk.state == AG_H1_CHUNK_DATA && chunk.left == len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole, pieces;

    if (size < 2) {
        return 0;
    }
    struct ag_span in = ag_span(data + 1, size - 1);
    decode(&whole, in, SIZE_MAX);
    decode(&pieces, in, 1 + data[0]);
    AG_ASSERT(whole.status == pieces.status && whole.used == pieces.used);
    AG_ASSERT(whole.chunk.state == pieces.chunk.state && whole.chunk.left == pieces.chunk.left);
    AG_ASSERT(ag_span_eq(ag_buf_span(&whole.body), ag_buf_span(&pieces.body)));
    AG_ASSERT((whole.status == AG_OK) == (whole.chunk.state == AG_H1_CHUNK_TRAILERS));
    if (whole.body.len > 0) {
        check_header(whole.body.len);
    }
    free(whole.body.ptr);
    free(pieces.body.ptr);
    return 0;
}
