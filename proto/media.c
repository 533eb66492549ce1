#include "proto/media.h"

static bool mentions(struct ag_span text, struct ag_span word)
{
    for (size_t i = 0; word.len <= text.len && i <= text.len - word.len; i++) {
        if (ag_span_ieq(ag_span_sub(text, i, i + word.len), word)) {
            return true;
        }
    }
    return false;
}

bool ag_media_is_json(struct ag_span type)
{
    return mentions(type, AG_SPAN("json"));
}

unsigned ag_media_of(struct ag_span type)
{
    unsigned media = 0;

    if (ag_span_find(type, '/') == type.len) {
        return AG_MEDIA_ANY;
    }
    if (mentions(type, AG_SPAN("html")) || mentions(type, AG_SPAN("xml"))) {
        media |= AG_MEDIA_MARKUP;
    }
    if (ag_media_is_json(type) || mentions(type, AG_SPAN("script"))) {
        media |= AG_MEDIA_SCRIPT;
    }
    return media;
}
