#include "engine/foreign.h"

struct word {
    const char *word, *hint;
};

#define ROUTE        "a route is \"host/path/*\": ACTION, below routes"
#define TARGET       "the target is the action: \"/path/*\": \"http://host:port\""
#define UPSTREAM     "proxy: {upstreams: {NAME: {servers: [\"10.0.0.1:8080\"]}}}"
#define FIELDS       "plugins: {NAME: {headers: {request: {set: {X-A: b}}}}}, and filters: [NAME]"
#define LISTEN       "server: {listen: [\":80\"]}"
#define CERTIFICATES "tls: {certificates: [{cert: FILE, key: FILE}]}, and tls: true of a listener"
#define REDIRECT     "301 -> https://host/*, or redirect_https of a listener"
#define TIMEOUT      "timeouts: {connect: 3s, first_byte: 60s, read: 60s, write: 60s}"
#define HASH         "{hash: ip}, or uri, path, {header: NAME}, {cookie: NAME}, {query: NAME}"
#define HEALTH       "health: /healthz, of the upstream"
#define BREAKER      "breaker: {consecutive: 3, for: 10s}, of the upstream"
#define NO_REGEX     "patterns are no regular expressions: words, :name, and * at the end"
#define NOT_YET      "there is no such filter in this version"

static const struct word words[] = {
    {"location", ROUTE},
    {"frontend", ROUTE},
    {"routers", ROUTE},
    {"rule", ROUTE},
    {"acl", ROUTE},
    {"use_backend", ROUTE},
    {"default_backend", "\"/*\": \"http://NAME\", below routes"},
    {"http", "routes and proxy.upstreams stand by themselves: docs/MIGRATION.md"},
    {"server_name", "a host stands before the path: \"example.com/*\": ACTION"},
    {"Host", "a host stands before the path: \"example.com/*\": ACTION"},
    {"HostRegexp", "\"*.example.com/*\": ACTION"},
    {"HostSNI", "tcp: [{listen: \":443\", sni: {example.com: \"10.0.0.1:443\"}}]"},
    {"PathPrefix", "\"/api\": ACTION and \"/api/*\": ACTION"},
    {"Path", "a path is written as it is: \"/api\": ACTION"},
    {"PathRegexp", NO_REGEX},
    {"~", NO_REGEX},
    {"~*", NO_REGEX},
    {"^~", "leave it out: the most exact pattern wins"},
    {"=", "leave it out: a pattern without * is exact"},
    {"ALL", "leave it out: a route that names no method takes all"},
    {"ANY", "leave it out: a route that names no method takes all"},
    {"any", "leave it out: a route that names no method takes all"},
    {"priority", "routes have none: the most exact pattern wins"},
    {"proxy_pass", TARGET},
    {"reverse_proxy", TARGET},
    {"grpc_pass", "the target is the action: \"/pkg.Service/*\": \"h2c://host:port\""},
    {"fastcgi_pass", "http alone is spoken to upstreams: proxy to a server that speaks it"},
    {"uwsgi_pass", "http alone is spoken to upstreams: proxy to a server that speaks it"},
    {"root", "a folder is an action: \"/\": \"./dist/\""},
    {"alias", "a folder is an action: \"/\": \"./dist/\""},
    {"try_files", "pages that are no file get the index; spa: off of the route ends that"},
    {"return", "an answer is its status: OK text, or 301 -> https://host/*"},
    {"deny", "an answer is its status: FORBIDDEN"},
    {"rewrite", "the target says it: \"/old/*\": \"http://host/new/*\", or 301 -> /new/*"},
    {"redirect", REDIRECT},
    {"redirectRegex", REDIRECT},
    {"redirectScheme", REDIRECT},
    {"stripPrefix", "strip_prefix: /api, of a route"},
    {"addPrefix", "add_prefix: /v1, of a route"},
    {"replacePath", "the target says it: \"/old/*\": \"http://host/new/*\""},
    {"upstream", UPSTREAM},
    {"upstreams", UPSTREAM},
    {"services", UPSTREAM},
    {"loadBalancer", UPSTREAM},
    {"middlewares", FIELDS},
    {"proxy_set_header", FIELDS},
    {"customRequestHeaders", "request: {set: {X-A: b}}"},
    {"customResponseHeaders", "response: {set: {X-A: b}}"},
    {"add_header", "plugins: {NAME: {headers: {set: {X-A: b}}}}, and filters: [NAME]"},
    {"proxy_hide_header", "plugins: {NAME: {headers: {remove: X-A}}}, and filters: [NAME]"},
    {"entryPoints", LISTEN},
    {"listen", LISTEN},
    {"bind", LISTEN},
    {"ssl_certificate", CERTIFICATES},
    {"ssl_certificate_key", CERTIFICATES},
    {"ssl", CERTIFICATES},
    {"cert", CERTIFICATES},
    {"ssl_protocols", "tls: {profile: modern}"},
    {"min_version", "profile: modern is TLS 1.3 alone, intermediate 1.2 too"},
    {"client_max_body_size", "limits: {max_body: 10m}"},
    {"maxRequestBodyBytes", "limits: {max_body: 10m}"},
    {"client_body_timeout", "limits: {body_timeout: 30s}"},
    {"client_header_timeout", "limits: {header_timeout: 10s}"},
    {"send_timeout", "limits: {write_timeout: 30s}"},
    {"keepalive_timeout", "limits: {idle_timeout: 75s}"},
    {"keepalive_requests", "limits: {max_requests: 1000}"},
    {"proxy_connect_timeout", TIMEOUT},
    {"proxy_read_timeout", TIMEOUT},
    {"proxy_send_timeout", TIMEOUT},
    {"proxy_next_upstream", "retry: {attempts: 2, on: [connect, reset, 502]}"},
    {"proxy_redirect", "rewrite_redirects: [{from: \"http://host/\", to: \"/\"}]"},
    {"passHostHeader", "host: keep, or host: upstream"},
    {"least_conn", "balance: least_conn"},
    {"ip_hash", "{hash: ip}"},
    {"hash", HASH},
    {"source", "{hash: ip}"},
    {"uri", "{hash: uri} of balance, path of health"},
    {"wrr", "round_robin, with weight=N behind a server"},
    {"p2c", "random_two"},
    {"hrw", "{hash: ip}"},
    {"cookie", "sticky: NAME"},
    {"maxconn", "max=100 behind a server, max_connections: 100 of an upstream or of server"},
    {"max_conns", "max=100 behind a server"},
    {"healthCheck", HEALTH},
    {"health_check", HEALTH},
    {"check", HEALTH},
    {"inter", "interval: 2s"},
    {"fail_timeout", BREAKER},
    {"max_fails", BREAKER},
    {"circuitBreaker", BREAKER},
    {"expires", "cache_control: \"max-age=3600\", of static or a route to files"},
    {"worker_processes", "server: {workers: auto}"},
    {"worker_connections", "max_connections: 10000"},
    {"log_format", "access_log: human, combined or json"},
    {"autoindex", "folders are not listed in this version"},
    {"gzip", "nothing is compressed in this version"},
    {"compress", "nothing is compressed in this version"},
    {"auth_basic", NOT_YET},
    {"basicAuth", NOT_YET},
    {"forwardAuth", NOT_YET},
    {"limit_req", NOT_YET},
    {"rateLimit", NOT_YET},
    {"inFlightReq", NOT_YET},
    {"ipAllowList", NOT_YET},
};

/* In the order in which one that begins another goes behind it. */
static const struct word variables[] = {
    {"$proxy_add_x_forwarded_for", "X-Forwarded-For is set by itself"},
    {"$proxy_host", "host: upstream"},
    {"$http_host", "{host}"},
    {"$host", "{host}"},
    {"$remote_addr", "{remote.ip}"},
    {"$remote_port", "{remote.port}"},
    {"$request_uri", "{uri}"},
    {"$request_method", "{method}"},
    {"$scheme", "{scheme}"},
    {"$server_port", "{server.port}"},
    {"$args", "{query}"},
    {"$uri", "{path}"},
    {"$http_", "{header.NAME}"},
    {"$ssl_client_s_dn", "{tls.client.subject}"},
    {"$1", "{splat}, or {param.NAME}"},
    {"%[src]", "{remote.ip}"},
    {"%[req.hdr(", "{header.NAME}"},
    {"%[path]", "{path}"},
};

const char *ag_foreign_hint(struct ag_span word)
{
    for (size_t i = 0; i < AG_COUNT(words); i++) {
        if (ag_span_eq(word, ag_span_str(words[i].word))) {
            return words[i].hint;
        }
    }
    return NULL;
}

void ag_foreign_warn(struct ag_diags *d, struct ag_pos pos, struct ag_span text, const char *hint)
{
    for (size_t at = 0; at < text.len; at++) {
        struct ag_span rest = ag_span_sub(text, at, text.len);

        for (size_t i = 0; i < AG_COUNT(variables) && (text.ptr[at] == '$' || text.ptr[at] == '%');
             i++) {
            if (ag_span_starts(rest, ag_span_str(variables[i].word))) {
                ag_diag_warn(d, ag_pos_at(pos, at), hint ? hint : variables[i].hint,
                             "\"%s\" is no variable here: it stays as it is written",
                             variables[i].word);
                return;
            }
        }
    }
}
