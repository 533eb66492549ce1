/*
 * health_parts: what the files of health share; nobody else includes it.
 *
 *   health.c        which servers are checked, who of them is an outlier
 *   health_check.c  one server's checks
 */
#pragma once
#include "actions/upstream/client.h"
#include "actions/upstream/health.h"
#include "actions/upstream/upstream_parts.h"

#include <stdio.h>

/* An upstream in use that has checks, or looks for outliers. */
struct ag_health_watch {
    struct ag_link link;
    struct ag_health *health;
    const struct ag_upstream *up; /* of the present configuration */
    struct ag_upstream_group *group;
    uint64_t key[2];
    uint64_t outliers_ms; /* loop time of the next look for them */
    uint32_t version;     /* of the group, as it is here; 0: not looked at */
    bool seen;            /* in the configuration that comes */
    struct ag_client_header *headers;
    uint32_t header_count;
    struct ag_health_task *checks[AG_UPSTREAM_SERVERS_MAX]; /* by the member's index; NULL: none */
};

/* One server's checks: one after the other. */
struct ag_health_task {
    struct ag_health_watch *watch;
    struct ag_timer timer;      /* for the next one, or for how long this one may take */
    struct ag_upstream_aim aim; /* its member is held */
    struct ag_client_target target;
    struct ag_client_request request; /* HTTP */
    struct ag_upstream_claim claim;   /* TCP, TLS */
    uint64_t started_ms;
    bool under_way;
};

struct ag_health {
    struct ag_upstreams *all;
    struct ag_pool checks;
    struct ag_link watches;
    struct ag_timer sweep;
    uint32_t under_way;
    /* For a look for outliers. */
    struct ag_ejection_sample samples[AG_UPSTREAM_SERVERS_MAX];
    uint64_t median_us[AG_UPSTREAM_SERVERS_MAX];
};

/* ---- health_check.c ---- */

/* The first one is made at once, from the loop. */
void ag_health_task_init(struct ag_health_task *c);
/* What is under way is given up, and none follows. */
void ag_health_task_stop(struct ag_health_task *c);
/* The settings may be others: what is under way is made again. */
void ag_health_task_renew(struct ag_health_task *c);
