#include "tests/sim/site.h"

#include "tests/sim/content.h"
#include "tests/sim/tls.h"
#include "tools/load.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 4u

static char dir[64];
static struct ag_snapshot *cached[SITE_ALL];

static const struct {
    const char *name;
    uint32_t bytes;
} files[FILES] = {
    {"small.bin", SITE_SMALL},
    {"middle.bin", SITE_MIDDLE},
    {"large.bin", SITE_LARGE},
    {"empty.bin", 0},
};

/* ---- texts ---- */

static uint32_t pick(uint32_t number, uint32_t what, uint32_t from, uint32_t to)
{
    return from + (uint32_t)(sim_hash(number, 1000 + what) % (to - from + 1));
}

void site_config(uint32_t number, struct site_config *out)
{
    static const uint8_t client_auths[] = {SITE_UNASKED,  SITE_UNASKED,  SITE_OPTIONAL,
                                           SITE_OPTIONAL, SITE_OPTIONAL, SITE_REQUIRED};
    bool tls = number / SITE_CONFIGS % 2, more = number >= SITE_MORE;

    *out = (struct site_config){
        .number = number,
        .listens = {true, pick(number, 1, 0, 2) > 0, pick(number, 2, 0, 2) > 0,
                    tls && pick(number, 30, 0, 7) > 0, more && pick(number, 40, 0, 7) > 0,
                    more && pick(number, 41, 0, 7) > 0, more && pick(number, 42, 0, 7) > 0,
                    more && tls && pick(number, 43, 0, 7) > 0},
        .tls = tls,
        .generation = pick(number, 31, 0, TLS_GENERATIONS - 1),
        .tls_upstreams = tls ? pick(number, 32, 0, UINT32_MAX - 1) : 0,
        .header_ms = pick(number, 3, 3000, 6000),
        .idle_ms = pick(number, 4, 15000, 40000),
        .body_ms = pick(number, 5, 2000, 6000),
        .write_ms = pick(number, 6, 2000, 6000),
        .drain_ms =
            pick(number, 22, 0, 2) ? pick(number, 7, 8000, 20000) : pick(number, 7, 100, 2000),
        .connect_ms = pick(number, 8, 1000, 3000),
        .first_byte_ms = pick(number, 9, 2000, 5000),
        .read_ms = pick(number, 10, 2000, 5000),
        .upstream_write_ms = pick(number, 11, 2000, 5000),
        .tunnel_ms = pick(number, 12, 3000, 8000),
        .total_ms = pick(number, 13, 0, 3) ? 0 : 20000,
        .discard_bytes = pick(number, 14, 0, 2) ? 32768 : 262144,
        .few_connections = pick(number, 15, 1, 4),
        .few_pending = pick(number, 16, 0, 3),
        .few_by_server = pick(number, 40, 0, 1),
        .max_idle = pick(number, 17, 0, 6),
        .min_idle = pick(number, 24, 0, 2) ? 0 : pick(number, 17, 0, 6) / 2,
        .keep_ms = pick(number, 18, 50, 5000),
        .max_age_ms = pick(number, 19, 0, 2) ? 0 : 2000,
        .max_requests = pick(number, 20, 0, 2) ? 0 : 3,
        .fixed_large = pick(number, 21, 1025, 9000),
        .check_ms = pick(number, 23, 0, 2) ? pick(number, 24, 1000, 6000) : 0,
        .breaker_errors = pick(number, 25, 0, 4),
        .breaker_max = pick(number, 26, 0, 2) ? 100 : 50,
        .slow_start_ms = pick(number, 27, 0, 1) ? pick(number, 28, 100, 5000) : 0,
        .panic = pick(number, 29, 0, 3) ? 0 : 60,
        .retries = pick(number, 33, 0, 2) == 0,
        .hedges = pick(number, 34, 0, 2) == 0,
        .retry_buffer = pick(number, 35, 0, 1) ? 65536 : 3000,
        .mirrors = pick(number, 36, 0, 2) == 0,
        .more = more,
        .client_auth = more && tls ? client_auths[pick(number, 46, 0, 5)] : SITE_UNASKED,
        .relay_default = pick(number, 44, 0, 1),
        .proxy_protocol = pick(number, 45, 1, 2),
    };
}

size_t site_fixed_body(uint32_t number, bool large, char *to, size_t max)
{
    struct site_config c;
    int n = snprintf(to, max, "config %u", number);

    site_config(number, &c);
    if (!large) {
        return (size_t)n;
    }
    AG_ASSERT(c.fixed_large < max);
    for (uint32_t i = (uint32_t)n; i < c.fixed_large; i++) {
        to[i] = (char)('a' + sim_hash(number, i) % 26);
    }
    to[c.fixed_large] = '\0';
    return c.fixed_large;
}

/* Of a listener: all clients' connections begin with a PROXY header. */
#define GREETED ", proxy_protocol: 192.168.0.0/24"

/* What is passed on. */
static void print_relays(FILE *f, const struct site_config *c)
{
    if (c->listens[SITE_RELAY] || c->listens[SITE_SNI]) {
        (void)fprintf(f, "tcp:\n");
    }
    if (c->listens[SITE_RELAY]) {
        (void)fprintf(f, "  - {listen: \"10.0.0.1:%u\", to: q}\n", SITE_PORT + SITE_RELAY);
    }
    if (c->listens[SITE_SNI]) {
        (void)fprintf(f,
                      "  - {listen: [{address: \"10.0.0.1:%u\"%s}], sni: {q.test: q, "
                      "\"*.r.test\": r}%s}\n",
                      SITE_PORT + SITE_SNI, GREETED, c->relay_default ? ", default: q" : "");
    }
}

static void print_server(FILE *f, const struct site_config *c)
{
    (void)fprintf(f, "version: 1\nserver:\n  listen: [");
    for (uint32_t i = 0; i < SITE_PORTS; i++) {
        bool tls = i == SITE_TLS || i == SITE_GREETED_TLS;

        if (c->listens[i] && i != SITE_RELAY && i != SITE_SNI) {
            (void)fprintf(f, "%s{address: \"10.0.0.1:%u\"%s%s}", i ? ", " : "", SITE_PORT + i,
                          tls ? ", tls: true" : "", i >= SITE_GREETED ? GREETED : "");
        }
    }
    (void)fprintf(f,
                  "]\n  trusted_proxies: [192.168.0.1, 192.168.0.2]\n"
                  "  drain_timeout: %ums\n  limits: {header_timeout: %ums, idle_timeout: %ums, "
                  "body_timeout: %ums, write_timeout: %ums, max_body: %u, max_discard: %u}\n",
                  c->drain_ms, c->header_ms, c->idle_ms, c->body_ms, c->write_ms, SITE_BODY_MAX,
                  c->discard_bytes);
    (void)fprintf(f, "echo: {max_body: %u}\nstatic: {root: site, cache: {max_file: 64k}}\n",
                  SITE_ECHO_MAX);
}

static void print_tls(FILE *f, const struct site_config *c)
{
    if (c->listens[SITE_TLS] || c->listens[SITE_GREETED_TLS]) {
        (void)fprintf(f, "tls:\n  certificates: [%s-%u.pem, other-%u.pem]\n%s",
                      c->more ? "chain" : "sim", c->generation, c->generation,
                      c->more ? "" : "  stapling: off\n");
        if (c->client_auth) {
            (void)fprintf(f, "  client_auth: {ca: clients.pem, mode: %s}\n",
                          c->client_auth == SITE_REQUIRED ? "required" : "optional");
        }
    }
}

static bool by_tls(const struct site_config *c, char up)
{
    return c->tls_upstreams >> (up - 'a') & 1;
}

bool site_is_found(const struct site_config *c, char up)
{
    return (up == 'n' || up == 'm') && c->number % 2;
}

/* "host:port more" of each server that is given, up to NULL. */
static void print_upstream(FILE *f, const struct site_config *c, char up, const char *const *hosts,
                           const char *options)
{
    const char *sep = "";

    (void)fprintf(f, "    %c: {servers: %s", up, site_is_found(c, up) ? "{dns: " : "[");
    for (; *hosts; hosts++, sep = ", ") {
        (void)fprintf(f, "%s\"%s:%u", sep, *hosts, by_tls(c, up) ? TLS_PORT : 80u);
        if (up == 'c' && c->few_by_server) {
            (void)fprintf(f, " max=%u", c->few_connections);
        }
        (void)fprintf(f, "\"");
    }
    (void)fprintf(f, "%s%s%s}\n", site_is_found(c, up) ? "}" : "]", options,
                  !by_tls(c, up) ? ""
                  : up == 'p'
                      ? ", tls: {ca: ca.pem, server_name: up.test, cert: me.pem, key: me.pem}"
                      : ", tls: {ca: ca.pem, server_name: up.test}");
}

/* How the servers of b and h are judged. */
static void print_judgement(const struct site_config *c, const char *check, char *to, size_t max)
{
    int n = snprintf(to, max, ", slow_start: %ums, panic: %u%%", c->slow_start_ms, c->panic);

    if (c->check_ms) {
        n += snprintf(to + n, max - (size_t)n,
                      ", health: {%s, interval: %ums, timeout: 700ms, fall: 2, rise: 1}", check,
                      c->check_ms);
    }
    if (c->breaker_errors) {
        (void)snprintf(to + n, max - (size_t)n,
                       ", breaker: {consecutive: %u, for: 300ms, max_for: 3s, max: %u%%}",
                       c->breaker_errors, c->breaker_max);
    }
}

/* What an upstream has of its own. */
static void print_options(const struct site_config *c, char up, char *to, size_t max)
{
    to[0] = '\0';
    if (up == 'a') {
        (void)snprintf(to, max, ", keepalive: {min_idle: %u}", c->min_idle);
    } else if (up == 'b') {
        print_judgement(c, "path: /healthz", to, max);
    } else if (up == 'c') {
        (void)snprintf(to, max, ", max_connections: %u, max_pending: %u",
                       c->few_by_server ? 0 : c->few_connections, c->few_pending);
    } else if (up == 'h') {
        print_judgement(c, "type: tcp", to, max);
    } else if (up == 'p') {
        (void)snprintf(to, max, ", proxy_protocol: v%u", c->proxy_protocol);
    }
}

/* A try has more time than a connection and the first byte together. */
static void print_retries(FILE *f, const struct site_config *c)
{
    if (c->retries) {
        (void)fprintf(f,
                      "  retry: {attempts: %u, on: [connect, reset, timeout, 503], backoff: 20ms, "
                      "per_try: %ums, buffer: %u, budget: 100%%}\n",
                      SITE_ATTEMPTS, c->first_byte_ms + c->connect_ms, c->retry_buffer);
    }
    if (c->hedges) {
        (void)fprintf(f, "  hedge: {after: 20ms, max: %u}\n", SITE_HEDGES);
    }
}

static void print_proxy(FILE *f, const struct site_config *c)
{
    static const struct {
        char name;
        const char *hosts[3];
    } upstreams[] = {
        {'a', {"10.1.0.1", "10.1.0.2"}},
        {'b', {"10.1.0.3", "10.1.0.4"}},
        {'c', {"10.1.0.5"}},
        {'n', {"good.sim"}},
        {'m', {"bad.sim"}},
        {'x', {"10.1.0.9"}},
        {'h', {"10.1.0.10", "10.1.0.11"}},
        {'g', {"10.1.0.12", "10.1.0.13"}},
    };
    char options[256];

    (void)fprintf(f,
                  "proxy:\n  timeouts: {connect: %ums, first_byte: %ums, read: %ums, write: %ums, "
                  "idle: %ums, total: %ums}\n  keepalive: {max_idle: %u, "
                  "idle_timeout: %ums, max_age: %ums, max_requests: %u}\n",
                  c->connect_ms, c->first_byte_ms, c->read_ms, c->upstream_write_ms, c->tunnel_ms,
                  c->total_ms, c->max_idle, c->keep_ms, c->max_age_ms, c->max_requests);
    print_retries(f, c);
    (void)fprintf(f, "  upstreams:\n");
    for (size_t i = 0; i < AG_COUNT(upstreams); i++) {
        print_options(c, upstreams[i].name, options, sizeof(options));
        print_upstream(f, c, upstreams[i].name, upstreams[i].hosts, options);
    }
    if (c->more) {
        static const char *const behind[] = {"10.1.0.14", NULL};

        print_options(c, 'p', options, sizeof(options));
        print_upstream(f, c, 'p', behind, options);
        (void)fprintf(f,
                      "    q: {servers: [\"10.1.0.15:%u\", \"10.1.0.16:%u\"]}\n"
                      "    r: {servers: [\"10.1.0.17:%u\"], proxy_protocol: v%u}\n",
                      SITE_BEHIND, SITE_BEHIND, SITE_BEHIND, 3 - c->proxy_protocol);
    }
}

static void print_routes(FILE *f, const struct site_config *c)
{
    char small[64], large[16384];

    (void)site_fixed_body(c->number, false, small, sizeof(small));
    (void)site_fixed_body(c->number, true, large, sizeof(large));
    (void)fprintf(f,
                  "plugins:\n  tell: {headers: {set: {X-Tell: \"{path}\"%s}}}\nroutes:\n"
                  "  /fixed/small: 200 %s\n  /fixed/large: 200 %s\n"
                  "  /fixed/p/:id: 200 id {param.id}\n"
                  "  /filtered:\n    action: 200 filtered\n    filters: [tell]\n"
                  "  /echo/*: *\n  GET /get: 200 got\n  /r/*rest: FOUND -> /fixed/*rest\n"
                  "  \"/s/\": \"./site/\"\n  /w/*rest: %s://a/a/*rest\n",
                  c->more ? ", X-Client: \"{tls.client.verified} {tls.client.subject}\"" : "",
                  small, large, by_tls(c, 'a') ? "https" : "http");
    if (c->mirrors) {
        (void)fprintf(f,
                      "  \"/a/*\": {action: \"%s://a\", "
                      "mirror: {to: \"%s://a\", percent: 50, buffer: 20k}}\n",
                      by_tls(c, 'a') ? "https" : "http", by_tls(c, 'a') ? "https" : "http");
    }
    for (const char *up = c->mirrors ? "bcnmxhg" : "abcnmxhg"; *up; up++) {
        bool h2 = *up == 'h' || *up == 'g', tls = by_tls(c, *up);

        (void)fprintf(f, "  /%c/*: %s://%c\n", *up,
                      h2 ? (tls ? "h2" : "h2c") : (tls ? "https" : "http"), *up);
    }
    if (c->more) {
        (void)fprintf(f, "  /p/*: %s://p\n", by_tls(c, 'p') ? "https" : "http");
    }
}

/* ---- files ---- */

static void path_of(char out[static 128], const char *fmt, ...) AG_PRINTF(2, 3);

static void path_of(char out[static 128], const char *fmt, ...)
{
    int n = snprintf(out, 128, "%s/", dir);
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(out + n, 128 - (size_t)n, fmt, args);
    va_end(args);
}

static void write_file(uint32_t i)
{
    /* Validators are made of it: the same in every process. */
    const struct timespec times[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
    uint8_t *bytes = malloc(files[i].bytes + 1);
    char path[128];
    FILE *f;

    AG_ASSERT(bytes);
    content_fill(SITE_FILE_KEY + i, 0, bytes, files[i].bytes);
    path_of(path, "site/%s", files[i].name);
    f = fopen(path, "we");
    AG_ASSERT(f && fwrite(bytes, 1, files[i].bytes, f) == files[i].bytes);
    AG_ASSERT(fclose(f) == 0 && utimensat(AT_FDCWD, path, times, 0) == 0);
    free(bytes);
}

static void write_config(uint32_t number)
{
    struct site_config c;
    char path[128];
    FILE *f;

    site_config(number, &c);
    path_of(path, "%u.yml", number);
    f = fopen(path, "we");
    AG_ASSERT(f);
    print_server(f, &c);
    print_tls(f, &c);
    print_proxy(f, &c);
    print_relays(f, &c);
    print_routes(f, &c);
    AG_ASSERT(fclose(f) == 0);
}

void site_init(void)
{
    const char *base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    char path[128];

    (void)snprintf(dir, sizeof(dir), "%s/sim-XXXXXX", base);
    AG_ASSERT(mkdtemp(dir));
    path_of(path, "site");
    AG_ASSERT(mkdir(path, 0700) == 0);
    for (uint32_t i = 0; i < FILES; i++) {
        write_file(i);
    }
    tls_init(dir);
    for (uint32_t i = 0; i < SITE_ALL; i++) {
        write_config(i);
    }
}

void site_deinit(void)
{
    char path[128];

    for (uint32_t i = 0; i < SITE_ALL; i++) {
        if (cached[i]) {
            ag_snapshot_free(cached[i]);
        }
    }
    for (uint32_t i = 0; i < SITE_ALL; i++) {
        path_of(path, "%u.yml", i);
        (void)unlink(path);
    }
    for (uint32_t i = 0; i < FILES; i++) {
        path_of(path, "site/%s", files[i].name);
        (void)unlink(path);
    }
    tls_deinit(dir);
    path_of(path, "site");
    (void)rmdir(path);
    (void)rmdir(dir);
}

static struct ag_snapshot *compile(uint32_t number, uint32_t shard_count,
                                   struct ag_tls_tickets *tickets)
{
    char path[128];
    struct ag_config_input in = {.file = path};
    struct ag_load load;

    path_of(path, "%u.yml", number);
    ag_load_config(&load, &in);
    if (tickets) {
        ag_load_open_tls(&load, shard_count, tickets);
    }
    if (!load.snapshot || load.diags.errors) {
        ag_load_print(&load, AG_DIAG_HUMAN);
        AG_UNREACHABLE("the simulation's configuration is wrong");
    }
    struct ag_snapshot *snapshot = load.snapshot;
    load.snapshot = NULL;
    ag_load_release(&load);
    return snapshot;
}

struct ag_snapshot *site_snapshot(uint32_t number, bool own)
{
    AG_ASSERT(number < SITE_ALL && number / SITE_CONFIGS % 2 == 0);
    if (own) {
        return compile(number, 0, NULL);
    }
    if (!cached[number]) {
        cached[number] = compile(number, 0, NULL);
    }
    return cached[number];
}

struct ag_snapshot *site_snapshot_tls(uint32_t number, uint32_t shard_count,
                                      struct ag_tls_tickets *tickets)
{
    AG_ASSERT(number < SITE_ALL && number / SITE_CONFIGS % 2 == 1);
    return compile(number, shard_count, tickets);
}
