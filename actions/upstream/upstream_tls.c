/* What the config says of TLS towards upstreams. */
#include "actions/upstream/upstream_config.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define HANDSHAKE_MAX_MS UINT64_C(600000)

static bool read_name(const struct ag_node *n, struct ag_diags *diags, struct ag_span *io)
{
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] <= ' ' || text.ptr[i] >= 0x7f || text.ptr[i] == '/') {
            text.len = 0;
        }
    }
    if (text.len == 0 || text.len > AG_UPSTREAM_HOST_MAX) {
        ag_diag_error(diags, n->pos, "server_name: api.example", "not the name of a server");
        return false;
    }
    *io = text;
    return true;
}

static bool read_path(const struct ag_node *n, struct ag_diags *diags, const struct ag_node **io)
{
    struct ag_span text;

    if (!n) {
        return true;
    }
    if (!ag_node_text(n, diags, &text)) {
        return false;
    }
    if (text.len == 0 || memchr(text.ptr, 0, text.len)) {
        ag_diag_error(diags, n->pos, NULL, "expected the path of a file");
        return false;
    }
    *io = n;
    return true;
}

static bool read_switch(const struct ag_node *n, struct ag_diags *diags, bool *io)
{
    bool value = *io;

    if (n && !ag_node_bool(n, diags, &value)) {
        return false;
    }
    *io = value;
    return true;
}

static bool read_handshake(const struct ag_node *n, struct ag_diags *diags, uint32_t *io)
{
    uint64_t ms = *io;

    if (!n) {
        return true;
    }
    if (!ag_node_duration(n, diags, &ms)) {
        return false;
    }
    if (ms < 1 || ms > HANDSHAKE_MAX_MS) {
        ag_diag_error(diags, n->pos, "use 1ms to 10m", "handshake_timeout is out of range");
        return false;
    }
    *io = (uint32_t)ms;
    return true;
}

bool ag_upstream_read_tls(const struct ag_node *node, struct ag_diags *diags,
                          struct ag_upstream_tls_options *io)
{
    static const char *const keys[] = {"verify", "ca", "server_name",      "cert",
                                       "key",    "h2", "handshake_timeout"};
    bool ok;

    if (!node) {
        return true;
    }
    if (node->kind == AG_NODE_SCALAR) {
        ag_diag_error(
            diags, node->pos,
            "a target of https:// asks for TLS; tls says how: {ca: FILE, server_name: NAME}",
            "an upstream's tls must be a mapping, not a single value");
        return false;
    }
    if (!ag_node_check_keys(node, diags, "an upstream's tls", keys, AG_COUNT(keys))) {
        return false;
    }
    ok = read_switch(ag_node_get(node, "verify"), diags, &io->verify);
    ok = read_switch(ag_node_get(node, "h2"), diags, &io->h2) && ok;
    ok = read_path(ag_node_get(node, "ca"), diags, &io->ca) && ok;
    ok = read_name(ag_node_get(node, "server_name"), diags, &io->server_name) && ok;
    ok = read_path(ag_node_get(node, "cert"), diags, &io->cert) && ok;
    ok = read_path(ag_node_get(node, "key"), diags, &io->key) && ok;
    ok = read_handshake(ag_node_get(node, "handshake_timeout"), diags, &io->handshake_ms) && ok;
    if (ok && io->key && !io->cert) {
        ag_diag_error(diags, io->key->pos, "cert: FILE", "a key without a certificate");
        ok = false;
    }
    return ok;
}

/* ---- files ---- */

static const char *path_of(struct ag_action_build *build, const struct ag_node *n)
{
    return n ? ag_node_path(build->arena, n, n->text) : NULL;
}

static bool load_ca(struct ag_action_build *build, const struct ag_upstream_tls_options *o,
                    struct ag_pos pos, struct ag_tls_client_settings *s)
{
    const struct ag_tls_file *file;

    if (!o->verify) {
        return true;
    }
    file = o->ca ? ag_tls_files_ca(build->tls_files, o->ca->pos, path_of(build, o->ca))
                 : ag_tls_files_system_ca(build->tls_files, pos);
    if (!file) {
        return false;
    }
    s->ca = file->ca;
    return true;
}

static bool load_identity(struct ag_action_build *build, const struct ag_upstream_tls_options *o,
                          struct ag_tls_client_settings *s)
{
    const struct ag_tls_file *file;
    const char *cert = path_of(build, o->cert), *key = path_of(build, o->key);

    if (!cert) {
        return true;
    }
    file = key ? ag_tls_files_pair(build->tls_files, o->cert->pos, cert, o->key->pos, key)
               : ag_tls_files_identity(build->tls_files, o->cert->pos, cert,
                                       ag_tls_files_key_beside(build->tls_files, cert));
    if (!file) {
        return false;
    }
    s->identity = file->identity;
    return true;
}

static void set_key(struct ag_tls_client_settings *s)
{
    const uint32_t numbers[] = {s->verify, s->h2, s->h1, s->handshake_ms};
    const struct ag_span parts[] = {
        ag_span(numbers, sizeof(numbers)), s->server_name, s->ca,
        s->identity ? ag_span(s->identity->sha256, sizeof(s->identity->sha256)) : AG_SPAN(""),
        s->identity ? s->identity->chain_pem : AG_SPAN("")};
    XXH3_state_t *state = XXH3_createState();
    XXH128_canonical_t canonical;

    _Static_assert(sizeof(canonical) == sizeof(s->key), "one fills the other");
    AG_ASSERT(state);
    (void)XXH3_128bits_reset(state);
    for (size_t i = 0; i < AG_COUNT(parts); i++) {
        uint64_t len = parts[i].len;

        (void)XXH3_128bits_update(state, &len, sizeof(len));
        (void)XXH3_128bits_update(state, parts[i].ptr, parts[i].len);
    }
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
    memcpy(s->key, &canonical, sizeof(s->key));
    (void)XXH3_freeState(state);
}

struct ag_tls_client_settings *ag_upstream_tls_settings(struct ag_action_build *build,
                                                        const struct ag_upstream_tls_options *o,
                                                        enum ag_upstream_protocol protocol,
                                                        struct ag_pos pos)
{
    struct ag_tls_client_settings *s = ag_arena_zalloc(build->arena, sizeof(*s));
    bool ok;

    AG_ASSERT(s && protocol != AG_UPSTREAM_H2C);
    s->verify = o->verify;
    s->server_name = o->server_name;
    s->h2 = protocol != AG_UPSTREAM_H1;
    s->h1 = protocol != AG_UPSTREAM_H2;
    s->handshake_ms = o->handshake_ms;
    ok = load_ca(build, o, pos, s);
    ok = load_identity(build, o, s) && ok;
    if (!ok) {
        return NULL;
    }
    set_key(s);
    return s;
}
