/*
 * Goal: the places of a service come by priority, as many as are bounded, shared and kept as addresses are; what is
 * broken or not there is told apart.
 * Method: the name server of name_server.h, both backends; then a system that looks names up itself.
 */
#include "engine/backend.h"
#include "name_server.h"

TestSuite(resolver_srv, .init = setup, .fini = teardown);

static void on_done(struct ag_resolve_srv *r)
{
    (void)r;
    done_count++;
}

static void begin(struct ag_resolve_srv *r, const char *name)
{
    unsigned before = done_count;

    ag_resolve_srv_start(&loop, r, ag_span_str(name), on_done);
    cr_assert_eq(done_count, before, "done comes from the loop, not from the call");
}

static void resolve(struct ag_resolve_srv *r, const char *name)
{
    begin(r, name);
    await(done_count + 1);
}

static void check_kinds(void)
{
    static struct ag_resolve_srv r;

    resolve(&r, "_WEB._tcp.test");
    cr_assert(r.status == AG_OK && r.count == 3, "%s", r.error);
    cr_expect_str_eq(r.targets[2].host, "h2.test");
    cr_expect(r.targets[2].priority == 1 && r.targets[2].weight == 10 &&
              r.targets[2].port == 8002 && r.targets[2].host_len == 7);
    cr_expect(r.targets[0].port + r.targets[1].port == 16001, "both of priority 0, in any order");
    cr_expect(r.expires_ms > loop.now_ms + 29000 && r.expires_ms <= loop.now_ms + 30000);
    resolve(&r, "_huge._tcp.test");
    cr_assert(r.status == AG_OK && r.count == 200 && !r.cut, "%s", r.error);
    for (uint32_t i = 0; i < r.count; i++) {
        cr_expect_eq(r.targets[i].priority, i / 2);
    }
    resolve(&r, "_gone._tcp.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "_bad._tcp.test");
    cr_expect(r.status == AG_AGAIN && r.count == 0 && r.error);
    resolve(&r, "missing.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "empty.test");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error);
    resolve(&r, "broken.test");
    cr_expect(r.status == AG_AGAIN && r.count == 0 && r.error);
    resolve(&r, "no name at all");
    cr_expect(r.status == AG_ENOENT && r.count == 0 && r.error && r.expires_ms > loop.now_ms);
}

Test(resolver_srv, answers_of_every_kind)
{
    check_kinds();
}

Test(resolver_srv, answers_of_every_kind_by_io_uring)
{
    enum ag_backend_kind kind;
    const char *why;

    if (ag_backend_choose(AG_BACKEND_URING, &kind, &why) != AG_OK) {
        cr_skip_test("no io_uring here");
    }
    stop();
    start_on(AG_BACKEND_URING);
    check_kinds();
}

Test(resolver_srv, answers_are_shared_and_kept)
{
    static struct ag_resolve_srv r[3];
    bool other = false;
    uint16_t first;

    begin(&r[0], "_web._tcp.test");
    begin(&r[1], "_web._TCP.test");
    begin(&r[2], "_web._tcp.test");
    ag_resolve_srv_cancel(&r[2]);
    await(2);
    cr_expect(r[0].count == 3 && r[1].count == 3);
    first = r[0].targets[0].port;
    for (unsigned i = 0; i < 64; i++) {
        resolve(&r[0], "_web._tcp.test");
        other |= r[0].targets[0].port != first;
    }
    cr_expect(other, "drawn anew each time");
    cr_expect_eq(atomic_load(&zone("_web._tcp.test")->asked), 1);
    ag_resolve_srv_cancel(&r[0]);
}

Test(resolver_srv, look_ups_are_bounded)
{
    static struct ag_resolve_srv r[70];
    char name[32];
    unsigned refused = 0;

    for (unsigned i = 0; i < 70; i++) {
        (void)snprintf(name, sizeof(name), "n%u.silent.test", i);
        begin(&r[i], name);
    }
    ag_loop_turn(&loop, 1);
    for (unsigned i = 0; i < 70; i++) {
        refused += ag_list_empty(&r[i].link) && r[i].status == AG_AGAIN;
        ag_resolve_srv_cancel(&r[i]);
    }
    cr_expect_eq(refused, 70 - 64);
}

/* ---- a system that looks names up itself ---- */

static char asked_name[64];
static enum ag_lookup_kind asked_kind;

static void look_up(struct ag_loop *l, const char *name, enum ag_lookup_kind kind)
{
    (void)l;
    (void)snprintf(asked_name, sizeof(asked_name), "%s", name);
    asked_kind = kind;
}

Test(resolver_srv, a_system_of_its_own)
{
    static struct ag_srv_target targets[] = {{1, 5, 80, 1, "a"}, {2, 0, 81, 1, "b"}};
    static struct ag_resolve_srv r;
    const struct ag_backend *kernel = loop.backend;
    struct ag_system system = *kernel->system;
    struct ag_backend backend = *kernel;
    uint64_t before_ms;

    stop();
    start_on(AG_BACKEND_EPOLL);
    ag_resolver_deinit(&loop);
    system.look_up = look_up;
    backend.system = &system;
    loop.backend = &backend;
    cr_assert_eq(ag_resolver_init(&loop), AG_OK);
    begin(&r, "_x._tcp.sim");
    cr_expect(asked_kind == AG_LOOKUP_SRV && strcmp(asked_name, "_x._tcp.sim") == 0);
    ag_resolver_answer(&loop, "_x._tcp.sim", AG_OK, NULL, 0, 1000);
    ag_loop_turn(&loop, 1);
    cr_expect_eq(done_count, 0, "an answer to another question");
    before_ms = loop.now_ms;
    ag_resolver_answer_srv(&loop, "_x._tcp.sim", AG_OK, targets, 2, 5);
    await(1);
    cr_expect(r.count == 2 && r.targets[0].port == 80 && r.targets[1].port == 81);
    cr_expect(r.expires_ms >= before_ms + 5000 && r.expires_ms <= loop.now_ms + 5000);
    begin(&r, "_y._tcp.sim");
    ag_resolver_answer_srv(&loop, "_y._tcp.sim", AG_AGAIN, NULL, 0, 0);
    await(2);
    cr_expect(r.status == AG_AGAIN && r.error);
    ag_resolver_deinit(&loop);
    loop.backend = kernel;
}
