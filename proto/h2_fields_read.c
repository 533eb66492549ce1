#include "proto/h1_scan.h"
#include "proto/h2_fields.h"
#include "proto/head.h"
#include "proto/uri.h"

/* Text goes into pieces of an arena: this much at once, so that most sections take one. */
#define TEXT_BYTES 512u

/* A request line has so many bytes beside method and target. */
#define REQUEST_LINE_EXTRA 12u

/* Fields beyond the bound that are read for their effect on the table alone. Nobody sends them who read our
 * SETTINGS; each may be a byte that stands for 4 KB of text. */
#define FLOOD_FIELDS 1024u

#define BIT(id) AG_FIELD_BIT(id)

/* RFC 9113 section 8.2.2. HTTP2-Settings is not among them, and not passed on. */
#define FORBIDDEN                                                                           \
    (BIT(AG_FIELD_CONNECTION) | BIT(AG_FIELD_KEEP_ALIVE) | BIT(AG_FIELD_PROXY_CONNECTION) | \
     BIT(AG_FIELD_TRANSFER_ENCODING) | BIT(AG_FIELD_UPGRADE))

/* What the head's meaning depends on. */
#define SPECIAL                                                                 \
    (FORBIDDEN | BIT(AG_FIELD_TE) | BIT(AG_FIELD_HOST) | BIT(AG_FIELD_COOKIE) | \
     BIT(AG_FIELD_CONTENT_LENGTH) | BIT(AG_FIELD_EXPECT))

enum pseudo { METHOD, SCHEME, AUTHORITY, PATH, PROTOCOL, STATUS, PSEUDOS };
/* What a field was found to be, so that it is not looked at again: 0, a pseudo-field and this, or another. */
#define PSEUDO_KIND     1u
#define FIELD_KIND      (PSEUDO_KIND + PSEUDOS)
#define PSEUDO_BIT(p)   (1u << (p))
#define REQUEST_PSEUDOS (PSEUDO_BIT(STATUS) - 1)

struct reader {
    struct ag_hpack_section section; /* first: `more` is given it */
    const struct ag_h1_limits *limits;
    struct ag_fields *out;
    struct ag_arena *arena;
    uint8_t *chunk;        /* where section.text lies; NULL: nowhere */
    enum ag_status status; /* the first thing that is wrong, or AG_OK */
    struct ag_h2_field_error error;
    bool trailers, no_memory;
    bool late;             /* a field came that is none of the pseudo-fields: they are over */
    uint8_t allowed, seen; /* pseudo-fields, by PSEUDO_BIT */
    struct ag_span pseudo[PSEUDOS];
    /* Of the fields. */
    uint64_t ids; /* those that were there */
    uint64_t content_length;
    uint32_t cookies;
    uint16_t host_at; /* in out->v, when `ids` has it */
    bool expect_other;
};

/* What comes behind is read for the table's sake alone. */
static AG_COLD enum ag_status refuse(struct reader *r, enum ag_status st, uint16_t status,
                                     const char *why)
{
    if (r->status == AG_OK) {
        r->status = st;
        r->error = (struct ag_h2_field_error){.status = status, .why = why};
        r->section.left_bytes = 0;
    }
    return st;
}

static AG_COLD enum ag_status malformed(struct reader *r, const char *why)
{
    return refuse(r, AG_EPROTO, 0, why);
}

static AG_COLD enum ag_status broken(struct reader *r, enum ag_status st, const char *why)
{
    r->error = (struct ag_h2_field_error){.connection = true, .why = why};
    r->status = st;
    return st;
}

/* ---- text ---- */

/* What the last piece has to spare goes back. */
static void end_text(struct reader *r)
{
    struct ag_buf *text = &r->section.text;

    if (r->chunk) {
        ag_arena_trim(r->arena, r->chunk, text->cap, text->len);
    }
}

static enum ag_status more(struct ag_hpack_section *s, size_t bytes)
{
    struct reader *r = ag_container_of(s, struct reader, section);
    size_t left = (size_t)(r->arena->end - r->arena->at), size = bytes;
    uint8_t *chunk;

    if (bytes < TEXT_BYTES) { /* what the page still has, rather than another page */
        size = left < bytes ? TEXT_BYTES : ag_min_size(TEXT_BYTES, left);
    }
    chunk = ag_arena_alloc(r->arena, size);
    if (!chunk) {
        r->no_memory = true;
        return AG_ELIMIT;
    }
    end_text(r);
    r->chunk = chunk;
    s->text = ag_buf(chunk, size);
    return AG_OK;
}

/* ---- fields ---- */

static enum pseudo pseudo_of(struct ag_span name)
{
    static const struct {
        struct ag_span name;
        enum pseudo pseudo;
    } all[] = {
        {AG_SPAN_INIT(":method"), METHOD},       {AG_SPAN_INIT(":scheme"), SCHEME},
        {AG_SPAN_INIT(":authority"), AUTHORITY}, {AG_SPAN_INIT(":path"), PATH},
        {AG_SPAN_INIT(":protocol"), PROTOCOL},   {AG_SPAN_INIT(":status"), STATUS},
    };

    for (size_t i = 0; i < AG_COUNT(all); i++) {
        if (ag_span_eq(name, all[i].name)) {
            return all[i].pseudo;
        }
    }
    return PSEUDOS;
}

/* Those of the static table. */
static const uint8_t known_kinds[] = {
    [AG_HPACK_AUTHORITY] = PSEUDO_KIND + AUTHORITY,
    [AG_HPACK_METHOD... AG_HPACK_METHOD + 1] = PSEUDO_KIND + METHOD,
    [AG_HPACK_PATH... AG_HPACK_PATH + 1] = PSEUDO_KIND + PATH,
    [AG_HPACK_SCHEME... AG_HPACK_SCHEME + 1] = PSEUDO_KIND + SCHEME,
    [AG_HPACK_STATUS... AG_HPACK_STATUS + 6] = PSEUDO_KIND + STATUS,
};

/* RFC 9113 section 8.3. */
static enum ag_status take_pseudo(struct reader *r, enum pseudo p, struct ag_span value)
{
    if (ag_unlikely(!(r->allowed & PSEUDO_BIT(p)))) {
        return malformed(r, "unknown pseudo-field");
    }
    if (ag_unlikely(r->late)) {
        return malformed(r, "pseudo-field behind a field");
    }
    if (ag_unlikely(r->seen & PSEUDO_BIT(p))) {
        return malformed(r, "pseudo-field twice");
    }
    r->seen |= (uint8_t)PSEUDO_BIT(p);
    r->pseudo[p] = value;
    return AG_OK;
}

/* RFC 9113 section 8.2.1: a token without capitals. */
static bool is_name(const struct ag_field *f)
{
    size_t at = 0;

    while (at < f->name_len && ag_char_is(f->name[at], AG_CHAR_LOWER)) {
        at++;
    }
    return at == f->name_len && at > 0;
}

static bool is_space(uint8_t ch)
{
    return ch == ' ' || ch == '\t';
}

/* RFC 9113 section 8.2.1, and no other control than HTTP/1 lets pass. */
static bool is_value(struct ag_span v)
{
    if (v.len == 0) {
        return true;
    }
    return !is_space(v.ptr[0]) && !is_space(v.ptr[v.len - 1]) &&
           (ag_likely(!ag_scan_may_have_ctl(v.ptr, v.len)) || ag_is_field_value(v));
}

static enum ag_status take_special(struct reader *r, const struct ag_field *f)
{
    struct ag_span value = ag_field_value(f);
    bool again = (r->ids & BIT(f->id)) != 0;

    r->ids |= BIT(f->id);
    if (BIT(f->id) & FORBIDDEN) {
        return malformed(r, "field of a connection");
    }
    if (f->id == AG_FIELD_TE) {
        return ag_span_ieq(value, AG_SPAN("trailers")) ? AG_OK
                                                       : malformed(r, "TE other than trailers");
    }
    if (f->id == AG_FIELD_HOST) {
        r->host_at = r->out->count;
        return again ? malformed(r, "more than one Host") : AG_OK;
    }
    if (f->id == AG_FIELD_CONTENT_LENGTH) {
        return !again && ag_head_read_length(value, &r->content_length)
                   ? AG_OK
                   : malformed(r, "invalid Content-Length");
    }
    if (f->id == AG_FIELD_COOKIE) {
        r->cookies++;
    } else if (!ag_span_ieq(value, AG_SPAN("100-continue"))) {
        r->expect_other = true;
    }
    return AG_OK;
}

/* The kind of one that has a name of the static table. */
static inline uint8_t kind_named(uint8_t index)
{
    return index < sizeof(known_kinds) ? known_kinds[index] : FIELD_KIND;
}

/* Its kind; 0: it is malformed. */
static uint8_t check(struct reader *r, const struct ag_field *f)
{
    enum pseudo p;
    uint8_t named = r->section.named;

    if (ag_unlikely(!is_value(ag_field_value(f)))) {
        (void)malformed(r, "invalid field value");
        return 0;
    }
    if (named) {
        return kind_named(named);
    }
    if (f->name_len > 0 && f->name[0] == ':') {
        p = pseudo_of(ag_field_key(f));
        if (p == PSEUDOS) {
            (void)malformed(r, "unknown pseudo-field");
            return 0;
        }
        return (uint8_t)(PSEUDO_KIND + p);
    }
    if (ag_unlikely(!is_name(f))) {
        (void)malformed(r, "invalid field name");
        return 0;
    }
    return FIELD_KIND;
}

/* The same, looked up where it is known. */
static inline uint8_t kind_of(struct reader *r, const struct ag_field *f)
{
    const struct ag_hpack_section *s = &r->section;

    if (s->known) {
        return kind_named(s->known);
    }
    if (s->entry) {
        if (s->entry->mark == 0) {
            s->entry->mark = check(r, f);
        }
        return s->entry->mark;
    }
    return check(r, f);
}

/* A field that was decoded, whole. */
static enum ag_status take(struct reader *r, const struct ag_field *f)
{
    uint8_t kind = kind_of(r, f);
    enum ag_status st;

    if (ag_unlikely(kind == 0)) {
        return AG_EPROTO;
    }
    if (kind < FIELD_KIND) {
        return take_pseudo(r, (enum pseudo)(kind - PSEUDO_KIND), ag_field_value(f));
    }
    r->late = true;
    if (ag_unlikely(r->out->count >= r->limits->field_max)) {
        return refuse(r, AG_ELIMIT, 431, "too many fields");
    }
    if (ag_unlikely(BIT(f->id) & SPECIAL)) {
        st = take_special(r, f);
        if (st != AG_OK) {
            return st;
        }
    }
    if (r->trailers && !ag_head_may_trail(ag_field_key(f))) {
        return AG_OK;
    }
    return ag_likely(ag_head_add_field(r->out, r->arena, f) == AG_OK)
               ? AG_OK
               : refuse(r, AG_ENOMEM, 503, "out of memory");
}

static void begin(struct reader *r, struct ag_span block, const struct ag_h1_limits *limits,
                  struct ag_fields *out, struct ag_arena *arena)
{
    /* What is not set here is written before it is read. */
    r->section =
        (struct ag_hpack_section){.in = block, .more = more, .left_bytes = limits->head_max};
    r->limits = limits;
    r->out = out;
    r->arena = arena;
    r->chunk = NULL;
    r->status = AG_OK;
    r->error = (struct ag_h2_field_error){0};
    r->trailers = r->no_memory = r->late = r->expect_other = false;
    r->allowed = r->seen = 0;
    r->ids = 0;
    r->content_length = AG_LENGTH_UNKNOWN;
    r->cookies = 0;
}

/* Reads it to its end, whatever is wrong with it, but for what ends the connection. */
static enum ag_status read_section(struct reader *r, struct ag_hpack_decoder *d)
{
    uint32_t flood = 0;
    struct ag_field f;

    for (;;) {
        enum ag_status st = ag_hpack_next(d, &r->section, &f);

        if (st == AG_OK) {
            (void)take(r, &f);
        } else if (st == AG_ELIMIT) {
            (void)(r->no_memory ? refuse(r, AG_ENOMEM, 503, "out of memory")
                                : refuse(r, AG_ELIMIT, 431, "fields too large"));
            if (++flood > FLOOD_FIELDS) {
                return broken(r, AG_ELIMIT, "flood of fields");
            }
        } else if (st == AG_AGAIN) {
            end_text(r);
            return r->status;
        } else {
            return broken(r, st, st == AG_ENOMEM ? "out of memory" : "invalid HPACK");
        }
    }
}

static enum ag_status finish(const struct reader *r, enum ag_status st,
                             struct ag_h2_field_error *out_error)
{
    if (st != AG_OK) {
        *out_error = r->error;
    }
    return st;
}

/* ---- requests ---- */

/* RFC 9113 section 8.2.3: crumbs make one field, for everybody behind us. */
static enum ag_status join_cookies(struct reader *r)
{
    struct ag_fields *fields = r->out;
    struct ag_field *first = NULL;
    uint16_t kept = 0;
    struct ag_buf text;
    size_t bytes = 0;

    for (uint16_t i = 0; i < fields->count; i++) {
        bytes += fields->v[i].id == AG_FIELD_COOKIE ? fields->v[i].value_len + 2u : 0;
    }
    text = ag_buf(ag_arena_alloc(r->arena, bytes), bytes);
    if (!text.ptr) {
        return refuse(r, AG_ENOMEM, 503, "out of memory");
    }
    for (uint16_t i = 0; i < fields->count; i++) {
        const struct ag_field *f = &fields->v[i];

        if (f->id == AG_FIELD_COOKIE && f->value_len) { /* no space without a crumb behind it */
            ag_buf_put(&text, text.len ? AG_SPAN("; ") : AG_SPAN(""));
            ag_buf_put(&text, ag_field_value(f));
        }
        if (f->id != AG_FIELD_COOKIE || !first) {
            first = f->id == AG_FIELD_COOKIE ? &fields->v[kept] : first;
            fields->v[kept++] = *f;
        }
    }
    AG_ASSERT(first);
    first->value = text.ptr;
    first->value_len = (uint32_t)text.len;
    fields->count = kept;
    return AG_OK;
}

/* As peers write them, without a call. */
static inline bool is_scheme(struct ag_span s, struct ag_span scheme)
{
    return ag_likely(ag_span_eq(s, scheme)) || ag_span_ieq(s, scheme);
}

static uint16_t port_of(const struct ag_request *r, struct ag_span scheme)
{
    return r->port                               ? r->port
           : is_scheme(scheme, AG_SPAN("https")) ? 443
           : is_scheme(scheme, AG_SPAN("http"))  ? 80
                                                 : 0;
}

/* Whether Host says what ":authority" does, which is read already. */
static enum ag_status compare_host(struct reader *r, const struct ag_request *out,
                                   struct ag_span host)
{
    struct ag_request by_host = {0};

    if (ag_head_set_authority(&by_host, host) != AG_OK) {
        return malformed(r, "invalid Host");
    }
    return ag_span_ieq(by_host.host, out->host) &&
                   port_of(&by_host, r->pseudo[SCHEME]) == port_of(out, r->pseudo[SCHEME])
               ? AG_OK
               : malformed(r, "Host differs from :authority");
}

/* The one that routes is ":authority"; Host is there afterwards in any case, and says the same (RFC 9113
 * section 8.3.1). */
static enum ag_status set_authority(struct reader *r, struct ag_request *out)
{
    bool host = (r->ids & BIT(AG_FIELD_HOST)) != 0, told = (r->seen & PSEUDO_BIT(AUTHORITY)) != 0;
    struct ag_field *f = host ? &out->fields.v[r->host_at] : NULL;

    if (!host && !told) {
        return malformed(r, "neither :authority nor Host");
    }
    if (!told && ag_head_set_authority(out, ag_field_value(f)) != AG_OK) {
        return malformed(r, "invalid Host");
    }
    if (told && ag_head_set_authority(out, r->pseudo[AUTHORITY]) != AG_OK) {
        return malformed(r, "invalid :authority");
    }
    if (host && told) {
        enum ag_status st = compare_host(r, out, ag_field_value(f));

        if (st != AG_OK) {
            return st;
        }
        f->value = out->authority.ptr;
        f->value_len = (uint32_t)out->authority.len;
    }
    if (!host && ag_fields_add(&out->fields, r->arena, AG_FIELD_HOST, AG_SPAN("host"),
                               out->authority) != AG_OK) {
        return refuse(r, AG_ENOMEM, 503, "out of memory");
    }
    return AG_OK;
}

static enum ag_status set_target(struct reader *r, struct ag_request *out)
{
    struct ag_head_error e = {0};
    struct ag_span path = r->pseudo[PATH], scheme = r->pseudo[SCHEME];
    enum ag_status st;

    if (path.len == 0 || (path.ptr[0] != '/' &&
                          !(ag_span_eq(path, AG_SPAN("*")) && out->method == AG_METHOD_OPTIONS))) {
        return malformed(r, "invalid :path");
    }
    out->target = path;
    if (out->method_name.len + path.len + REQUEST_LINE_EXTRA > r->limits->line_max) {
        return refuse(r, AG_ELIMIT, 414, "target too long");
    }
    out->https_target = is_scheme(scheme, AG_SPAN("https"));
    if (!out->https_target && !is_scheme(scheme, AG_SPAN("http"))) {
        return refuse(r, AG_EPROTO, 400, "unknown scheme");
    }
    if (path.ptr[0] == '*') {
        out->path = path;
        return AG_OK;
    }
    st = ag_head_set_path(out, path, r->arena, &e);
    return ag_likely(st == AG_OK) ? AG_OK
           : st == AG_ENOMEM      ? refuse(r, AG_ENOMEM, 503, "out of memory")
                                  : refuse(r, AG_EPROTO, e.status, e.why);
}

/* RFC 9113 section 8.3.1; 8.5 and RFC 8441 section 4 for CONNECT. */
static enum ag_status check_pseudo(struct reader *r, struct ag_request *out)
{
    const unsigned whole = PSEUDO_BIT(METHOD) | PSEUDO_BIT(SCHEME) | PSEUDO_BIT(PATH);
    const unsigned connect = PSEUDO_BIT(METHOD) | PSEUDO_BIT(AUTHORITY);
    bool extended = (r->seen & PSEUDO_BIT(PROTOCOL)) != 0;

    if (out->method == AG_METHOD_OTHER && !ag_is_token(out->method_name)) {
        return malformed(r, "no :method, or an invalid one");
    }
    if (extended) {
        if (out->method != AG_METHOD_CONNECT || !(r->seen & PSEUDO_BIT(AUTHORITY)) ||
            !ag_is_token(r->pseudo[PROTOCOL])) {
            return malformed(r, "invalid :protocol, or with another method than CONNECT");
        }
        out->protocol = r->pseudo[PROTOCOL];
    }
    if (out->method == AG_METHOD_CONNECT && !extended) {
        return r->seen == connect ? AG_OK : malformed(r, "invalid CONNECT");
    }
    return (r->seen & whole) == whole ? AG_OK : malformed(r, "no :scheme or no :path");
}

static enum ag_status finish_request(struct reader *r, struct ag_request *out)
{
    enum ag_status st = check_pseudo(r, out);
    bool connect = out->method == AG_METHOD_CONNECT;

    if (st == AG_OK) {
        st = set_authority(r, out);
    }
    if (st == AG_OK && connect && r->content_length != AG_LENGTH_UNKNOWN && r->content_length) {
        st = malformed(r, "CONNECT with content");
    }
    if (st == AG_OK && connect && out->protocol.len == 0) {
        /* RFC 9110 section 9.3.6: there is no default port. */
        out->target = out->authority;
        st = out->port ? AG_OK : malformed(r, "CONNECT without a port");
    } else if (st == AG_OK) {
        st = set_target(r, out);
    }
    if (st == AG_OK && r->cookies > 1) {
        st = join_cookies(r);
    }
    if (st == AG_OK && r->expect_other) {
        st = refuse(r, AG_EPROTO, 417, "unknown expectation");
    }
    out->expect_continue = (r->ids & BIT(AG_FIELD_EXPECT)) != 0 && !r->expect_other;
    out->received_count = out->fields.count;
    return st;
}

enum ag_status ag_h2_read_request(struct ag_hpack_decoder *d, struct ag_span block,
                                  const struct ag_h1_limits *limits, struct ag_request *out,
                                  struct ag_arena *arena, struct ag_h2_field_error *out_error)
{
    struct reader r;
    enum ag_status st;

    begin(&r, block, limits, &out->fields, arena);
    r.allowed = REQUEST_PSEUDOS;
    r.pseudo[SCHEME] = r.pseudo[METHOD] = AG_SPAN("");
    out->version = AG_HTTP_2;
    out->framing = AG_FRAMING_H2;
    out->keep_alive = true;
    st = read_section(&r, d);
    out->method_name = r.pseudo[METHOD]; /* HEAD: no content for errors too */
    out->method = (uint8_t)ag_method_from_name(out->method_name);
    out->content_length = r.content_length; /* of what is refused comes content, too */
    return finish(&r, st == AG_OK ? finish_request(&r, out) : st, out_error);
}

/* ---- answers and trailers ---- */

static enum ag_status finish_response(struct reader *r, enum ag_method request_method,
                                      struct ag_response *out)
{
    struct ag_span s = r->pseudo[STATUS];

    if (!(r->seen & PSEUDO_BIT(STATUS)) || s.len != 3 || s.ptr[0] == '0' ||
        !ag_is_digit(s.ptr[0]) || !ag_is_digit(s.ptr[1]) || !ag_is_digit(s.ptr[2])) {
        return malformed(r, "no :status, or an invalid one");
    }
    out->status =
        (unsigned)(s.ptr[0] - '0') * 100u + (unsigned)(s.ptr[1] - '0') * 10u + (s.ptr[2] - '0');
    if (out->status == 101) {
        return malformed(r, "101 in HTTP/2");
    }
    out->content_length = r->content_length;
    if (request_method == AG_METHOD_CONNECT && out->status >= 200 && out->status < 300) {
        out->framing = AG_FRAMING_TUNNEL;
        out->content_length = AG_LENGTH_UNKNOWN; /* RFC 9110 section 9.3.6 */
    } else {
        out->framing =
            ag_head_has_no_content(request_method, out->status) ? AG_FRAMING_NONE : AG_FRAMING_H2;
    }
    return AG_OK;
}

/* NOLINTNEXTLINE(readability-function-size): a request's, and what the answer is to */
enum ag_status ag_h2_read_response(struct ag_hpack_decoder *d, struct ag_span block,
                                   const struct ag_h1_limits *limits, enum ag_method request_method,
                                   struct ag_response *out, struct ag_arena *arena,
                                   struct ag_h2_field_error *out_error)
{
    struct reader r;
    enum ag_status st;

    begin(&r, block, limits, &out->fields, arena);
    r.allowed = PSEUDO_BIT(STATUS);
    out->version = AG_HTTP_2;
    out->keep_alive = true;
    st = read_section(&r, d);
    return finish(&r, st == AG_OK ? finish_response(&r, request_method, out) : st, out_error);
}

enum ag_status ag_h2_read_trailers(struct ag_hpack_decoder *d, struct ag_span block,
                                   const struct ag_h1_limits *limits, struct ag_fields *out,
                                   struct ag_arena *arena, struct ag_h2_field_error *out_error)
{
    struct reader r;

    begin(&r, block, limits, out, arena);
    r.trailers = true;
    return finish(&r, read_section(&r, d), out_error);
}

/* ---- refused streams ---- */

static enum ag_status no_more(struct ag_hpack_section *s, size_t bytes)
{
    (void)s, (void)bytes;
    AG_UNREACHABLE("nothing is kept");
}

enum ag_status ag_h2_skip_section(struct ag_hpack_decoder *d, struct ag_span block,
                                  const struct ag_h1_limits *limits)
{
    struct ag_hpack_section s = {.in = block, .more = no_more};
    uint32_t count = 0;
    enum ag_status st;
    struct ag_field f;

    do {
        st = ag_hpack_next(d, &s, &f);
    } while (st == AG_ELIMIT && ++count <= limits->field_max + FLOOD_FIELDS);
    return st == AG_AGAIN ? AG_OK : st;
}
