#include "fuzz/h2_asked.h"

static struct h2_asked *of(struct h2_frames *s)
{
    return ag_container_of(s, struct h2_asked, frames);
}

static struct h2_asked_stream *stream_of(struct h2_asked *s, uint32_t id)
{
    AG_ASSERT(id % 2 == 1 && id / 2 < H2_ASKED_STREAMS);
    return &s->streams[id / 2];
}

/* Pseudo-fields first, and none in trailers. */
static void on_field(struct h2_frames *frames, const struct ag_field *f, unsigned place)
{
    struct h2_asked *s = of(frames);

    if (place == 0) {
        s->pseudo = !stream_of(s, frames->section_id)->begun;
    }
    s->pseudo = s->pseudo && f->name[0] == ':';
    AG_ASSERT((f->name[0] == ':') == s->pseudo);
}

static void on_section(struct h2_frames *frames, uint32_t id, bool end)
{
    struct h2_asked_stream *stream = stream_of(of(frames), id);

    AG_ASSERT(!stream->begun || end);
    stream->begun = true;
    stream->ended = end;
}

static void on_frame(struct h2_frames *frames, const struct ag_h2_frame *f, struct ag_span p)
{
    struct h2_asked *s = of(frames);
    struct h2_asked_stream *stream = stream_of(s, f->id);

    AG_ASSERT(!stream->reset);
    if (f->type == AG_H2_RST_STREAM) {
        AG_ASSERT(stream->begun);
        stream->reset = true;
    } else if (f->type == AG_H2_DATA) {
        AG_ASSERT(stream->begun && !stream->ended && p.len <= H2_ASKED_PERIOD);
        AG_ASSERT(p.len == 0 || !memcmp(p.ptr, s->content + stream->got % H2_ASKED_PERIOD, p.len));
        stream->got += p.len;
        stream->ended = f->flags & AG_H2_END_STREAM;
    } else if (f->type != AG_H2_WINDOW_UPDATE) {
        AG_ASSERT(!stream->ended);
    }
    if (f->type == AG_H2_HEADERS && !stream->begun) {
        AG_ASSERT(f->id > s->last_id);
        s->last_id = f->id;
    }
}

void h2_asked_begin(struct h2_asked *s, const uint8_t *content)
{
    static const struct h2_frames_rules rules = {
        .frame = on_frame, .field = on_field, .section = on_section};

    memset(s, 0, sizeof(*s));
    s->content = content;
    h2_frames_begin(&s->frames, &rules);
}

void h2_asked_read(struct h2_asked *s, struct ag_span all)
{
    if (all.len < AG_H2_MAGIC.len) {
        return;
    }
    if (s->frames.at == 0) {
        AG_ASSERT(!memcmp(all.ptr, AG_H2_MAGIC.ptr, AG_H2_MAGIC.len));
        s->frames.at = AG_H2_MAGIC.len;
    }
    h2_frames_read(&s->frames, all);
}

void h2_asked_end(struct h2_asked *s)
{
    h2_frames_end(&s->frames);
}
