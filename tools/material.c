#include "tools/material.h"

#include "engine/log.h"
#include "engine/tls_tickets.h"
#include "tools/upgrade.h"

void ag_material_init(struct ag_material *m, bool heir)
{
    uint8_t text[AG_TLS_TICKETS_TEXT_BYTES];
    struct ag_buf inherited = ag_buf(text, sizeof(text));

    if (heir) {
        ag_upgrade_inherit_tickets(&inherited);
    }
    ag_watch_init(&m->watch);
    ag_tickets_init(&m->tickets, ag_buf_span(&inherited));
    explicit_bzero(text, sizeof(text));
}

void ag_material_deinit(struct ag_material *m)
{
    ag_watch_deinit(&m->watch);
    ag_tickets_deinit(&m->tickets);
}

void ag_material_follow(struct ag_material *m, const struct ag_snapshot *s)
{
    if (!ag_tickets_prepare(&m->tickets, s->model)) {
        ag_log(AG_LOG_WARN, "no memory or no randomness for ticket keys: sessions are not resumed");
    }
    ag_tickets_apply(&m->tickets, s->model);
    ag_watch_set(&m->watch, s->tls_files);
}

static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

int ag_material_wait_ms(const struct ag_material *m, int wait_ms)
{
    return sooner(wait_ms, sooner(ag_tickets_wait_ms(&m->tickets), ag_watch_wait_ms(&m->watch)));
}

unsigned ag_material_turn(struct ag_material *m)
{
    unsigned events = ag_tickets_turn(&m->tickets) ? AG_MATERIAL_KEYS : 0;

    if (ag_watch_turn(&m->watch)) {
        ag_log(AG_LOG_INFO, "watched files have changed");
        events |= AG_MATERIAL_FILES;
    }
    return events;
}
