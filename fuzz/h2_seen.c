#include "fuzz/h2_seen.h"

static struct h2_seen *of(struct h2_frames *s)
{
    return ag_container_of(s, struct h2_seen, frames);
}

static void on_field(struct h2_frames *frames, const struct ag_field *f, unsigned place)
{
    uint64_t value;

    if (place == 0) {
        of(frames)->status = 0;
    }
    if (place == 0 && ag_span_eq(ag_field_key(f), AG_SPAN(":status"))) {
        AG_ASSERT(ag_span_u64(ag_field_value(f), &value) == AG_OK && value >= 100 && value < 600 &&
                  value != 101);
        of(frames)->status = (unsigned)value;
    } else {
        AG_ASSERT(f->name[0] != ':');
    }
}

static void on_section(struct h2_frames *frames, uint32_t id, bool end)
{
    struct h2_seen *s = of(frames);
    unsigned status = s->status;

    s->status = 0;
    if (status / 100 == 1) {
        AG_ASSERT(s->streams[id].heads == 0 && !end);
        return;
    }
    AG_ASSERT(s->streams[id].heads == (status ? 0 : 1));
    AG_ASSERT(status || end);
    s->streams[id].heads++;
    s->streams[id].ended = end;
}

static void on_frame(struct h2_frames *frames, const struct ag_h2_frame *f, struct ag_span p)
{
    struct h2_seen *s = of(frames);

    (void)p;
    AG_ASSERT(f->id < H2_SEEN_IDS && !s->streams[f->id].reset);
    if (f->type == AG_H2_RST_STREAM) {
        s->streams[f->id].reset = true;
    } else if (f->type != AG_H2_WINDOW_UPDATE) {
        AG_ASSERT(!s->streams[f->id].ended);
    }
    if (f->type == AG_H2_DATA) {
        AG_ASSERT(s->streams[f->id].heads == 1);
        s->streams[f->id].ended = f->flags & AG_H2_END_STREAM;
    }
}

void h2_seen_begin(struct h2_seen *s)
{
    static const struct h2_frames_rules rules = {
        .frame = on_frame, .field = on_field, .section = on_section};

    memset(s, 0, sizeof(*s));
    h2_frames_begin(&s->frames, &rules);
}

void h2_seen_read(struct h2_seen *s, struct ag_span all)
{
    h2_frames_read(&s->frames, all);
}

void h2_seen_end(struct h2_seen *s, bool aborted)
{
    AG_ASSERT(aborted || s->frames.section_id == 0);
    h2_frames_end(&s->frames);
}
