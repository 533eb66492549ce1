#include "router/dispatch_errors.h"

/* Of the groups that the path lies in, and the server. */
static const struct ag_error_pages *unrouted(const struct ag_snapshot *s, struct ag_trie_query q)
{
    uint32_t region = AG_TRIE_NONE;

    q.method = AG_METHOD_GET; /* groups hold for every method */
    if (s->regions && q.path.len && q.path.ptr[0] == '/') {
        region = ag_trie_lookup(s->regions, &q);
    }
    return s->region_errors[region == AG_TRIE_NONE ? 0 : region];
}

static const struct ag_error_pages *pages_of(const struct ag_exchange *ex)
{
    const struct ag_snapshot *s = ex->context->snapshot;
    const struct ag_trie_query q = {.host = ex->req.host,
                                    .port = ex->listener_port,
                                    .path = ex->req.path,
                                    .method = (enum ag_method)ex->req.method,
                                    .method_name = ex->req.method_name};
    const struct ag_route *r = ex->route;

    if (r) {
        return r->errors;
    }
    if (!s->region_errors) {
        return NULL;
    }
    if (ex->action && q.method != AG_METHOD_CONNECT) {
        r = ag_snapshot_find(s, &q); /* its own went with its snapshot: what would serve it now */
    }
    return r ? r->errors : unrouted(s, q);
}

bool ag_dispatch_error_page(struct ag_exchange *ex, unsigned status)
{
    /* Of requests that were refused before they were dispatched, nobody works on an answer that comes later. */
    bool may_ask = ex->snapshot_ref && !ex->abandoned;
    const struct ag_error_pages *pages = pages_of(ex);

    if (!pages) {
        return false;
    }
    if (!ex->snapshot_ref) {
        ag_exchange_pin(ex); /* the page lies in it */
    }
    return ag_error_pages_answer(pages, ex, status, may_ask);
}

bool ag_dispatch_intercepts(const struct ag_exchange *ex, unsigned status)
{
    return ag_error_pages_intercept(pages_of(ex), status);
}
