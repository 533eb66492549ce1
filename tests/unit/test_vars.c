/*
 * Goal: variables expand to what the request says, and never to what would end a field.
 * Method: an exchange filled in by hand; a table of texts.
 */
#include "proto/vars.h"

#include <criterion/criterion.h>
#include <stdio.h>

static struct ag_field request_fields[] = {
    {.name = (const uint8_t *)"X-Name",
     .name_len = 6,
     .value = (const uint8_t *)"a\r\nSet-Cookie: b\x7f",
     .value_len = 17},
    {.name = (const uint8_t *)"traceparent",
     .name_len = 11,
     .value = (const uint8_t *)"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
     .value_len = 55},
};

static struct ag_field response_fields[] = {{.name = (const uint8_t *)"ETag",
                                             .name_len = 4,
                                             .value = (const uint8_t *)"\"1\"",
                                             .value_len = 3,
                                             .id = AG_FIELD_ETAG}};

static const struct ag_param_spec params[] = {{AG_SPAN_INIT("id"), 1, false},
                                              {AG_SPAN_INIT(""), 2, true}};

static void fill(struct ag_exchange *ex, union ag_addr *remote)
{
    memset(ex, 0, sizeof(*ex));
    memset(remote, 0, sizeof(*remote));
    remote->in6.sin6_family = AF_INET6;
    remote->in6.sin6_port = htons(99);
    remote->in6.sin6_addr.s6_addr[15] = 1;
    ex->remote = remote;
    ex->req.method_name = AG_SPAN("GET");
    ex->req.path = AG_SPAN("/u/7%20/x/y");
    ex->req.query = AG_SPAN("q=1");
    ex->req.has_query = true;
    ex->req.host = AG_SPAN("h.test");
    ex->req.version = AG_HTTP_11;
    ex->req.fields = (struct ag_fields){request_fields, 2, 2};
    ex->res.fields = (struct ag_fields){response_fields, 1, 1};
    ex->params = params;
    ex->param_count = 2;
    ex->listener_port = 8080;
    ex->status = 404;
}

static const struct {
    const char *text, *want;
} rows[] = {
    {"", ""},
    {"plain } text", "plain } text"},
    {"{{a}", "{a}"},
    {"{{{method}}", "{GET}"},
    {"{method} {uri}|{path}|{query}", "GET /u/7%20/x/y?q=1|/u/7%20/x/y|q=1"},
    {"{scheme}://{host}:{port}", "http://h.test:80"},
    {"{protocol} {status} {server.port}", "HTTP/1.1 404 8080"},
    {"{remote.ip} {remote.port}", "::1 99"},
    {"{param.id}|{splat}|{param.none}", "7%20|x/y|"},
    {"{header.x-name}", "aSet-Cookie: b"},
    {"{header.none}|{response.etag}", "|\"1\""},
    {"{trace_id}", "0af7651916cd43dd8448eb211c80319c"},
};

Test(vars, expand)
{
    struct ag_exchange *ex = malloc(sizeof(*ex));
    union ag_addr remote;
    struct ag_arena arena;
    struct ag_diags diags;

    AG_ASSERT(ex);
    fill(ex, &remote);
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    for (size_t i = 0; i < AG_COUNT(rows); i++) {
        const struct ag_vars *v =
            ag_vars_compile(&arena, &diags, (struct ag_pos){0}, ag_span_str(rows[i].text));
        char out[256];
        struct ag_buf b = ag_buf(out, sizeof(out) - 1);

        cr_assert(v, "%s", rows[i].text);
        ag_vars_expand(v, ex, &b);
        out[b.len] = 0;
        cr_expect_str_eq(out, rows[i].want, "%s: %s", rows[i].text, out);
    }
    ag_arena_release(&arena);
    free(ex);
}

/* ---- TLS ---- */

static const struct ag_tls_session session = {.server_name = AG_SPAN_INIT("a.example"),
                                              .version = "TLSv1.3",
                                              .cipher = "TLS_AES_128_GCM_SHA256",
                                              .client_cert = AG_TLS_CLIENT_VALID,
                                              .client_subject = AG_SPAN_INIT("CN=me\r\n,O=x"),
                                              .client_sha256 = AG_SPAN_INIT("ab12")};
static const struct ag_tls_session anonymous = {.version = "TLSv1.2"};

static const struct ag_tls_session *tls_of(struct ag_exchange *ex)
{
    return ex->server_stream;
}

static void expect_expansion(const struct ag_exchange *ex, const char *text, const char *want)
{
    struct ag_arena arena;
    struct ag_diags diags;
    char out[256];
    struct ag_buf b = ag_buf(out, sizeof(out) - 1);

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    ag_vars_expand(ag_vars_compile(&arena, &diags, (struct ag_pos){0}, ag_span_str(text)), ex, &b);
    out[b.len] = 0;
    cr_expect_str_eq(out, want, "%s: %s", text, out);
    ag_arena_release(&arena);
}

Test(vars, of_tls)
{
    static const struct ag_server_ops ops = {.tls = tls_of};
    static const char text[] = "{tls.version}|{tls.cipher}|{tls.server_name}|{tls.client.subject}|"
                               "{tls.client.fingerprint}|{tls.client.verified}";
    struct ag_exchange *ex = malloc(sizeof(*ex));
    union ag_addr remote;

    AG_ASSERT(ex);
    fill(ex, &remote);
    ex->server = &ops;
    expect_expansion(ex, text, "|||||");
    ex->req.tls = true;
    ex->server_stream = (void *)(uintptr_t)&session;
    expect_expansion(ex, text, "TLSv1.3|TLS_AES_128_GCM_SHA256|a.example|CN=me,O=x|ab12|valid");
    ex->server_stream = (void *)(uintptr_t)&anonymous;
    expect_expansion(ex, text, "TLSv1.2|||||none");
    ex->server_stream = NULL; /* the connection has gone */
    expect_expansion(ex, text, "|||||");
    free(ex);
}

Test(vars, mistakes_have_positions)
{
    static const struct {
        const char *text;
        uint32_t col;
        const char *hint;
    } bad[] = {
        {"ab {methid}", 14, "did you mean method?"},
        {"{", 11, "{{"},
        {"x{method", 12, "{{"},
        {"{}", 11, "such as"},
        {"{param.}", 11, NULL},
        {"{header.a b}", 11, NULL},
    };

    for (size_t i = 0; i < AG_COUNT(bad); i++) {
        struct ag_arena arena;
        struct ag_diags diags;

        ag_arena_init(&arena, NULL, 0);
        ag_diags_init(&diags, &arena);
        cr_expect_null(ag_vars_compile(&arena, &diags, (struct ag_pos){NULL, 3, 11},
                                       ag_span_str(bad[i].text)));
        cr_assert_eq(diags.errors, 1);
        cr_expect_eq(diags.first->pos.col, bad[i].col, "%s", bad[i].text);
        cr_expect(!bad[i].hint || strstr(diags.first->hint, bad[i].hint), "%s: %s", bad[i].text,
                  diags.first->hint);
        ag_arena_release(&arena);
    }
}

Test(vars, literals)
{
    struct ag_arena arena;
    struct ag_diags diags;
    struct ag_span text = AG_SPAN("?");

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    cr_expect(ag_vars_literal(ag_vars_compile(&arena, &diags, (struct ag_pos){0}, AG_SPAN("a b")),
                              &text));
    cr_expect(ag_span_eq(text, AG_SPAN("a b")));
    cr_expect(
        ag_vars_literal(ag_vars_compile(&arena, &diags, (struct ag_pos){0}, AG_SPAN("")), &text));
    cr_expect_eq(text.len, 0);
    cr_expect_not(ag_vars_literal(
        ag_vars_compile(&arena, &diags, (struct ag_pos){0}, AG_SPAN("{path}")), &text));
    ag_arena_release(&arena);
}

Test(vars, little_room)
{
    struct ag_exchange *ex = malloc(sizeof(*ex));
    union ag_addr remote;
    struct ag_arena arena;
    struct ag_diags diags;
    const struct ag_vars *v;

    AG_ASSERT(ex);
    fill(ex, &remote);
    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    v = ag_vars_compile(&arena, &diags, (struct ag_pos){0}, AG_SPAN("{uri}{remote.ip}{method}"));
    for (size_t cap = 0; cap < 21; cap++) {
        uint8_t *room = malloc(cap + 1);
        struct ag_buf b = ag_buf(room, cap);

        AG_ASSERT(room);
        ag_vars_expand(v, ex, &b);
        cr_expect(b.overflow, "%zu", cap);
        free(room);
    }
    ag_arena_release(&arena);
    free(ex);
}
