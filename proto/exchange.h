/*
 * exchange: one request and its answer, and who holds them.
 *
 *   server (h1, later h2)        pipeline (router)                action
 *   request parsed --start-->    route, filters' pre --start-->   ... ag_exchange_respond
 *   head written  <--send_head-- filters' on_head   <------------
 *   req_body: server writes, action takes           res_body: action writes, server takes
 *
 * It lives at the start of its arena's first page. Holders: the server stream (from new), the action
 * (from its start until ag_exchange_release by it), a waiting filter (from AG_WAIT until its resume).
 * Each lets go once; at zero the exchange is freed by a task of the loop. After abort, holders are told
 * once (action->abort, filter->cancel) and must let go without calling anything else on it.
 *
 * Snapshots: an exchange pins the one that it starts with. One that lives on long after a reload
 * (tunnels, streams, slow uploads) is told to do without it, so that snapshots do not pile up:
 *
 *   start --pin--> pinned --ag_context_retire--> copies what it needs --unpin--> lives on
 *                     \-- still needs it: stays pinned, is asked again
 */
#pragma once
#include "proto/body.h"
#include "proto/h1_write.h"

struct ag_exchange;
struct ag_action;
struct ag_route;

#define AG_PARAMS_MAX 16u

/* Where a route's parameters lie: by segment of the normalised path, so a match costs nothing. */
struct ag_param_spec {
    struct ag_span name; /* "id"; the unnamed splat: empty */
    uint16_t segment;    /* 0: the first after the leading slash */
    bool splat;          /* from that segment to the end */
};

/* Whether the bounds of size and rate hold for a request's content. */
enum ag_streaming {
    AG_STREAMING_AUTO = 0, /* but for gRPC through a proxy */
    AG_STREAMING_ON,       /* they do not */
    AG_STREAMING_OFF,
};

/* What the server stream watches over while it has an exchange; part of the immutable snapshot. Those
 * of the request's content end when the answer's head is sent; then idle_timeout holds alone. */
struct ag_route_limits {
    uint64_t max_body_bytes;   /* of a request's content; 0: unlimited */
    uint32_t min_rate;         /* its bytes per second; 0: none */
    uint32_t body_grace_ms;    /* before min_rate counts */
    uint32_t body_timeout_ms;  /* its longest stall */
    uint32_t min_read_rate;    /* bytes per second of the answer that the client takes; 0: none */
    uint32_t write_timeout_ms; /* its longest stall */
    enum ag_streaming stream;
};

/* SPEC.md section 10. */
#define AG_ROUTE_LIMITS_DEFAULT                                                   \
    {                                                                             \
        .max_body_bytes = 10u << 20, .min_rate = 240, .body_grace_ms = 5000,      \
        .body_timeout_ms = 30000, .min_read_rate = 240, .write_timeout_ms = 30000 \
    }

/* A whole answer made at load time, in the form of each protocol version. */
struct ag_prepared {
    unsigned status;
    struct ag_span h1;   /* status line and fields with CRLF, framing included, without Date,
                          * Connection and the final CRLF */
    struct ag_span h2;   /* the same as a field section in HPACK that leaves every table as it is,
                          * ":status" first; empty: it is not known, `response` holds */
    struct ag_span body; /* not sent for HEAD */
    struct ag_block *owner;      /* of the body's bytes; NULL: the snapshot */
    struct ag_response response; /* the same as fields, for routes with filters; malloc arena */
};

struct ag_proxied; /* proxy_protocol.h */

/* What the server stream offers; ex->server. All may be called from actions and the pipeline. */
struct ag_server_ops {
    /* Content goes in frames: it must be in memory, no slices of files. */
    bool memory_only;
    /* What it keeps with each exchange rather than with each connection: see ag_exchange_room. */
    uint16_t room_bytes;
    /* Sends ex->res as final head; content follows from *ex->res_source. */
    void (*send_head)(struct ag_exchange *);
    void (*send_prepared)(struct ag_exchange *, const struct ag_prepared *);
    /* An interim answer (1xx but 101). */
    void (*send_interim)(struct ag_exchange *, unsigned status, const struct ag_fields *);
    /* The action wants the request's content: sends 100 Continue when the client waits for it. */
    void (*want_body)(struct ag_exchange *);
    /* The peer's address; AF_UNSPEC when the system will not say. */
    void (*remote)(struct ag_exchange *, union ag_addr *out_addr);
    /* Where it has connected to; as above. */
    void (*local)(struct ag_exchange *, union ag_addr *out_addr);
    /* What a PROXY header has told of its connection; NULL: there was none. */
    const struct ag_proxied *(*proxied)(struct ag_exchange *);
    /* Its connection's identity: no other one that is open in the shard has it. May be NULL. */
    const struct ag_stream *(*client)(const struct ag_exchange *);
    /* Of a tunnel: whether the client has taken any of it since this was asked last, of what was or is on its way to
     * it. May be NULL: it cannot be told (HTTP/2, where others share the connection). */
    bool (*taken)(struct ag_exchange *);
    /* What its connection's handshake has settled; NULL: it is plain. */
    const struct ag_tls_session *(*tls)(struct ag_exchange *);
    /* Ends the exchange's stream without a complete answer. */
    void (*reset)(struct ag_exchange *, enum ag_reason);
};

/* What the router runs; ex->pipeline. */
struct ag_pipeline_ops {
    /* The request's head is complete. */
    void (*start)(struct ag_exchange *);
    /* A filter that waited has decided (filter.h). */
    void (*resume)(struct ag_exchange *, int verdict);
    /* ex->res is filled: run on_head and wrap_body in reverse, then server->send_head. */
    void (*respond)(struct ag_exchange *);
    /* Client gone, stream broken, request refused half-way: tell who works on it, once. */
    void (*abort)(struct ag_exchange *, enum ag_reason);
    /* The answer is sent, or will never be: on_done of the filters, access log, metrics. */
    void (*done)(struct ag_exchange *);
    /* The exchange is to live on without its snapshot. True: nothing of it points there any more.
     * False: it still needs it, or memory is short. */
    bool (*outlive)(struct ag_exchange *);
    /* An error of ours is about to be answered, once an exchange; ex->res has the fields that belong to it. True:
     * a page stands for our text, at once or later. May be NULL. */
    bool (*error_page)(struct ag_exchange *, unsigned status);
    /* Whether an upstream's answer of that status (4xx, 5xx) is to be such an error. May be NULL. */
    bool (*intercepts)(const struct ag_exchange *, unsigned status);
};

/* One shard's surroundings of all its exchanges; made by tools/, one a shard. */
#define AG_CONTEXT_ACTIONS 16u
struct ag_context {
    struct ag_loop *loop;
    struct ag_date_cache date;
    const struct ag_pipeline_ops *pipeline;
    struct ag_snapshot *snapshot;  /* the current one */
    struct ag_block *snapshot_ref; /* this shard's counted handle of it */
    struct ag_link
        pinned; /* exchanges that pin a snapshot, oldest pin first; valid while any lives */
    void *action_state[AG_CONTEXT_ACTIONS]; /* by struct ag_action_ops.id: caches, pools */
    void *action_common
        [AG_CONTEXT_ACTIONS]; /* what the process's shards share of it; NULL: nothing */
    uint32_t shard_count;     /* shards that serve; 0 counts as 1 */
    uint32_t shard_index;     /* of this one among them */
    uint64_t exchanges_live;
    uint64_t exchanges_dying; /* of them, those that a task of this turn frees */
    uint64_t exchanges_total;
};

struct ag_exchange {
    struct ag_context *context;
    const struct ag_server_ops *server;
    void *server_stream; /* the server's; NULL once it has let go */
    struct ag_request req;
    struct ag_response res;
    struct ag_body *res_source;  /* taken by the server: res_body, or the last transform's output */
    struct ag_block *head_owner; /* keeps the head's bytes; NULL: detached, or static */
    struct ag_span head;         /* the request head's bytes */
    struct ag_span hsts;         /* the pipeline's: a field that each answer gets; empty: none */
    struct ag_block *res_owner;  /* keeps the bytes of a large answer's fields; NULL: none */
    struct ag_fields *trailers;  /* of the request, while they arrive and after; arena */
    struct ag_block *snapshot_ref; /* the snapshot that it pins; NULL: none (yet, or any more) */
    struct ag_link pinned;         /* in the context's list, as long as snapshot_ref is held */
    const struct ag_route *route;  /* router's; NULL before dispatch, without a match, unpinned */
    const struct ag_param_spec *params;
    const struct ag_route_limits *limits; /* never NULL */
    const struct ag_action *action;       /* action.h; NULL: none is running */
    void *action_data;                    /* the action's, in the arena */
    void *filter_data;                    /* the pipeline's, in the arena: see filter.h */
    uint64_t started_ns;                  /* 0 unless someone asked for it at load */
    union ag_addr *remote;                /* see ag_exchange_remote; NULL: not asked for yet */
    uint16_t listener_port;               /* local port, 0 for unix */
    uint16_t limits_index;  /* of the listener (ag_server_limits), or AG_LIMITS_OF_NOBODY */
    uint16_t redirect_port; /* the same */
    uint16_t param_count;
    uint16_t filter_at; /* filters whose pre has run, and on_done has not */
    uint8_t holders;
    uint8_t reason;     /* enum ag_reason: why it ended early; for the log */
    const char *detail; /* static text beside it: "connect to upstream", ... */
    bool head_sent;     /* final head given to the server */
    bool ended;         /* aborted or complete: nothing may be sent any more */
    bool filter_waits;
    bool abandoned;                   /* whoever works on it was told to let go */
    bool paged;                       /* error_page was asked */
    bool streams;                     /* no bound of size or rate holds for the request's content */
    uint64_t sent_bytes;              /* content bytes given to the client */
    uint16_t status;                  /* of the final answer, 0 while none */
    uint8_t upstream_tries;           /* calls to its upstream, hedges too; a few at most */
    void (*freed)(void *freed_owner); /* the server's, who let go: the work ends; NULL: none */
    void *freed_owner;                /* may lie in the arena, for the last time */
    /* What follows is set up by itself. */
    struct ag_arena arena;
    struct ag_body req_body; /* written by the server, taken by the action */
    struct ag_body res_body; /* written by the action */
    struct ag_task free_task;
    struct ag_field field_room[24]; /* request fields: most requests need no more */
};

/* Takes a page and sets everything up; held once, by the server. NULL: the shard is out of pages. */
AG_MUST_USE struct ag_exchange *ag_exchange_new(struct ag_context *ctx,
                                                const struct ag_server_ops *server, void *stream);
/* The server's own memory, server->room_bytes of it, undefined at first; it ends with the exchange. */
static inline void *ag_exchange_room(struct ag_exchange *ex)
{
    return ex + 1;
}
void ag_exchange_hold(struct ag_exchange *ex);
void ag_exchange_release(struct ag_exchange *ex);

/* ---- snapshots ---- */

/* Pins the context's snapshot, for what the pipeline takes from it. Once. */
void ag_exchange_pin(struct ag_exchange *ex);

/*
 * `old` is the reference of a snapshot that is no longer the context's: every exchange that still pins
 * it and can do without lets it go. Returns how many cannot (they wait for a filter, a file, a
 * connection, or have filters that are yet to see the answer): they are worth asking again later.
 * From the loop, at the top of a turn or from a timer.
 */
AG_MUST_USE uint32_t ag_context_retire(struct ag_context *ctx, const struct ag_block *old);

/* Copies the request head into the arena and gives its receive buffer back; for exchanges that wait.
 * AG_ENOMEM leaves all as it is (the buffer stays pinned). */
AG_MUST_USE enum ag_status ag_exchange_detach(struct ag_exchange *ex);

/* What its connection's handshake has settled; NULL: it is plain, or has gone. */
static inline const struct ag_tls_session *ag_exchange_tls(const struct ag_exchange *ex)
{
    /* Asking changes nothing. */
    return ex->req.tls && ex->server_stream ? ex->server->tls((struct ag_exchange *)(uintptr_t)ex)
                                            : NULL;
}

/* A page for an error is being asked for: no content is wanted meanwhile, nor waited for. */
static inline bool ag_exchange_awaits_page(const struct ag_exchange *ex)
{
    return ex->paged && !ex->head_sent;
}

/* ---- for actions ---- */

/* ex->res.status, fields, framing and content_length are set; content comes through res_body, which
 * the action ends. A no-op after the exchange has ended. */
void ag_exchange_respond(struct ag_exchange *ex);
/* The answer made at load time; no content of the action's own. */
void ag_exchange_respond_prepared(struct ag_exchange *ex, const struct ag_prepared *p);
/* An error of ours: a short body in the form the client accepts (RFC 9457 problem, or text), if no
 * head was sent yet; else the stream is reset. `detail` is static text for the log and the body. */
void ag_exchange_fail(struct ag_exchange *ex, unsigned status, enum ag_reason why,
                      const char *detail);
/* Adds a response field; name known by number, the value in the arena or static. AG_ENOMEM. */
AG_MUST_USE enum ag_status ag_exchange_field(struct ag_exchange *ex, enum ag_field_id id,
                                             struct ag_span value);
/* The value of parameter `index` (< param_count) in the normalised path, still percent-encoded. */
struct ag_span ag_exchange_param(const struct ag_exchange *ex, unsigned index);
/* The peer's address (AF_UNSPEC: not known), asked for once and kept. NULL: no memory. */
const union ag_addr *ag_exchange_remote(struct ag_exchange *ex);
/* Where it has connected to: ours, or what a PROXY header tells. AF_UNSPEC: not known. */
void ag_exchange_local(struct ag_exchange *ex, union ag_addr *out_addr);
/* What a PROXY header has told of its connection; NULL: there was none, or the connection is gone. */
const struct ag_proxied *ag_exchange_proxied(struct ag_exchange *ex);
/* What tells its connection from all others that are open; NULL: it is not known, or gone. */
const struct ag_stream *ag_exchange_client(const struct ag_exchange *ex);
/* Segment `index` of a normalised path, or from it to the end (splat); empty when it has none. */
struct ag_span ag_path_segment(struct ag_span path, unsigned index, bool to_end);

/* ---- for servers ---- */

/* Tells whoever works on it, once, to let go; the server answers by itself afterwards (413, 408). */
void ag_exchange_abandon(struct ag_exchange *ex, enum ag_reason why);
/* The client is gone, or its stream is broken: abort travels to whoever works on it. Idempotent. */
void ag_exchange_abort(struct ag_exchange *ex, enum ag_reason why);
/* Ends an exchange whose request never began: nobody works on it, and nobody is told. */
void ag_exchange_forget(struct ag_exchange *ex);
/* The answer has left; the server lets go. Whoever works on it still is told, unless it is a tunnel whose client has
 * ended its way, too: its last bytes are passed on. */
void ag_exchange_complete(struct ag_exchange *ex);
/* Frees it now if nobody holds it any more, for a server that answers many in one turn. The caller must not
 * have come from the exchange, and has let go. False: somebody does. */
bool ag_exchange_reap(struct ag_exchange *ex);
