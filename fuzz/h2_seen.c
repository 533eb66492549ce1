#include "fuzz/h2_seen.h"

void h2_seen_begin(struct h2_seen *s)
{
    memset(s, 0, sizeof(*s));
    ag_arena_init(&s->memory, NULL, 0);
    ag_hpack_decoder_init(&s->decoder, &s->memory);
}

static enum ag_status more(struct ag_hpack_section *s, size_t bytes)
{
    static uint8_t room[1u << 17];

    AG_ASSERT(bytes <= sizeof(room));
    s->text = ag_buf(room, sizeof(room));
    return AG_OK;
}

/* The status; 0: trailers. */
static unsigned read_section(struct h2_seen *s)
{
    struct ag_hpack_section section = {
        .in = ag_span(s->section, s->section_len), .more = more, .left_bytes = 1u << 20};
    struct ag_field f;
    unsigned status = 0, count = 0;
    enum ag_status st;

    while ((st = ag_hpack_next(&s->decoder, &section, &f)) == AG_OK) {
        if (count++ == 0 && ag_span_eq(ag_field_key(&f), AG_SPAN(":status"))) {
            uint64_t value;

            AG_ASSERT(ag_span_u64(ag_field_value(&f), &value) == AG_OK && value >= 100 &&
                      value < 600 && value != 101);
            status = (unsigned)value;
        } else {
            AG_ASSERT(f.name_len > 0 && f.name[0] != ':');
        }
    }
    AG_ASSERT(st == AG_AGAIN);
    return status;
}

static void end_section(struct h2_seen *s)
{
    unsigned status = read_section(s);
    uint32_t id = s->section_id;

    s->section_id = 0;
    s->section_len = 0;
    if (status / 100 == 1) {
        AG_ASSERT(s->streams[id].heads == 0 && !s->section_end);
        return;
    }
    AG_ASSERT(s->streams[id].heads == (status ? 0 : 1));
    AG_ASSERT(status || s->section_end);
    s->streams[id].heads++;
    s->streams[id].ended = s->section_end;
}

static void read_stream_frame(struct h2_seen *s, const struct ag_h2_frame *f, struct ag_span p)
{
    AG_ASSERT(f->id % 2 == 1 && f->id < H2_SEEN_IDS);
    if (f->type == AG_H2_RST_STREAM) {
        AG_ASSERT(p.len == 4 && !s->streams[f->id].reset);
        s->streams[f->id].reset = true;
        return;
    }
    AG_ASSERT(!s->streams[f->id].reset);
    if (f->type == AG_H2_WINDOW_UPDATE) {
        AG_ASSERT(p.len == 4 && ag_h2_u32(p.ptr) > 0 && ag_h2_u32(p.ptr) <= AG_H2_WINDOW_MAX);
        return;
    }
    AG_ASSERT(!s->streams[f->id].ended);
    if (f->type == AG_H2_DATA) {
        AG_ASSERT(s->streams[f->id].heads == 1);
        s->streams[f->id].ended = f->flags & AG_H2_END_STREAM;
        return;
    }
    if (f->type == AG_H2_HEADERS) {
        s->section_id = f->id;
        s->section_end = f->flags & AG_H2_END_STREAM;
    }
    AG_ASSERT(p.len <= sizeof(s->section) - s->section_len);
    memcpy(s->section + s->section_len, p.ptr, p.len);
    s->section_len += p.len;
    if (f->flags & AG_H2_END_HEADERS) {
        end_section(s);
    }
}

static void read_frame(struct h2_seen *s, const struct ag_h2_frame *f, struct ag_span p)
{
    AG_ASSERT(!s->failed);
    AG_ASSERT(s->frames++ > 0 || (f->type == AG_H2_SETTINGS && f->flags == 0));
    AG_ASSERT((s->section_id != 0) == (f->type == AG_H2_CONTINUATION));
    AG_ASSERT(s->section_id == 0 || s->section_id == f->id);
    switch (f->type) {
    case AG_H2_SETTINGS:
        AG_ASSERT(f->id == 0 && p.len % AG_H2_SETTING_BYTES == 0);
        break;
    case AG_H2_PING:
        AG_ASSERT(f->id == 0 && p.len == 8);
        break;
    case AG_H2_GOAWAY:
        AG_ASSERT(f->id == 0 && p.len >= 8);
        s->failed = ag_h2_u32(p.ptr + 4) != AG_H2_NO_ERROR;
        break;
    case AG_H2_WINDOW_UPDATE:
        if (f->id == 0) {
            AG_ASSERT(p.len == 4 && ag_h2_u32(p.ptr) > 0);
            break;
        }
        read_stream_frame(s, f, p);
        break;
    case AG_H2_DATA:
    case AG_H2_HEADERS:
    case AG_H2_CONTINUATION:
    case AG_H2_RST_STREAM:
        read_stream_frame(s, f, p);
        break;
    default:
        AG_UNREACHABLE("a frame that servers do not send");
    }
}

void h2_seen_read(struct h2_seen *s, struct ag_span all)
{
    while (all.len - s->at >= AG_H2_HEADER_BYTES) {
        struct ag_h2_frame f = ag_h2_read_header(all.ptr + s->at);

        AG_ASSERT(f.len <= AG_H2_FRAME_MAX);
        if (all.len - s->at - AG_H2_HEADER_BYTES < f.len) {
            return;
        }
        read_frame(s, &f, ag_span(all.ptr + s->at + AG_H2_HEADER_BYTES, f.len));
        s->at += AG_H2_HEADER_BYTES + f.len;
    }
}

void h2_seen_end(struct h2_seen *s, bool aborted)
{
    AG_ASSERT(aborted || s->section_id == 0);
    ag_arena_release(&s->memory);
}
