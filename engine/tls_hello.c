#include "engine/tls_hello.h"

/* Numbers of the IANA registries. */
#define RECORD_HANDSHAKE     22u
#define MESSAGE_CLIENT_HELLO 1u
#define RECORD_MAX           16384u
#define EXT_SERVER_NAME      0u
#define EXT_GROUPS           10u
#define EXT_SIGNATURES       13u
#define EXT_ALPN             16u
#define EXT_VERSIONS         43u
#define VERSION_12           0x0303u
#define VERSION_13           0x0304u

enum state { STATE_MESSAGE = 0, STATE_FIELDS, STATE_DONE, STATE_FAILED };

/* What the bytes at hand are; named by what has just been read when its number is whole. */
enum field {
    FIELD_VERSION = 0,
    FIELD_SESSION_LEN,
    FIELD_SUITES_LEN,
    FIELD_SUITE,
    FIELD_COMPRESSIONS_LEN,
    FIELD_COMPRESSION,
    FIELD_EXTENSIONS_LEN,
    FIELD_EXTENSION_TYPE,
    FIELD_EXTENSION_LEN,
    FIELD_EXTENSION_SKIPPED,
    FIELD_NAMES_LEN,
    FIELD_NAME_TYPE,
    FIELD_NAME_LEN,
    FIELD_NAME, /* text */
    FIELD_PROTOCOLS_LEN,
    FIELD_PROTOCOL_LEN,
    FIELD_PROTOCOL, /* text */
    FIELD_GROUPS_LEN,
    FIELD_GROUP,
    FIELD_SIGNATURES_LEN,
    FIELD_SIGNATURE,
    FIELD_VERSIONS_LEN,
    FIELD_VERSION_OFFERED,
    FIELD_END,
};

void ag_tls_hello_init(struct ag_tls_hello *h)
{
    *h = (struct ag_tls_hello){0};
}

static enum ag_status refuse(struct ag_tls_hello *h, enum ag_tls_alert alert, const char *why)
{
    h->state = STATE_FAILED;
    h->alert = (uint8_t)alert;
    h->why = why;
    return AG_EPROTO;
}

static enum ag_status malformed(struct ag_tls_hello *h)
{
    return refuse(h, AG_TLS_ALERT_DECODE_ERROR, "malformed ClientHello");
}

/* ---- going from field to field ---- */

static enum ag_status expect(struct ag_tls_hello *h, enum field field, uint8_t bytes)
{
    h->field = (uint8_t)field;
    h->want = bytes;
    h->got = 0;
    h->number = 0;
    return AG_OK;
}

/* Takes `n` bytes off a vector that they lie in. */
static bool take(uint32_t *left, uint32_t n)
{
    if (n > *left) {
        return false;
    }
    *left -= n;
    return true;
}

/* The message's next vector has `n` bytes. */
static bool enter(struct ag_tls_hello *h, uint32_t n)
{
    h->block_left = n;
    return n <= h->message_left;
}

static enum ag_status next_extension(struct ag_tls_hello *h)
{
    if (h->block_left > 0) {
        return take(&h->block_left, 4) ? expect(h, FIELD_EXTENSION_TYPE, 2) : malformed(h);
    }
    return h->message_left == 0 ? expect(h, FIELD_END, 0) : malformed(h);
}

/* The list in an extension must be all of it. */
static bool enter_list(struct ag_tls_hello *h, uint32_t own_bytes)
{
    h->list_left = h->number;
    return take(&h->data_left, own_bytes) && h->data_left == h->list_left && h->list_left > 0;
}

/* ---- suites, versions, groups, signatures ---- */

/* ECDHE with an AEAD (RFC 5289, RFC 7905); GREASE (RFC 8701) is nothing. */
static void note_suite(struct ag_tls_hello *h, uint32_t suite)
{
    bool chacha = suite == 0x1303 || suite == 0xcca8 || suite == 0xcca9;

    h->suites_ecdsa |= suite == 0xc02b || suite == 0xc02c || suite == 0xcca9;
    h->suites_rsa |= suite == 0xc02f || suite == 0xc030 || suite == 0xcca8;
    if (!h->first_suite && (suite & 0x0f0f) != 0x0a0a) {
        h->first_suite = true;
        h->prefers_chacha = chacha;
    }
}

static void note_group(struct ag_tls_hello *h, uint32_t group)
{
    switch (group) {
    case 23: /* secp256r1 */
        h->on |= AG_TLS_ON_P256;
        return;
    case 24: /* secp384r1 */
        h->on |= AG_TLS_ON_P384;
        return;
    case 25: /* secp521r1 */
        h->on |= AG_TLS_ON_P521;
        return;
    case 29:
        h->on |= AG_TLS_ON_X25519;
        return;
    default:
        return;
    }
}

static void note_signature(struct ag_tls_hello *h, uint32_t scheme)
{
    switch (scheme) {
    case 0x0401: /* rsa_pkcs1_sha256, 384, 512 */
    case 0x0501:
    case 0x0601:
    case 0x0804: /* rsa_pss_rsae_sha256, 384, 512 */
    case 0x0805:
    case 0x0806:
        h->signs |= AG_TLS_SIGNS_RSA;
        return;
    case 0x0403:
        h->signs |= AG_TLS_SIGNS_P256;
        return;
    case 0x0503:
        h->signs |= AG_TLS_SIGNS_P384;
        return;
    case 0x0603:
        h->signs |= AG_TLS_SIGNS_P521;
        return;
    case 0x0807:
        h->signs |= AG_TLS_SIGNS_ED25519;
        return;
    default:
        return;
    }
}

/* ---- extensions ---- */

static uint8_t bit_of(uint32_t extension)
{
    switch (extension) {
    case EXT_SERVER_NAME:
        return 1u << 0;
    case EXT_ALPN:
        return 1u << 1;
    case EXT_SIGNATURES:
        return 1u << 2;
    case EXT_VERSIONS:
        return 1u << 3;
    case EXT_GROUPS:
        return 1u << 4;
    default:
        return 0;
    }
}

/* number: bytes of the extension's data. */
static enum ag_status begin_extension(struct ag_tls_hello *h)
{
    uint8_t bit = bit_of(h->extension);

    if (!take(&h->block_left, h->number)) {
        return malformed(h);
    }
    h->data_left = h->number;
    if (h->seen & bit) {
        return refuse(h, AG_TLS_ALERT_ILLEGAL_PARAMETER, "an extension twice in the ClientHello");
    }
    h->seen |= bit;
    switch (h->extension) {
    case EXT_SERVER_NAME:
        return expect(h, FIELD_NAMES_LEN, 2);
    case EXT_ALPN:
        h->alpn = true;
        return expect(h, FIELD_PROTOCOLS_LEN, 2);
    case EXT_GROUPS:
        h->groups = true;
        return expect(h, FIELD_GROUPS_LEN, 2);
    case EXT_SIGNATURES:
        h->signatures = true;
        return expect(h, FIELD_SIGNATURES_LEN, 2);
    case EXT_VERSIONS:
        /* It alone counts when it is there (RFC 8446 section 4.2.1). */
        h->tls_12 = false;
        return expect(h, FIELD_VERSIONS_LEN, 1);
    default:
        h->skip = h->data_left;
        return expect(h, FIELD_EXTENSION_SKIPPED, 0);
    }
}

/* Letters, digits, and what else stands in host names; an address is none (RFC 6066 section 3). */
static bool is_name_byte(uint8_t ch)
{
    return (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '.' ||
           ch == '_';
}

static enum ag_status end_name(struct ag_tls_hello *h)
{
    if (h->name_len > 0 && h->name[h->name_len - 1] == '.') {
        h->name_len--;
    }
    if (h->name_len == 0) {
        return malformed(h);
    }
    for (uint8_t i = 0; i < h->name_len; i++) {
        h->name[i] = ag_ascii_lower(h->name[i]);
        if (!is_name_byte(h->name[i])) {
            return refuse(h, AG_TLS_ALERT_ILLEGAL_PARAMETER, "a server name that is none");
        }
    }
    /* One name of a type; there is but one type. */
    return h->list_left == 0 ? next_extension(h) : malformed(h);
}

static enum ag_status end_protocol(struct ag_tls_hello *h)
{
    struct ag_span name = ag_span(h->text, ag_min_size(h->text_len, sizeof(h->text)));

    if (h->text_len <= sizeof(h->text)) {
        h->h2 |= ag_span_eq(name, AG_SPAN("h2"));
        h->http_11 |= ag_span_eq(name, AG_SPAN("http/1.1"));
        h->acme |= ag_span_eq(name, AG_SPAN("acme-tls/1"));
    }
    return h->list_left > 0 ? expect(h, FIELD_PROTOCOL_LEN, 1) : next_extension(h);
}

/* `text` bytes of a list's entry come next; none may be empty. */
static enum ag_status begin_text(struct ag_tls_hello *h, enum field field, uint32_t own_bytes)
{
    uint32_t n = h->number;

    if (n == 0 || !take(&h->list_left, own_bytes + n)) {
        return malformed(h);
    }
    h->skip = n;
    h->text_len = 0;
    return expect(h, field, 0);
}

/* ---- the message ---- */

static enum ag_status end_compressions(struct ag_tls_hello *h)
{
    if (!h->null_compression) {
        return refuse(h, AG_TLS_ALERT_ILLEGAL_PARAMETER, "no null compression");
    }
    return h->message_left == 0 ? expect(h, FIELD_END, 0) : expect(h, FIELD_EXTENSIONS_LEN, 2);
}

/* A number of the fixed part is whole. */
static enum ag_status step_head(struct ag_tls_hello *h)
{
    uint32_t n = h->number;

    switch (h->field) {
    case FIELD_VERSION:
        if (n < 0x0300) {
            return refuse(h, AG_TLS_ALERT_PROTOCOL_VERSION, "an old version of TLS");
        }
        h->tls_12 = n >= VERSION_12;
        h->skip = 32; /* random, before the length that is next */
        return expect(h, FIELD_SESSION_LEN, 1);
    case FIELD_SESSION_LEN:
        if (n > 32 || !enter(h, n)) {
            return malformed(h);
        }
        h->skip = n;
        return expect(h, FIELD_SUITES_LEN, 2);
    case FIELD_SUITES_LEN:
        return n >= 2 && n % 2 == 0 && enter(h, n) ? expect(h, FIELD_SUITE, 2) : malformed(h);
    case FIELD_SUITE:
        note_suite(h, n);
        h->block_left -= 2;
        return h->block_left > 0 ? expect(h, FIELD_SUITE, 2) : expect(h, FIELD_COMPRESSIONS_LEN, 1);
    case FIELD_COMPRESSIONS_LEN:
        return n > 0 && enter(h, n) ? expect(h, FIELD_COMPRESSION, 1) : malformed(h);
    case FIELD_COMPRESSION:
        h->null_compression |= n == 0;
        h->block_left--;
        return h->block_left > 0 ? expect(h, FIELD_COMPRESSION, 1) : end_compressions(h);
    case FIELD_EXTENSIONS_LEN:
        return enter(h, n) && n == h->message_left ? next_extension(h) : malformed(h);
    default:
        AG_UNREACHABLE("a field that is none");
    }
}

/* A list of numbers goes on, or ends. */
static enum ag_status next_number(struct ag_tls_hello *h, enum field field)
{
    h->list_left -= 2;
    return h->list_left > 0 ? expect(h, field, 2) : next_extension(h);
}

/* A number of the extensions is whole. */
static enum ag_status step_extension(struct ag_tls_hello *h)
{
    uint32_t n = h->number;

    switch (h->field) {
    case FIELD_EXTENSION_TYPE:
        h->extension = (uint16_t)n;
        return expect(h, FIELD_EXTENSION_LEN, 2);
    case FIELD_EXTENSION_LEN:
        return begin_extension(h);
    case FIELD_NAMES_LEN:
        return enter_list(h, 2) ? expect(h, FIELD_NAME_TYPE, 1) : malformed(h);
    case FIELD_NAME_TYPE:
        return n == 0 && take(&h->list_left, 1) ? expect(h, FIELD_NAME_LEN, 2) : malformed(h);
    case FIELD_NAME_LEN:
        return n <= sizeof(h->name) ? begin_text(h, FIELD_NAME, 2) : malformed(h);
    case FIELD_PROTOCOLS_LEN:
        return enter_list(h, 2) ? expect(h, FIELD_PROTOCOL_LEN, 1) : malformed(h);
    case FIELD_PROTOCOL_LEN:
        return begin_text(h, FIELD_PROTOCOL, 1);
    case FIELD_GROUPS_LEN:
        return enter_list(h, 2) && n % 2 == 0 ? expect(h, FIELD_GROUP, 2) : malformed(h);
    case FIELD_GROUP:
        note_group(h, n);
        return next_number(h, FIELD_GROUP);
    case FIELD_SIGNATURES_LEN:
        return enter_list(h, 2) && n % 2 == 0 ? expect(h, FIELD_SIGNATURE, 2) : malformed(h);
    case FIELD_SIGNATURE:
        note_signature(h, n);
        return next_number(h, FIELD_SIGNATURE);
    case FIELD_VERSIONS_LEN:
        return enter_list(h, 1) && n % 2 == 0 ? expect(h, FIELD_VERSION_OFFERED, 2) : malformed(h);
    case FIELD_VERSION_OFFERED:
        h->tls_12 |= n == VERSION_12;
        h->tls_13 |= n == VERSION_13;
        return next_number(h, FIELD_VERSION_OFFERED);
    default:
        return step_head(h);
    }
}

/* What was skipped, or read as text, is at its end. */
static enum ag_status end_skipped(struct ag_tls_hello *h)
{
    switch (h->field) {
    case FIELD_NAME:
        return end_name(h);
    case FIELD_PROTOCOL:
        return end_protocol(h);
    default:
        return next_extension(h);
    }
}

static void keep_text(struct ag_tls_hello *h, struct ag_span bytes)
{
    if (h->field == FIELD_NAME) {
        memcpy(h->name + h->name_len, bytes.ptr, bytes.len);
        h->name_len = (uint8_t)(h->name_len + bytes.len);
    } else if (h->field == FIELD_PROTOCOL) {
        size_t at = ag_min_size(h->text_len, sizeof(h->text));
        memcpy(h->text + at, bytes.ptr, ag_min_size(sizeof(h->text) - at, bytes.len));
        h->text_len = (uint8_t)(h->text_len + bytes.len);
    }
}

/* Takes the next piece of skipped bytes or of text off *io, or a byte of a number. */
static enum ag_status read_piece(struct ag_tls_hello *h, struct ag_span *io)
{
    size_t n = h->skip > 0 ? ag_min_size(ag_min_size(h->skip, h->message_left), io->len) : 1;
    struct ag_span piece = ag_span_sub(*io, 0, n);

    *io = ag_span_sub(*io, n, io->len);
    h->message_left -= (uint32_t)n;
    if (h->skip > 0) {
        keep_text(h, piece);
        h->skip -= (uint32_t)n;
        return AG_OK;
    }
    h->number = h->number << 8 | piece.ptr[0];
    h->got++;
    return h->got == h->want ? step_extension(h) : AG_OK;
}

/* Bytes of the message behind its head. Returns AG_OK also when more are needed. */
static enum ag_status read_fields(struct ag_tls_hello *h, struct ag_span *io)
{
    enum ag_status st = AG_OK;

    while (st == AG_OK && h->field != FIELD_END) {
        if (h->want == 0 && h->skip == 0) {
            st = end_skipped(h);
        } else if (h->message_left == 0) {
            st = malformed(h);
        } else if (io->len == 0) {
            return AG_OK;
        } else {
            st = read_piece(h, io);
        }
    }
    if (st == AG_OK) {
        h->state = STATE_DONE;
    }
    return st;
}

/* One byte of the message's head. */
static enum ag_status read_message_head(struct ag_tls_hello *h, uint8_t byte)
{
    if (h->head_got++ == 0) {
        return byte == MESSAGE_CLIENT_HELLO
                   ? AG_OK
                   : refuse(h, AG_TLS_ALERT_UNEXPECTED_MESSAGE, "not a ClientHello");
    }
    h->message_left = h->message_left << 8 | byte;
    if (h->head_got < 4) {
        return AG_OK;
    }
    if (h->message_left > AG_TLS_HELLO_MAX - 4) {
        (void)refuse(h, AG_TLS_ALERT_DECODE_ERROR, "a ClientHello that is too large");
        return AG_ELIMIT;
    }
    h->state = STATE_FIELDS;
    return expect(h, FIELD_VERSION, 2);
}

/* ---- records ---- */

static enum ag_status check_first(struct ag_tls_hello *h, uint8_t byte)
{
    if (byte == RECORD_HANDSHAKE) {
        return AG_OK;
    }
    h->plain_http = byte >= 'A' && byte <= 'Z';
    if (h->plain_http) {
        return refuse(h, AG_TLS_ALERT_NONE, "plain HTTP on a port that speaks TLS");
    }
    /* A hello of SSL 2 has a length first, with its top bit set. */
    return byte & 0x80 ? refuse(h, AG_TLS_ALERT_PROTOCOL_VERSION, "an old version of TLS")
                       : refuse(h, AG_TLS_ALERT_UNEXPECTED_MESSAGE, "not TLS");
}

/* One byte of a record's head. */
static enum ag_status read_record_head(struct ag_tls_hello *h, uint8_t byte)
{
    uint8_t at = h->record_got++;

    if (at == 0) {
        return check_first(h, byte);
    }
    if (at == 1 && byte != 3) {
        return refuse(h, AG_TLS_ALERT_PROTOCOL_VERSION, "not a version of TLS");
    }
    if (at < 3) {
        return AG_OK;
    }
    h->record_left = h->record_left << 8 | byte;
    if (at < 4) {
        return AG_OK;
    }
    h->record_got = 0;
    return h->record_left > 0 && h->record_left <= RECORD_MAX ? AG_OK : malformed(h);
}

/* The piece of the message that is in this record. */
static enum ag_status read_message(struct ag_tls_hello *h, struct ag_span *io)
{
    struct ag_span piece = ag_span_sub(*io, 0, ag_min_size(h->record_left, io->len));
    size_t before = piece.len;
    enum ag_status st = AG_OK;

    while (st == AG_OK && h->state == STATE_MESSAGE && piece.len > 0) {
        st = read_message_head(h, piece.ptr[0]);
        piece = ag_span_sub(piece, 1, piece.len);
    }
    if (st == AG_OK && h->state == STATE_FIELDS) {
        st = read_fields(h, &piece);
    }
    h->record_left -= (uint32_t)(before - piece.len);
    *io = ag_span_sub(*io, before - piece.len, io->len);
    return st;
}

enum ag_status ag_tls_hello_read(struct ag_tls_hello *h, struct ag_span bytes)
{
    enum ag_status st = AG_OK;

    AG_ASSERT(h->state < STATE_DONE);
    while (st == AG_OK && h->state < STATE_DONE && bytes.len > 0) {
        if (h->record_left > 0 && h->record_got == 0) {
            st = read_message(h, &bytes);
        } else {
            st = read_record_head(h, bytes.ptr[0]);
            bytes = ag_span_sub(bytes, 1, bytes.len);
        }
    }
    return st == AG_OK && h->state != STATE_DONE ? AG_AGAIN : st;
}
