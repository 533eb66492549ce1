#include "tests/sim/content.h"

static uint8_t table[2 * CONTENT_PERIOD];

static void fill_table(void)
{
    for (uint32_t i = 0; i < CONTENT_PERIOD; i++) {
        table[i] = table[i + CONTENT_PERIOD] = (uint8_t)sim_hash(i, 77);
    }
}

struct ag_span content_at(uint64_t key, uint64_t offset, size_t max)
{
    uint64_t start = (sim_hash(key, 1) % CONTENT_PERIOD + offset) % CONTENT_PERIOD;

    if (table[0] == table[1] && table[1] == table[2]) {
        fill_table();
    }
    return ag_span(table + start, ag_min_size(max, CONTENT_PERIOD));
}

bool content_is(uint64_t key, uint64_t offset, struct ag_span s)
{
    while (s.len > 0) {
        struct ag_span want = content_at(key, offset, s.len);

        if (memcmp(want.ptr, s.ptr, want.len) != 0) {
            return false;
        }
        offset += want.len;
        s = ag_span_sub(s, want.len, s.len);
    }
    return true;
}

void content_fill(uint64_t key, uint64_t offset, uint8_t *to, size_t len)
{
    while (len > 0) {
        struct ag_span piece = content_at(key, offset, len);

        memcpy(to, piece.ptr, piece.len);
        to += piece.len;
        offset += piece.len;
        len -= piece.len;
    }
}
