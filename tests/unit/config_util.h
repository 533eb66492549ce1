/* config_util: texts in, trees and diagnoses out; for the tests of the config loader. */
#pragma once
#include "router/config_impl.h"
#include "tests/unit/diag_util.h"

/* A source named "t" with a text of exactly its length on the heap, so that ASan sees a read behind
 * it; free src->text.ptr with source_free. */
static inline struct ag_source *source_of(struct fixture *f, struct ag_span text)
{
    uint8_t *copy = malloc(text.len ? text.len : 1);

    cr_assert_not_null(copy);
    if (text.len) {
        memcpy(copy, text.ptr, text.len);
    }
    return ag_config_source(&f->arena, "t", ag_span(copy, text.len));
}

static inline void source_free(struct ag_source *src)
{
    free((void *)(uintptr_t)src->text.ptr);
}
