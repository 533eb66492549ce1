/* famine: at moments of a run somebody else holds nearly all that a loop's pools have, for a while. */
#include "tests/sim/run.h"

#include "engine/buffers.h"

/* Objects and blocks that the server is left at most, of each kind. */
#define LEFT_MAX 4u
/* Of 1000 turns so many find nearly nothing, until their end. */
#define TURNS 20u

struct famine {
    struct run *run;
    struct ag_loop *loop;
    uint32_t left; /* how often it still comes */
    bool over;     /* the loop is about to end */
    bool begun;    /* something may be held */
    bool turn;     /* until the present turn ends */
    void *held[3]; /* linked through the objects */
    struct ag_block **blocks;
    uint32_t block_count;
};

static struct ag_pool *pool_of(struct ag_loop *l, uint32_t i)
{
    return i == 0 ? &l->nodes : i == 1 ? &l->pages : &l->files;
}

static void take_objects(struct famine *f, uint32_t i, uint32_t left)
{
    struct ag_pool *p = pool_of(f->loop, i);

    while (p->count - p->used > left) {
        void **object = ag_pool_get(p);

        AG_ASSERT(object);
        *object = f->held[i];
        f->held[i] = object;
    }
}

static void take_blocks(struct famine *f, enum ag_buf_group group, uint32_t left)
{
    const struct ag_buf_pool *p = &f->loop->bufs->pools[group];

    while (p->free_count > left) {
        f->blocks[f->block_count] = ag_loop_buf(f->loop, group);
        AG_ASSERT(f->blocks[f->block_count]);
        f->block_count++;
    }
}

static void give_back(struct famine *f)
{
    f->begun = f->turn = false;
    for (uint32_t i = 0; i < AG_COUNT(f->held); i++) {
        while (f->held[i]) {
            void **object = f->held[i];

            f->held[i] = *object;
            ag_pool_put(pool_of(f->loop, i), object);
        }
    }
    while (f->block_count > 0) {
        ag_block_release(f->blocks[--f->block_count]);
    }
}

static void take_some(struct famine *f)
{
    struct sim *s = f->run->sim;

    f->begun = true;
    f->run->host.shortages++;
    for (uint32_t i = 0; i < AG_COUNT(f->held); i++) {
        if (sim_chance(s, 400)) {
            take_objects(f, i, (uint32_t)sim_below(s, LEFT_MAX + 1));
        }
    }
    for (uint32_t g = 0; g < AG_BUF_GROUPS; g++) {
        if (sim_chance(s, 400)) {
            take_blocks(f, (enum ag_buf_group)g, (uint32_t)sim_below(s, LEFT_MAX + 1));
        }
    }
    sim_note(s, "famine: begins", f->block_count, f->loop->nodes.used);
}

static void begin(struct sim *s, void *arg);

static void end(struct sim *s, void *arg)
{
    struct famine *f = arg;

    if (!f->over) {
        sim_note(s, "famine: ends", f->block_count, 0);
        give_back(f);
        sim_at(s, sim_below(s, SIM_S), begin, f);
    }
}

static void begin(struct sim *s, void *arg)
{
    struct famine *f = arg;

    if (f->over || f->left == 0) {
        return;
    }
    f->left--;
    take_some(f);
    sim_at(s, sim_chance(s, 500) ? sim_below(s, 5 * SIM_MS) : sim_below(s, 500 * SIM_MS), end, f);
}

struct famine *famine_start(struct run *r, struct ag_loop *l)
{
    struct sim *s = r->sim;
    struct famine *f = sim_alloc(s, sizeof(*f));
    uint32_t blocks = 0;

    for (uint32_t g = 0; g < AG_BUF_GROUPS; g++) {
        blocks += l->bufs->pools[g].count;
    }
    f->run = r;
    f->loop = l;
    f->blocks = sim_alloc(s, blocks * sizeof(struct ag_block *));
    f->left = (uint32_t)sim_between(s, 1, 12);
    sim_at(s, sim_below(s, SIM_S), begin, f);
    return f;
}

void famine_before_turn(struct famine *f)
{
    if (f && !f->over && !f->begun && sim_chance(f->run->sim, TURNS)) {
        take_some(f);
        f->turn = true;
    }
}

void famine_after_turn(struct famine *f)
{
    if (f && f->turn) {
        give_back(f);
    }
}

void famine_stop(struct famine *f)
{
    if (f) {
        f->over = true;
        give_back(f);
    }
}
