/*
 * material: what TLS has besides a configuration: ticket keys (tickets.h), and files that change under it
 * (watch.h). The control thread's, or its master's.
 */
#pragma once
#include "tools/tickets.h"
#include "tools/watch.h"

struct ag_material {
    struct ag_tickets tickets;
    struct ag_watch watch;
};

/* Before privileges are given up. `heir`: takes the ticket keys of a predecessor that upgrades, if there is one. */
void ag_material_init(struct ag_material *m, bool heir);
void ag_material_deinit(struct ag_material *m);
/* `s` is served from now on: its ticket keys turn, and its files are watched. */
void ag_material_follow(struct ag_material *m, const struct ag_snapshot *s);
/* The sooner of `wait_ms` and what there is to do here; -1: for ever. */
int ag_material_wait_ms(const struct ag_material *m, int wait_ms);

#define AG_MATERIAL_KEYS  1u /* the ticket keys have changed */
#define AG_MATERIAL_FILES 2u /* the files have: a reload is due; the log was told */
/* After each poll, for m->watch.fd too. What has happened, as bits. */
unsigned ag_material_turn(struct ag_material *m);
