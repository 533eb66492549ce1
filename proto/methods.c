#include "proto/http.h"

static const struct ag_span names[AG_METHODS] = {
    [AG_METHOD_GET] = AG_SPAN_INIT("GET"),         [AG_METHOD_HEAD] = AG_SPAN_INIT("HEAD"),
    [AG_METHOD_POST] = AG_SPAN_INIT("POST"),       [AG_METHOD_PUT] = AG_SPAN_INIT("PUT"),
    [AG_METHOD_DELETE] = AG_SPAN_INIT("DELETE"),   [AG_METHOD_CONNECT] = AG_SPAN_INIT("CONNECT"),
    [AG_METHOD_OPTIONS] = AG_SPAN_INIT("OPTIONS"), [AG_METHOD_TRACE] = AG_SPAN_INIT("TRACE"),
    [AG_METHOD_PATCH] = AG_SPAN_INIT("PATCH"),
};

enum ag_method ag_method_from_name(struct ag_span name)
{
    /* Nearly every request is a GET: one comparison before the walk. */
    if (ag_span_eq(name, names[AG_METHOD_GET])) {
        return AG_METHOD_GET;
    }
    for (unsigned m = AG_METHOD_HEAD; m < AG_METHODS; m++) {
        if (ag_span_eq(name, names[m])) {
            return (enum ag_method)m;
        }
    }
    return AG_METHOD_OTHER;
}

struct ag_span ag_method_name(enum ag_method m)
{
    AG_ASSERT(m > AG_METHOD_OTHER && m < AG_METHODS);
    return names[m];
}

bool ag_method_is_idempotent(enum ag_method m)
{
    switch (m) {
    case AG_METHOD_GET:
    case AG_METHOD_HEAD:
    case AG_METHOD_PUT:
    case AG_METHOD_DELETE:
    case AG_METHOD_OPTIONS:
    case AG_METHOD_TRACE:
        return true;
    case AG_METHOD_OTHER:
    case AG_METHOD_POST:
    case AG_METHOD_CONNECT:
    case AG_METHOD_PATCH:
    case AG_METHODS:
        break;
    }
    return false;
}
