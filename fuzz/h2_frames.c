#include "fuzz/h2_frames.h"

void h2_frames_begin(struct h2_frames *s, const struct h2_frames_rules *rules)
{
    memset(s, 0, sizeof(*s));
    s->rules = rules;
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

static void end_section(struct h2_frames *s)
{
    struct ag_hpack_section section = {
        .in = ag_span(s->section, s->section_len), .more = more, .left_bytes = 1u << 20};
    uint32_t id = s->section_id;
    unsigned place = 0;
    struct ag_field f;
    enum ag_status st;

    while ((st = ag_hpack_next(&s->decoder, &section, &f)) == AG_OK) {
        AG_ASSERT(f.name_len > 0);
        s->rules->field(s, &f, place++);
    }
    AG_ASSERT(st == AG_AGAIN);
    s->section_id = 0;
    s->section_len = 0;
    s->rules->section(s, id, s->section_end);
}

static void read_section(struct h2_frames *s, const struct ag_h2_frame *f, struct ag_span p)
{
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

static void read_stream_frame(struct h2_frames *s, const struct ag_h2_frame *f, struct ag_span p)
{
    AG_ASSERT(f->id % 2 == 1);
    if (f->type == AG_H2_RST_STREAM) {
        AG_ASSERT(p.len == 4);
    } else if (f->type == AG_H2_WINDOW_UPDATE) {
        AG_ASSERT(p.len == 4 && ag_h2_u32(p.ptr) > 0 && ag_h2_u32(p.ptr) <= AG_H2_WINDOW_MAX);
    }
    s->rules->frame(s, f, p);
    if (f->type == AG_H2_HEADERS || f->type == AG_H2_CONTINUATION) {
        read_section(s, f, p);
    }
}

static void read_frame(struct h2_frames *s, const struct ag_h2_frame *f, struct ag_span p)
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
        AG_UNREACHABLE("a frame that nobody sends");
    }
}

void h2_frames_read(struct h2_frames *s, struct ag_span all)
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

void h2_frames_end(struct h2_frames *s)
{
    ag_arena_release(&s->memory);
}
