#include "actions/upstream/buffer_policy.h"

struct ag_buffer_policy ag_buffer_default_policy(void)
{
    return (struct ag_buffer_policy){.memory_bytes = 64u << 10, .disk_bytes = 1u << 30};
}

/* off, request, response, both */
static bool read_word(const struct ag_node *n, struct ag_diags *diags, struct ag_buffer_policy *io)
{
    static const char *const words[] = {"off", "request", "response", "both"};
    unsigned index = 0;

    /* What YAML makes of "off" and "no" elsewhere. */
    if ((n->quoted || !ag_span_eq(n->text, AG_SPAN("false"))) &&
        !ag_node_enum(n, diags, words, AG_COUNT(words), &index)) {
        return false;
    }
    io->request = index & 1u;
    io->response = index & 2u;
    return true;
}

static bool read_list(const struct ag_node *n, struct ag_diags *diags, struct ag_buffer_policy *io)
{
    static const char *const words[] = {"request", "response"};
    unsigned index = 0;

    io->request = io->response = false;
    for (const struct ag_node *it = n->first; it; it = it->next) {
        if (!ag_node_enum(it, diags, words, AG_COUNT(words), &index)) {
            return false;
        }
        io->request = io->request || index == 0;
        io->response = io->response || index == 1;
    }
    return true;
}

static bool read_flag(const struct ag_node *map, const char *key, struct ag_diags *diags, bool *io)
{
    const struct ag_node *n = ag_node_get(map, key);

    return !n || ag_node_bool(n, diags, io);
}

static bool read_size(const struct ag_node *map, const char *key, uint64_t most, const char *hint,
                      struct ag_diags *diags, uint64_t *io)
{
    const struct ag_node *n = ag_node_get(map, key);
    uint64_t bytes = 0;

    if (!n) {
        return true;
    }
    if (!ag_node_size(n, diags, &bytes)) {
        return false;
    }
    if (bytes > most) {
        ag_diag_error(diags, n->pos, hint, "%s is out of range", key);
        return false;
    }
    *io = bytes;
    return true;
}

static bool read_map(const struct ag_node *n, struct ag_diags *diags, struct ag_buffer_policy *io,
                     struct ag_buffer_place *place)
{
    static const char *const keys[] = {"request", "response", "memory", "disk", "folder", "total"};
    const struct ag_node *folder = ag_node_get(n, "folder");
    uint64_t memory = io->memory_bytes;
    bool ok = ag_node_check_keys(n, diags, "buffer", keys, place ? AG_COUNT(keys) : 4);

    ok = read_flag(n, "request", diags, &io->request) && ok;
    ok = read_flag(n, "response", diags, &io->response) && ok;
    ok =
        read_size(n, "memory", AG_BUFFER_MEMORY_MAX,
                  "use 0 to 1m: each message that is under way may hold so much", diags, &memory) &&
        ok;
    ok = read_size(n, "disk", AG_BUFFER_DISK_MAX, "use 0 to 1024g", diags, &io->disk_bytes) && ok;
    io->memory_bytes = (uint32_t)memory;
    if (place) {
        ok = read_size(n, "total", AG_BUFFER_DISK_MAX, "use 0 to 1024g", diags,
                       &place->total_bytes) &&
             ok;
        ok = (!folder || ag_node_text(folder, diags, &place->folder)) && ok;
        place->node = folder ? folder : n;
    }
    return ok;
}

bool ag_buffer_read(const struct ag_node *owner, struct ag_diags *diags,
                    struct ag_buffer_policy *io, struct ag_buffer_place *place)
{
    const struct ag_node *n = ag_node_get(owner, "buffer");

    if (!n) {
        return true;
    }
    switch (n->kind) {
    case AG_NODE_SCALAR:
        return read_word(n, diags, io);
    case AG_NODE_SEQ:
        return read_list(n, diags, io);
    case AG_NODE_NULL:
    case AG_NODE_MAP:
        return read_map(n, diags, io, place);
    }
    AG_UNREACHABLE("no such kind of node");
}

void ag_buffer_describe(const struct ag_buffer_policy *p, struct ag_buf *out)
{
    if (!p->request && !p->response) {
        return;
    }
    ag_buf_printf(out, "    %s buffered: %uk in memory, then %lluk on disk\n",
                  p->request && p->response ? "requests and answers"
                  : p->request              ? "requests"
                                            : "answers",
                  p->memory_bytes / 1024, (unsigned long long)(p->disk_bytes / 1024));
}
