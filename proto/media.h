/*
 * media: what a browser may take content for, by its Content-Type; so that what a client puts into a path can
 * be escaped for it when it goes into an answer.
 *
 *   text/html -> MARKUP    application/json -> SCRIPT    text/plain -> neither    none, or not known -> both
 */
#pragma once
#include "engine/span.h"

#define AG_MEDIA_MARKUP 1u
#define AG_MEDIA_SCRIPT 2u /* JSON too */
#define AG_MEDIA_ANY    (AG_MEDIA_MARKUP | AG_MEDIA_SCRIPT)

/* Of a Content-Type's value. Without one, or with one that is no type, browsers guess from the content. */
unsigned ag_media_of(struct ag_span type);
/* application/json, and what is written as it is (application/problem+json). */
bool ag_media_is_json(struct ag_span type);

/* What becomes of an answer's Content-Type behind the action. */
struct ag_media_change {
    bool replaced;  /* what the action says counts no more */
    unsigned added; /* what it may be besides */
};
