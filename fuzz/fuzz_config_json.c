/* Any bytes as a JSON config: no crash; a tree or a diagnosis. */
#include "router/config_impl.h"
#include "router/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ag_source src = {"fuzz", {data, size}};
    struct ag_arena arena;
    struct ag_diags diags;

    ag_arena_init(&arena, NULL, 0);
    ag_diags_init(&diags, &arena);
    struct ag_node *root = ag_config_parse_json(&src, &diags);
    AG_ASSERT(root || diags.errors > 0);
    if (root) {
        ag_config_expand(root, &(struct ag_config_env){0}, &diags);
        AG_ASSERT(ag_model_read(root, &diags) || diags.errors > 0);
    }
    ag_arena_release(&arena);
    return 0;
}
