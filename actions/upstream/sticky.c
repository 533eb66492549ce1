#include "actions/upstream/sticky.h"

#include "proto/cookie.h"

#define SIGNED    24u /* upstream, identity, expiry */
#define RAW       32u /* identity, expiry, MAC */
#define ENCODED   43u
#define TRIED_MAX 4u /* cookies of that name that are looked at */

_Static_assert(AG_STICKY_NAME_MAX + 1 + ENCODED + AG_STICKY_PATH_MAX +
                       sizeof("; Path=; Max-Age=4294967295; HttpOnly; Secure; SameSite=Strict") <=
                   AG_STICKY_FIELD_MAX,
               "a field is bounded");

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void store_be(uint64_t x, uint8_t out[static 8])
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = (uint8_t)(x >> (56 - 8 * i));
    }
}

static uint64_t load_be(const uint8_t from[static 8])
{
    uint64_t x = 0;

    for (unsigned i = 0; i < 8; i++) {
        x = x << 8 | from[i];
    }
    return x;
}

static void encode(const uint8_t raw[static RAW], struct ag_buf *out)
{
    uint32_t bits = 0, count = 0;

    for (unsigned i = 0; i < RAW; i++) {
        bits = bits << 8 | raw[i];
        for (count += 8; count >= 6; count -= 6) {
            ag_buf_putc(out, (uint8_t)alphabet[bits >> (count - 6) & 63]);
        }
    }
    ag_buf_putc(out, (uint8_t)alphabet[bits << (6 - count) & 63]);
}

/* One text for each value: bits behind the last byte are to be 0. */
static bool decode(struct ag_span text, uint8_t out[static RAW])
{
    uint32_t bits = 0, count = 0, at = 0;

    if (text.len != ENCODED) {
        return false;
    }
    for (unsigned i = 0; i < ENCODED; i++) {
        const char *found = memchr(alphabet, text.ptr[i], sizeof(alphabet) - 1);

        if (!found) {
            return false;
        }
        bits = bits << 6 | (uint32_t)(found - alphabet);
        count += 6;
        if (count >= 8) {
            count -= 8;
            out[at++] = (uint8_t)(bits >> count);
        }
    }
    return (bits & ((1u << count) - 1)) == 0;
}

static void sign(const struct ag_sticky_options *o, uint64_t upstream,
                 const uint8_t named[static 16], uint8_t out[static AG_SIPHASH_MAC])
{
    uint8_t text[SIGNED];

    store_be(upstream, text);
    memcpy(text + 8, named, 16);
    ag_siphash(o->key, ag_span(text, sizeof(text)), out);
}

static enum ag_sticky_state check(const struct ag_sticky_options *o, struct ag_span value,
                                  uint64_t upstream, uint64_t now_s, uint64_t *out_identity)
{
    uint8_t raw[RAW], mac[AG_SIPHASH_MAC];
    uint64_t expiry;

    if (!decode(value, raw)) {
        return AG_STICKY_NONE;
    }
    sign(o, upstream, raw, mac);
    if (!ag_mac_same(mac, raw + 16)) {
        return AG_STICKY_NONE;
    }
    expiry = load_be(raw + 8);
    if (expiry > 0 && expiry <= now_s) {
        return AG_STICKY_NONE;
    }
    *out_identity = load_be(raw);
    /* What was set before max_age changed is set again too. */
    return (expiry > 0) != (o->max_age_s > 0) || (expiry > 0 && expiry - now_s < o->max_age_s / 2)
               ? AG_STICKY_AGEING
               : AG_STICKY_KNOWN;
}

enum ag_sticky_state ag_sticky_read(const struct ag_sticky_options *o,
                                    const struct ag_fields *request, uint64_t upstream,
                                    uint64_t now_s, uint64_t *out_identity)
{
    struct ag_cookie_walk walk = {0};
    struct ag_span value;

    for (unsigned tried = 0; tried < TRIED_MAX && ag_cookie_next(request, o->name, &walk, &value);
         tried++) {
        enum ag_sticky_state state = check(o, value, upstream, now_s, out_identity);

        if (state != AG_STICKY_NONE) {
            return state;
        }
    }
    return AG_STICKY_NONE;
}

void ag_sticky_write(const struct ag_sticky_options *o, uint64_t upstream, uint64_t identity,
                     uint64_t now_s, bool tls, struct ag_buf *out)
{
    static const struct ag_span same_site[] = {AG_SPAN_INIT("; SameSite=Lax"),
                                               AG_SPAN_INIT("; SameSite=Strict"),
                                               AG_SPAN_INIT("; SameSite=None")};
    bool secure = o->secure == AG_STICKY_SECURE_ON || (o->secure == AG_STICKY_SECURE_AUTO && tls);
    uint8_t raw[RAW];

    store_be(identity, raw);
    store_be(o->max_age_s ? now_s + o->max_age_s : 0, raw + 8);
    sign(o, upstream, raw, raw + 16);
    ag_buf_put(out, o->name);
    ag_buf_putc(out, '=');
    encode(raw, out);
    ag_buf_put(out, AG_SPAN("; Path="));
    ag_buf_put(out, o->path);
    if (o->max_age_s) {
        ag_buf_put(out, AG_SPAN("; Max-Age="));
        ag_buf_put_u64(out, o->max_age_s);
    }
    ag_buf_put(out, o->http_only ? AG_SPAN("; HttpOnly") : AG_SPAN(""));
    ag_buf_put(out, secure ? AG_SPAN("; Secure") : AG_SPAN(""));
    ag_buf_put(out, same_site[o->same_site]);
}
